"""A slot: how the jobs in it are ended, signal by signal, and when its processes are."""

from __future__ import annotations

import signal
import time
import unittest
from collections.abc import Callable

from rbit.job import Outcome
from rbit.message import WAITING
from rbit.tree import INTERRUPT_FIRST, TERMINATE, Forest, Tree
from tests.support.slots import CANCEL, INTERRUPT, LONG, SHORT, THEN_KILL, THEN_TERMINATE, SlotCase
from tests.support.waiting import wait_until

JOBS = '''
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
'''


class LadderTest(SlotCase):
    jobs = JOBS

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


if __name__ == "__main__":
    unittest.main()
