"""What the stand-in for PyBit's web does when told to misbehave."""

from __future__ import annotations

import threading

import requests

from tests.support.pybit_case import BOUND, ExchangeCase
from tests.support.waiting import wait_until


class FaultTest(ExchangeCase):
    """Failures, waits, silence and death."""

    def setUp(self) -> None:
        super().setUp()
        self.web.add_job(5)

    def test_next_requests_fail_and_the_one_after_succeeds(self) -> None:
        self.web.fail_next(1, 503)
        self.web.fail_next(1, 500)
        self.assertEqual([503, 500, 200], [self.put(5, "Done").status_code for _ in range(3)])
        self.assertEqual([("Waiting", None), ("Done", None)], self.web.history(5))

    def test_only_requests_of_a_path_fail(self) -> None:
        self.web.fail_next(2, 503, "/status$")
        status = f"{self.web.url}/job/5/status"
        codes = [requests.get(status, timeout=BOUND).status_code, self.put(5, "Done").status_code]
        codes += [requests.get(status, timeout=BOUND).status_code for _ in range(2)]
        self.assertEqual([503, 200, 503, 200], codes)

    def test_only_requests_of_a_path_are_slow(self) -> None:
        status = f"{self.web.url}/job/5/status"
        self.web.slow(30.0, "/status$")
        with self.assertRaises(requests.ReadTimeout):
            requests.get(status, timeout=0.2)
        self.assertEqual(200, self.put(5, "Done").status_code)
        self.web.slow(0.0, "/status$")
        self.assertEqual(200, requests.get(status, timeout=BOUND).status_code)
        self.web.slow(30.0)
        self.web.slow(0.0, "^/job/5$")
        self.assertEqual(200, self.put(5, "Failed").status_code)
        with self.assertRaises(requests.ReadTimeout):
            requests.get(status, timeout=0.2)

    def test_slow_answer_runs_into_a_timeout_until_it_is_fast_again(self) -> None:
        self.web.slow(30.0)
        with self.assertRaises(requests.ReadTimeout):
            self.put(5, "Done", timeout=0.2)
        self.web.slow(0.0)
        self.assertEqual(200, self.put(5, "Failed").status_code)

    def test_dead_one_refuses_connections_and_comes_back_on_its_port_with_its_jobs(self) -> None:
        self.put(5, "Building")
        port = self.web.port
        self.web.die()
        with self.assertRaises(requests.ConnectionError):
            self.put(5, "Done")
        self.web.come_back()
        self.assertEqual(port, self.web.port)
        self.put(5, "Failed")
        self.assertEqual(["Waiting", "Building", "Failed"], [status for status, _ in self.web.history(5)])

    def test_hanging_one_answers_when_told_to_go_on(self) -> None:
        self.web.hang()
        answers = self.put_in_thread()
        wait_until(lambda: self.web.requests, BOUND, "the request to arrive")
        with self.assertRaises(requests.ReadTimeout):
            requests.get(f"{self.web.url}/job/5", timeout=0.2)
        self.assertEqual(([], None), (answers, self.web.requests[0].status))
        self.web.go_on()
        wait_until(lambda: answers, BOUND, "an answer")
        self.assertEqual([200], answers)

    def test_death_breaks_the_connection_of_a_request_that_hangs(self) -> None:
        self.web.hang()
        answers = self.put_in_thread()
        wait_until(lambda: self.web.requests, BOUND, "the request to arrive")
        self.web.die()
        wait_until(lambda: answers, BOUND, "an error")
        self.assertEqual(["ConnectionError"], answers)
        self.assertEqual([("Waiting", None)], self.web.history(5))

    def put_in_thread(self) -> list[int | str]:
        """Report Done from a thread; its answer's code, or its error's name, appears in the list."""
        answers: list[int | str] = []

        def report() -> None:
            try:
                answers.append(self.put(5, "Done").status_code)
            except requests.RequestException as error:
                answers.append(type(error).__name__)

        thread = threading.Thread(target=report)
        thread.start()
        self.addCleanup(thread.join)
        return answers
