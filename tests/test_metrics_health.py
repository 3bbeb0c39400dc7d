"""Whether a client is well, as ``/healthz`` says it."""

from __future__ import annotations

import os
import re
import signal
import unittest
from unittest import mock

from rbit.client import SILENCE
from tests.support.metrics_case import MetricsCase
from tests.support.processes import free_port
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess

# A handler of the log that holds up whoever logs while a file exists; only the loop's thread.
STUCK = '''
import logging, os, threading, time

class Stuck(logging.StreamHandler):
    def emit(self, record):
        while os.path.exists("stuck") and threading.current_thread() is threading.main_thread():
            time.sleep(0.02)
        super().emit(record)
'''
LOGGING = (
    "\n[loggers]\nkeys = root\n[handlers]\nkeys = stuck\n[formatters]\nkeys = plain\n"
    "[logger_root]\nlevel = INFO\nhandlers = stuck\n[handler_stuck]\nclass = stuck.Stuck\nargs = ()\n"
    "formatter = plain\n[formatter_plain]\nformat = %(levelname)s %(message)s\n"
)


class HealthTest(MetricsCase):
    def test_outage_is_told_until_the_connection_is_there_again(self) -> None:
        port = free_port()
        process = self.serve("hold", amqp={"port": port})
        self.wait_for_health(503, r"^no connection to RabbitMQ; nothing has come from it for \d+ s\n$")
        self.assertEqual(self.value("rbit_broker_reconnects_total"), 0)
        proxy = Proxy(self.node.port, port)
        self.wait_for_health(200, "^ok\n$")
        self.assertEqual(self.value("rbit_broker_reconnects_total"), 0)
        job = self.submit()
        self.wait_for_note(process, f"start {job}")
        proxy.close()
        self.wait_for_health(503, "^no connection to RabbitMQ; ")
        self.wait_until(lambda: self.age() > 1, what="a second of it")
        self.assertEqual(self.value("rbit_jobs_running", queue=self.queue), 1)
        with Proxy(self.node.port, port):
            self.wait_for_health(200, "^ok\n$", 60)
            self.assertEqual(self.value("rbit_broker_reconnects_total"), 1)
            (process.folder / f"go-{job}").touch()
            self.wait_for_value(1, "rbit_jobs_total", queue=self.queue, status="Done")
            self.assertEqual(process.stop(), 0, process.output)

    def test_stop_that_waits_for_a_job_is_well_and_an_outage_shows_meanwhile(self) -> None:
        with Proxy(self.node.port) as proxy:
            process = self.serve("hold", amqp={"port": proxy.port})
            job = self.submit()
            self.wait_for_note(process, f"start {job}")
            process.signal(signal.SIGTERM)
            process.wait_for_line("stopping after")
            self.wait_for_health(200, "^ok\n$")
            proxy.silence()
            proxy.cut()
            self.wait_for_health(503, "^no connection to RabbitMQ; ")
            proxy.silence(False)
            self.wait_for_health(200, "^ok\n$")
            (process.folder / f"go-{job}").touch()
            self.assertEqual(process.wait(60), 0, process.output)

    def test_frozen_broker_shows_as_a_growing_age_and_then_as_an_outage(self) -> None:
        trouble = r"^nothing has come from RabbitMQ for ([6-9]|1\d) s\n$"
        process = self.serve("brief", to_pybit=False, amqp={"heartbeat": 1})
        self.wait_for_health(200, "^ok\n$")
        broker = self.node.pids[0]
        self.addCleanup(os.kill, broker, signal.SIGCONT)
        os.kill(broker, signal.SIGSTOP)
        for age in (1, 2):
            self.wait_until(lambda: self.age() > age, what="a growing age")  # noqa: B023
        self.wait_for_health(503, trouble)
        self.assertGreater(self.age(), 2)
        age = self.age()
        self.wait_until(lambda: self.age() > age + 1, what="an age that goes on growing")
        os.kill(broker, signal.SIGCONT)
        self.wait_for_health(200, "^ok\n$", 90)
        self.wait_until(lambda: self.age() < 1, what="a small age")
        self.assertEqual(process.stop(), 0, process.output)

    def test_loop_that_does_not_turn_is_told_though_the_connection_is_there(self) -> None:
        original = self.ini
        with mock.patch.object(self, "ini", lambda *parts, **more: original(*parts, **more) + LOGGING):
            files = {"stuck.py": STUCK}
            process = self.serve_with(files, {"PYTHONPATH": "."})
        self.wait_for_health(200, "^ok\n$")
        hold = process.folder / "stuck"
        hold.touch()
        self.addCleanup(hold.unlink, missing_ok=True)
        self.publish(self.queue, "not a request")  # what becomes of it is logged by the loop
        longest = 2 * (1 + SILENCE)
        # The connection may have been lost just before, if the machine stood still for a while.
        told = rf"^the loop has not turned for ({longest:.0f}|[1-9]\d+) s\n$"
        self.wait_until(
            lambda: re.search(told, self.health()[1]), longest + 30, lambda: f"{told}, not {self.health()}"
        )
        self.assertEqual(self.value("rbit_jobs_total", queue=self.queue, status="Waiting"), 0)
        hold.unlink()
        self.wait_for_health(200, "^ok\n$")
        self.wait_for_value(1, "rbit_jobs_total", queue=self.queue, status="Waiting")

    def serve_with(self, files: dict[str, str], environment: dict[str, str]) -> RbitProcess:
        """Start a client whose jobs are tried again, with these files and variables."""
        start = self.rbit

        def rbit(text: str, *arguments: str, **more: object) -> RbitProcess:
            more["files"] = {**files, **more["files"]}  # type: ignore[dict-item]
            return start(text, *arguments, **{**more, "environment": environment})  # type: ignore[arg-type]

        with mock.patch.object(self, "rbit", rbit):
            return self.serve("shell!exit 1", amqp={"heartbeat": 1}, fates={"on_failure": "requeue"})

    def age(self) -> float:
        """Return for how many seconds nothing has come from the broker."""
        return self.value("rbit_broker_last_answer_age_seconds") or 0.0


if __name__ == "__main__":
    unittest.main()
