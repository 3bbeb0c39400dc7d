"""Stopping: the first signal, the second, an idle client, a killed client."""

from __future__ import annotations

import signal
import time
import unittest

from tests.support.case import BrokerCase
from tests.support.processes import descendants, is_alive
from tests.support.pybit_web import PybitWeb
from tests.support.rbit_process import RbitProcess
from tests.test_loop import CAPTURE, JOBS, ran

STUBBORN = '''
import os, signal, subprocess, time

def stubborn(message, set_status, settings):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sh", "-c", "trap '' TERM; setsid sleep 1000 & echo $! >child; wait"])
    while not os.path.exists("child") or not open("child").read().strip():
        time.sleep(0.01)
    open("started", "w").close()
    time.sleep(1000)
'''


class StopTest(BrokerCase):
    def start(self, function: str, queue: str, **sections: dict[str, object]) -> RbitProcess:
        text = self.ini({queue: {"runner": f"python!{function}"}}, **sections)
        return self.rbit(text, files={"jobs.py": JOBS, "more.py": STUBBORN})

    def test_idle_client_stops_within_a_second(self) -> None:
        queue = self.queue_name()

        def idle() -> RbitProcess:
            self.publish(queue, "a")  # so that its worker and its publisher are there
            rbit = self.start("jobs:fails", queue, rbit={"polling_time": 3600})
            rbit.wait_for_line(f"a copy of its message is in {queue}.failed")
            return rbit

        self.assert_stops_within(1.0, idle)

    def test_idle_client_stops_with_0_on_sigint(self) -> None:
        rbit = self.start("jobs:record", self.queue_name(), rbit={"polling_time": 3600})
        rbit.wait_for_line("connected to RabbitMQ")
        rbit.signal(signal.SIGINT)
        self.assertEqual(rbit.wait(), 0, rbit.output)

    def test_client_that_was_never_connected_stops_with_0(self) -> None:
        queue = self.queue_name()
        text = self.ini({queue: {"runner": "shell!true"}}, amqp={"host": "127.0.0.1", "port": 9})
        rbit = self.rbit(text)
        rbit.wait_for_line("no answer from RabbitMQ at 127.0.0.1:9: Connection refused; trying for 60 s")
        rbit.signal(signal.SIGTERM)
        self.assertEqual(rbit.wait(5), 0, rbit.output)

    def test_first_signal_lets_the_running_job_finish_and_takes_no_more(self) -> None:
        queue = self.queue_name()
        for name in ("one", "two"):
            self.publish(queue, name)
        rbit = self.start("jobs:gate", queue)
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        rbit.signal(signal.SIGINT)
        rbit.wait_for_line("stopping after .*message #1; a second signal ends what runs")
        (rbit.folder / "one").touch()
        (rbit.folder / "two").touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit), ["start one", "end one"])
        self.assertEqual(self.depth(queue), 1)

    def test_second_signal_ends_a_stubborn_tree_puts_the_message_back_and_reports_waiting(self) -> None:
        queue = self.queue_name()
        self.publish(queue, CAPTURE)
        with PybitWeb() as web:
            web.add_job(1)
            pybit: dict[str, object] = {"url": web.url, "user": "admin", "password": "pass"}
            rbit = self.start("more:stubborn", queue, pybit=pybit)
            self.wait_until((rbit.folder / "started").exists, what="the job")
            child = int((rbit.folder / "child").read_text())
            below = [*descendants(rbit.pid), child]
            rbit.signal(signal.SIGTERM)
            rbit.wait_for_line("a second signal ends what runs")
            began = time.monotonic()
            rbit.signal(signal.SIGTERM)
            self.assertEqual(rbit.wait(60), 0, rbit.output)
            self.assertGreaterEqual(time.monotonic() - began, 9.9, "SIGKILL comes 10 s after SIGTERM")
            self.assertEqual([pid for pid in below if is_alive(pid)], [])
            self.assertEqual(web.history(1)[-2:], [("Building", "bob-villa"), ("Waiting", "bob-villa")])
        self.assertEqual(self.bodies(queue), [CAPTURE])

    def test_killed_client_leaves_no_process_and_its_message_comes_back(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a")
        rbit = self.start("more:stubborn", queue)
        self.wait_until((rbit.folder / "started").exists, what="the job")
        below = [*descendants(rbit.pid), int((rbit.folder / "child").read_text())]
        self.assertGreater(len(below), 3)
        rbit.signal(signal.SIGKILL)
        self.assertEqual(rbit.wait(), -signal.SIGKILL)
        self.wait_until(lambda: not any(is_alive(pid) for pid in below), what="the end of its processes")
        self.wait_until(lambda: self.depth(queue) == 1, what="the message")


if __name__ == "__main__":
    unittest.main()
