"""Connections that break while jobs run, and a broker under an alarm."""

from __future__ import annotations

import os
import signal
import time
import unittest

from tests.support.case import OwnNodeCase
from tests.support.rbit_process import RbitProcess
from tests.test_loop import CAPTURE, JOBS, ran


class BrokerFaultTest(OwnNodeCase):
    def start(self, function: str, queue: str, **sections: dict[str, object]) -> RbitProcess:
        return self.rbit(
            self.ini({queue: {"runner": f"python!jobs:{function}"}}, **sections), files={"jobs.py": JOBS}
        )

    def test_job_that_ran_on_over_a_lost_connection_is_not_run_twice(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        for line in self.node.ctl("--silent", "list_connections", "pid", "client_properties").splitlines():
            if "rbit bob-villa" in line:
                self.node.ctl("close_connection", line.split("\t")[0], "maintenance")
        rbit.wait_for_line("connection to RabbitMQ lost: .*; running jobs go on")
        rbit.wait_for_line("connected again to RabbitMQ")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        rbit.wait_for_line("message #1: its message came again; it is not run twice", 10)
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["start one", "end one"])
        self.wait_until(lambda: self.depth(queue) == 0, what="the ack")

    def test_job_that_ended_while_the_broker_was_away_is_settled_when_it_is_back(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.start("gate", queue)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.node.shut_down()
        rbit.wait_for_line("connection to RabbitMQ lost")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        self.node.start()
        rbit.wait_for_line("its message came again; it is not run twice", 60)
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["start one", "end one"])
        self.assertEqual(sum("lost: " in line for line in rbit.lines), 1, "said once")

    def test_stop_settles_jobs_that_ended_after_a_lost_connection(self) -> None:
        queue = self.queue_name()
        for name in ("one", "two", "three"):
            self.publish(queue, name)
        rbit = self.start("gate", queue, rbit={"concurrency": 2})
        self.wait_until(lambda: len(ran(rbit)) == 2, what="two jobs")
        self.node.restart()
        rbit.wait_for_line("connected again to RabbitMQ", 60)
        rbit.signal(signal.SIGTERM)
        rbit.wait_for_line("stopping after")
        for name in ("one", "two"):
            (rbit.folder / name).touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(rbit.output.count("its message came again; it is not run twice"), 2, rbit.output)
        connection = self.node.connect()
        self.addCleanup(connection.close)
        channel = connection.channel()
        self.assertEqual([channel.basic_get(queue, True)[2] for _ in range(2)], [b"three", None])

    def test_blocked_job_waits_while_an_alarm_blocks_publishers_and_nothing_else_hangs(self) -> None:
        queue, other = self.queue_name(), self.queue_name("other")
        self.publish(queue, "blocked")
        for name in ("b", "c"):
            self.publish(other, name)
        self.node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            rbit = self.rbit(
                self.ini(
                    {queue: {"runner": "python!jobs:blocked_once"}, other: {"runner": "python!jobs:record"}},
                    amqp={"heartbeat": 1}, rbit={"polling_time": 3600},
                ),
                files={"jobs.py": JOBS},
            )
            self.wait_until(lambda: len(ran(rbit)) == 3, what="the jobs of both queues")
            until = time.monotonic() + 4  # without heartbeats a broker ends a connection after two to three
            self.wait_until(lambda: time.monotonic() >= until, what="four heartbeats")
            self.assertNotIn("lost", rbit.output)
        finally:
            self.node.ctl("set_vm_memory_high_watermark", "0.4")
        rbit.wait_for_line("Blocked: missing dependency")
        rbit.signal(signal.SIGTERM)
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(self.bodies(f"{queue}.retry"), [b"blocked"])
        self.assertEqual(self.depth(queue), 0)

    def test_refused_queue_is_said_rarely_and_tried_again_while_others_are_worked_off(self) -> None:
        locked, forbidden, queue = (self.queue_name(name) for name in ("locked", "forbidden", "open"))
        self.declare(forbidden)
        holder = self.node.connect()
        holder.channel().queue_declare(locked, exclusive=True)
        self.node.ctl("add_user", "other", "secret")
        self.addCleanup(self.node.ctl, "delete_user", "other")
        self.node.ctl("set_permissions", "other", ".*", ".*", f"^(?!{forbidden}$).*")
        job = {"runner": "python!jobs:record"}
        rbit = self.rbit(
            self.ini({name: dict(job) for name in (locked, forbidden, queue)},
                     amqp={"user": "other", "password": "secret"}, rbit={"polling_time": 0.1}),
            files={"jobs.py": JOBS},
        )
        rbit.wait_for_line(f"ERROR the broker refuses the queue {locked}: .*; it is tried again at each poll")
        rbit.wait_for_line(f"ERROR the broker refuses the queue {forbidden}: ")
        for number in range(30):  # more than a refusal for each
            self.publish(queue, str(number))
            self.wait_until(lambda: len(ran(rbit)) == number + 1, what="the job")  # noqa: B023
        refusals = [line for line in rbit.lines if f"refuses the queue {forbidden}" in line]
        self.assertLess(len(refusals), 10, "ever more rarely")
        self.publish(forbidden, "late")
        holder.close()
        self.node.ctl("set_permissions", "other", ".*", ".*", ".*")
        rbit.wait_for_line(f"the queue {locked} can be read again")
        rbit.wait_for_line(f"the queue {forbidden} can be read again")
        self.wait_until(lambda: ran(rbit)[-1] == f"{forbidden} late", what="the job of the other queue")
        self.assertEqual(rbit.stop(), 0)
        self.assertNotIn("connection to RabbitMQ lost", rbit.output)

    def test_job_goes_on_and_is_settled_where_its_client_may_not_make_a_lease(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        self.node.ctl("add_user", "other", "secret")
        self.addCleanup(self.node.ctl, "delete_user", "other")
        self.node.ctl("set_permissions", "other", f"^{queue}.*", ".*", ".*")
        rbit = self.rbit(
            self.ini({queue: {"runner": "python!jobs:gate"}}, amqp={"user": "other", "password": "secret"},
                     rbit={"lease_after": 0.1}),
            files={"jobs.py": JOBS},
        )
        rbit.wait_for_line(f"WARNING a copy for the queue rbit.lease.bob-villa.{queue} is tried again")
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        self.wait_until(lambda: self.unacked(queue) == 0 and self.depth(queue) == 0, what="the ack")
        self.assertEqual(rbit.stop(), 0)

    def test_idle_client_stops_within_a_second_although_the_broker_is_stopped(self) -> None:
        queue = self.queue_name()
        broker = self.node.pids[0]
        self.addCleanup(os.kill, broker, signal.SIGCONT)

        def before_a_stopped_broker() -> RbitProcess:
            os.kill(broker, signal.SIGCONT)
            self.publish(queue, "a")  # so that its worker and its publisher are there
            rbit = self.start("fails", queue, rbit={"polling_time": 0.1})
            rbit.wait_for_line(f"a copy of its message is in {queue}.failed")
            self.wait_until(lambda: self.unacked(queue) == 0, what="the ack")
            os.kill(broker, signal.SIGSTOP)
            return rbit

        self.assert_stops_within(1.0, before_a_stopped_broker)

    def test_alarm_ends_a_retry_of_failed_messages_with_69_and_nothing_is_there_twice(self) -> None:
        queue = self.queue_name()
        for body in "ab":
            self.publish(f"{queue}.failed", body)
        self.node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            rbit = self.rbit(self.ini({queue: {"runner": "shell!true"}}), "--retry-failed", queue)
            self.assertEqual(rbit.wait(90), 69, rbit.output)
        finally:
            self.node.ctl("set_vm_memory_high_watermark", "0.4")
        self.assertIn("0 put back", rbit.stderr_lines[-1])
        self.wait_until(lambda: self.depth(f"{queue}.failed") == 2, what="the rest")
        self.assertEqual((self.bodies(f"{queue}.failed"), self.bodies(queue)), ([b"a", b"b"], []))

    def test_limit_of_connections_is_waited_for_and_a_refused_virtual_host_is_not(self) -> None:
        queue = self.queue_name()
        self.node.ctl("set_vhost_limits", "-p", "/", '{"max-connections": 1}')
        try:
            rbit = self.start("record", queue)
            rbit.wait_for_line(r"refused for user 'guest': connection limit \(1\) is reached; trying for 60 s")
        finally:
            self.node.ctl("clear_vhost_limits", "-p", "/")
        rbit.wait_for_line("connected to RabbitMQ")
        self.assertEqual(rbit.stop(), 0)

    def test_stop_during_an_alarm_does_not_hang_and_loses_nothing(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "blocked")
        self.node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            rbit = self.start("blocked_once", queue, rbit={"polling_time": 3600})
            self.wait_until(lambda: ran(rbit) == ["run blocked"], what="the job")
            rbit.signal(signal.SIGTERM)
            self.assertEqual(rbit.wait(60), 0, rbit.output)
        finally:
            self.node.ctl("set_vm_memory_high_watermark", "0.4")
        self.assertRegex(rbit.output, "not acknowledged; its message will be delivered again")
        self.wait_until(lambda: self.depth(queue) == 1, what="the message")
        self.assertEqual(self.bodies(queue), [b"blocked"])
        # What was held up by the alarm has come through by now: the connection is gone.
        self.wait_until(lambda: "(publisher)" not in self.node.ctl("list_connections", "client_properties"),
                        what="the end of its connection")
        self.assertLess(self.depth(f"{queue}.retry"), 1)

    def test_stop_during_an_alarm_acknowledges_what_is_done_unless_pybit_is_to_know(self) -> None:
        pybit = {"url": "http://127.0.0.1:9", "user": "admin", "password": "pass"}
        killed = {"RBIT_TEST_KILL_AT": "settled at last"}  # what was acknowledged has gone out by then
        for name, section, left, environment in (
            ("plain", None, 0, {}), ("killed", None, 0, killed), ("told", pybit, 1, {}),
        ):
            with self.subTest(name):
                queue = self.declare(self.queue_name(f"any_{name}_pdf"))
                self.publish(queue, CAPTURE)
                self.node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
                try:
                    text = self.ini({queue: {"runner": "shell!true"}}, pybit=section)
                    rbit = self.rbit(text, environment=environment)
                    rbit.wait_for_line("job 1: Done")
                    rbit.signal(signal.SIGTERM)
                    self.assertEqual(rbit.wait(60), -signal.SIGKILL if environment else 0, rbit.output)
                finally:
                    self.node.ctl("set_vm_memory_high_watermark", "0.4")
                self.assertEqual(rbit.output.count("not acknowledged"), left, rbit.output)
                self.wait_until(lambda: self.depth(queue) == left, what="the message")  # noqa: B023


if __name__ == "__main__":
    unittest.main()
