"""Test cases with the real command between a broker and a stand-in for PyBit.

It runs in the process that tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pika
import requests

from tests.support.case import BrokerCase
from tests.support.pybit_model import model
from tests.support.pybit_web import PybitWeb
from tests.support.rbit_process import RbitProcess

CAPTURES = Path(__file__).parent.parent / "captures"
NAME = "bob-villa"
JOBS = '''
import os, signal, subprocess, sys, time
import rbit

def note(*words):
    with open("ran", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def number(message):
    return message.build_request().job.id

def record(message, set_status, settings):
    note("run", number(message))

def hold(message, set_status, settings):
    """Runs until the file go-JOB exists, with a child in a session of its own; says when it is interrupted."""
    job = number(message)
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    note("start", job, child.pid)
    try:
        while not os.path.exists(f"go-{job}"):
            time.sleep(0.02)
    except KeyboardInterrupt:
        note("interrupted", job, time.monotonic())
        raise
    child.kill()
    child.wait()
    note("end", job)

def brief(message, set_status, settings):
    pass

def blocked(message, set_status, settings):
    note("run", number(message))
    raise rbit.Blocked("not yet")

def fails(message, set_status, settings):
    note("run", number(message))
    raise rbit.Failed("no good")

def late(message, set_status, settings):
    """Ignores SIGTERM, and ends when the file go-JOB exists."""
    job = number(message)
    signal.signal(signal.SIGTERM, lambda *_: note("terminated", job))
    note("start", job)
    while not os.path.exists(f"go-{job}"):
        time.sleep(0.02)
'''


class ClientCase(BrokerCase):
    """A test of a client named bob-villa, with a stand-in for PyBit, ``self.web``.

    ``self.updates`` collects what is published to ``rbit.status``, once ``follow`` was called.

    Attributes:
        jobs: the module of the Python jobs.
    """

    jobs = JOBS

    def setUp(self) -> None:
        """Start the stand-in, without statuses that an earlier test has left for it."""
        super().setUp()
        self._forget_statuses()
        self.addCleanup(self._forget_statuses)  # after the end of the clients, which are started later
        self.web = PybitWeb(broker=self.node)
        self.addCleanup(self.web.die)
        self.queue = self.queue_name("any_latex_pdf")

    def start(
        self, runner: str, *arguments: str, queues: Mapping[str, Mapping[str, object]] | None = None,
        pybit: Mapping[str, object] | None = None, to_pybit: bool = True, kill_at: str = "",
        amqp: Mapping[str, object] | None = None, fates: Mapping[str, object] | None = None, **rbit: object,
    ) -> RbitProcess:
        """Start a client.

        Arguments:
            runner: of the test's queue; a function of JOBS, or ``shell!...``.
            arguments: of the command.
            queues: runner sections of further queues.
            pybit, amqp, fates: further keys of [pybit], of [amqp] and of the runner section.
            to_pybit: whether there is a section [pybit].
            kill_at: a step at which it kills itself, see ``rbit.steps``.
            rbit: further keys of [rbit].
        """
        runners = {self.queue: {"runner": target(runner), **(fates or {})}, **(queues or {})}
        section = {"url": self.web.url, "user": "admin", "password": "pass", **(pybit or {})}
        broker = {"heartbeat": 2, **(amqp or {})}
        text = self.ini(runners, rbit=rbit, amqp=broker, pybit=section if to_pybit else None)
        environment = {"RBIT_TEST_KILL_AT": kill_at} if kill_at else None
        return self.rbit(text, *arguments, files={"jobs.py": self.jobs}, environment=environment)

    def submit(self, number: int = 0, queue: str | None = None, **more: str) -> int:
        """Submit a job at PyBit, of a package of its own for each number; return its id."""
        return self.web.submit(queue or self.queue, package=f"package{number}", **more)

    def request(self, job: int, queue: str | None = None, **properties: object) -> None:
        """Publish a build request of a number that PyBit need not know to a queue, the test's own for None."""
        body = json.loads((CAPTURES / "build_request.json").read_bytes())
        body["job"]["id"] = job
        self.publish(queue or self.queue, json.dumps(body), **properties)

    def ask_to_cancel(self, job: int, headers: dict[str, object] | None = None) -> None:
        """Publish a cancel request as PyBit does, whatever it knows of the job."""
        body = json.loads((CAPTURES / "cancel_request.json").read_bytes())
        body["job"]["id"] = job
        self.command(json.dumps(body), headers)

    def command(self, body: str | bytes, headers: dict[str, object] | None = None) -> None:
        """Publish a message to the command queue, which is there before it is bound."""
        properties = pika.BasicProperties(delivery_mode=2, headers=headers)

        def is_taken() -> bool:
            try:
                self.channel.basic_publish("pybit", NAME, body, properties, mandatory=True)
            except pika.exceptions.UnroutableError:
                return False
            return True

        self.wait_until(is_taken, what="the command queue to be bound")

    def command_of(self, kind: str, **fields: object) -> None:
        """Publish an object of PyBit's to the command queue."""
        self.command(json.dumps(model(kind, **fields)))

    def call(self, method: str, path: str) -> requests.Response:
        """Send a request to the stand-in, and return its answer."""
        return requests.request(method, self.web.url + path, auth=("admin", "pass"), timeout=10)

    def statuses(self, job: int) -> list[str]:
        """Return PyBit's statuses of a job, oldest first."""
        return [status for status, _ in self.web.history(job)]

    def wait_for_statuses(self, job: int, *expected: str, bound: float = 30.0) -> None:
        """Wait until PyBit has these statuses of a job, oldest first."""
        self.wait_until(
            lambda: self.statuses(job) == list(expected), bound, lambda: f"{expected}, not {self.statuses(job)}"
        )

    def has_name(self) -> bool:
        """Ask PyBit whether the client is active: its queue is there."""
        return self.call("GET", f"/buildd/{NAME}/status").text == "Active"

    def asked(self, job: int) -> int:
        """Return how often PyBit was asked for a job's status."""
        return sum(request.path == f"/job/{job}/status" for request in list(self.web.requests))

    def follow(self) -> None:
        """Collect what is published to ``rbit.status`` from now on."""
        self.channel.exchange_declare("rbit.status", "topic", durable=True)
        self._followed = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(self._followed, "rbit.status", "#")
        self.updates: list[dict[str, Any]] = []

    def last_update(self, job: int) -> dict[str, Any]:
        """Wait for the final update of a job on ``rbit.status`` and return it."""
        found: list[dict[str, Any]] = []

        def come() -> bool:
            self.updates += [json.loads(body) for body in self.bodies(self._followed)]
            found.extend(update for update in self.updates if update["job"] == job and update["final"])
            return bool(found)

        self.wait_until(come, what=lambda: f"the final update of job {job}; there are {self.updates}")
        return found[0]

    def wait_for_ack(self, *queues: str) -> None:
        """Wait until queues, the test's own if none is named, have no message any more."""
        for queue in queues or (self.queue,):
            self.wait_until(lambda: self.depth(queue) <= 0 and self.unacked(queue) <= 0, what=f"empty {queue}")  # noqa: B023

    def wait_for_note(self, rbit: RbitProcess, pattern: str, bound: float = 30.0) -> re.Match[str]:
        """Wait for a line of the file of what the jobs noted in which a pattern is found."""
        found: list[re.Match[str]] = []

        def there() -> bool:
            found.extend(match for line in notes(rbit) if (match := re.search(pattern, line)))
            return bool(found)

        self.wait_until(there, bound, lambda: f"{pattern} among {notes(rbit)}; rbit wrote:\n{rbit.output}")
        return found[0]

    def _forget_statuses(self) -> None:
        connection = self.node.connect()
        connection.channel().queue_delete(f"rbit.status.{NAME}")
        connection.close()


def target(runner: str) -> str:
    """Return the value of ``runner`` for a function of JOBS, or for a command as it is."""
    return runner if runner.startswith("shell!") else f"python!jobs:{runner}"


def notes(rbit: RbitProcess) -> list[str]:
    """Return what the jobs have noted."""
    path = rbit.folder / "ran"
    return path.read_text().splitlines() if path.exists() else []
