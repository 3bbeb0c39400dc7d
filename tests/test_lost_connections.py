"""Connections that are cut or go silent: no job is lost, none runs twice, and a stop does not wait for them."""

from __future__ import annotations

import contextlib
import re
import signal
import time
import unittest
from unittest.mock import patch

import pika.exceptions

from rbit import link
from rbit.errors import ConnectionLost
from rbit.link import Link
from tests.support.case import BrokerCase
from tests.support.processes import free_port
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess
from tests.support.settings import amqp_settings
from tests.support.waiting import wait_until
from tests.test_loop import JOBS, ran

MAIN, PUBLISHER = "rbit bob-villa", "rbit bob-villa (publisher)"  # the names of the client's connections


class LinkTest(unittest.TestCase):
    def wait_after_ten(self, lease_ttl: float, hurry: bool = False) -> float:
        """Return how long the next attempt is off when the connection broke ten times in a row."""
        nowhere = amqp_settings(9, 2)
        link = Link(nowhere, "rbit bob-villa", lease_ttl)
        link._made_at = time.monotonic()
        with self.assertLogs("rbit.client"):
            for _ in range(10):
                link.lost(ConnectionLost("cut"))
            if hurry:
                link.hurry()
                self.assertLessEqual(link._try_at, time.monotonic(), "now")
                link.lost(ConnectionLost("cut"))
        return link._try_at - time.monotonic()

    def test_waits_grow_to_half_a_minute_but_to_a_tenth_of_a_short_lease(self) -> None:
        self.assertTrue(20.0 < self.wait_after_ten(300.0) <= 30.0)
        self.assertTrue(2.0 < self.wait_after_ten(40.0) <= 4.0)

    def test_connection_is_tried_at_least_every_second_when_rbit_is_stopping(self) -> None:
        self.assertLessEqual(self.wait_after_ten(300.0, hurry=True), 1.0)

    def test_outage_that_lasts_is_said_though_the_ones_before_it_were_short_and_many(self) -> None:
        amqp = amqp_settings(free_port())
        made = Link(amqp, "test", 300.0)
        made.hurry()
        with patch.object(link, "LONGEST_WAIT", 0.5), self.assertLogs("rbit.client", "DEBUG") as logged:
            made.tend()
            wait_until(lambda: not made.tend() and logged.records, what="the first failure")
            made._give_up_at = None  # it was connected meanwhile
            made._made_at = time.monotonic() + 3600
            for _ in range(2):
                made.lost(ConnectionLost("cut"))
            self.assertEqual(logged.records[-1].levelname, "DEBUG", "the third failure in a row")
            wait_until(lambda: not made.tend() and logged.records[-1].levelname == "WARNING", what="the warning")
            self.assertRegex(logged.output[-1], "no connection to RabbitMQ for 0.5 s: no answer from .*; running")
            said = len(logged.records)
            wait_until(lambda: not made.tend() and len(logged.records) > said, what="the next failure")
            self.assertEqual(logged.records[-1].levelname, "DEBUG", "said once")


class LostConnectionTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.proxy = Proxy(self.node.port)
        self.addCleanup(self.proxy.close)

    def start(
        self, function: str, queue: str, *arguments: str, heartbeat: int = 2, **rbit: object
    ) -> RbitProcess:
        text = self.ini(
            {queue: {"runner": f"python!jobs:{function}"}},
            amqp={"port": self.proxy.port, "heartbeat": heartbeat}, rbit=rbit,
        )
        return self.rbit(text, *arguments, files={"jobs.py": JOBS})

    def test_ack_into_a_dead_connection_does_not_make_the_job_run_again(self) -> None:
        queue = self.queue_name()
        for number, name in enumerate(("one", "two"), 1):
            self.publish(queue, name, message_id=str(number))
        rbit = self.start("gate", queue, "--debug", heartbeat=60)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.proxy.hold(PUBLISHER)  # the ack waits for the job's last status, and the next job for nothing
        (rbit.folder / "one").touch()
        self.wait_until(lambda: len(ran(rbit)) == 3, what="the next job, beside which nothing is asked for")
        self.proxy.forget(MAIN)
        self.wait_until(lambda: self.depth(queue) == 2, what="the messages to be back")
        self.proxy.release()
        rbit.wait_for_line("message 1: its message is acknowledged")
        self.proxy.cut(MAIN)
        rbit.wait_for_line("a message came again that is one too many here; it is not run")
        self.wait_until(lambda: self.depth(queue) == 0, what="the ack")
        (rbit.folder / "two").touch()
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["start one", "end one", "start two", "end two"])
        self.assertEqual(self.depth(queue), 0)

    def test_of_two_redelivered_messages_with_one_body_each_is_run(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "same")
        rbit = self.start("gate", queue, polling_time=0.5)
        self.wait_until(lambda: ran(rbit) == ["start same"], what="the job")
        self.publish(queue, "same")
        method, _, _ = self.channel.basic_get(queue)  # as another client would that then dies
        self.channel.basic_nack(method.delivery_tag, requeue=True)
        self.proxy.cut()
        rbit.wait_for_line("message #1: its message came again; it is not run twice")
        (rbit.folder / "same").touch()
        self.wait_until(lambda: len(ran(rbit)) == 4, what="the second job")
        self.wait_until(lambda: self.depth(queue) == 0, what="the acks")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["start same", "end same"] * 2)
        self.assertEqual(self.depth(queue), 0)

    def test_message_of_a_running_job_is_fetched_back_although_no_slot_is_free(self) -> None:
        queue = self.queue_name()
        for name in ("one", "two"):
            self.publish(queue, name)
        rbit = self.start("gate", queue, polling_time=3600)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.proxy.cut()
        rbit.wait_for_line("message #1: its message came again; it is not run twice")
        self.wait_until(lambda: self.depth(queue) == 1, what="the other message, which was looked at too")
        self.assertEqual(self.bodies(queue), [b"two"])
        (rbit.folder / "one").touch()
        self.assertEqual(rbit.stop(), 0)

    def test_stop_while_reconnecting_settles_the_job_that_ends_meanwhile(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.proxy.cut()
        rbit.wait_for_line("connection to RabbitMQ lost")
        rbit.signal(signal.SIGTERM)
        (rbit.folder / "one").touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit), ["start one", "end one"])
        self.assertEqual(self.depth(queue), 0, rbit.output)

    def test_idle_client_stops_at_once_although_the_broker_is_silent(self) -> None:
        for poll_time in (0.1, 3600):  # in the middle of a question, and between two
            with self.subTest(poll_time):
                queue = self.queue_name()
                text = self.ini(
                    {queue: {"runner": "python!jobs:fails"}}, amqp={"port": self.proxy.port, "heartbeat": 3600},
                    rbit={"polling_time": poll_time},
                )

                def silent(queue: str = queue, text: str = text) -> RbitProcess:
                    self.proxy.cut()
                    self.proxy.silence(False)
                    self.publish(queue, "a")  # so that its worker and its publisher are there
                    rbit = self.rbit(text, files={"jobs.py": JOBS})
                    rbit.wait_for_line(f"a copy of its message is in {queue}.failed")
                    self.wait_until(lambda: self.unacked(queue) == 0, what="the ack")
                    self.proxy.silence()
                    return rbit

                self.assert_stops_within(1.0, silent)

    def test_second_signal_works_although_the_broker_is_silent(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.proxy.silence()
        for _ in range(2):
            rbit.signal(signal.SIGTERM)
            rbit.wait_for_line("stopping after")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit), ["start one"])
        self.proxy.cut()
        self.wait_until(lambda: self.depth(queue) == 1, what="the message")

    def test_connection_that_breaks_again_and_again_is_made_ever_more_rarely(self) -> None:
        rbit = self.start("gate", self.queue_name(), "--debug")
        pattern = "connected (again )?to RabbitMQ"
        ends: list[float] = []
        gaps: list[float] = []
        for number in range(1, 5):
            self.wait_until(
                lambda: len(re.findall(pattern, rbit.output)) == number, 60, "a connection"  # noqa: B023
            )
            if ends:
                gaps.append(time.monotonic() - ends[-1])
            ends.append(time.monotonic())
            self.proxy.cut()
        # 1, 2 and 4 s, each a quarter less at the most; a busy machine only makes them longer.
        for gap, least in zip(gaps, (0.75, 1.5, 3.0), strict=True):
            self.assertGreaterEqual(gap, least)
        self.wait_until(lambda: len(re.findall(pattern, rbit.output)) == 5, 60, "a connection")
        self.assertEqual(rbit.stop(), 0)
        # The third loss in a row is not worth a line, nor is its end; all others have both.
        levels = [line.split()[2] for line in rbit.lines if re.search("connection to RabbitMQ lost", line)]
        self.assertEqual(levels, ["WARNING", "WARNING", "DEBUG", "WARNING"])
        levels = [line.split()[2] for line in rbit.lines if re.search(pattern, line)]
        self.assertEqual(levels, ["INFO", "INFO", "INFO", "DEBUG", "INFO"])

    def test_second_client_of_a_name_takes_nothing_and_ends_with_69(self) -> None:
        queue = self.queue_name()
        first = self.start("gate", queue)
        first.wait_for_line("connected to RabbitMQ")
        self.wait_until(lambda: self.depth(queue) == 0, what="the queue")
        second = self.start("gate", queue)
        second.wait_for_line("another client named bob-villa is connected to RabbitMQ, or its lost")
        for name in ("one", "two"):  # one more than the first takes
            self.publish(queue, name)
        self.assertEqual(second.wait(), 69, second.output)
        self.assertRegex(second.output, "named bob-villa is connected to RabbitMQ; give each its own name in")
        self.assertEqual(ran(second), [])
        self.wait_until(lambda: ran(first) == ["start one"], what="the job at the first client")
        (first.folder / "one").touch()
        self.assertEqual(first.stop(), 0)

    def test_client_that_is_to_run_once_waits_for_its_name_too(self) -> None:
        first = self.start("gate", self.queue_name())
        first.wait_for_line("_jobs was missing and is created")  # it has the name
        second = self.start("gate", self.queue_name("second"), "--once")
        second.wait_for_line("another client named bob-villa is connected to RabbitMQ, or its lost")
        self.assertEqual(first.stop(), 0)
        self.assertEqual(second.wait(), 0, second.output)

    def test_name_of_a_client_whose_host_is_gone_is_free_for_the_next_one(self) -> None:
        first = self.start("gate", self.queue_name())
        first.wait_for_line("_jobs was missing and is created")  # it has the name
        self.proxy.silence()
        first.signal(signal.SIGKILL)
        first.wait()
        self.proxy.silence(False)
        second = self.start("gate", self.queue_name("second"))
        second.wait_for_line("another client named bob-villa is connected to RabbitMQ, or its lost")
        second.wait_for_line("_second was missing and is created")  # it has the name
        self.assertEqual(second.stop(), 0)

    def test_name_that_an_ordinary_queue_has_ends_with_69_and_says_so(self) -> None:
        self.channel.queue_declare("bob-villa", durable=True)
        try:
            rbit = self.start("gate", self.queue_name())
            self.assertEqual(rbit.wait(), 69, rbit.output)
        finally:
            self.channel.queue_delete("bob-villa")
        self.assertRegex(rbit.output, "there is a queue named bob-villa on RabbitMQ, so no client can have this")

    def test_client_waits_for_its_name_while_the_broker_holds_its_lost_connection(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.proxy.cut()
        holder = self.node.connect()  # stands for the lost connection
        taken = False
        while not taken:
            with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
                holder.channel().queue_declare("bob-villa", exclusive=True)
                taken = True
        rbit.wait_for_line("another client named bob-villa is connected to RabbitMQ, or its lost")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        holder.close()
        rbit.wait_for_line("it is not run twice")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(self.depth(queue), 0)

    def test_stream_is_left_alone_and_other_queues_are_worked_on(self) -> None:
        stream, queue = self.declare(self.queue_name("s"), x_queue_type="stream"), self.queue_name()
        self.publish(queue, "a")
        job = {"runner": "python!jobs:record"}
        rbit = self.rbit(
            self.ini({stream: dict(job), queue: dict(job)}, rbit={"polling_time": 0.2}), files={"jobs.py": JOBS}
        )
        rbit.wait_for_line(f"the queue {stream}: .*; it is left alone until rbit is started again")
        self.wait_until(lambda: ran(rbit) == [f"{queue} a"], what="the job of the other queue")
        self.publish(queue, "b")
        self.wait_until(lambda: len(ran(rbit)) == 2, what="the second job of the other queue")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(rbit.output.count("connection to RabbitMQ lost"), 1)


if __name__ == "__main__":
    unittest.main()
