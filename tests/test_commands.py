"""What is made of a command at the moments that no test with processes can hit."""

from __future__ import annotations

import unittest
from types import SimpleNamespace
from typing import Any

from rbit.cancels import Cancels
from rbit.commands import WHY, Commands
from rbit.message import Properties
from rbit.status import Updates
from rbit.update import Update
from tests.support.client_case import CAPTURES

REQUEST = (CAPTURES / "cancel_request.json").read_bytes()
JOB = 10  # in it


class CommandsTest(unittest.TestCase):
    """``self.published`` has the statuses, and whether PyBit gets them; ``self.ended`` the outcomes of jobs."""

    def setUp(self) -> None:
        self.published: list[tuple[str, bool]] = []
        self.ended: list[str] = []
        self.confirms: list[Any] = []
        self.jobs: list[Any] = []
        self.cancels = Cancels(60.0)
        feed: Any = SimpleNamespace(client="bob-villa", to_pybit=True, publish=self.publish)
        claims: Any = SimpleNamespace(jobs=self.jobs)
        self.commands = Commands(claims, self.cancels, feed, lambda _, outcome: self.ended.append(outcome.status))

    def publish(self, update: Update, to_pybit: bool, answers: object, done: object) -> None:
        self.published.append((update.status, to_pybit))
        self.confirms.append(done)

    def job(self, ended: bool, local: bool = False) -> Any:
        """Add a job that is here."""
        updates = Updates("a job", Update(JOB, "q", "bob-villa", "", "", 0.0), None, self.publish)
        self.jobs.append(SimpleNamespace(
            updates=updates, ended_at=float(ended), cancelled="", outcome=None, is_local=local,
        ))
        return self.jobs[-1]

    def cancel(self, local: bool = False) -> None:
        self.commands.obey(REQUEST, Properties(headers={"x-rbit-local": True} if local else None))

    def test_job_whose_slot_sees_the_request_at_the_same_moment_ends_once(self) -> None:
        job = self.job(ended=False)
        add = self.cancels.add

        def add_and_see(number: int) -> None:
            add(number)
            self.assertTrue(self.cancels.begin(number))  # as the gate does in the slot's thread

        self.cancels.add = add_and_see  # type: ignore[method-assign]
        self.cancel()
        self.assertEqual((self.published, self.ended, job.cancelled), ([], ["Cancelled"], WHY))

    def test_job_that_has_ended_and_waits_still_learns_that_its_last_status_is_published(self) -> None:
        job, told = self.job(ended=True), []
        job.updates.to_pybit = True
        job.updates.finish("Blocked", "", False, lambda: told.append(True))
        self.cancel()
        self.assertEqual((self.published, self.ended), ([("Blocked", True)], []))
        self.confirms[0](True)
        self.assertEqual((self.published[1:], told), ([("Cancelled", True)], []))
        self.confirms[1](True)
        self.assertEqual(told, [True])
        self.assertTrue(self.cancels.begin(JOB), "the copy that waits is not run")

    def test_what_is_reported_of_a_job_elsewhere_is_pending_until_it_is_published(self) -> None:
        self.assertFalse(self.commands.pending or self.commands.needs_time)
        self.cancel()
        self.assertTrue(self.commands.pending and self.commands.needs_time)
        self.confirms[0](True)
        self.assertFalse(self.commands.pending or self.commands.needs_time)

    def test_pybit_is_not_told_of_a_job_that_it_does_not_have(self) -> None:
        self.cancel(local=True)
        self.job(ended=True, local=True)
        self.cancels.forget(JOB)
        self.cancel()
        self.assertEqual(self.published, [("Cancelled", False)] * 2)


if __name__ == "__main__":
    unittest.main()
