"""The publisher, in this process, on a real broker."""

from __future__ import annotations

import threading
import unittest
from dataclasses import replace
from functools import partial
from unittest import mock

from rbit.broker import Copy
from rbit.message import Properties
from rbit.publisher import Publisher
from tests.support.case import BrokerCase
from tests.support.proxy import Proxy
from tests.support.settings import amqp_settings


class PublisherTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.results: dict[str, bool] = {}

    def publisher(self, port: int, blocked: float = 600.0) -> Publisher:
        amqp = amqp_settings(port)
        made = Publisher(amqp, "test", blocked)
        made.start()
        self.addCleanup(made.join, 10.0)
        self.addCleanup(made.close)
        return made

    def copy(self, queue: str, body: str) -> Copy:
        return Copy(queue, body.encode(), Properties(), partial(self.note, body))

    def note(self, body: str, confirmed: bool) -> None:
        self.results[body] = confirmed

    def alarm(self, on: bool) -> None:
        self.node.ctl("set_vm_memory_high_watermark", *(("absolute", "1MB") if on else ("0.4",)))

    def test_copy_is_there_once_after_an_alarm_that_outlasted_several_tries(self) -> None:
        queue = self.declare(self.queue_name())
        publisher = self.publisher(self.node.port, blocked=0.5)
        self.alarm(True)
        try:
            copy = self.copy(queue, "a")
            publisher.put(copy)
            self.wait_until(lambda: copy.failures >= 3, what="three tries")
        finally:
            self.alarm(False)
        self.wait_until(lambda: self.results == {"a": True}, 60, "the confirm")
        # What the abandoned connections still held is with the broker before this.
        connections = ("--silent", "list_connections", "name")
        self.wait_until(lambda: len(self.node.ctl(*connections).splitlines()) <= 2, what="the end of the others")
        self.assertEqual(self.bodies(queue), [b"a"])

    def test_lease_for_which_there_is_no_queue_is_given_up_where_none_may_be_made(self) -> None:
        publisher = Publisher(replace(amqp_settings(self.node.port), declare=False), "test")
        publisher.start()
        self.addCleanup(publisher.join, 10.0)
        self.addCleanup(publisher.close)
        lease = replace(self.copy(self.queue_name("missing"), "a"), whole=True)
        publisher.put(lease)
        self.wait_until(lambda: self.results == {"a": False}, 60, "the end of the lease")
        self.assertTrue(lease.nowhere)
        self.assertFalse(lease.cancel(), "what was done is called, so a job must wait for it")

    def test_what_waits_for_long_is_tried_within_a_second_once_rbit_is_stopping(self) -> None:
        queue = self.queue_name("missing")
        publisher = self.publisher(self.node.port)
        with mock.patch("rbit.publisher.wait_after", lambda failures, longest: min(600.0, longest)):
            copy = self.copy(queue, "a")
            publisher._longest = 600.0
            publisher.put(copy)
            self.wait_until(lambda: copy.failures == 1 and copy.due > 0, what="the first try")
            self.declare(queue)
            publisher.hurry()
            self.wait_until(lambda: self.results == {"a": True}, 30, "the confirm")

    def test_alarm_is_said_once_and_its_end_too(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a")
        runners = {queue: {"runner": "shell!false"}}
        self.alarm(True)
        try:
            rbit = self.rbit(self.ini(runners))
            rbit.wait_for_line("WARNING RabbitMQ has an alarm and takes no copies: low on memory; jobs go on")
            self.assertLess(self.depth(f"{queue}.failed"), 1)
        finally:
            self.alarm(False)
        rbit.wait_for_line("INFO RabbitMQ takes copies again")
        self.wait_until(lambda: self.depth(f"{queue}.failed") == 1, what="the copy")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(rbit.output.count("RabbitMQ has an alarm"), 1)

    def test_alarm_that_outlasts_several_tries_is_said_once(self) -> None:
        queue = self.declare(self.queue_name())
        publisher = self.publisher(self.node.port, blocked=1.0)
        with self.assertLogs("rbit.client") as logs:
            self.alarm(True)
            try:
                copy = self.copy(queue, "a")
                publisher.put(copy)
                self.wait_until(lambda: copy.failures >= 3, 60)
            finally:
                self.alarm(False)
            self.wait_until(lambda: self.results, 60)
        said = [record.levelname for record in logs.records if "RabbitMQ" in record.message]
        self.assertEqual(said, ["WARNING", "INFO"])

    def test_copy_that_no_queue_takes_is_tried_again_and_holds_up_no_other(self) -> None:
        queue, missing = self.declare(self.queue_name()), self.queue_name("missing")
        publisher = self.publisher(self.node.port)
        publisher.put(self.copy(missing, "a"))
        publisher.put(self.copy(queue, "b"))
        self.wait_until(lambda: self.results == {"b": True}, what="the other copy")
        self.declare(missing)
        self.wait_until(lambda: self.results.get("a"), 60, "the first copy")
        self.assertEqual((self.bodies(missing), self.bodies(queue)), ([b"a"], [b"b"]))

    def test_copy_is_tried_again_after_a_lost_connection(self) -> None:
        queue = self.declare(self.queue_name())
        with Proxy(self.node.port) as proxy:
            publisher = self.publisher(proxy.port)
            publisher.put(self.copy(queue, "a"))
            self.wait_until(lambda: "a" in self.results, what="the first copy")
            proxy.cut()
            publisher.put(self.copy(queue, "b"))
            self.wait_until(lambda: "b" in self.results, 60, "the second copy")
        self.assertEqual(self.bodies(queue), [b"a", b"b"])

    def test_what_is_not_published_is_given_back_at_the_end(self) -> None:
        publisher = self.publisher(self.node.port)
        waiting, cancelled = self.copy(self.queue_name("missing"), "a"), self.copy(self.queue_name("missing"), "b")
        publisher.put(waiting)
        publisher.put(cancelled)
        self.wait_until(lambda: cancelled.failures > 0, what="the first try")
        self.assertTrue(cancelled.cancel(), "no queue took it")
        publisher.close()
        publisher.join(10.0)
        self.assertEqual(self.results, {"a": False}, "nobody waits for a cancelled one")

    def test_what_is_put_while_the_rest_is_given_up_is_given_up_too(self) -> None:
        publisher = self.publisher(self.node.port)
        missing = self.queue_name("missing")
        second = self.copy(missing, "b")

        def given_up(confirmed: bool) -> None:
            self.note("a", confirmed)
            publisher.put(second)

        first = Copy(missing, b"a", Properties(), given_up)
        publisher.put(first)
        self.wait_until(lambda: first.failures > 0, what="the first try")
        publisher.close()
        publisher.join(10.0)
        self.assertEqual(self.results, {"a": False, "b": False})

    def test_it_is_busy_from_the_call_until_the_end_of_each_copy(self) -> None:
        queue, go_on = self.declare(self.queue_name()), threading.Event()
        publisher = self.publisher(self.node.port)
        self.addCleanup(go_on.set)
        self.assertFalse(publisher.is_busy)
        publisher.put(Copy(queue, b"a", Properties(), lambda confirmed: (self.note("a", confirmed), go_on.wait())))
        self.assertTrue(publisher.is_busy)
        self.wait_until(lambda: self.results == {"a": True}, what="the confirm")
        self.assertTrue(publisher.is_busy, "its end is not over")
        go_on.set()
        self.wait_until(lambda: not publisher.is_busy, what="the end")

    def test_copy_that_is_cancelled_under_an_alarm_is_never_there(self) -> None:
        queue = self.declare(self.queue_name())
        publisher = self.publisher(self.node.port)
        self.alarm(True)
        try:
            first = self.copy(queue, "a")
            publisher.put(first)
            connections = ("--silent", "list_connections", "state")
            self.wait_until(lambda: "blocked" in self.node.ctl(*connections), what="the alarm to strike")
            self.assertTrue(first.cancel())
            self.assertEqual(first.body, b"", "it waits until the alarm is over")
        finally:
            self.alarm(False)
        publisher.put(self.copy(queue, "b"))
        self.wait_until(lambda: self.results == {"b": True}, 60, "the other copy")
        self.assertEqual(self.bodies(queue), [b"b"])


if __name__ == "__main__":
    unittest.main()
