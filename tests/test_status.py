"""Statuses at PyBit: order, retries, refusals, and PyBit being slow, dead and back."""

from __future__ import annotations

import logging
import re
import threading
import time
import unittest
from unittest import mock

from rbit.config import PybitSettings
from rbit.status import LONGEST_LANE, Reporter, Updates
from rbit.web import Web
from tests.support.pybit_web import PybitWeb
from tests.support.waiting import wait_until

# What is not tried at once is not tried within a test.
long_waits = mock.patch("rbit.status.wait_after", lambda failures: 600.0)


class ReporterTest(unittest.TestCase):
    def setUp(self) -> None:
        self.web = PybitWeb()
        self.addCleanup(self.web.__exit__, None, None, None)
        for job in (1, 2, 3):
            self.web.add_job(job)

    def reporter(self, password: str = "pass", timeout: float = 5.0) -> Reporter:
        settings = PybitSettings(url=self.web.url, user="admin", password=password, timeout=timeout)
        reporter = Reporter(Web(settings, "bob-villa").put)
        reporter.start()
        self.addCleanup(reporter.join, 30)
        self.addCleanup(reporter.close, 0.0)
        return reporter

    def statuses(self, job: int) -> list[str]:
        return [status for status, _ in self.web.history(job)]

    def test_updates_arrive_in_order_with_the_clients_name(self) -> None:
        reporter = self.reporter()
        for status in ("Building", "Blocked", "Waiting", "Building", "Done"):
            reporter.put(1, status, "a job")
        reporter.close(10)
        self.assertEqual(self.web.history(1)[1:], [(status, "bob-villa") for status in (
            "Building", "Blocked", "Waiting", "Building", "Done")])

    def test_same_status_is_sent_once(self) -> None:
        reporter = self.reporter()
        updates = Updates("a job", 1, reporter)
        with self.assertLogs("rbit.status", logging.INFO) as logged:
            for status, message in (("Building", ""), ("Building", "half"), ("Done", "")):
                updates.set_status(status, message)
            updates.finish("Done", "")
            reporter.close(10)
        self.assertEqual(self.statuses(1), ["Waiting", "Building", "Done"])
        self.assertIn("INFO:rbit.status:a job: Building: half", logged.output)
        self.assertEqual(sum("Done" in line for line in logged.output), 1)

    def test_updates_of_a_dead_pybit_arrive_in_order_when_it_is_back(self) -> None:
        self.web.die()
        reporter = self.reporter()
        with self.assertLogs("rbit.status", logging.INFO) as logged:
            for job in (1, 2):
                for status in ("Building", "Done"):
                    reporter.put(job, status, f"job {job}")
            wait_until(lambda: any("PyBit does not answer" in line for line in logged.output), what="the outage")
            self.web.come_back()
            wait_until(lambda: self.statuses(2)[-1:] == ["Done"], what="the last update")
            reporter.close(10)
        for job in (1, 2):
            self.assertEqual(self.statuses(job), ["Waiting", "Building", "Done"])
        self.assertEqual(sum("PyBit answers again" in line for line in logged.output), 1)

    def test_gateway_errors_are_tried_again(self) -> None:
        for code in (502, 503, 504):
            with self.subTest(code):
                self.web.fail_next(2, code)
                reporter = self.reporter()
                reporter.put(1, "Building", "a job")
                wait_until(lambda reporter=reporter: not reporter._lanes, what="the update")
                self.assertEqual(self.statuses(1)[-1], "Building")

    def test_hanging_pybit_is_tried_again_after_the_timeout(self) -> None:
        self.web.hang()
        reporter = self.reporter(timeout=0.3)
        with self.assertLogs("rbit.status", logging.WARNING) as logged:
            reporter.put(1, "Building", "a job")
            wait_until(lambda: any("no answer within 0.3 s" in line for line in logged.output), what="a timeout")
        self.web.go_on()
        wait_until(lambda: self.statuses(1)[-1] == "Building", what="the update")

    def test_update_that_pybit_answers_with_500_is_tried_five_times_and_holds_up_no_other_job(self) -> None:
        reporter = self.reporter()
        with self.assertLogs("rbit.status", logging.ERROR) as logged:
            reporter.put(99999, "Building", "unknown job")
            for status in ("Building", "Done"):
                reporter.put(2, status, "a good job")
            wait_until(lambda: self.statuses(2) == ["Waiting", "Building", "Done"], what="the good job's updates")
            self.assertTrue(reporter._lanes, "the bad one is still being tried")
            wait_until(lambda: not reporter._lanes, 60, what="the end of the tries")
            reporter.close(10)
        tries = [request.path for request in self.web.requests if request.path == "/job/99999"]
        self.assertEqual(len(tries), 5)
        self.assertEqual(len(logged.output), 1, logged.output)
        self.assertIn("5 times; PyBit knows no job 99999, or is broken", logged.output[0])

    @long_waits
    def test_status_of_a_name_that_pybit_does_not_know_is_not_tried_again(self) -> None:
        reporter = self.reporter()
        with self.assertLogs("rbit.status", logging.ERROR) as logged:
            reporter.put(1, "Frobnicating\n2026 ERROR", "a job")
            wait_until(lambda: not reporter._lanes, what="the only try")
            reporter.close(10)
        self.assertEqual(len(self.web.requests), 1)
        refused = "a job: PyBit refused the status Frobnicating\n    2026 ERROR with 500: "
        self.assertEqual(logged.records[0].getMessage(), refused + "PyBit has no status of that name")

    @long_waits
    def test_status_that_pybit_fails_at_holds_up_no_newer_one_of_its_job(self) -> None:
        reporter = self.reporter()
        self.web.fail_next(1, 500)
        with self.assertLogs("rbit.status", logging.WARNING) as logged:
            reporter.put(1, "Building", "a job")
            wait_until(lambda: any("trying again" in line for line in logged.output), what="the failure")
            reporter.put(1, "Done", "a job")
            wait_until(lambda: self.statuses(1) == ["Waiting", "Done"], what="the final status")
        self.web.hang()
        self.web.fail_next(1, 500)
        reporter.put(2, "Building", "another job")
        wait_until(lambda: len(self.web.requests) == 3, what="a request under way")
        reporter.put(2, "Done", "another job")
        self.web.go_on()
        wait_until(lambda: self.statuses(2) == ["Waiting", "Done"], what="the final status")

    @long_waits
    def test_stop_tries_at_once_and_often_what_a_long_wait_holds_up(self) -> None:
        self.web.die()
        reporter = self.reporter()
        with self.assertLogs("rbit.status", logging.INFO) as logged:
            for job in (1, 2):
                reporter.put(job, "Building", f"job {job}")
            wait_until(lambda: any("does not answer" in line for line in logged.output), what="the outage")
            self.web.come_back()
            self.web.fail_next(2, 503)
            reporter.put(1, "Done", "job 1")
            reporter.close(20)
        self.assertEqual(self.statuses(1), ["Waiting", "Building", "Done"], logged.output)
        self.assertEqual(self.statuses(2), ["Waiting", "Building"], logged.output)

    def test_late_in_a_stop_only_the_last_status_of_each_job_is_tried(self) -> None:
        self.web.hang()
        reporter = self.reporter(timeout=60.0)
        for job in (1, 2):
            for status in ("Building", "Waiting", "Building", "Done"):
                reporter.put(job, status, f"job {job}")
        closing = threading.Thread(target=reporter.close, args=(10,))
        closing.start()
        self.addCleanup(closing.join)
        wait_until(lambda: reporter._longest == 1, what="the second half")
        self.web.go_on()
        closing.join()
        self.assertEqual(self.statuses(1), ["Waiting", "Building", "Done"])
        self.assertEqual(self.statuses(2), ["Waiting", "Done"])

    def test_job_that_reports_ever_more_to_a_dead_pybit_takes_no_more_memory(self) -> None:
        self.web.die()
        reporter = self.reporter()
        sent = ["Building", "Waiting", "Blocked"] * 10_000 + ["Done"]
        with self.assertLogs("rbit.status", logging.DEBUG) as logged:
            for status in sent:
                reporter.put(1, status, "a job")
            with reporter._changed:
                self.assertLessEqual(len(reporter._lanes[1].updates), LONGEST_LANE)
            self.web.come_back()
            wait_until(lambda: self.statuses(1)[-1] == "Done", 60, what="the final status")
            reporter.close(10)
        told = self.statuses(1)[1:]
        self.assertEqual(told[-LONGEST_LANE:], sent[-LONGEST_LANE:])
        passed_over = [re.search("not told of, as newer ones came: ([0-9]+)", line) for line in logged.output]
        self.assertEqual(sum(int(found[1]) for found in passed_over if found), len(sent) - len(told))

    def test_many_statuses_at_once_reach_a_quick_pybit_all_and_in_order(self) -> None:
        reporter = self.reporter()
        sent = ["Building", "Waiting", "Blocked"] * 30 + ["Done"]
        for status in sent:
            reporter.put(1, status, "a job")
        wait_until(lambda: len(self.statuses(1)) == len(sent) + 1, what="all of them")
        self.assertEqual(self.statuses(1)[1:], sent)

    def test_error_of_a_library_ends_neither_the_reporter_nor_the_order(self) -> None:
        reporter = self.reporter()
        effects = [ZeroDivisionError, *[mock.DEFAULT] * 9]
        fails = mock.patch.object(reporter, "_send", side_effect=effects, wraps=reporter._send)
        with fails, self.assertLogs("rbit.status", logging.ERROR) as logged:
            for status in ("Building", "Waiting", "Done"):
                reporter.put(1, status, "a job")
            reporter.close(10)
        self.assertEqual(self.statuses(1), ["Waiting", "Waiting", "Done"])
        self.assertIn("the status Building not sent to PyBit", logged.output[0])

    def test_wrong_password_is_said_with_its_meaning_and_ever_more_rarely_until_a_success(self) -> None:
        reporter = self.reporter()
        with self.assertLogs("rbit.status", logging.ERROR) as logged:
            for password, count in (("new", 9), ("pass", 1), ("new", 1)):
                self.web.password = password
                before = len(self.web.requests)
                for number in range(count):
                    reporter.put(1, ("Building", "Waiting")[number % 2], "a job")
                wait_until(lambda: not reporter._lanes, what="the answers")
                self.assertEqual(len(self.web.requests) - before, count)
            reporter.close(10)
        self.assertEqual(len(logged.output), 4 + 1, logged.output)  # numbers 1, 2, 4 and 8; and the last
        self.assertIn("Building with 401: the user or password in [pybit] is wrong", logged.output[0])

    def test_close_waits_no_longer_than_told_and_logs_what_was_not_delivered(self) -> None:
        self.web.hang()
        reporter = self.reporter()
        reporter.put(1, "Building", "a job")
        reporter.put(1, "Done", "a job")
        began = time.monotonic()
        with self.assertLogs("rbit.status", logging.ERROR) as logged:
            reporter.close(0.5)
        self.assertLess(time.monotonic() - began, 4.0)
        self.assertEqual([line.split(": ", 1)[1] for line in logged.output], [
            "PyBit was not told of the status Building before the stop",
            "PyBit was not told of the status Done before the stop",
        ])
        self.web.go_on()

    def test_job_that_pybit_does_not_know_of_is_logged_only(self) -> None:
        reporter = self.reporter()
        with self.assertLogs("rbit.status", logging.INFO):
            Updates("a message", None, reporter).set_status("Done", "")
            Updates("without PyBit", 1, None).set_status("Done", "")
        reporter.close(10)
        self.assertEqual(self.web.requests, [])

    def test_status_after_the_stop_is_logged(self) -> None:
        reporter = self.reporter()
        reporter.close(10)
        self.assertFalse(reporter.is_alive())
        with self.assertLogs("rbit.status", logging.ERROR) as logged:
            reporter.put(1, "Done", "a job")
        self.assertIn("a job: PyBit was not told of the status Done before the stop", logged.output[0])


if __name__ == "__main__":
    unittest.main()
