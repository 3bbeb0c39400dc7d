"""What the stand-in for PyBit publishes and finds in RabbitMQ, tested against what a real one was seen to do.

The ids of jobs, packages and clients are brought to those of the captures, so that bodies are equal in full.
"""

from __future__ import annotations

import json

from tests.support.pybit_case import CAPTURES, FORM, PybitCase, without_ids
from tests.support.pybit_model import PybitError


class SubmissionTest(PybitCase):
    """Jobs made and published."""

    def test_submission_is_answered_and_published_as_captured(self) -> None:
        self.replay("32-vcshook")
        self.assert_captured("build_request", self.next_message("cnx_any_latex_pdf"))
        self.replay("33-job1-status")
        form = {
            "packageinstance_id": "1", "method": "git", "uri": "http://example.org/content/col11406",
            "vcs_id": "def456",
        }
        answer = self.call("PUT", "/job", data=form)
        self.assertEqual((200, "OK", ""), (answer.status_code, answer.reason, answer.text))
        self.assert_captured("build_request.put_job", self.next_message("cnx_any_latex_pdf"))
        self.assertEqual(["Waiting", "Cancelled"], self.statuses(1))

    def test_further_submissions_are_published_as_captured_with_other_ids(self) -> None:
        self.web.register("cnx", "any", "latexenv", "pdf", build_env="wheezy")
        for capture, changes in (
            ("with_buildenv", {"package": "withenv", "suite": "latexenv"}),
            ("arch_all", {"package": "archall", "architecture_list": "all"}),
            ("empty_vcs_id", {"package": "emptyvcs", "vcs_id": ""}),
        ):
            with self.subTest(capture):
                self.assertEqual(200, self.hook(**changes).status_code)
                queue = f"cnx_any_{changes.get('suite', 'latex')}_pdf"
                self.assert_captured(f"build_request.{capture}", self.next_message(queue), ids=False)

    def test_characters_beyond_ascii_are_published_as_python_2_did(self) -> None:
        # The captures of Python 3 have each byte as a character, an artefact of how they were made.
        self.assertEqual(200, self.hook(package="café", uri="http://example.org/café").status_code)
        body = self.next_message("cnx_any_latex_pdf")[2]
        captured = (CAPTURES / "build_request.nonascii.py27-jsonpickle072.json").read_bytes()
        self.assertEqual(json.loads(without_ids(captured).replace("N", "0")), json.loads(
            without_ids(body).replace("N", "0")
        ))
        self.assertTrue(body.isascii())

    def test_retry_makes_a_new_job_with_its_transport_escaped_once_more_as_captured(self) -> None:
        queue = "cnx_any_latex_pdf"
        self.add_first_clients()
        self.add_captured_job(10, "cancel_request")
        package = json.loads((CAPTURES / "build_request.retry.json").read_bytes())["job"]["packageinstance"]
        self.web.add_job(12, {**package, "id": 10, "package": {**package["package"], "id": 12, "name": "other"}})
        self.assertEqual(13, self.web.submit(package="lostcancel", uri="http://example.org/c?a=1&b=2"))
        self.assertIn(b'"http://example.org/c?a=1&b=2"', self.next_message(queue)[2])
        self.replay("139-building2")
        self.replay("140-cancel-no-listener")
        self.replay("141-hist-13")
        self.put(13, "Failed")
        answer = self.call("GET", "/job/13/retry")
        self.assertEqual((200, "OK", ""), (answer.status_code, answer.reason, answer.text))
        self.assert_captured("build_request.retry", self.next_message(queue))
        self.replay("145-hist-13")
        self.replay("146-hist-14")
        self.assertEqual(200, self.call("GET", "/job/14/retry").status_code)
        self.assert_captured("build_request.retry_of_retry", self.next_message(queue))
        self.replay("152-delete")
        self.replay("153-hist-deleted")

    def test_queue_exchange_and_binding_are_declared_with_each_submission(self) -> None:
        queue = self.queue_name("any_latex_pdf")
        self.web.submit(queue)
        self.channel.queue_declare(queue, durable=True)  # refused if it had other arguments
        self.channel.exchange_declare("pybit", "direct", durable=True)
        self.assertEqual(queue.replace("_", "."), self.next_message(queue)[0].routing_key)
        self.channel.queue_delete(queue)
        self.web.submit(queue)
        self.assertEqual(2, json.loads(self.next_message(queue)[2])["job"]["id"])

    def test_queue_with_other_arguments_fails_the_submission_and_leaves_its_job_waiting(self) -> None:
        queue = self.declare(self.queue_name("any_latex_pdf"), x_message_ttl=60_000)
        self.web.register(*queue.split("_"))
        self.assertEqual(500, self.hook(distribution=queue.split("_")[0]).status_code)
        self.assertEqual(["Waiting"], self.statuses(1))
        self.assertEqual(0, self.depth(queue))
        with self.assertRaises(PybitError):
            self.web.submit(queue)

    def test_incomplete_or_unknown_submissions_are_refused_as_described(self) -> None:
        empty = dict.fromkeys(FORM, "")
        page = "Internal Server Error"
        for expected, changes in (
            *(((400, "- Required fields missing."), {**empty, "vcs_id": vcs_id}) for vcs_id in ("", "v")),
            *(((500, page), {name: None}) for name in FORM if name not in {"vcs_id", "uri", "method"}),
            *(((500, page), {name: "unknown"}) for name in ("suite", "distribution", "format")),
            ((500, "- Error submitting job"), {"architecture_list": "i386"}),
        ):
            with self.subTest(changes):
                answer = self.hook(**changes)
                self.assertEqual(expected, (answer.status_code, answer.reason))
        self.web.blacklist.add("col11406")
        self.replay("32-vcshook")
        self.assertEqual([], self.call("GET", "/job").json())
        self.assertEqual(-1, self.depth("cnx_any_latex_pdf"))
        for expected, form in ((400, {"packageinstance_id": "1", "method": "git"}), (500, {
            "packageinstance_id": "99", "method": "git", "uri": "u", "vcs_id": "v",
        })):
            self.assertEqual(expected, self.call("POST", "/job", data=form).status_code)

    def test_submission_without_a_vcs_id_leaves_a_job_that_waits_and_has_no_message(self) -> None:
        self.assertEqual(500, self.hook(vcs_id=None).status_code)
        self.assertEqual(["Waiting"], self.statuses(1))
        self.assertEqual(500, self.call("GET", "/job/1/retry").status_code)
        self.assertEqual(-1, self.depth("cnx_any_latex_pdf"))

    def test_list_of_arches_is_read_by_substring(self) -> None:
        dist = self.queue_name("any_latex_pdf").split("_", maxsplit=1)[0]
        for arch in ("i386", "armhf"):
            self.queue_name(f"{arch}_two_pdf")
            self.web.register(dist, arch, "two", "pdf")
        self.web.register(dist, "i386", "two", "pdf", build_env="wheezy")
        self.queue_name("i386_two_pdf")
        first, second, third = ("i386", None, True), ("armhf", None, False), ("i386", "wheezy", True)
        for arches, expected in (
            ("company", (first, second, third)), ("any all", (first, second, third)), ("all", (first, third)),
            ("linux-armhf", (("armhf", None, True),)),
        ):
            with self.subTest(arches):
                changes = {"distribution": dist, "suite": "two", "package": arches, "architecture_list": arches}
                before = len(self.call("GET", "/job").json())
                self.assertEqual(200, self.hook(**changes).status_code)
                made = [job["packageinstance"] for job in self.call("GET", "/job").json()[before:]]
                self.assertEqual(list(expected), [
                    (one["arch"]["name"], one["build_env"] and one["build_env"]["name"], one["master"])
                    for one in made
                ])
