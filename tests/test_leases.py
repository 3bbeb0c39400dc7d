"""Leases: long jobs keep their message, whatever happens to connections, clients and brokers."""

from __future__ import annotations

import signal
import unittest

from tests.support.case import BrokerCase
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess
from tests.test_loop import JOBS, ran

SHORT = {"lease_after": 0.3, "lease_ttl": 6, "lease_renew": 1}


class LeaseTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.proxy = Proxy(self.node.port)
        self.addCleanup(self.proxy.close)

    def start(
        self, function: str, queue: str, *arguments: str, amqp: dict[str, object] | None = None, **rbit: object
    ) -> RbitProcess:
        text = self.ini(
            {queue: {"runner": f"python!jobs:{function}"}},
            amqp={"port": self.proxy.port, "heartbeat": 2, **(amqp or {})}, rbit={**SHORT, **rbit},
        )
        return self.rbit(text, "--debug", *arguments, files={"jobs.py": JOBS})

    def leased(self, rbit: RbitProcess, number: int = 1) -> None:
        """Wait until the first job holds its lease of this number, and the broker has the ack of its original."""
        rbit.wait_for_line(f"message .*: holds lease {number}$")
        self.wait_until(lambda: self.unacked(self._queues[0]) == 0, what="the ack")

    def lease_queue(self, queue: str) -> str:
        return f"rbit.lease.bob-villa.{queue}"

    def test_message_of_a_long_job_is_in_its_lease_queue_and_renewed(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one", headers={"x": 1}, message_id="m")
        rbit = self.start("gate", queue)
        self.leased(rbit, 3)
        self.assertEqual((self.depth(queue), self.unacked(queue)), (0, 0))
        self.assertEqual(self.unacked(self.lease_queue(queue)), 1)
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message m: its message is acknowledged")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual((self.depth(queue), self.depth(self.lease_queue(queue))), (0, 0))
        self.assertEqual(ran(rbit), ["start one", "end one"], rbit.output)

    def test_young_job_has_no_lease(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("record", queue, "--once", lease_after=3600)
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(self.depth(self.lease_queue(queue)), -1)

    def test_job_begins_with_a_lease_when_there_is_no_time_before_it(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue, lease_after=0)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.assertLess(
            rbit.output.index("holds lease 1"), rbit.output.index("Building"), "it must not begin before"
        )
        (rbit.folder / "one").touch()
        rbit.wait_for_line("its message is acknowledged")
        self.assertEqual(rbit.stop(), 0)

    def test_stop_does_not_wait_for_a_job_that_has_no_lease_to_begin_with(self) -> None:
        queue = self.queue_name()
        self.declare(f"rbit.lease.bob-villa.{queue}")  # not rbit's: nothing would come back from it
        self.publish(queue, "one")
        rbit = self.start("gate", queue, lease_after=0)
        rbit.wait_for_line("a copy for the queue rbit.lease.* is tried again")
        rbit.signal(signal.SIGTERM)
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual((ran(rbit), self.bodies(queue)), ([], [b"one"]))

    def test_leased_jobs_are_adopted_after_a_lost_connection(self) -> None:
        queue = self.queue_name()
        for name in ("one", "two"):
            self.publish(queue, name)
        rbit = self.start("gate", queue, concurrency=2)
        self.wait_until(lambda: rbit.output.count("holds lease 1") == 2, what="both leases")
        self.wait_until(lambda: self.unacked(queue) == 0, what="the acks of what they replace")
        self.proxy.cut()
        self.wait_until(lambda: rbit.output.count("it is not run twice") >= 2, what="both messages")
        for name in ("one", "two"):
            (rbit.folder / name).touch()
        self.wait_until(
            lambda: rbit.output.count("its message is acknowledged") == 2, what=lambda: rbit.output
        )
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(sorted(ran(rbit)), ["end one", "end two", "start one", "start two"])
        self.assertEqual((self.depth(queue), self.depth(self.lease_queue(queue))), (0, 0))

    def test_job_that_ends_while_the_broker_is_away_is_settled_by_its_lease(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue)
        self.leased(rbit)
        self.proxy.silence()
        rbit.wait_for_line("connection to RabbitMQ lost")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        self.proxy.silence(False)
        rbit.wait_for_line("its message is acknowledged", 60)
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["start one", "end one"], rbit.output)
        self.assertEqual((self.depth(queue), self.depth(self.lease_queue(queue))), (0, 0))

    def test_lease_that_ran_out_is_known_when_it_comes_back_in_its_queue(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue, lease_ttl=2, lease_renew=0.5)
        self.leased(rbit)
        self.proxy.silence()
        self.wait_until(lambda: self.depth(queue) == 1, 60, "the message to come back")
        self.proxy.silence(False)
        rbit.wait_for_line("its message came again; it is not run twice", 60)
        (rbit.folder / "one").touch()
        rbit.wait_for_line("its message is acknowledged", 60)
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["start one", "end one"], rbit.output)
        self.assertEqual((self.depth(queue), self.depth(self.lease_queue(queue))), (0, 0))

    def test_message_of_a_killed_client_comes_back_when_its_lease_runs_out(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one", headers={"x": 1})
        rbit = self.start("gate", queue)
        self.leased(rbit)
        rbit.signal(signal.SIGKILL)
        self.wait_until(lambda: self.depth(queue) == 1, what="the message")
        self.assertEqual(self.depth(self.lease_queue(queue)), 0)
        other = self.start("record", queue, name="tim-allen")
        other.wait_for_line("its message is acknowledged")
        self.assertEqual(ran(other), [f"{queue} one"])
        self.assertEqual(other.stop(), 0)

    def test_lease_queue_is_durable_returns_its_messages_and_goes_after_seven_days(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one", delivery_mode=1)
        rbit = self.start("gate", queue)
        self.leased(rbit)
        rbit.signal(signal.SIGKILL)
        self.wait_until(lambda: self.depth(self.lease_queue(queue)) == 1, what="the lease")
        _, properties, _ = self.channel.basic_get(self.lease_queue(queue), auto_ack=True)
        self.assertEqual((properties.delivery_mode, properties.expiration), (2, "6000"))
        wanted = {"x_dead_letter_exchange": "", "x_dead_letter_routing_key": queue, "x_expires": 7 * 86_400_000}
        self.declare(self.lease_queue(queue), **wanted)  # refused if anything differed

    def test_message_of_a_killed_client_is_run_by_the_next_of_its_name_from_the_lease_queue(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one", headers={"x": 1})
        first = self.start("gate", queue, lease_ttl=3600, lease_renew=1)
        self.leased(first)
        first.signal(signal.SIGKILL)
        first.wait()
        self.wait_until(lambda: self.depth(self.lease_queue(queue)) == 1, what="the lease")
        second = self.start("record", queue)
        self.wait_until(lambda: ran(second) == [f"{queue} one"], what="the job")
        second.wait_for_line("its message is acknowledged")
        self.assertEqual(second.stop(), 0)
        self.assertEqual((self.depth(queue), self.depth(self.lease_queue(queue))), (0, 0))

    def test_second_signal_puts_a_leased_message_back_on_its_queue(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one", headers={"x": 1}, content_type="text/plain")
        rbit = self.start("gate", queue)
        self.leased(rbit)
        for _ in range(2):
            rbit.signal(signal.SIGTERM)
            rbit.wait_for_line("stopping after")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertRegex(rbit.output, "message #1: Waiting: rbit was stopped")
        self.assertEqual((self.depth(queue), self.depth(self.lease_queue(queue))), (1, 0))
        _, properties, body = self.channel.basic_get(queue, auto_ack=True)
        self.assertEqual(len(properties.headers.pop("x-rbit-copy")), 16)
        self.assertEqual(
            (body, properties.content_type, properties.headers), (b"one", "text/plain", {"x": 1})
        )

    def test_second_signal_waits_for_the_ack_of_a_leased_job_that_has_ended(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue, amqp={"heartbeat": 3600}, lease_ttl=3600)
        self.leased(rbit)
        self.proxy.forget()
        self.wait_until(lambda: self.depth(self.lease_queue(queue)) == 1, what="the lease")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        for number in (signal.SIGTERM, signal.SIGINT):
            rbit.signal(number)
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual((self.depth(queue), self.depth(self.lease_queue(queue))), (0, 0), rbit.output)

    def test_stop_timeout_acts_as_the_second_signal(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue, stop_timeout=0.5)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        rbit.signal(signal.SIGTERM)
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertRegex(rbit.output, r"0\.5 s are over since the first signal\n.*stopping now")
        self.assertEqual(self.bodies(queue), [b"one"])

    def test_quorum_queues_are_used_if_wanted(self) -> None:
        queue = self.queue_name()
        for name in ("one", "fails"):
            self.publish(queue, name)
        text = self.ini(
            {queue: {"runner": "shell!read -r x || :; test \"$x\" = one && sleep 3; test \"$x\" = one"}},
            amqp={"queue_type": "quorum"}, rbit=SHORT,
        )
        rbit = self.rbit(text, "--once", "--debug")
        self.assertEqual(rbit.wait(60), 1, rbit.output)
        self.assertRegex(rbit.output, "holds lease 2")
        lines = self.node.ctl("--silent", "list_queues", "name", "type").splitlines()
        table = dict(line.split("\t") for line in lines)
        self.assertEqual(
            [table[name] for name in (queue, self.lease_queue(queue), f"{queue}.failed")],
            ["classic", "quorum", "quorum"],
        )
        self.assertEqual(self.bodies(f"{queue}.failed"), [b"fails"])
        self.assertEqual((self.depth(queue), self.depth(self.lease_queue(queue))), (0, 0))

    def test_foreign_user_may_lease(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one", user_id="guest", expiration="60000", headers={"CC": [queue], "BCC": [queue]})
        self.bodies(queue)
        self.node.ctl("add_user", "other", "secret")
        self.addCleanup(self.node.ctl, "delete_user", "other")
        self.node.ctl("set_permissions", "other", ".*", ".*", ".*")
        text = self.ini(
            {queue: {"runner": "python!jobs:gate"}}, amqp={"user": "other", "password": "secret"}, rbit=SHORT
        )
        rbit = self.rbit(text, "--debug", files={"jobs.py": JOBS})
        rbit.wait_for_line("connected to RabbitMQ")
        self.publish(queue, "one", user_id="guest", expiration="3000", headers={"x-death": "of another"})
        self.leased(rbit, 6)  # longer than the expiration of the original
        (rbit.folder / "one").touch()
        rbit.wait_for_line("its message is acknowledged")
        self.assertEqual(rbit.stop(), 0)


if __name__ == "__main__":
    unittest.main()
