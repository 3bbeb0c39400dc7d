"""SIGINT and ``python!`` jobs: KeyboardInterrupt in a job's code, and nothing to be seen at any other moment."""

from __future__ import annotations

import os
import signal
import time
import unittest
from unittest import mock

from rbit.job import Outcome
from rbit.slot import Slot
from tests.support.contexts import enter
from tests.support.slots import CANCEL, INTERRUPT, THEN_TERMINATE, SlotCase

JOBS = '''
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


class InterruptTest(SlotCase):
    jobs = JOBS

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
        path = f"{self.folder}:{os.environ.get('PYTHONPATH', '')}"
        enter(self, mock.patch.dict(os.environ, PYTHONPATH=path))
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
