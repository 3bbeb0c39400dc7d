"""The statuses of a job: which are published, in which order, and what is remembered of them."""

from __future__ import annotations

import json
import logging
import re
import unittest
from collections.abc import Callable
from dataclasses import asdict
from unittest import mock

from rbit.errors import BodyRefused
from rbit.status import LARGEST_LANE, LEAST, Updates
from rbit.update import Update, parse
from tests.support.contexts import enter

Publish = Callable[[bool], None]


class UpdatesTest(unittest.TestCase):
    """``self.sent`` has what was handed to be published: the update, whether PyBit gets it, and what ends it."""

    def setUp(self) -> None:
        self.sent: list[tuple[Update, bool, Publish]] = []
        self.told: list[str] = []
        logs = enter(self, self.assertLogs("rbit.status", logging.INFO))
        logging.getLogger("rbit.status").info("a log with nothing in it is a failure")
        self.logged = logs.output

    def updates(self, job: int | None = 1, to_pybit: bool = True) -> Updates:
        def publish(update: Update, told: bool, answers: str | None, done: Publish) -> None:
            self.assertEqual(answers, "m")
            self.sent.append((update, told, done))

        return Updates("a job", Update(job, "q", "bob-villa", "", "", 0.0, 2), "m", publish, to_pybit)

    def finish(self, updates: Updates, status: str, message: str = "", final: bool = True) -> None:
        updates.finish(status, message, final, lambda: self.told.append(status))

    def confirm_all(self, confirmed: bool = True) -> None:
        """Confirm what is under way until nothing is."""
        place = 0
        while place < len(self.sent):
            self.sent[place][2](confirmed)
            place += 1

    def statuses(self, to_pybit: bool = False) -> list[str]:
        return [update.status for update, told, _ in self.sent if told or not to_pybit]

    def test_each_status_is_published_in_order_and_one_at_a_time(self) -> None:
        updates = self.updates()
        for number, status in enumerate(("Building", "Blocked", "Building"), 1):
            updates.set_status(status)
            self.assertEqual(len(self.sent), 1, "the first is under way")
            self.assertEqual(updates._waiting.__len__(), number - 1)
        for number in (1, 2, 3):
            self.assertEqual(len(self.sent), number)
            self.sent[-1][2](True)
        self.assertEqual(self.statuses(), ["Building", "Blocked", "Building"])
        self.assertFalse(updates.pending)

    def test_every_set_status_is_published_but_pybit_gets_the_transitions_only(self) -> None:
        updates = self.updates()
        for status, message in (("Building", ""), ("Building", "half"), ("Building", "half"), ("Done", "all")):
            updates.set_status(status, message)
        self.finish(updates, "Done", "all")
        self.confirm_all()
        self.assertEqual(self.statuses(), ["Building"] * 3 + ["Done"] * 2)
        self.assertEqual(self.statuses(to_pybit=True), ["Building", "Done"])
        self.assertEqual([update.message for update, _, _ in self.sent], ["", "half", "half", "all", "all"])
        self.assertEqual([update.final for update, _, _ in self.sent], [False] * 4 + [True])

    def test_update_says_what_its_job_is(self) -> None:
        updates = self.updates(job=None)
        updates.name("q job 7", 7)
        updates.set_status("Building", "now")
        update = self.sent[0][0]
        self.assertEqual(
            (update.job, update.queue, update.client, update.status, update.message, update.attempt, update.final),
            (7, "q", "bob-villa", "Building", "now", 2, False),
        )
        self.assertGreater(update.time, 1.7e9)

    def test_status_of_what_is_no_build_request_is_published_but_not_for_pybit(self) -> None:
        for updates in (self.updates(job=None), self.updates(to_pybit=False)):
            self.sent.clear()
            updates.set_status("Building")
            self.finish(updates, "Done")
            self.assertFalse(updates.owed)
            self.assertTrue(updates.pending)
            self.confirm_all()
            self.assertEqual((self.statuses(), self.statuses(to_pybit=True)), (["Building", "Done"], []))

    def test_the_end_is_told_when_all_is_published_and_not_before(self) -> None:
        updates = self.updates()
        updates.set_status("Building")
        self.finish(updates, "Done")
        self.assertEqual(self.told, [])
        self.sent[0][2](True)
        self.assertEqual((self.told, updates.pending, updates.owed), ([], True, True))
        self.sent[1][2](True)
        self.assertEqual((self.told, updates.pending, updates.owed), (["Done"], False, False))

    def test_final_status_that_waits_behind_another_is_pending_without_a_gap(self) -> None:
        updates = self.updates()
        updates.set_status("Building")
        self.finish(updates, "Done")
        seen = []
        go_on = updates._go_on
        updates._go_on = lambda: (  # type: ignore[method-assign]
            seen.append(updates.pending) or go_on()  # type: ignore[func-returns-value]
        )
        self.sent[0][2](True)
        self.assertEqual(seen, [True], "else its message could be acknowledged now")

    def test_what_was_given_up_of_pybits_is_owed_for_good_and_said(self) -> None:
        updates = self.updates()
        updates.set_status("Building")
        self.finish(updates, "Failed")
        self.confirm_all(False)
        self.assertTrue(updates.owed and updates.pending)
        for status in ("Building", "Failed"):
            line = f"ERROR:rbit.status:a job: the status {status} was not published before the stop"
            self.assertIn(line, self.logged)

    def test_what_was_given_up_of_others_is_not_owed(self) -> None:
        updates = self.updates(to_pybit=False)
        updates.set_status("Building")
        self.finish(updates, "Done")
        self.confirm_all(False)
        self.assertEqual((self.told, updates.pending, updates.owed), (["Done"], False, False))

    def test_job_that_reports_ever_more_takes_no_more_memory_and_keeps_its_last_statuses(self) -> None:
        updates = self.updates()
        long, most = "x" * 100_000, LARGEST_LANE // 100_000
        sent = [(status, f"{number} {long}") for number in range(100) for status in ("Building", "Waiting")]
        for status, message in sent:
            updates.set_status(status, message)
        self.finish(updates, "Done")
        waiting = list(updates._waiting)
        self.assertLess(sum(len(update.message) for update, _ in waiting), LARGEST_LANE)
        self.confirm_all()
        kept = [(update.status, update.message) for update, _, _ in self.sent]
        self.assertEqual(kept, [sent[0], *sent[len(sent) - len(kept) + 2:], ("Done", "")])
        self.assertGreater(len(kept), most - 2)
        passed_over = [re.search("not published, as newer ones came: ([0-9]+)", line) for line in self.logged]
        self.assertEqual([int(found[1]) for found in passed_over if found], [len(sent) + 1 - len(kept)])

    def test_time_of_each_status_is_later_than_that_of_the_one_before_though_the_clock_goes_back(self) -> None:
        updates = self.updates()
        for now in (2e9, 1e9, 1e9, 3e9, 2e9):
            with mock.patch("rbit.status.time.time", lambda now=now: now):
                updates.set_status("Building")
        self.confirm_all()
        times = [update.time for update, _, _ in self.sent]
        self.assertEqual(times, sorted(set(times)))
        self.assertEqual((times[0], times[3]), (2e9, 3e9))
        self.assertEqual([parse(update.body).time for update, _, _ in self.sent], times)

    def test_burst_of_statuses_is_published_whole(self) -> None:
        updates = self.updates()
        sent = ["Building", "Waiting", "Blocked"] * 1000
        for status in sent:
            updates.set_status(status)
        self.finish(updates, "Done")
        self.confirm_all()
        self.assertEqual(self.statuses(to_pybit=True), [*sent, "Done"])

    def test_progress_of_a_job_crowds_out_no_transition(self) -> None:
        updates = self.updates()
        for number in range(1000):
            updates.set_status("Building", str(number))
        updates.set_status("Blocked")
        for number in range(1000):
            updates.set_status("Blocked", str(number))
        self.finish(updates, "Done")
        self.confirm_all()
        self.assertEqual(self.statuses(to_pybit=True), ["Building", "Blocked", "Done"])

    def test_last_status_is_never_passed_over(self) -> None:
        updates = self.updates()
        last = LARGEST_LANE // LEAST
        for number in range(last + 1):
            updates.set_status(f"status {number}")
        self.finish(updates, f"status {last}", "the end")  # no transition, so PyBit does not get it
        self.confirm_all()
        self.assertEqual((self.sent[-1][0].message, self.sent[-1][0].final), ("the end", True))

    def test_final_status_from_elsewhere_keeps_what_waits_for_the_end_of_the_job(self) -> None:
        updates = self.updates()
        self.finish(updates, "Blocked", final=False)
        updates.set_status("Cancelled", "by request", final=True)
        self.sent[0][2](True)
        self.assertEqual(self.told, [])
        self.sent[1][2](True)
        self.assertEqual((self.told, self.sent[1][0].final), (["Blocked"], True))

    def test_end_that_the_job_has_just_reported_is_logged_once(self) -> None:
        updates = self.updates()
        for status, message in (("Building", ""), ("Done", "all\nof it")):
            updates.set_status(status, message)
        self.finish(updates, "Done", "all\nof it")
        self.assertEqual(self.logged[1:], [
            "INFO:rbit.status:a job: Building", "INFO:rbit.status:a job: Done: all\n    of it",
        ])

    def test_failure_is_a_warning_and_a_name_that_pybit_does_not_have_is_said(self) -> None:
        updates = self.updates()
        updates.set_status("Failed", "no")
        updates.set_status("Frobnicating")
        self.assertEqual(self.logged[1:], [
            "WARNING:rbit.status:a job: Failed: no",
            "WARNING:rbit.status:a job: PyBit has no status 'Frobnicating'; it is passed on as it is",
            "INFO:rbit.status:a job: Frobnicating",
        ])


class ParseTest(unittest.TestCase):
    def test_status_that_no_client_has_published_is_refused(self) -> None:
        good = asdict(Update(1, "q", "bob-villa", "Done", "why", 5.0, 1, True))
        self.assertEqual(parse(json.dumps(good).encode()), Update(**good))
        self.assertEqual(parse(json.dumps({**good, "job": None, "time": 5}).encode()).job, None)
        for field, value in (
            ("time", 10**400), ("time", float("nan")), ("time", float("inf")), ("time", True), ("time", "5"),
            ("attempt", True), ("attempt", 1.5), ("final", 1), ("final", []), ("job", {}), ("job", False),
            ("status", "\ud800"), ("queue", "a\udfff"), ("client", "\ud800"), ("status", None), ("message", 1),
        ):
            with self.subTest(field=field, value=value), self.assertRaisesRegex(BodyRefused, "another type"):
                parse(json.dumps({**good, field: value}).encode())


if __name__ == "__main__":
    unittest.main()
