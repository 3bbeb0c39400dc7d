"""A slot of the client's in the process that tests, with real processes below it and without a broker."""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import signal
import unittest
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from rbit import keeper
from rbit.broker import Delivery
from rbit.feed import Feed
from rbit.job import Job, Outcome
from rbit.joblog import JobLogs
from rbit.message import CANCELLED, Properties
from rbit.publisher import Publisher
from rbit.runners import make
from rbit.settings import RunnerSettings
from rbit.slot import Slot
from rbit.tree import Forest, Ladder
from rbit.update import Update
from tests.support.settings import amqp_settings
from tests.support.waiting import wait_until

LONG = 60.0  # seconds; longer than any test waits, so what ended within the test did not wait for it
SHORT = 0.5
INTERRUPT: Ladder = ((signal.SIGINT, LONG),)
THEN_TERMINATE: Ladder = ((signal.SIGINT, SHORT), (signal.SIGTERM, LONG))
THEN_KILL: Ladder = ((signal.SIGINT, SHORT), (signal.SIGTERM, SHORT))
CANCEL = Outcome(CANCELLED, "cancelled")
AMQP = amqp_settings(1)

JOBS = '''
import os, signal, subprocess, sys, time

def touch(name, text=""):
    with open(name + ".new", "w") as file:
        file.write(text)
    os.rename(name + ".new", name)

def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)

def where(message, set_status, settings):
    touch(message.body.decode(), str(os.getpid()))
'''


class Records(logging.Handler):
    """Keeps what is logged, as text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one entry."""
        self.lines.append(record.getMessage())


class SilentFeed(Feed):
    """Publishes nothing."""

    def __init__(self) -> None:
        super().__init__("bob-villa", Publisher(AMQP, "test"), None, False)

    def publish(
        self, update: Update, to_pybit: bool, answers: str | None, done: Callable[[bool], None]
    ) -> None:
        """Say that it is published."""
        done(True)


class SlotCase(unittest.TestCase):
    """A test with slots, in a folder of its own, which is the current one.

    Attributes:
        jobs: what the module ``jobs`` has beside ``where``; it may use ``touch`` and ``wait_for``.
    """

    jobs: ClassVar[str] = ""

    def setUp(self) -> None:
        """Make the folder, and keep what rbit logs in ``records``."""
        super().setUp()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)
        self.folder = Path(folder.name)
        self.write("jobs", JOBS + self.jobs)
        self.records = Records()
        log = logging.getLogger("rbit")
        self.addCleanup(log.setLevel, log.level)
        self.addCleanup(log.removeHandler, self.records)
        log.setLevel(logging.DEBUG)
        log.addHandler(self.records)
        self.done: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.numbers = iter(range(1, 1000))

    def write(self, module: str, text: str) -> None:
        """Put a module into the folder."""
        (self.folder / f"{module}.py").write_text(text, encoding="utf-8")

    def slot(self, **arguments: Any) -> Slot:
        """Start a slot, which is closed after the test."""
        forest = arguments.pop("forest", None) or Forest()
        # It has made this process a parent of orphans, which is not wanted by other tests.
        self.addCleanup(ctypes.CDLL(None).prctl, keeper.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        slot = Slot(1, forest, self.done.put, arguments.pop("logs", JobLogs(None, 1, 0)), **arguments)
        slot.start()
        self.addCleanup(slot.join, 30.0)
        self.addCleanup(slot.close)
        return slot

    def begin(self, slot: Slot, runner: str, body: str = "x") -> Job:
        """Have a slot run a job."""
        section = RunnerSettings("q", runner, None, None, False, "park", 60.0, 0, 10, {})
        unused: Any = None
        delivery = Delivery("q", 1, body.encode(), Properties(), False, unused, unused)
        job = Job(delivery, section, make(section), next(self.numbers), SilentFeed())
        slot.begin(job)
        return job

    def outcome(self, slot: Slot) -> Outcome:
        """Wait for the end of the job that a slot runs, and return its outcome."""
        wait_until(lambda: not self.done.empty(), LONG / 2, lambda: f"the job's end; log: {self.records.lines}")
        job = self.done.get()
        slot.job = None
        assert job.outcome is not None
        return job.outcome

    def wait_for(self, name: str) -> None:
        """Wait for a file in the folder."""
        wait_until((self.folder / name).exists, LONG / 2, lambda: f"{name}; log: {self.records.lines}")

    def cancel(self, runner: str, ladder: Ladder, when: str = "begun") -> Slot:
        """Run a job, end it once a file is there, and check that it counts as cancelled."""
        slot = self.slot()
        self.begin(slot, runner)
        self.wait_for(when)
        slot.end(CANCEL, ladder)
        self.assertEqual(self.outcome(slot), CANCEL)
        return slot

    def assert_quiet(self) -> None:
        """Fail when something was printed or logged that looks like a fault of rbit's."""
        text = "\n".join(self.records.lines)
        self.assertNotRegex(text, "Traceback|KeyboardInterrupt|Exception|rbit itself")

    def there(self, *names: str) -> list[str]:
        """Return those of some files that are in the folder."""
        return [name for name in names if (self.folder / name).exists()]
