"""Statuses at PyBit: order, retries, refusals, and PyBit being slow, dead and back."""

from __future__ import annotations

import logging
import time
import unittest

from rbit.config import PybitSettings
from rbit.status import Reporter, Updates
from tests.support.pybit_web import PybitWeb
from tests.support.waiting import wait_until


class ReporterTest(unittest.TestCase):
    def setUp(self) -> None:
        self.web = PybitWeb()
        self.addCleanup(self.web.__exit__, None, None, None)
        for job in (1, 2, 3):
            self.web.add_job(job)

    def reporter(self, password: str = "pass", timeout: float = 5.0) -> Reporter:
        settings = PybitSettings(url=self.web.url, user="admin", password=password, timeout=timeout)
        reporter = Reporter(settings, "bob-villa")
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
            wait_until(lambda: any("ReadTimeout" in line for line in logged.output), what="a timeout")
        self.web.go_on()
        wait_until(lambda: self.statuses(1)[-1] == "Building", what="the update")

    def test_update_that_pybit_answers_with_500_is_tried_five_times_and_holds_up_no_other_job(self) -> None:
        reporter = self.reporter()
        with self.assertLogs("rbit.status", logging.ERROR) as logged:
            reporter.put(99999, "Building", "unknown job")
            reporter.put(1, "Polishing", "unknown status")
            reporter.put(1, "Done", "unknown status")
            for status in ("Building", "Done"):
                reporter.put(2, status, "a good job")
            wait_until(lambda: self.statuses(2) == ["Waiting", "Building", "Done"], what="the good job's updates")
            self.assertTrue(reporter._lanes, "the bad ones are still being tried")
            wait_until(lambda: not reporter._lanes, 60, what="the end of the tries")
        tries = [request.path for request in self.web.requests if request.path == "/job/99999"]
        self.assertEqual(len(tries), 5)
        self.assertEqual(self.statuses(1), ["Waiting", "Done"])
        self.assertEqual(len(logged.output), 2, logged.output)
        self.assertIn("knows no job 99999, or no status of that name", "".join(logged.output))

    def test_wrong_password_is_said_once_with_its_meaning_and_not_tried_again(self) -> None:
        reporter = self.reporter(password="wrong")
        with self.assertLogs("rbit.status", logging.ERROR) as logged:
            reporter.put(1, "Done", "a job")
            reporter.close(10)
        self.assertEqual(len(self.web.requests), 1)
        self.assertEqual(len(logged.output), 1)
        self.assertIn("Done with 401: the user or password in [pybit] is wrong", logged.output[0])

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

    def test_redirect_is_not_followed_with_the_password(self) -> None:
        reporter = self.reporter()
        self.web.fail_next(1, 302)
        with self.assertLogs("rbit.status", logging.ERROR) as logged:
            reporter.put(1, "Done", "a job")
            reporter.close(10)
        self.assertEqual(len(self.web.requests), 1)
        self.assertIn("with 302", logged.output[0])


if __name__ == "__main__":
    unittest.main()
