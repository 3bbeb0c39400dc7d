"""SIGHUP at any time: at the start, during an outage, while another reading is under way, at a stop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import unittest
from pathlib import Path

from tests.support.case import rbit_command
from tests.support.notify_socket import NotifySocket
from tests.support.processes import free_port
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess
from tests.support.waiting import wait_until
from tests.test_default_queue import request
from tests.test_reload import COUNTS, JOBS, KEPT, Reloading, ran, section


def opened(path: Path) -> int:
    """Wait until rbit reads a pipe, and return a descriptor that writes to it."""
    found: list[int] = []

    def is_read() -> bool:
        with contextlib.suppress(OSError):
            found.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found)

    wait_until(is_read, what="a reader of the pipe")
    return found[0]


class StartTest(Reloading):
    def test_signal_during_the_start_is_obeyed(self) -> None:
        command = ("sh", "-c", 'mkfifo rbit.ini && exec "$0" "$@"', *rbit_command())
        rbit = self.rbit(None, "rbit.ini", files={"jobs.py": JOBS}, command=command)
        path = rbit.folder / "rbit.ini"
        with open(opened(path), "w", encoding="utf-8") as pipe:
            rbit.signal(signal.SIGHUP)
            path.unlink()
            self.write(rbit, runners={self.queue: section(word="new")})
            pipe.write(self.text())
        rbit.wait_for_line(COUNTS)
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "new a")

    def test_signal_before_the_first_connection_counts_when_there_is_one(self) -> None:
        port = free_port()
        rbit = self.start(amqp={"port": port})
        rbit.wait_for_line("trying for 60 s")
        self.reload(rbit, amqp={"port": port}, runners={self.other: section(word="new")})
        self.publish(self.queue, "a")
        self.publish(self.other, "b")
        with Proxy(self.node.port, port):
            self.wait_for_runs(rbit, "new b")
            self.wait_for_acks(self.other)
            self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual(self.bodies(self.queue), [b"a"])

    def test_with_once_nothing_is_read_anew(self) -> None:
        self.publish(self.queue, "a")
        rbit = self.start("--once", runners={self.queue: section("gate")})
        self.wait_for_runs(rbit, "start old a")
        self.reload(rbit, "SIGHUP: with --once rbit.ini is read at the start only", runners={})
        (rbit.folder / "a").touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit), ["start old a", "end old a"])


class MeanwhileTest(Reloading):
    def pipe(self, rbit: RbitProcess) -> Path:
        """Put a pipe into the place of the INI file."""
        path = rbit.folder / "rbit.ini"
        path.unlink()
        os.mkfifo(path)
        return path

    def test_jobs_go_on_while_the_file_is_read_and_one_more_reading_follows_all_later_signals(self) -> None:
        rbit = self.start()
        rbit.wait_for_line("connected to RabbitMQ")
        path = self.pipe(rbit)
        rbit.signal(signal.SIGHUP)
        with open(opened(path), "w", encoding="utf-8") as pipe:
            self.publish(self.queue, "a")
            self.wait_for_runs(rbit, "old a")
            for number in (2, 3, 4):
                rbit.signal(signal.SIGHUP)
                self.wait_until(lambda: rbit.output.count("is read anew") == number, what="the signal")  # noqa: B023
            path.unlink()
            self.write(rbit, runners={self.queue: section(word="new"), self.other: section()})
            pipe.write(self.text(runners={self.queue: section(word="brief")}))
        rbit.wait_for_line(rf"{COUNTS}.*: changed: \[runner:{self.queue}\]$")
        rbit.wait_for_line(rf"{COUNTS}.*: added: \[runner:{self.other}\]; changed: \[runner:{self.queue}\]$")
        self.publish(self.queue, "b")
        self.wait_for_runs(rbit, "old a", "new b")
        self.assertEqual(rbit.output.count(COUNTS), 2)

    def test_many_signals_lose_no_job_and_the_last_file_counts(self) -> None:
        rbit = self.start(concurrency=3)
        rbit.wait_for_line("connected to RabbitMQ")
        for number in range(30):
            self.publish(self.queue, str(number))
            self.write(rbit, runners={self.queue: section(word=str(number))}, concurrency=1 + number % 4)
            rbit.signal(signal.SIGHUP)
        last = {self.queue: section(word="last"), self.other: section()}
        self.reload(rbit, f"added: [runner:{self.other}]", runners=last)
        self.publish(self.queue, "30")
        self.wait_for_acks(self.queue)
        self.assertEqual(sorted(int(line.split()[1]) for line in ran(rbit)), list(range(31)))
        self.assertIn("last 30", ran(rbit))

    def test_queues_that_change_during_an_outage_and_a_running_job_that_comes_again(self) -> None:
        for kind, keys in (("young", {"lease_after": 600}), ("leased", {"lease_after": 0.1})):
            with self.subTest(kind):
                queue, other = self.queue_name(f"{kind}-first"), self.queue_name(f"{kind}-second")
                port = free_port()
                proxy = Proxy(self.node.port, port).__enter__()
                self.addCleanup(proxy.close)
                same = {"amqp": {"port": port, "heartbeat": 2}, "concurrency": 2, **keys}
                rbit = self.start("--debug", runners={queue: section("gate")}, **same)
                self.publish(queue, "a")
                self.wait_for_runs(rbit, "start old a")
                if kind == "leased":
                    rbit.wait_for_line("holds lease 1")
                proxy.close()
                rbit.wait_for_line("connection to RabbitMQ lost")
                self.reload(rbit, runners={other: section()}, **same)
                with Proxy(self.node.port, port):
                    rbit.wait_for_line("message #1: its message came again; it is not run twice", 60)
                    self.publish(queue, "b")
                    self.publish(other, "c")
                    self.wait_for_runs(rbit, "start old a", "old c")
                    (rbit.folder / "a").touch()
                    self.wait_for_runs(rbit, "start old a", "old c", "end old a")
                    rbit.wait_for_line("message #1: its message is acknowledged")
                    self.assertEqual(rbit.stop(), 0, rbit.output)
                self.assertEqual(self.bodies(queue), [b"b"])
                self.assertLessEqual(self.depth(f"rbit.lease.bob-villa.{queue}"), 0)

    def test_signal_after_a_stop_signal_changes_nothing(self) -> None:
        rbit = self.start(runners={self.queue: section("gate")})
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "start old a")
        rbit.signal(signal.SIGTERM)
        rbit.wait_for_line("stopping after")
        self.reload(rbit, "SIGHUP: rbit is stopping, so rbit.ini is not read anew", runners={})
        (rbit.folder / "a").touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual((ran(rbit), self.depth(self.queue)), (["start old a", "end old a"], 0))

    def test_stop_does_not_wait_for_the_file(self) -> None:
        rbit = self.start()
        rbit.wait_for_line("connected to RabbitMQ")
        path = self.pipe(rbit)
        rbit.signal(signal.SIGHUP)
        with open(opened(path), "w", encoding="utf-8") as pipe:
            rbit.signal(signal.SIGTERM)
            self.assertEqual(rbit.wait(), 0, rbit.output)
            self.assertNotIn(KEPT, rbit.output)
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def test_default_queue_is_gone_through_for_a_queue_that_is_added(self) -> None:
        default, added = self.queue_name("unclaimed"), self.queue_name("any_latex_pdf")
        self.addCleanup(self.channel.exchange_delete, default)
        rbit = self.start(default_queue=default)
        self.publish(default, request(added))
        rbit.wait_for_line("connected to RabbitMQ")
        self.reload(
            rbit, default_queue=default,
            runners={self.queue: section(), added: {"runner": "shell!echo job %JOB >>ran"}},
        )
        rbit.wait_for_line(f"1 message of {default} belongs to queues of this client and is moved, 0 stay")
        self.wait_for_runs(rbit, "job 1")
        self.wait_for_acks(added, default)


class ServiceTest(Reloading):
    def test_service_manager_is_told_of_each_reading_once_rbit_is_ready(self) -> None:
        port = free_port()
        with NotifySocket() as manager:
            rbit = self.start(amqp={"port": port}, environment={"NOTIFY_SOCKET": manager.name})
            rbit.wait_for_line("trying for 60 s")
            self.reload(rbit)
            with Proxy(self.node.port, port):
                self.wait_until(lambda: manager.of("READY") == ["1"], what=lambda: f"READY in {manager.lines}")
                self.assertEqual(manager.of("RELOADING"), [])
                for number, (answer, concurrency) in enumerate(((COUNTS, 2), (KEPT, 0)), start=2):
                    before = time.monotonic() * 1e6
                    self.reload(rbit, answer, amqp={"port": port}, concurrency=concurrency)
                    self.wait_until(lambda: len(manager.of("READY")) == number, what=lambda: str(manager.lines))  # noqa: B023
                    said = [line for line in manager.lines if line.startswith(("RELOADING", "MONOTONIC", "READY"))]
                    self.assertEqual(said[-3::2], ["RELOADING=1", "READY=1"])
                    at = int(said[-2].removeprefix("MONOTONIC_USEC="))
                    self.assertTrue(before <= at <= time.monotonic() * 1e6, said)
                self.assertEqual(rbit.stop(), 0, rbit.output)
            self.assertEqual(len(manager.of("READY")), 3)


if __name__ == "__main__":
    unittest.main()
