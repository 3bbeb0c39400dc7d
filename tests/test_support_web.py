"""The stand-in for PyBit's web, tested against what a real one was seen to answer."""

from __future__ import annotations

import base64
import json

import requests

from tests.support.pybit_case import BOUND, FIRST_CLIENTS, LOGIN, ExchangeCase, exchange
from tests.support.pybit_web import STATUSES


class CapturedExchangeTest(ExchangeCase):
    """Each endpoint, replayed from a captured exchange."""

    def test_updates_of_a_job_are_answered_as_captured_and_its_history_grows(self) -> None:
        captured = exchange("76-job-after")["response"]["body"]
        self.add_first_clients()
        self.web.add_job(9, json.loads(captured)["packageinstance"])
        self.replay("72-put-noauth")
        self.replay("73-put-badpass", password="wrong")
        self.assertEqual([("Waiting", None)], self.web.history(9))
        for name in (
            "74-put-auth-client", "75-hist-9", "76-job-after", "77-buildd-after", "78-put-auth-noclient",
            "79-hist-9",
        ):
            self.replay(name)
        self.assertEqual(200, self.put(9, "Waiting").status_code)
        for name in (
            "81-put-otherclient", "82-hist-9", "84-put-nostatus", "86-put-unknown-status", "88-put-unknown-job",
            "90-put-json-body",
        ):
            self.replay(name)
        self.assertEqual(5, len(self.web.history(9)))
        self.replay("96-post-instead-of-put")
        self.replay("97-put-after-done")
        self.replay("161-buildd-register")
        self.assertEqual([
            ("Waiting", None), ("Building", "bob-villa"), ("Blocked", None), ("Waiting", None),
            ("Building", "other"), ("Done", None), ("Building", "bob-villa"),
        ], self.web.history(9))

    def test_job_that_does_not_exist_is_answered_as_captured(self) -> None:
        self.replay("102-get_job_99999")
        self.replay("103-get_job_99999_status")

    def test_history_of_a_new_job_and_of_a_building_one_is_answered_as_captured(self) -> None:
        self.web.add_job(1)
        self.replay("33-job1-status")
        self.web.add_job(10)
        self.put(10, "Building", "bob-villa")
        self.replay("121-hist-after-cancel-10")

    def test_build_clients_are_sorted_by_name(self) -> None:
        for client in (*FIRST_CLIENTS, "bob-villa"):
            self.web.add_job(9)
            self.put(9, "Building", client)
        self.put(9, "Building", "other")
        self.replay("156-buildd")

    def test_update_with_the_login_in_the_url_is_answered_as_captured(self) -> None:
        self.web.add_job(18)
        self.replay("183-url-userinfo-noauth")
        self.assertEqual([("Waiting", None), ("Done", None)], self.web.history(18))

    def test_jobs_of_a_build_client_are_answered_as_captured(self) -> None:
        self.add_first_clients()
        for job in json.loads(exchange("160-buildd-jobs")["response"]["body"]):
            self.web.add_job(job["id"], job["packageinstance"])
            self.put(job["id"], "Building", "bob-villa")
        self.web.add_job(14)
        self.put(14, "Building", "other")
        self.replay("160-buildd-jobs")

    def test_deleted_job_stays_with_one_row_without_a_status_as_captured(self) -> None:
        self.web.add_job(15)
        self.replay("152-delete")
        self.replay("153-hist-deleted")
        self.assertEqual(409, self.call("GET", "/job/15/delete").status_code)  # only read
        self.assertEqual([], self.web.history(15))
        self.put(15, "Failed")
        self.assertEqual([("Failed", None)], self.web.history(15))


class DescribedBehaviourTest(ExchangeCase):
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

    def test_lists_hold_all_jobs_the_unfinished_ones_and_those_of_a_status(self) -> None:
        for job, status in ((9, "Done"), (8, "Uploaded"), (7, "Cancelled"), (6, "Failed"), (4, "Building")):
            self.web.add_job(job)
            self.put(job, status, "bob-villa")
        self.web.add_job(10)
        self.call("DELETE", "/job/10")
        for path, expected in (
            ("/job", [4, 5, 6, 7, 8, 9, 10]), ("/job/", [4, 5, 6, 7, 8, 9, 10]), ("/job/status", [4, 5, 6]),
            ("/job/status/Failed", [6]), ("/job/status/failed", []), ("/job/status/Exploded", []),
        ):
            with self.subTest(path):
                answer = self.call("GET", path, auth=None)
                self.assertEqual((200, "application/json"), (answer.status_code, answer.headers["Content-Type"]))
                self.assertEqual(expected, [job["id"] for job in answer.json()])
        one = self.call("GET", "/job/4", auth=None).json()
        self.assertEqual([one], self.call("GET", "/job/status/Building", auth=None).json())
        self.assertEqual({"py/object": "pybit.models.BuildD", "id": 1, "name": "bob-villa"}, one["buildclient"])

    def test_one_build_client_is_shown_by_its_id(self) -> None:
        self.put(5, "Building", "bob-villa")
        answer = self.call("GET", "/buildd/1", auth=None)
        self.assertEqual({"py/object": "pybit.models.BuildD", "id": 1, "name": "bob-villa"}, answer.json())
        self.assertEqual(404, self.call("GET", "/buildd/2", auth=None).status_code)
        self.assertEqual(404, self.call("GET", "/buildd/2/jobs", auth=None).status_code)

    def test_path_with_a_slash_too_many_or_a_wrong_method_is_refused(self) -> None:
        for method, path, expected in (
            ("GET", "/job/5/", 404), ("GET", "/job/5/status/", 404), ("GET", "/job/5/cancel/", 404),
            ("GET", "/job/status/", 404), ("GET", "/job/five", 404), ("GET", "/buildd/1/", 404), ("GET", "/", 404),
            ("PUT", "/job/5/cancel", 405), ("PUT", "/job/5/status", 405), ("POST", "/job/cancelall", 405),
        ):
            with self.subTest(path):
                answer = self.call(method, path)
                self.assertEqual(expected, answer.status_code)
                self.assertTrue(answer.text.startswith("<!DOCTYPE html>"), answer.text)

    def test_login_is_asked_for_before_anything_else(self) -> None:
        self.replay("119-cancel-noauth")  # and there is no job 10
        for method, path in (
            ("PUT", "/job"), ("POST", "/job/vcshook"), ("DELETE", "/job"), ("GET", "/job/cancelall"),
            ("GET", "/job/99/retry"), ("DELETE", "/job/99"), ("GET", "/job/99/delete"), ("PUT", "/buildd"),
        ):
            with self.subTest(path):
                self.assertEqual(401, self.call(method, path, auth=("admin", "wrong")).status_code)
        self.web.password = "other"
        self.assertEqual(401, self.put(5, "Done").status_code)
        self.assertEqual(404, self.call("DELETE", "/job/99", auth=("admin", "other")).status_code)

    def test_without_rabbitmq_what_needs_it_fails_and_changes_nothing(self) -> None:
        form = {"packageinstance_id": "5", "method": "git", "uri": "u", "vcs_id": "v"}
        for method, path, data in (
            ("GET", "/job/5/cancel", None), ("GET", "/job/5/retry", None), ("GET", "/job/cancelall", None),
            ("PUT", "/job", form), ("GET", "/job/99/cancel", None), ("GET", "/job/99/retry", None),
        ):
            with self.subTest(path):
                answer = self.call(method, path, data=data)
                self.assertEqual((500, "Internal Server Error"), (answer.status_code, answer.reason))
        self.assertEqual([5], [job["id"] for job in self.call("GET", "/job").json()])
        self.assertEqual([("Waiting", None)], self.web.history(5))
        self.assertEqual("Not Active", self.call("GET", "/buildd/bob-villa/status", auth=None).text)

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
