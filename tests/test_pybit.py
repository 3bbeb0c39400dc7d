"""Statuses of the real command: they arrive at PyBit though PyBit is down and rbit is killed meanwhile."""

from __future__ import annotations

import json
import secrets
import signal
import unittest

from tests.support.case import BrokerCase
from tests.support.pybit_web import PybitWeb
from tests.support.rbit_process import RbitProcess
from tests.test_loop import CAPTURE

JOBS = '''
import os, time
import rbit

def report(message, set_status, settings):
    for step in ("one", "two"):
        set_status("Building", step)

def gate(message, set_status, settings):
    while not os.path.exists("go-on"):
        time.sleep(0.02)
'''


class PybitCase(BrokerCase):
    """``self.web`` is PyBit; ``self.client`` is the client's name, ``self.own`` its queue of statuses."""

    def setUp(self) -> None:
        super().setUp()
        self.web = PybitWeb()
        self.addCleanup(self.web.die)
        self.client = f"client-{secrets.token_hex(4)}"
        self.own = f"rbit.status.{self.client}"
        self.addCleanup(self.channel.queue_delete, self.own)
        self.jobs = self.queue_name("any_latex_pdf")

    def submit(self, *jobs: int) -> None:
        """Publish the build requests of jobs that PyBit knows."""
        for job in jobs:
            self.web.add_job(job)
            request = json.loads(CAPTURE)
            request["job"]["id"] = job
            self.publish(self.jobs, json.dumps(request))

    def start(
        self, *arguments: str, runner: str = "shell!true", kill_at: str = "", with_pybit: bool = True
    ) -> RbitProcess:
        pybit = {"url": self.web.url, "user": "admin", "password": "pass", "timeout": 2, "gate_timeout": 0.2}
        runners = {self.jobs: {"runner": runner}}
        text = self.ini(runners, {"name": self.client}, pybit=pybit if with_pybit else None)
        environment = {"RBIT_TEST_KILL_AT": kill_at} if kill_at else None
        return self.rbit(text, "--debug", *arguments, files={"jobs.py": JOBS}, environment=environment)

    def statuses(self, job: int) -> list[str]:
        """Return the statuses of a job that PyBit has."""
        return [status for status, _ in self.web.history(job)]

    def waiting(self) -> list[tuple[int, str]]:
        """Take all out of the queue of statuses; return job and status of each."""
        said = map(json.loads, self.bodies(self.own))
        return [(update["job"], update["status"]) for update in said]


class PybitTest(PybitCase):
    def test_every_status_arrives_once_and_in_order_though_pybit_was_down_and_rbit_killed(self) -> None:
        first, second = (1, 2, 3), (4, 5, 6)
        self.web.die()
        self.submit(*first)
        rbit = self.start()
        self.wait_until(lambda: self.depth(self.own) == 6, what="the statuses in the queue")
        rbit.wait_for_line("PyBit does not answer .*; statuses that wait for it in " + self.own)
        rbit.signal(signal.SIGKILL)
        rbit.wait()
        self.wait_until(lambda: self.depth(self.own) == 6, what="the statuses in the queue again")
        self.submit(*second)
        rbit = self.start()
        for job in second:
            rbit.wait_for_line(f"job {job}: its message is acknowledged")
        rbit.wait_for_line("PyBit does not answer")
        self.web.come_back()
        whole = ["Waiting", "Building", "Done"]
        self.wait_until(
            lambda: all(len(self.statuses(job)) >= len(whole) for job in (*first, *second)), 90,
            "the statuses at PyBit",
        )
        rbit.wait_for_line("PyBit answers again")
        self.assertEqual(rbit.stop(), 0, rbit.output)
        for job in (*first, *second):
            self.assertEqual(self.statuses(job), whole, rbit.output)
        self.assertEqual(self.depth(self.own), 0)
        self.assertEqual(list(self.web.buildds), [self.client])

    def test_final_status_is_in_its_queue_before_the_message_is_acknowledged(self) -> None:
        self.web.die()
        expected = {
            "status about to be published:2": ([(1, "Building")], 1),
            "status confirmed:2": ([(1, "Building"), (1, "Done")], 1),
            "about to be settled": ([(1, "Building"), (1, "Done")], 1),
        }
        self.submit(1)
        for step, (statuses, messages) in expected.items():
            with self.subTest(step):
                rbit = self.start(kill_at=step)
                self.assertEqual(rbit.wait(), -signal.SIGKILL, rbit.output)
                self.wait_until(lambda: self.depth(self.own) == len(statuses), what="the statuses")  # noqa: B023
                self.wait_until(lambda: self.depth(self.jobs) == messages, what="the message")  # noqa: B023
                self.assertEqual(self.waiting(), statuses)

    def test_crash_between_the_call_and_the_acknowledgement_doubles_that_status_alone(self) -> None:
        self.submit(1)
        rbit = self.start("--once", kill_at="PyBit told")
        self.assertEqual(rbit.wait(), -signal.SIGKILL, rbit.output)
        self.wait_until(lambda: self.depth(self.own) > 0, what="the status in its queue")
        self.bodies(self.jobs)
        rbit = self.start()
        self.wait_until(lambda: self.statuses(1)[1:3] == ["Building", "Building"], what="the status again")
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual([status for status in self.statuses(1) if status == "Building"], ["Building"] * 2)

    def test_every_set_status_is_published_and_pybit_gets_the_transitions(self) -> None:
        self.channel.exchange_declare("rbit.status", "topic", durable=True)
        follower = str(self.channel.queue_declare("", exclusive=True).method.queue)
        self.channel.queue_bind(follower, "rbit.status", f"{self.jobs}.#")
        self.submit(1)
        rbit = self.start("--once", runner="python!jobs:report")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        said = [json.loads(body) for body in self.bodies(follower)]
        self.assertEqual([(update["status"], update["message"], update["final"]) for update in said], [
            ("Building", "", False), ("Building", "one", False), ("Building", "two", False), ("Done", "", True),
        ])
        self.assertEqual(self.statuses(1), ["Waiting", "Building", "Done"])
        self.assertEqual(self.depth(self.own), 0)

    def test_without_pybit_there_is_no_queue_and_no_call(self) -> None:
        for with_pybit in (True, False):
            self.submit(1)
            self.channel.queue_delete(self.own)
            self.web.requests.clear()
            rbit = self.start(with_pybit=with_pybit)
            rbit.wait_for_line("its message is acknowledged")
            connections = self.node.ctl("list_connections", "client_properties")
            self.assertEqual(f"{self.client} (pump)" in connections, with_pybit)
            self.assertEqual(rbit.stop(), 0, rbit.output)
            self.assertEqual(self.depth(self.own) == 0, with_pybit)
            self.assertEqual(bool(self.web.requests), with_pybit)

    def test_name_is_registered_at_the_start_without_a_job(self) -> None:
        for _ in range(2):
            rbit = self.start()
            self.wait_until(lambda: self.client in self.web.buildds, what="the registration")
            rbit.wait_for_line("connected to RabbitMQ")
            self.assertEqual(rbit.stop(), 0, rbit.output)
        writes = [request.path for request in self.web.requests if request.method != "GET"]
        self.assertEqual(writes, ["/buildd"])

    def test_stop_with_a_dead_pybit_leaves_the_statuses_to_the_next_start(self) -> None:
        self.web.die()
        self.submit(1)

        def ready() -> RbitProcess:
            rbit = self.start()
            rbit.wait_for_line("PyBit does not answer")
            return rbit

        self.assert_stops_within(5.0, ready)
        self.assertEqual(self.depth(self.own), 2)
        self.web.come_back()
        rbit = self.start("--once")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(self.statuses(1), ["Waiting", "Building", "Done"], rbit.output)


if __name__ == "__main__":
    unittest.main()
