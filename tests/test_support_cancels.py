"""The cancels of the stand-in for PyBit and its look at build clients, tested against what a real one did."""

from __future__ import annotations

import json
import shutil
import subprocess
import unittest
from itertools import product

import pika

from tests.support.processes import free_port
from tests.support.pybit_case import PybitCase
from tests.support.pybit_control import version_order
from tests.support.pybit_web import PybitWeb

QUEUE = "cnx_any_latex_pdf"


class CancelTest(PybitCase):
    """Jobs cancelled by a call."""

    def test_cancel_of_a_building_job_is_answered_and_published_as_captured_and_writes_nothing(self) -> None:
        client = self.client_queue("bob-villa")
        self.add_first_clients()
        self.add_captured_job(10, "cancel_request")
        self.replay("118-building")
        self.replay("119-cancel-noauth")
        self.assertIsNone(client.basic_get("bob-villa")[0])
        for _ in range(2):  # each call sends one
            self.replay("120-cancel-auth")
            self.assert_captured("cancel_request", self.next_message("bob-villa", client))
        self.replay("121-hist-after-cancel-10")
        self.put(10, "Cancelled")
        self.assertEqual(["Waiting", "Building", "Cancelled"], self.statuses(10))

    def test_cancel_of_a_waiting_job_is_answered_as_captured_and_written_by_the_web(self) -> None:
        self.add_captured_job(11, "cancel_request")
        self.replay("126-cancel-waiting")
        self.replay("127-hist-11")

    def test_cancel_without_a_listener_is_answered_as_captured_and_lost(self) -> None:
        self.web.add_job(13)
        self.replay("139-building2")
        self.replay("140-cancel-no-listener")
        self.replay("141-hist-13")

    def test_job_that_is_not_building_is_cancelled_whatever_it_is_and_keeps_its_client(self) -> None:
        client = self.client_queue("bob-villa")
        for status in ("Waiting", "Blocked", "Failed", "Done", "Cancelled", "Uploaded"):
            with self.subTest(status):
                self.web.add_job(5)
                self.put(5, status, "bob-villa")
                self.assertEqual(202, self.call("GET", "/job/5/cancel").status_code)
                self.assertEqual([(status, "bob-villa"), ("Cancelled", None)], self.web.history(5)[1:])
                rows = self.call("GET", "/job/5/status").json()
                self.assertEqual(["bob-villa"] * 3, [row["buildclient"] for row in rows])
        self.web.add_job(6)
        self.put(6, "Building")  # no client
        self.web.cancel(6)
        self.assertEqual(["Waiting", "Building", "Cancelled"], self.statuses(6))
        self.assertIsNone(client.basic_get("bob-villa")[0])
        self.assertEqual(500, self.call("GET", "/job/99/cancel").status_code)

    def test_all_unfinished_jobs_are_cancelled_with_one_call(self) -> None:
        client = self.client_queue("bob-villa")
        for job, status in enumerate(("Waiting", "Building", "Failed", "Done", "Uploaded", "Cancelled"), start=1):
            self.web.add_job(job)
            self.put(job, status, "bob-villa")
        for method, path in (("GET", "/job/cancelall"), ("DELETE", "/job")):  # not captured; the second only read
            self.assertEqual(202, self.call(method, path).status_code)
            self.assertEqual(2, json.loads(self.next_message("bob-villa", client)[2])["job"]["id"])
            self.assertIsNone(client.basic_get("bob-villa")[0])
            self.assertEqual(
                ["Cancelled", "Building", "Cancelled", "Done", "Uploaded", "Cancelled"],
                [self.statuses(job)[-1] for job in range(1, 7)],
            )
        self.assertEqual(3, len(self.statuses(1)))

    def test_broker_that_cannot_be_reached_fails_the_cancel_and_the_submission(self) -> None:
        port = free_port()
        with PybitWeb(broker=lambda: pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))) as web:
            self.web = web
            web.add_job(5)
            self.assertEqual(500, self.call("GET", "/job/5/cancel").status_code)
            self.assertEqual(500, self.hook().status_code)
            self.assertEqual("Not Active", self.call("GET", "/buildd/bob-villa/status").text)
            self.assertEqual(["Waiting"], self.statuses(5))
            self.assertEqual([5], [job["id"] for job in self.call("GET", "/job").json()])


class SupersedingTest(PybitCase):
    """Jobs cancelled by a newer submission."""

    def test_building_job_is_sent_the_captured_request_before_the_new_one_is_published(self) -> None:
        client = self.client_queue("bob-villa")
        self.add_first_clients()
        self.add_captured_job(10, "cancel_request.superseded")
        self.replay("118-building")
        self.assertEqual(11, self.web.submit(package="canceltest"))
        self.assert_captured("cancel_request.superseded", self.next_message("bob-villa", client))
        self.assertEqual(11, json.loads(self.next_message(QUEUE)[2])["job"]["id"])
        self.assertEqual(["Waiting", "Building"], self.statuses(10))

    def test_waiting_job_is_cancelled_and_its_message_stays(self) -> None:
        old, new = self.web.submit(), self.web.submit()
        self.assertEqual((["Waiting", "Cancelled"], ["Waiting"]), (self.statuses(old), self.statuses(new)))
        bodies = [self.next_message(QUEUE)[2] for _ in range(2)]
        self.assertEqual([old, new], [json.loads(body)["job"]["id"] for body in bodies])

    def test_only_what_is_the_same_or_older_is_superseded(self) -> None:
        queue = self.queue_name("any_latex_pdf")
        dist = queue.split("_", maxsplit=1)[0]
        others = [self.queue_name(suffix) for suffix in ("any_latex_epub", "arm_other_pdf", "any_other_pdf")]
        for expected, other, changes in (
            (["Waiting", "Cancelled"], queue, {"version": "1.9"}),
            (["Waiting", "Cancelled"], queue, {"version": "1.10"}),
            (["Waiting", "Cancelled"], queue, {"version": "1.10~rc1"}),
            (["Waiting", "Cancelled"], others[0], {}),  # the format does not count
            (["Waiting"], queue, {"version": "1.11"}),
            (["Waiting"], queue, {"package": "other"}),
            (["Waiting"], others[1], {}),
            (["Waiting"], others[2], {}),
            (["Waiting"], f"{self.queue_name('x_x').split('_')[0]}2_any_latex_pdf", {}),
        ):
            with self.subTest(other, **changes):
                self.queue_name(other.removeprefix(f"{dist}_"))
                old = self.web.submit(other, **{"package": f"of {other} {changes}", **changes})
                name = "new" if "package" in changes else f"of {other} {changes}"
                self.web.submit(queue, package=name, version="1.10")
                self.assertEqual(expected, self.statuses(old))

    def test_job_for_another_build_environment_is_left_alone(self) -> None:
        queue = self.queue_name("any_latex_pdf")
        dist, *names = queue.split("_")
        old = self.web.submit(queue)
        self.web.register(dist, *names, build_env="wheezy")
        form = {"packageinstance_id": "1", "method": "git", "uri": "u", "vcs_id": "v"}
        self.assertEqual(200, self.call("PUT", "/job", data=form).status_code)
        jobs = self.call("GET", "/job").json()
        environments = [job["packageinstance"]["build_env"] for job in jobs]
        self.assertEqual([None, None, "wheezy"], [env and env["name"] for env in environments])
        self.assertEqual(["Waiting", "Cancelled"], self.statuses(old))
        # The job for wheezy superseded neither of them, and a retry of it neither.
        self.assertEqual(200, self.call("GET", "/job/3/retry").status_code)
        self.assertEqual((["Waiting"], ["Waiting", "Cancelled"]), (self.statuses(2), self.statuses(3)))

    def test_job_is_superseded_though_the_new_one_then_fails(self) -> None:
        old = self.web.submit()
        self.assertEqual(500, self.hook(vcs_id=None).status_code)
        self.assertEqual((["Waiting", "Cancelled"], ["Waiting"]), (self.statuses(old), self.statuses(2)))


class ActiveTest(PybitCase):
    """What the web says about a build client."""

    def test_client_is_active_while_another_connection_holds_its_queue_as_captured(self) -> None:
        self.replay("114-buildd-status-noqueue")
        channel = self.client_queue("bob-villa")
        self.replay("115-buildd-status-exclusive")
        channel.basic_consume("bob-villa", lambda *_: None, auto_ack=True)
        self.replay("116-buildd-status-exclusive-again")
        channel.connection.close()
        self.wait_until(lambda: self.call("GET", "/buildd/bob-villa/status").text == "Not Active")

    def test_queue_that_is_not_exclusive_makes_no_active_client(self) -> None:
        queue = self.declare(self.queue_name("client x"))
        answer = self.call("GET", f"/buildd/{queue.replace(' ', '%20')}/status", auth=None)
        self.assertEqual((200, "Not Active"), (answer.status_code, answer.text))


class VersionOrderTest(unittest.TestCase):
    """Which version is the older one."""

    @unittest.skipUnless(shutil.which("dpkg"), "there is no dpkg here")
    def test_versions_are_ordered_as_dpkg_orders_them(self) -> None:
        versions = (
            "1.0", "1.0-0", "1.0-1", "1.0~rc1", "1.0~", "1.0a", "1.0+b1", "1.00", "1.9", "1.10", "2", "1:0.1",
            "1.0-1~bpo1", "1.0-1.1", "0", "1.0.0", "1.0-a-1",
        )
        for one, other in product(versions, versions):
            with self.subTest(one=one, other=other):
                command = ["dpkg", "--compare-versions", one, "<<", other]
                older = subprocess.run(command, check=False, capture_output=True).returncode == 0
                self.assertEqual(older, version_order(one) < version_order(other))
