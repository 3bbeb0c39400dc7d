"""How long the loop waits: until something is due, and no longer than until a signal comes."""

from __future__ import annotations

import re
import signal
import sys
import time
import unittest
from unittest.mock import Mock, patch

from rbit.broker.queue import FORGETS, SOON, Ack, Queue
from rbit.presence import Presence
from rbit.rota import Rota
from tests.support.case import BrokerCase
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess
from tests.test_loop import JOBS, ran

# rbit, which says how long it is about to wait.
PROGRAM = """
import sys
from rbit import cli
from rbit.link import Link

wait = Link.wait

def said(self, seconds, *more, **named):
    if seconds > 0.5:
        print(f"waits {seconds:.1f} s", file=sys.stderr, flush=True)
    wait(self, seconds, *more, **named)

Link.wait = said
sys.exit(cli.main(sys.argv[1:]))
"""
LONG = re.compile(r"waits (19\.\d|20\.0) s")
SOON_ENOUGH = 10.0  # seconds; half of a long wait


class WaitTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.queue = self.queue_name()

    def start(self, function: str = "record", port: int = 0, **rbit: object) -> RbitProcess:
        """Start a client that hears nothing from RabbitMQ for an hour, unless something happens."""
        text = self.ini(
            {self.queue: {"runner": f"python!jobs:{function}"}},
            amqp={"heartbeat": 3600, "port": port or self.node.port}, rbit={"polling_time": 3600, **rbit},
        )
        return self.rbit(text, files={"jobs.py": JOBS}, command=[sys.executable, "-c", PROGRAM])

    def assert_obeys(self, rbit: RbitProcess) -> None:
        """Fail unless a client that waits for long acts on each signal at once."""
        rbit.signal(signal.SIGUSR1)
        rbit.wait_for_line("SIGUSR1: there is no default_queue", SOON_ENOUGH)
        rbit.signal(signal.SIGHUP)
        rbit.wait_for_line("nothing has changed", SOON_ENOUGH)
        rbit.signal(signal.SIGTERM)
        self.assertEqual(rbit.wait(SOON_ENOUGH), 0, rbit.output)

    def wait_for_rest(self, rbit: RbitProcess, after: str) -> None:
        """Wait until a client waits for long, after a line like this."""
        lines = rbit.lines
        first = lines.index(rbit.wait_for_line(after))
        self.wait_until(lambda: any(map(LONG.match, lines[first:])), what="a long wait")

    def test_signal_ends_a_long_wait(self) -> None:
        rbit = self.start()
        self.wait_for_rest(rbit, "was missing and is created")
        self.assert_obeys(rbit)

    def test_signal_ends_a_long_wait_after_another_connection_was_made(self) -> None:
        with Proxy(self.node.port) as proxy:
            rbit = self.start(port=proxy.port)
            self.wait_for_rest(rbit, "was missing and is created")
            proxy.cut()
            self.wait_for_rest(rbit, "connected again")
            self.assert_obeys(rbit)

    def test_signal_ends_a_long_wait_for_the_first_connection(self) -> None:
        with Proxy(self.node.port) as proxy:
            proxy.silence()
            rbit = self.start(port=proxy.port)
            rbit.wait_for_line(LONG.pattern)
            self.assert_obeys(rbit)

    def test_loop_waits_for_the_next_poll(self) -> None:
        rbit = self.start(polling_time=8)
        rbit.wait_for_line(r"^waits (7\.\d|8\.0) s")
        self.wait_until(lambda: self.depth(self.queue) == 0, what="the queue")
        self.publish(self.queue, "a")
        rbit.wait_for_line(": Done", SOON_ENOUGH)

    def test_loop_waits_for_the_next_lease(self) -> None:
        rbit = self.start("gate", lease_after=6)
        self.wait_for_rest(rbit, "was missing and is created")
        self.publish(self.queue, "a")
        rbit.signal(signal.SIGHUP)  # which begins with a poll
        self.wait_until(lambda: ran(rbit) == ["start a"], what="the job")
        rbit.wait_for_line(r"^waits (5\.\d|6\.0) s")
        lease = f"rbit.lease.bob-villa.{self.queue}"
        self.wait_until(lambda: self.exists(lease), SOON_ENOUGH, "the lease")
        (rbit.folder / "a").touch()
        rbit.wait_for_line(": Done", SOON_ENOUGH)

    def test_loop_waits_for_the_time_that_a_message_may_wait_for_a_slot(self) -> None:
        self.declare(self.queue)
        self.publish(self.queue, "one")  # for which the queue is asked; so there is room for two that are sent
        rbit = self.start("gate", delivery="push", concurrency=2, lease_after=1000)
        self.wait_for_rest(rbit, "connected")
        self.publish(self.queue, "two")
        self.wait_until(lambda: len(ran(rbit)) == 2, what="two jobs")
        self.publish(self.queue, "three")
        self.wait_until(self.is_without_consumer, SOON_ENOUGH, "the end of the consumer")
        self.assertEqual(self.bodies(self.queue), [b"three"])
        for name in ("one", "two"):
            (rbit.folder / name).touch()
        self.assertEqual(rbit.stop(), 0, rbit.output)

    def is_without_consumer(self) -> bool:
        """Return whether the queue sends its messages to nobody."""
        declared = self.channel.queue_declare(self.queue, passive=True)
        return int(declared.method.consumer_count) == 0

    def exists(self, queue: str) -> bool:
        """Return whether there is such a queue."""
        return queue in self.node.ctl("list_queues", "--quiet", "name").split()


class DueTest(unittest.TestCase):
    def test_rota_is_due_at_the_next_poll(self) -> None:
        rota = Rota(["a", "b"], 60.0)
        self.assertEqual(rota.due, float("inf"))
        began = time.monotonic()
        rota.found_empty("a")
        self.assertTrue(began + 60.0 <= rota.due <= time.monotonic() + 60.0)
        rota.restart()
        self.assertEqual(rota.due, float("inf"))

    def test_acknowledgements_are_due_to_be_proven_until_they_are_certain(self) -> None:
        queue = Queue(Mock(), "q")
        self.assertEqual(queue.due, float("inf"))
        now = time.monotonic()
        queue.acks.append(Ack(now, None))
        self.assertEqual(queue.due, now + SOON)
        queue._answered()
        self.assertEqual(queue.due, now + FORGETS)
        with patch("time.monotonic", lambda: now + FORGETS + SOON):
            queue._answered()
        self.assertEqual(queue.due, float("inf"))

    def test_name_is_due_as_long_as_it_is_wanted(self) -> None:
        presence = Presence("bob-villa", 10.0)
        presence.begin()
        self.assertLessEqual(presence.due, time.monotonic())
        presence._wanted = False
        self.assertEqual(presence.due, float("inf"))


if __name__ == "__main__":
    unittest.main()
