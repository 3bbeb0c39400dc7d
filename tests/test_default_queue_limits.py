"""The default queue as others made it, and messages and queues that are not as they should be."""

from __future__ import annotations

import signal
import unittest

from tests.support.case import OwnNodeCase
from tests.test_default_queue import NOTE, DefaultQueueCase, job_of, ran, request


class QuorumTest(DefaultQueueCase):
    def make(self, limit: int, count: int) -> list[bytes]:
        """Make a quorum queue with that delivery limit, publish messages of others to it, and return them."""
        self.declare(self.default, x_queue_type="quorum", x_delivery_limit=limit)
        bodies = [b"%d" % number for number in range(count)]
        for body in bodies:
            self.publish(self.default, body, headers={"mine": 1, "x-rbit-attempt": 3}, expiration="1000000")
        return bodies

    def test_nothing_is_dropped_that_was_given_back_too_often(self) -> None:
        bodies = self.make(limit=5, count=40)
        outputs = []
        for number in range(12):
            if number == 1:  # these were given back less often, and must not overtake the others
                for body in (b"late", b"later"):
                    self.publish(self.default, body)
                bodies += [b"late", b"later"]
            outputs.append(self.once(self.text()).output)
            count = len(bodies)
            self.wait_until(lambda n=count: self.depth(self.default) == n, what="all of them")
        _, properties, _ = self.channel.basic_get(self.default)
        self.assertEqual((properties.headers["mine"], properties.headers["x-rbit-attempt"]), (1, 3))
        self.assertEqual(properties.expiration, "1000000")
        self.channel.basic_nack(1)
        self.wait_until(lambda: self.depth(self.default) == len(bodies), what="the first one")
        self.assertEqual(self.bodies(self.default), bodies)
        self.assertIn(f"{self.default} gives out too often, so 42 messages were put at its end anew", outputs[2])
        self.assertNotIn("anew", outputs[0] + outputs[1] + outputs[3])

    def test_queue_that_takes_back_as_often_as_one_of_rbits_own_gets_none_anew(self) -> None:
        bodies = self.make(limit=1_000_000, count=3)
        for _ in range(5):
            self.assertNotIn("anew", self.once(self.text()).output)
            self.wait_until(lambda: self.depth(self.default) == 3, what="all of them")
        self.assertEqual(self.bodies(self.default), bodies)

    def test_requests_are_not_dropped_that_their_full_queue_refuses_often(self) -> None:
        self.make(limit=5, count=0)
        self.declare(self.queue, x_max_length=1, x_overflow="reject-publish")
        for job in range(8):
            self.publish(self.default, request(self.queue, job))
        for job in range(8):
            self.assertEqual(ran(self.once(self.text(), int(job < 7))), [job])
            self.wait_until(lambda job=job: self.depth(self.default) == 7 - job, what="the rest")

    def test_killed_while_it_puts_messages_anew_one_is_twice_there(self) -> None:
        for step, more in (("collected message published:3", [2]), ("collected message acknowledged:3", [])):
            with self.subTest(step):
                self.make(limit=20, count=0)
                for job in range(6):
                    self.publish(self.default, request(self.unknown, job))
                for _ in range(2):
                    self.once(self.text())
                    self.wait_until(lambda: self.depth(self.default) == 6, what="all of them")
                self.once(self.text(), -signal.SIGKILL, step)
                self.wait_until(lambda more=more: self.depth(self.default) == 6 + len(more), what="all of them")
                found = sorted(job_of(body) for body in self.bodies(self.default))
                self.assertEqual(found, sorted([*range(6), *more]))
                self.channel.queue_delete(self.default)


class RefusalTest(DefaultQueueCase):
    def test_each_queue_that_takes_nothing_is_named(self) -> None:
        queues = (self.queue, self.unknown)
        for queue in queues:
            self.declare(queue, x_max_length=1, x_overflow="reject-publish")
            for job in range(3):
                self.publish(self.default, request(queue, job))
        text = self.ini({queue: {"runner": NOTE} for queue in queues}, rbit={"default_queue": self.default})
        rbit = self.once(text, 1)
        for queue in queues:
            self.assertRegex(rbit.output, f"it is left as it is: .*{queue}: it is full, or has failed")

    def test_alarm_is_said_and_all_is_moved_when_it_is_over(self) -> None:
        self.publish(self.default, request(self.queue))
        self.addCleanup(self.node.ctl, "set_vm_memory_high_watermark", "0.4")
        self.node.ctl("set_vm_memory_high_watermark", "0.000001")
        rbit = self.start(self.text())
        rbit.wait_for_line(f"WARNING RabbitMQ has an alarm, nothing is moved from {self.default} until it")
        self.assertEqual(self.depth(self.default), 0, "it is taken")
        self.node.ctl("set_vm_memory_high_watermark", "0.4")
        self.wait_until(lambda: ran(rbit) == [1], 60, "the job")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), [1])


class BrokerKilledTest(OwnNodeCase, DefaultQueueCase):
    def test_broker_killed_in_a_pass_loses_nothing_and_the_rest_keeps_its_order(self) -> None:
        for number in range(1500):  # confirmed, so they outlive the broker
            self.publish(self.default, b"%d" % number if number % 10 else request(self.queue, number))
        rbit = self.start(self.text())
        self.wait_until(lambda: self.depth(self.default) < 1450, what="the pass")
        self.node.kill()
        self.node.start()
        rbit.wait_for_line(f"the default queue {self.default} can be gone through again", 120)
        self.wait_until(lambda: set(ran(rbit)) == set(range(0, 1500, 10)), 120, "all jobs")
        self.assertEqual(rbit.stop(), 0)
        connection = self.node.connect()
        self.addCleanup(connection.close)
        self.channel = connection.channel()
        self.wait_until(lambda: self.depth(self.default) == 1350, what="the rest")
        self.assertEqual(self.bodies(self.default), [b"%d" % n for n in range(1500) if n % 10])


if __name__ == "__main__":
    unittest.main()
