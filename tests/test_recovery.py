"""What comes between two steps of a message's life: one connection of two, a late answer, a refusal, a signal."""

from __future__ import annotations

import signal
import unittest

import pika.exceptions

from tests.support.case import BrokerCase
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess
from tests.test_loop import JOBS, ran

MAIN, PUBLISHER = "rbit bob-villa", "rbit bob-villa (publisher)"  # the names of the client's connections
LEASES = {"lease_after": 0.3, "lease_ttl": 30, "lease_renew": 1}


class RecoveryTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.proxy = Proxy(self.node.port)
        self.addCleanup(self.proxy.close)

    def start(self, queue: str, amqp: dict[str, object] | None = None, **rbit: object) -> RbitProcess:
        text = self.ini(
            {queue: {"runner": "python!jobs:gate"}}, amqp={"port": self.proxy.port, **(amqp or {})},
            rbit={**LEASES, **rbit},
        )
        return self.rbit(text, "--debug", files={"jobs.py": JOBS})

    def leased(self, rbit: RbitProcess) -> None:
        """Wait until the first job holds its lease, and the broker has the ack of its original."""
        rbit.wait_for_line("holds lease 1$")
        self.wait_until(lambda: self.unacked(self._queues[0]) == 0, what="the ack")

    def depths(self, queue: str) -> tuple[int, int]:
        """Return how many messages a queue and the queue of its leases have."""
        return self.depth(queue), self.depth(f"rbit.lease.bob-villa.{queue}")

    def stop_twice(self, rbit: RbitProcess) -> None:
        rbit.signal(signal.SIGTERM)
        rbit.wait_for_line("stopping")
        rbit.signal(signal.SIGTERM)

    def test_message_just_like_that_of_a_leased_job_is_run_too(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one", message_id="m")
        rbit = self.start(queue)
        self.leased(rbit)
        self.publish(queue, "one", message_id="m")
        self.proxy.cut()
        rbit.wait_for_line("its message came again; it is not run twice")
        (rbit.folder / "one").touch()
        self.wait_until(lambda: ran(rbit) == ["start one", "end one"] * 2, what=lambda: rbit.output)
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(self.depths(queue), (0, 0))

    def test_connection_lost_between_the_first_lease_and_its_fetching_makes_no_second_run(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start(queue, lease_after=1.5, lease_renew=9)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.proxy.hold(MAIN, answers=False)
        rbit.wait_for_line("lease 1 is published$")
        self.proxy.cut(MAIN)
        rbit.wait_for_line("holds lease 1$")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("its message is acknowledged")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual((ran(rbit), self.depths(queue)), (["start one", "end one"], (0, 0)))

    def test_looking_for_leases_costs_other_messages_no_delivery(self) -> None:
        queue = self.declare(self.queue_name(), x_queue_type="quorum")
        self.publish(queue, "one")
        rbit = self.start(queue)
        self.leased(rbit)
        self.publish(queue, "innocent")
        for _ in range(2):
            before = rbit.output.count("its message came again")  # twice for one cut, if it was in an exchange
            self.proxy.cut(MAIN)
            self.wait_until(
                lambda: rbit.output.count("its message came again") > before, what=lambda: rbit.output  # noqa: B023
            )
        _, properties, body = self.channel.basic_get(queue, auto_ack=True)
        self.assertEqual((body, (properties.headers or {}).get("x-delivery-count", 0)), (b"innocent", 0))
        (rbit.folder / "one").touch()
        self.assertEqual(rbit.stop(), 0)

    def test_lease_queue_that_was_refused_for_a_while_is_looked_at_again(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        self.node.ctl("add_user", "other", "secret")
        self.addCleanup(self.node.ctl, "delete_user", "other")
        self.node.ctl("set_permissions", "other", ".*", ".*", ".*")
        rbit = self.start(queue, amqp={"user": "other", "password": "secret"})
        self.leased(rbit)
        self.node.ctl("set_permissions", "other", ".*", ".*", "^(?!rbit.lease).*")
        self.proxy.cut(MAIN)
        rbit.wait_for_line("the broker refuses the queue rbit.lease.*; it is tried again at each poll")
        self.node.ctl("set_permissions", "other", ".*", ".*", ".*")
        rbit.wait_for_line("its message came again; it is not run twice", 60)
        (rbit.folder / "one").touch()
        rbit.wait_for_line("its message is acknowledged")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual((ran(rbit), self.depths(queue)), (["start one", "end one"], (0, 0)))

    def test_second_signal_waits_for_the_delivery_whose_copy_is_back_already(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start(queue, lease_renew=10)
        self.leased(rbit)
        self.proxy.hold_after("x-rbit-copy")
        self.stop_twice(rbit)
        self.wait_until(lambda: self.depth(queue) == 1, what="the copy")
        self.proxy.cut(MAIN)
        rbit.wait_for_line("connection to RabbitMQ lost")
        self.proxy.release()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(self.depths(queue), (1, 0), rbit.output)

    def test_lease_whose_confirm_was_lost_is_looked_for_before_the_end(self) -> None:
        for ended in (False, True):
            with self.subTest(ended=ended):
                queue = self.queue_name(f"ended-{ended}")
                self.publish(queue, "one")
                self.proxy.hold_after("x-rbit-lease")
                rbit = self.start(queue, lease_renew=10)
                self.wait_until(lambda: self.depths(queue)[1] == 1, what="the lease")  # noqa: B023
                if ended:
                    (rbit.folder / "one").touch()
                    rbit.wait_for_line("message #1: Done")
                    rbit.signal(signal.SIGTERM)
                    rbit.wait_for_line("stopping")
                else:
                    self.stop_twice(rbit)
                    rbit.wait_for_line("Waiting: rbit was stopped")
                self.proxy.cut(PUBLISHER)
                self.assertEqual(rbit.wait(), 0, rbit.output)
                self.assertEqual(self.depths(queue), (0 if ended else 1, 0), rbit.output)
                self.proxy.release()

    def test_lease_that_is_refused_just_after_its_job_has_ended_holds_nothing_up(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start(queue)
        self.leased(rbit)
        self.proxy.hold_after("x-rbit-lease", answers=False)
        self.wait_until(lambda: self.proxy.holds, what="the next lease on its way")
        self.channel.queue_delete(f"rbit.lease.bob-villa.{queue}")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        self.publish(queue, "two")
        (rbit.folder / "two").touch()
        self.proxy.release()
        rbit.wait_for_line("message #2: Done")
        self.assertEqual(rbit.stop(), 0)

    def test_stop_acknowledges_an_ended_job_though_nobody_knows_what_became_of_its_lease(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        self.proxy.hold_after("x-rbit-lease", answers=False)
        rbit = self.start(queue, lease_renew=10)
        self.wait_until(lambda: self.proxy.holds, what="the lease on its way")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        rbit.signal(signal.SIGTERM)
        self.proxy.cut(PUBLISHER)
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(self.depths(queue), (0, 0), rbit.output)

    def test_stop_does_not_hang_when_the_broker_falls_silent_while_the_last_job_runs(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start(queue, amqp={"heartbeat": 3600})
        self.leased(rbit)
        rbit.signal(signal.SIGTERM)
        rbit.wait_for_line("stopping after")
        self.proxy.silence()
        (rbit.folder / "one").touch()
        self.assertEqual(rbit.wait(60), 0, rbit.output)

    def test_stop_timeout_acts_although_the_broker_does_not_answer(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start(queue, amqp={"heartbeat": 3600}, stop_timeout=2)
        self.leased(rbit)
        rbit.signal(signal.SIGTERM)
        rbit.wait_for_line("stopping after")
        self.proxy.hold(MAIN)  # the next lease is fetched, and no answer comes
        rbit.wait_for_line("2 s are over since the first signal")
        self.assertEqual(rbit.wait(60), 0, rbit.output)

    def test_stop_does_not_wait_for_a_message_that_another_client_has(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start(queue, amqp={"heartbeat": 1}, lease_after=3600)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        elsewhere = self.channel.consume(queue, auto_ack=True)
        self.proxy.cut()
        self.assertEqual(next(elsewhere)[2], b"one")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("its connection was lost; its message is settled when it comes again")
        self.assertEqual(rbit.stop(), 0)
        self.assertIn("message #1: its message did not come again; another client has it", rbit.output)
        self.assertNotIn("will be delivered again", rbit.output)

    def test_stop_looks_for_a_lease_whose_ack_went_into_a_dead_connection(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start(queue, lease_renew=10, amqp={"heartbeat": 3600})
        self.leased(rbit)
        self.publish(queue, "two")
        self.proxy.hold(PUBLISHER)  # the ack waits for the job's last status, and the next job for nothing
        (rbit.folder / "one").touch()
        self.wait_until(lambda: len(ran(rbit)) == 3, what="the next job, beside which nothing is asked for")
        self.proxy.forget(MAIN)
        self.wait_until(lambda: self.depths(queue) == (1, 1), what="the messages to be back")
        self.proxy.release()
        rbit.wait_for_line("message #1: its message is acknowledged")
        rbit.signal(signal.SIGTERM)
        (rbit.folder / "two").touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit), ["start one", "end one", "start two", "end two"], rbit.output)
        self.assertEqual(self.depths(queue), (0, 0), rbit.output)

    def test_connection_that_is_given_up_in_a_stop_does_not_keep_the_name_and_the_leases(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start(queue, lease_renew=10)
        self.leased(rbit)
        self.proxy.hold(MAIN)
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        self.stop_twice(rbit)
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertEqual((ran(rbit), self.depths(queue)), (["start one", "end one"], (0, 0)), rbit.output)

    def test_message_on_its_way_when_the_signal_comes_is_given_back(self) -> None:
        queue = self.queue_name()
        for name in ("one", "first", "two"):
            self.publish(queue, name)
        rbit = self.start(queue, concurrency=2, polling_time=3600, lease_after=3600)
        self.wait_until(lambda: len(ran(rbit)) == 2, what="two jobs")
        self.proxy.hold_after(queue)  # the answer to the next question for a message
        (rbit.folder / "first").touch()
        self.wait_until(lambda: self.depth(queue) == 0, what="the third message to be on its way")
        rbit.signal(signal.SIGTERM)
        self.proxy.release()
        rbit.wait_for_line("stopping after .*message #1; a second")
        self.wait_until(lambda: self.depth(queue) == 1, what="the third message to be back")
        (rbit.folder / "one").touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual((ran(rbit)[-1], self.bodies(queue)), ("end one", [b"two"]))

    def test_queue_that_takes_the_name_while_rbit_is_away_ends_no_job(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start(queue)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.proxy.cut(MAIN)
        self.wait_until(lambda: self.takes("bob-villa"), what="the name")
        try:
            rbit.wait_for_line("there is a queue named bob-villa on RabbitMQ, .*; trying again")
            (rbit.folder / "one").touch()
            rbit.wait_for_line("message #1: Done")
        finally:
            self.channel.queue_delete("bob-villa")
        rbit.wait_for_line("its message is acknowledged")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual((ran(rbit), self.depth(queue)), (["start one", "end one"], 0))

    def takes(self, name: str) -> bool:
        """Make an ordinary queue of a name, if that is free; return whether it was."""
        with self._passing_channel() as channel:
            try:
                channel.queue_declare(name, durable=True)
            except pika.exceptions.ChannelClosedByBroker:
                return False
            return True

    def test_once_is_no_success_when_a_queue_cannot_be_read(self) -> None:
        queue, locked = self.queue_name(), self.queue_name("locked")
        self.channel.queue_declare(locked, exclusive=True)
        self.publish(queue, "one")
        text = self.ini({queue: {"runner": "shell!true"}, locked: {"runner": "shell!true"}})
        rbit = self.rbit(text, "--once")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertRegex(rbit.output, "message #1: Done")
        self.assertRegex(rbit.output, f"the broker refuses the queue {locked}")


if __name__ == "__main__":
    unittest.main()
