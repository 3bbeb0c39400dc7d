"""A slot: how the jobs in it are ended, signal by signal, and when its processes are."""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import signal
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rbit import keeper
from rbit.broker import Delivery
from rbit.feed import Feed
from rbit.job import Job, Outcome
from rbit.message import CANCELLED, WAITING, Properties
from rbit.publisher import Publisher
from rbit.runners import make
from rbit.settings import AmqpSettings, RunnerSettings
from rbit.slot import Slot
from rbit.tree import INTERRUPT_FIRST, TERMINATE, Forest, Ladder, Tree
from rbit.update import Update
from tests.support.waiting import wait_until

LONG = 60.0  # seconds; longer than any test waits, so what ended within the test did not wait for it
SHORT = 0.5
INTERRUPT: Ladder = ((signal.SIGINT, LONG),)
THEN_TERMINATE: Ladder = ((signal.SIGINT, SHORT), (signal.SIGTERM, LONG))
THEN_KILL: Ladder = ((signal.SIGINT, SHORT), (signal.SIGTERM, SHORT))
CANCEL = Outcome(CANCELLED, "cancelled")
AMQP = AmqpSettings((("127.0.0.1", None),), 1, "guest", "guest", "/", 30, 60.0, "classic")

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

def cleans_up(message, set_status, settings):
    subprocess.Popen(["sh", "-c", "trap 'echo >interrupted; exit' INT; echo >ready; while :; do sleep 0.05; done"])
    wait_for("ready")
    try:
        touch("begun")
        time.sleep(1000)
    except KeyboardInterrupt:
        print("interrupted here")
        raise
    finally:
        wait_for("interrupted")
        print("cleaned up here")

def sleeps(message, set_status, settings):
    time.sleep(1000)

def swallows(message, set_status, settings):
    touch("begun")
    while True:
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            touch("swallowed")

def cleans_up_with_a_process(message, set_status, settings):
    def leave(*_):
        touch("terminated")
        raise SystemExit
    signal.signal(signal.SIGTERM, leave)
    try:
        touch("begun")
        time.sleep(1000)
    except KeyboardInterrupt:
        script = "trap 'echo >hit' TERM; until [ -e terminated ]; do sleep 0.05; done; sleep 0.2; echo >cleaned"
        child = subprocess.Popen(["sh", "-c", script])
        try:
            child.wait()
        finally:
            child.wait()

def slow_to_tidy(message, set_status, settings):
    from rbit import surroundings
    end_tracker = surroundings.end_tracker
    def slow():
        touch("tidying")
        worker = signal.getsignal(signal.SIGINT).__self__
        while not worker.interrupted:
            time.sleep(0.01)
        touch("noted")
        end_tracker()
    surroundings.end_tracker = slow

def interrupts_itself(message, set_status, settings):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1000)
'''
SLOW_IMPORT = '''
import time
from jobs import touch

touch("begun")
time.sleep(1000)
'''
# Python runs this at its start, here until SIGINT waits to be let in.
SLOW_START = '''
import signal, sys, time

if "rbit.worker" in " ".join(sys.orig_argv):
    open("begun", "w").close()
    while not signal.sigpending():
        time.sleep(0.01)
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
    """A slot of the client's in the process that tests, in a folder of its own; no broker."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)
        self.folder = Path(folder.name)
        self.write("jobs", JOBS)
        self.records = Records()
        log = logging.getLogger("rbit")
        self.addCleanup(log.setLevel, log.level)
        self.addCleanup(log.removeHandler, self.records)
        log.setLevel(logging.DEBUG)
        log.addHandler(self.records)
        self.done: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.numbers = iter(range(1, 1000))

    def write(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(text, encoding="utf-8")

    def slot(self, **arguments: Any) -> Slot:
        """Start a slot, which is closed after the test."""
        forest = arguments.pop("forest", None) or Forest()
        # It has made this process a parent of orphans, which is not wanted by other tests.
        self.addCleanup(ctypes.CDLL(None).prctl, keeper.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        slot = Slot(1, forest, self.done.put, **arguments)
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


class LadderTest(SlotCase):
    def test_ladders_have_the_times_of_the_documents(self) -> None:
        self.assertEqual(TERMINATE, ((signal.SIGTERM, 10.0),))
        self.assertEqual(INTERRUPT_FIRST, ((signal.SIGINT, 10.0), (signal.SIGTERM, 10.0)))

    def test_shell_job_that_traps_int_ends_in_its_own_time(self) -> None:
        trap = "trap 'sleep 1; echo >cleaned; exit' INT; trap 'echo >terminated' TERM"
        self.cancel(f"shell!{trap}; echo >begun; while :; do sleep 0.05; done", INTERRUPT)
        self.assertEqual(self.there("cleaned", "terminated"), ["cleaned"])

    def test_shell_job_that_ignores_int_dies_of_term(self) -> None:
        self.cancel("shell!trap '' INT; echo >begun; while :; do sleep 0.05; done", THEN_TERMINATE)

    def test_shell_job_that_ignores_both_is_killed(self) -> None:
        began = time.monotonic()
        self.cancel("shell!trap '' INT TERM; echo >begun; while :; do sleep 0.05; done", THEN_KILL)
        self.assertGreaterEqual(time.monotonic() - began, 2 * SHORT)

    def test_grandchild_in_a_session_of_its_own_is_interrupted_too(self) -> None:
        far = "trap 'echo >interrupted; exit' INT; echo >begun; while :; do sleep 0.05; done"
        self.cancel(f'shell!setsid sh -c "{far}"; true', INTERRUPT)
        self.assertEqual(self.there("interrupted"), ["interrupted"])

    def test_second_signal_spares_what_was_started_to_clean_up_after_the_first(self) -> None:
        self.cancel("python!jobs:cleans_up_with_a_process", THEN_TERMINATE)
        self.assertEqual(self.there("terminated", "hit", "cleaned"), ["terminated", "cleaned"])

    def test_first_verdict_and_its_ladder_count(self) -> None:
        slot = self.slot()
        self.begin(slot, "shell!trap 'echo >asked; until [ -e go ]; do sleep 0.05; done; exit' INT; echo >begun; "
                         "while :; do sleep 0.05; done")
        self.wait_for("begun")
        slot.end(CANCEL, INTERRUPT)
        self.wait_for("asked")
        slot.end(Outcome(WAITING, "rbit was stopped"), ())
        (self.folder / "go").touch()
        self.assertEqual(self.outcome(slot), CANCEL)

    def test_job_that_had_ended_by_itself_keeps_its_outcome(self) -> None:
        left = "trap 'echo >asked' TERM; echo >ready; until [ -e go ]; do sleep 0.05; done"
        slot = self.slot()
        self.begin(slot, f'shell!setsid sh -c "{left}" & until [ -e ready ]; do sleep 0.05; done')
        self.wait_for("asked")
        slot.end(CANCEL, INTERRUPT)
        (self.folder / "go").touch()
        self.assertEqual(self.outcome(slot), Outcome("Done"))

    def test_verdict_of_one_job_is_none_of_the_next(self) -> None:
        slot = self.cancel("shell!echo >begun; exec sleep 1000", INTERRUPT)
        self.begin(slot, "shell!true")
        self.assertEqual(self.outcome(slot), Outcome("Done"))

    def test_idle_worker_goes_on_when_a_shell_job_in_its_slot_is_cancelled(self) -> None:
        slot = self.slot()
        self.begin(slot, "python!jobs:where", "before")
        self.outcome(slot)
        self.begin(slot, "shell!echo >begun; exec sleep 1000")
        self.wait_for("begun")
        slot.end(CANCEL, INTERRUPT)
        self.assertEqual(self.outcome(slot), CANCEL)
        self.begin(slot, "python!jobs:where", "after")
        self.outcome(slot)
        self.assertEqual((self.folder / "before").read_text(), (self.folder / "after").read_text())


class Crowded(Forest):
    """Has a job begin in the moment in which a slot's processes are ended."""

    def __init__(self) -> None:
        super().__init__()
        self.begin: Callable[[], object] = lambda: None

    def fell(self, tree: Tree) -> list[str]:
        """Begin the job, then end the processes."""
        begin, self.begin = self.begin, lambda: None
        begin()
        return super().fell(tree)


class IdleTest(SlotCase):
    def test_job_that_comes_as_idle_processes_end_is_run_by_new_ones(self) -> None:
        forest = Crowded()
        slot = self.slot(forest=forest, worker_idle=0.1)
        forest.begin = lambda: self.begin(slot, "python!jobs:where", "after")
        self.begin(slot, "python!jobs:where", "before")
        for _ in range(2):
            self.assertEqual(self.outcome(slot), Outcome("Done"))
        self.assertNotEqual((self.folder / "before").read_text(), (self.folder / "after").read_text())

    def test_jobs_that_come_about_the_end_of_the_idle_time_are_run(self) -> None:
        slot = self.slot(worker_idle=0.02)
        for number in range(10):
            self.begin(slot, "python!jobs:where", str(number))
            self.assertEqual(self.outcome(slot), Outcome("Done"))
            time.sleep(0.016 + number * 0.001)  # just before or just after it: both must do
        self.assertEqual([line for line in self.records.lines if "may be left" in line], [])

    def test_closed_slot_ends_though_it_is_idle(self) -> None:
        slot = self.slot(worker_idle=0.1)
        self.begin(slot, "shell!true")
        self.outcome(slot)
        wait_until(lambda: any("idle" in line for line in self.records.lines), what="the end of the processes")
        slot.close()
        slot.join(LONG / 2)
        self.assertFalse(slot.is_alive())


class InterruptTest(SlotCase):
    """SIGINT and ``python!`` jobs."""

    def assert_next_job_is_run(self, slot: Slot) -> None:
        self.begin(slot, "python!jobs:where", "next")
        self.assertEqual(self.outcome(slot), Outcome("Done"))

    def test_python_job_and_its_child_are_interrupted_and_its_finally_block_runs_and_prints(self) -> None:
        slot = self.cancel("python!jobs:cleans_up", INTERRUPT)
        printed = [line.rpartition(": ")[2] for line in self.records.lines if line.endswith(" here")]
        self.assertEqual(printed, ["interrupted here", "cleaned up here"])
        self.assert_quiet()
        self.assert_next_job_is_run(slot)

    def test_python_job_that_swallows_keyboard_interrupt_dies_of_term(self) -> None:
        slot = self.cancel("python!jobs:swallows", THEN_TERMINATE)
        self.assertEqual(self.there("swallowed"), ["swallowed"])
        self.assert_quiet()
        self.assert_next_job_is_run(slot)

    def test_interrupt_while_the_worker_starts_is_quiet_and_the_job_is_not_run(self) -> None:
        self.write("sitecustomize", SLOW_START)
        old = os.environ.get("PYTHONPATH", "")
        self.addCleanup(os.environ.__setitem__, "PYTHONPATH", old)
        os.environ["PYTHONPATH"] = f"{self.folder}:{old}"
        slot = self.slot()
        self.begin(slot, "python!jobs:where", "ran")
        self.wait_for("begun")
        slot.end(CANCEL, INTERRUPT)
        self.assertEqual(self.outcome(slot), CANCEL)
        self.assertEqual(self.there("ran"), [])
        self.assert_quiet()

    def test_interrupt_at_any_moment_of_a_start_is_quiet(self) -> None:
        for part in range(20):
            slot = self.slot()
            self.begin(slot, "python!jobs:sleeps")
            time.sleep(part * 0.02)  # which moment that is depends on the machine, and it must not matter
            slot.end(CANCEL, INTERRUPT)
            self.assertEqual(self.outcome(slot), CANCEL)
            slot.close()
        self.assert_quiet()

    def test_interrupt_while_a_job_is_imported_is_quiet(self) -> None:
        self.write("slow", SLOW_IMPORT)
        slot = self.cancel("python!slow:job", INTERRUPT)
        self.assert_quiet()
        self.assert_next_job_is_run(slot)

    def test_interrupt_after_the_jobs_code_is_noted_and_the_worker_ends(self) -> None:
        slot = self.cancel("python!jobs:slow_to_tidy", INTERRUPT, when="tidying")
        self.assertEqual(self.there("noted"), ["noted"])
        self.assert_quiet()
        self.assert_next_job_is_run(slot)

    def test_interrupt_of_an_idle_worker_is_quiet_and_the_next_job_is_run_by_another(self) -> None:
        slot = self.slot()
        self.begin(slot, "python!jobs:where", "before")
        self.outcome(slot)
        worker = int((self.folder / "before").read_text())
        os.kill(worker, signal.SIGINT)
        self.begin(slot, "python!jobs:where", "after")
        self.assertEqual(self.outcome(slot), Outcome("Done"))
        self.assertNotEqual(int((self.folder / "after").read_text()), worker)
        self.assert_quiet()

    def test_job_that_is_interrupted_without_a_cancel_is_failed(self) -> None:
        slot = self.slot()
        self.begin(slot, "python!jobs:interrupts_itself")
        outcome = self.outcome(slot)
        self.assertEqual((outcome.status, outcome.why), ("Failed", "KeyboardInterrupt"))
        self.assert_next_job_is_run(slot)


if __name__ == "__main__":
    unittest.main()
