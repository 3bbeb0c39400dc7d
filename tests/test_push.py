"""Messages that RabbitMQ sends without being asked: the tests of the loop once more, and what is different."""

from __future__ import annotations

import signal
import unittest

from rbit.rota import Rota
from tests import test_fates, test_leases, test_loop, test_lost_connections
from tests.support.case import BrokerCase
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess
from tests.test_loop import JOBS, ran


class PushLoopTest(test_loop.LoopTest):
    delivery = "push"


class PushFateTest(test_fates.FateTest):
    delivery = "push"


class PushLeaseTest(test_leases.LeaseTest):
    delivery = "push"


class PushLostConnectionTest(test_lost_connections.LostConnectionTest):
    delivery = "push"


RECORD = """
import time

def record(message, set_status, settings):
    time.sleep(float(settings.get("seconds", 0)))
    with open("ran", "a") as file:
        file.write(f"{message.body.decode()} {message.redelivered}\\n")
"""


class PushRotaTest(unittest.TestCase):
    def test_queue_that_sends_is_not_asked_for_the_end_of_a_job_but_when_a_message_has_come(self) -> None:
        rota = Rota(["a", "b"], 3600.0)
        rota.sends("a")
        rota.found_empty("b")
        rota.ask_again()
        self.assertEqual([rota.next(lambda name: False) for _ in range(2)], ["b", "b"])
        rota.found_empty("b")
        self.assertIsNone(rota.next(lambda name: False))
        self.assertTrue(rota.is_done(lambda name: False))
        rota.came("a")
        self.assertFalse(rota.is_done(lambda name: False))
        self.assertEqual(rota.next(lambda name: False), "a")

    def test_queue_that_sends_is_asked_at_a_poll_and_after_it_was_away(self) -> None:
        rota = Rota(["a"], 3600.0)
        for change in (rota.restart, lambda: (rota.remove("a"), rota.add("a"))):
            rota.sends("a")
            self.assertIsNone(rota.next(lambda name: False))
            change()
            self.assertEqual(rota.next(lambda name: False), "a")


class PushTest(BrokerCase):
    def gates(self, queue: str, **keys: object) -> RbitProcess:
        """Start rbit with jobs that run until the file of their name exists; no poll is due but at the start."""
        text = self.ini(
            {queue: {"runner": "python!jobs:gate"}}, rbit={"delivery": "push", "polling_time": 3600, **keys}
        )
        rbit = self.rbit(text, files={"jobs.py": JOBS})
        self.wait_until(lambda: self.consumers(queue) == 1, what="a consumer")
        return rbit

    def consumers(self, queue: str) -> int:
        if self.depth(queue) < 0:
            return 0
        return int(self.channel.queue_declare(queue, passive=True).method.consumer_count)

    def open(self, rbit: RbitProcess, *names: str) -> None:
        for name in names:
            (rbit.folder / name).touch()

    def test_message_starts_though_no_poll_is_due(self) -> None:
        queue = self.queue_name()
        rbit = self.gates(queue)
        names = [f"message-{number}" for number in range(5)]
        self.open(rbit, *names)
        for name in names:
            self.publish(queue, name)
            self.wait_until(lambda name=name: f"end {name}" in ran(rbit), what=name)  # type: ignore[misc]
        self.assertEqual(rbit.stop(), 0)

    def test_job_does_not_wait_until_the_message_of_the_one_before_is_acknowledged(self) -> None:
        queue = self.declare(self.queue_name())
        with Proxy(self.node.port) as proxy:
            text = self.ini(
                {queue: {"runner": "python!jobs:record", "seconds": 0.2}}, amqp={"port": proxy.port},
                rbit={"delivery": "push", "polling_time": 3600},
            )
            rbit = self.rbit(text, files={"jobs.py": RECORD})
            self.publish(queue, "one")
            self.wait_until(lambda: self.consumers(queue) == 1, what="a consumer")
            self.wait_until(lambda: len(ran(rbit)) == 1 and self.unacked(queue) == 0, what="the first job")
            proxy.hold("rbit bob-villa (publisher)")  # no status is confirmed
            for body in ("two", "three", "four"):
                self.publish(queue, body)
            self.wait_until(lambda: len(ran(rbit)) == 4, what="the jobs")
            self.assertEqual(self.unacked(queue), 3)
            proxy.release()
            self.assertEqual(rbit.stop(), 0)

    def test_messages_of_300_queues_are_all_worked_off(self) -> None:
        queues = [self.declare(self.queue_name(f"{number}")) for number in range(300)]
        bodies = [f"{queue}-{number}" for queue in queues for number in range(2)]
        rbit = self.rbit(
            self.ini(
                {queue: {"runner": "python!jobs:record"} for queue in queues},
                rbit={"delivery": "push", "polling_time": 3600, "concurrency": 4},
            ),
            files={"jobs.py": RECORD},
        )
        rbit.wait_for_line("queues: ")
        for body in bodies:
            self.publish(body.split("-")[0], body)
        self.wait_until(lambda: len(ran(rbit)) == len(bodies), 120, lambda: f"{len(ran(rbit))} of {len(bodies)}")
        self.assertEqual(sorted(line.split()[0] for line in ran(rbit)), sorted(bodies))
        self.assertEqual(rbit.stop(), 0)

    def test_messages_that_wait_for_a_slot_are_not_sent_and_given_back_again_and_again(self) -> None:
        queue = self.declare(self.queue_name())
        for number in range(4):
            self.publish(queue, f"{number}")
        runner = {"runner": "python!jobs:record", "seconds": 0.5}
        rbit = self.rbit(
            self.ini({queue: runner}, rbit={"delivery": "push", "concurrency": 1, "lease_after": 0}),
            files={"jobs.py": RECORD},
        )
        self.wait_until(lambda: len(ran(rbit)) == 4, what="all jobs")
        self.assertEqual(ran(rbit), [f"{number} False" for number in range(4)])
        self.assertEqual(rbit.stop(), 0)

    def test_message_that_would_wait_for_a_slot_goes_back_for_others(self) -> None:
        queue = self.queue_name()
        rbit = self.gates(queue, concurrency=2)
        for name in ("one", "two"):
            self.publish(queue, name)
        self.wait_until(lambda: len(ran(rbit)) == 2, what="two jobs")
        self.publish(queue, "three")
        self.wait_until(lambda: self.consumers(queue) == 0, what="the end of the consumer")
        self.assertEqual(self.bodies(queue), [b"three"])
        self.publish(queue, "four")
        self.open(rbit, "one", "four")
        self.wait_until(lambda: "end four" in ran(rbit), what="the next message")
        self.open(rbit, "two")
        self.assertEqual(rbit.stop(), 0)

    def test_leased_job_that_fills_its_slot_keeps_no_other_message_here(self) -> None:
        queue = self.queue_name()
        rbit = self.gates(queue, concurrency=2, lease_after=0)
        self.publish(queue, "one")
        self.wait_until(lambda: "start one" in ran(rbit), what="a job")
        for name in ("two", "three"):
            self.publish(queue, name)
        self.wait_until(lambda: "start two" in ran(rbit), what="the second job")
        self.wait_until(lambda: self.depth(queue) == 1 and self.consumers(queue) == 0, what="the third message")
        self.open(rbit, "one", "two", "three")
        self.wait_until(lambda: "end three" in ran(rbit), what="the third job")
        self.assertEqual(rbit.stop(), 0)

    def test_stop_gives_back_what_was_sent_and_waits_for_what_runs(self) -> None:
        queue = self.queue_name()
        rbit = self.gates(queue)
        self.publish(queue, "one")
        self.wait_until(lambda: ran(rbit) == ["start one"], what="a job")
        rbit.signal(signal.SIGTERM)
        rbit.wait_for_line("stopping")
        for name in ("two", "three"):
            self.publish(queue, name)
        self.wait_until(lambda: self.depth(queue) == 2, what="the other messages")
        self.open(rbit, "one")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(self.bodies(queue), [b"two", b"three"])

    def test_message_that_was_given_back_too_often_waits_here(self) -> None:
        queue = self.queue_name()
        rbit = self.gates(queue, concurrency=2, lease_after=0)
        self.publish(queue, "one")
        self.wait_until(lambda: "start one" in ran(rbit), what="a job")
        for name in ("two", "three"):  # as a quorum queue counts, which RabbitMQ 4 lets drop a message
            self.publish(queue, name, headers={"x-delivery-count": 10})
        self.wait_until(lambda: "start two" in ran(rbit), what="the second job")
        self.wait_until(lambda: self.consumers(queue) == 0, what="the end of the consumer")
        self.assertEqual(self.depth(queue), 0)
        self.open(rbit, "two", "three")
        self.wait_until(lambda: "end three" in ran(rbit), what="the third job")
        self.open(rbit, "one")
        self.assertEqual(rbit.stop(), 0)

    def test_queue_that_is_made_again_is_consumed_again(self) -> None:
        queue = self.queue_name()
        rbit = self.gates(queue, polling_time=0.5)
        self.channel.queue_delete(queue)
        self.wait_until(lambda: self.consumers(queue) == 1, what="a consumer of the new queue")
        self.open(rbit, "one")
        self.publish(queue, "one")
        self.wait_until(lambda: "end one" in ran(rbit), what="a job")
        self.assertEqual(rbit.stop(), 0)
