"""The stand-in for PyBit's web, tested against what a real one was seen to answer."""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import unittest
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests

from tests.support.pybit_web import STATUSES, PybitWeb
from tests.support.waiting import wait_until

CAPTURES = Path(__file__).parent / "captures" / "http"
TIME = re.compile(r'"time": "\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?"')
LOGIN = ("admin", "pass")
BOUND = 10.0  # seconds


class WebCase(unittest.TestCase):
    """A stand-in that is ended after the test."""

    def setUp(self) -> None:
        self.web = PybitWeb()
        self.addCleanup(self.web.die)

    def put(self, job: int, status: str, client: str = "", **more: Any) -> requests.Response:
        form = {"status": status, "client": client} if client else {"status": status}
        arguments = {"data": form, "auth": LOGIN, "timeout": BOUND, **more}
        return requests.put(f"{self.web.url}/job/{job}", **arguments)

    def raw(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=BOUND)
        self.addCleanup(connection.close)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response, response.read().decode()


class CapturedExchangeTest(WebCase):
    """Each endpoint, replayed from a captured exchange."""

    def replay(self, name: str, password: str = "pass") -> None:
        """Send a captured request and compare the answer with the captured one, times aside."""
        with self.subTest(name):
            exchange = json.loads(next(CAPTURES.glob(f"{name}-*.json")).read_text("utf-8"))
            sent, expected = exchange["request"], exchange["response"]
            headers = {}
            if sent["auth"]:
                headers["Authorization"] = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
            body = sent["body"].encode() if sent["body"] else None
            if sent["form"]:
                body = urlencode(sent["form"]).encode()
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            elif body:
                headers["Content-Type"] = "application/json"
            answer, text = self.raw(sent["method"], sent["path"], body, headers)
            self.assertEqual(
                (expected["version"], expected["status"], expected["reason"]),
                (answer.version, answer.status, answer.reason),
            )
            for header in ("Content-Type", "Www-Authenticate"):
                self.assertEqual(expected["headers"].get(header), answer.headers[header])
            self.assertEqual(str(len(text.encode())), answer.headers["Content-Length"])
            if expected["body"] == "(an HTML error page)":
                self.assertTrue(text.startswith("<!DOCTYPE html>"), text)
            else:
                self.assertEqual(TIME.sub("TIME", expected["body"]), TIME.sub("TIME", text))

    def test_updates_of_a_job_are_answered_as_captured_and_its_history_grows(self) -> None:
        captured = json.loads(next(CAPTURES.glob("76-*.json")).read_text("utf-8"))["response"]["body"]
        for client in ("build_client_pyarm01", "build_client_arm02", "build_client_buildbox"):
            self.assertEqual(200, requests.put(
                f"{self.web.url}/buildd", data={"name": client}, auth=LOGIN, timeout=BOUND
            ).status_code)
        self.web.add_job(9, json.loads(captured)["packageinstance"])
        self.replay("72")
        self.replay("73", password="wrong")
        self.assertEqual([("Waiting", None)], self.web.history(9))
        for name in ("74", "75", "76", "77", "78", "79"):
            self.replay(name)
        self.assertEqual(200, self.put(9, "Waiting").status_code)
        for name in ("81", "82", "84", "86", "88", "90"):
            self.replay(name)
        self.assertEqual(5, len(self.web.history(9)))
        self.replay("96")
        self.replay("97")
        self.replay("161")
        self.assertEqual([
            ("Waiting", None), ("Building", "bob-villa"), ("Blocked", None), ("Waiting", None),
            ("Building", "other"), ("Done", None), ("Building", "bob-villa"),
        ], self.web.history(9))

    def test_job_that_does_not_exist_is_answered_as_captured(self) -> None:
        self.replay("102")
        self.replay("103")

    def test_history_of_a_new_job_and_of_a_building_one_is_answered_as_captured(self) -> None:
        self.web.add_job(1)
        self.replay("33")
        self.web.add_job(10)
        self.put(10, "Building", "bob-villa")
        self.replay("121")

    def test_build_clients_are_sorted_by_name(self) -> None:
        for client in ("build_client_pyarm01", "build_client_arm02", "build_client_buildbox", "bob-villa"):
            self.web.add_job(9)
            self.put(9, "Building", client)
        self.put(9, "Building", "other")
        self.replay("156")


class DescribedBehaviourTest(WebCase):
    """What the description of the protocol says and no single capture shows."""

    def setUp(self) -> None:
        super().setUp()
        self.web.add_job(5)

    def test_every_status_is_taken_after_every_other_and_a_repeat_adds_a_row(self) -> None:
        for status in (*STATUSES, "Done"):
            self.assertEqual(200, self.put(5, status).status_code)
        self.assertEqual(["Waiting", *STATUSES, "Done"], [status for status, _ in self.web.history(5)])

    def test_forms_of_every_kind_are_read(self) -> None:
        basic = {"Authorization": "basic " + base64.b64encode(b"admin:pass").decode()}  # lower case is taken
        plain = "application/x-www-form-urlencoded"
        with_charset = {"Content-Type": f"{plain}; charset=utf-8", "Expect": "100-continue"}
        for more in ({}, {"Content-Type": plain}, with_charset):
            headers = {**basic, **more}
            self.assertEqual(200, self.raw("PUT", "/job/5", b"status=Done&client=c%26d", headers)[0].status)
        self.assertEqual([("Done", "c&amp;d")] * 3, self.web.history(5)[1:])
        self.assertEqual({"status": "Done", "client": "c&d"}, self.web.requests[0].form)
        parts = {"status": (None, "Failed"), "client": (None, "e")}
        self.assertEqual(200, self.put(5, "", data=None, files=parts).status_code)
        self.assertEqual(("Failed", "e"), self.web.history(5)[-1])
        self.assertEqual(200, self.put(
            5, "", data=iter([b"status=Bui", b"lding"]),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        ).status_code)
        self.assertEqual(("Building", None), self.web.history(5)[-1])

    def test_request_without_a_usable_status_is_refused_and_changes_nothing(self) -> None:
        for expected, answer in (
            (400, self.put(5, "")),
            (400, self.put(5, "", data=None, params={"status": "Done"})),
            (400, self.put(5, "", data=None, json={"status": "Done"})),
            (500, self.put(5, "building")),
            (401, self.put(99, "Done", auth=None)),
            (404, requests.get(f"{self.web.url}/job/5/", timeout=BOUND)),
            (404, requests.get(f"{self.web.url}/job/5/status/", timeout=BOUND)),
        ):
            self.assertEqual(expected, answer.status_code)
        self.assertEqual([("Waiting", None)], self.web.history(5))

    def test_build_client_is_registered_once_and_by_name(self) -> None:
        url = f"{self.web.url}/buildd"
        calls = ((401, "a", None), (200, "a", LOGIN), (500, "a", LOGIN), (400, "", LOGIN))
        for expected, name, auth in calls:
            answer = requests.put(url, data={"name": name}, auth=auth, timeout=BOUND)
            self.assertEqual(expected, answer.status_code)
        self.assertEqual(["a"], [client["name"] for client in requests.get(url, timeout=BOUND).json()])

    def test_every_request_is_recorded(self) -> None:
        self.put(5, "Done", "bob-villa")
        self.put(5, "Done", auth=("admin", "wrong"))
        requests.get(f"{self.web.url}/job/5/status?x=1", timeout=BOUND)
        first, second, third = self.web.requests
        self.assertEqual(("PUT", "/job/5", LOGIN, 200), (first.method, first.path, first.auth, first.status))
        self.assertEqual({"status": "Done", "client": "bob-villa"}, first.form)
        self.assertEqual((("admin", "wrong"), 401), (second.auth, second.status))
        self.assertEqual(("GET", "/job/5/status?x=1", None), (third.method, third.path, third.auth))
        self.assertLessEqual(first.time, second.time)


class FaultTest(WebCase):
    """What the stand-in does when told to misbehave."""

    def setUp(self) -> None:
        super().setUp()
        self.web.add_job(5)

    def test_next_requests_fail_and_the_one_after_succeeds(self) -> None:
        self.web.fail_next(1, 503)
        self.web.fail_next(1, 500)
        self.assertEqual([503, 500, 200], [self.put(5, "Done").status_code for _ in range(3)])
        self.assertEqual([("Waiting", None), ("Done", None)], self.web.history(5))

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
