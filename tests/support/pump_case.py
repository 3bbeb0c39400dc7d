"""A test with the pump in this process, between a queue on a real broker and the stand-in for PyBit."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from unittest import mock

from rbit.front import Front
from rbit.message import Answer, Entry
from rbit.pump import Pump
from rbit.update import Update
from rbit.web import Web
from tests.support.case import BrokerCase
from tests.support.contexts import enter
from tests.support.pybit_web import PybitWeb
from tests.support.settings import amqp_settings, pybit_settings


class PumpCase(BrokerCase):
    """``self.web`` is PyBit, with the jobs 1, 2 and 3; ``self.client`` the client's name, ``self.own`` its queue.

    The pump tries again after 0.1 seconds what it would try again after 1 to 30.
    """

    def setUp(self) -> None:
        """Start PyBit and make the queue."""
        super().setUp()
        for module in ("pump", "teller"):
            self.patch(f"rbit.{module}.wait_after", lambda failures: 0.1)
        self.patch("rbit.pump.ASIDE", 0.1)
        self.web = PybitWeb()
        self.addCleanup(self.web.die)
        for job in (1, 2, 3):
            self.web.add_job(job)
        self.client = f"client-{secrets.token_hex(4)}"
        self.pumps: list[Pump] = []
        self.running: set[int | None] = set()  # jobs that run here
        self.own = f"rbit.status.{self.client}"
        self.channel.queue_declare(self.own, durable=True)
        self.addCleanup(self.channel.queue_delete, self.own)
        logs = enter(self, self.assertLogs("rbit", logging.DEBUG))
        logging.getLogger("rbit").debug("a log with nothing in it is a failure")
        self.logged = logs.records

    def patch(self, name: str, value: object) -> None:
        """Replace something of rbit's until the test is over."""
        patch = mock.patch(name, value)
        patch.start()
        self.addCleanup(patch.stop)

    def pump(
        self, port: int = 0, heartbeat: int = 60, timeout: float = 5.0, front: Front | None = None
    ) -> Pump:
        """Start a pump; it is ended after the test.

        Arguments:
            port: of the broker; 0: the node's own.
            heartbeat: seconds.
            timeout: seconds that PyBit may take.
            front: what to call; None: the stand-in.
        """
        amqp = amqp_settings(port or self.node.port, heartbeat)
        web = Web(pybit_settings(self.web.url, timeout=timeout, gate_timeout=5.0), self.client)
        made = Pump(amqp, self.client, front or web, lambda job: job in self.running)
        made.start()
        self.pumps.append(made)
        self.addCleanup(made.join, 30.0)
        self.addCleanup(made.close, 0.0)
        return made

    def put(self, job: int | None, *statuses: str, at: float | None = None, **properties: object) -> None:
        """Publish updates of a job to the queue, as a client does. ``at``: when they were reported; None: now."""
        for status in statuses:
            update = Update(job, "builds", self.client, status, "", at or time.time())
            named = {"message_id": secrets.token_hex(8), "content_type": "application/json", **properties}
            self.publish(self.own, update.body, **named)

    def statuses(self, job: int) -> list[str]:
        """Return the statuses of a job that PyBit has, after the first, Waiting."""
        return [status for status, _ in self.web.history(job)][1:]

    def tries(self, job: int, status: str = "") -> int:
        """Return how often PyBit was sent a status, or any, of a job."""
        return sum(
            request.path == f"/job/{job}" and request.form["status"] == (status or request.form["status"])
            for request in list(self.web.requests) if request.method == "PUT"
        )

    def lines(self, level: int = logging.WARNING) -> list[str]:
        """Return what was logged at this level or above."""
        return [record.getMessage() for record in list(self.logged) if record.levelno >= level]

    def wait_for_line(self, text: str) -> str:
        """Wait for a line of the log, of any level, that has this in it; return it."""
        found: list[str] = []

        def seen() -> bool:
            found.extend(line for line in self.lines(logging.DEBUG) if text in line)
            return bool(found)

        self.wait_until(seen, what=f"a line with {text!r}")
        return found[0]

    def wait_for(self, job: int, *statuses: str, bound: float = 30.0) -> None:
        """Wait until PyBit has these statuses of a job, in this order, each once."""
        self.wait_until(
            lambda: len(self.statuses(job)) >= len(statuses), bound, f"{statuses} of job {job}"
        )
        self.assertEqual(self.statuses(job), list(statuses))

    def wait_for_empty_queue(self) -> None:
        """Wait until nothing is in the queue, and no pump holds anything of it."""
        self.wait_until(
            lambda: self.depth(self.own) == 0 and self.hands_are_empty() and self.depth(self.own) == 0,
            what="an empty queue",
        )

    def hands_are_empty(self) -> bool:
        """Return whether no pump holds an update."""
        return all(pump._hand.is_empty for pump in self.pumps)


class Refusing:
    """Calls PyBit, but answers a status of one job itself.

    Arguments:
        answers: called with a job and a status; what it returns is the answer unless it is None.
        takes: called with a job and a status that PyBit would take.
    """

    def __init__(
        self, answers: Callable[[int, str], Answer | None], takes: Callable[[int, str], object] = lambda *_: None
    ) -> None:
        self.answers = answers
        self.takes = takes
        self.told: list[tuple[int, str]] = []

    def put(self, job: int, status: str) -> Answer:
        """Take a status, or answer otherwise."""
        answer = self.answers(job, status)
        if answer is None:
            self.told.append((job, status))
            self.takes(job, status)
        return answer or Answer(200, "")

    def last(self, job: int) -> tuple[Answer, Entry | None]:
        """Return that the job waits."""
        return Answer(200, ""), Entry("Waiting", None)

    def register(self) -> bool:
        """Know the client."""
        return True
