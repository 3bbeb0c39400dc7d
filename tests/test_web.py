"""One status over HTTP: who is contacted with which password, and how long an answer may take."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from rbit.message import Entry
from rbit.web import Web
from tests.support.case import BrokerCase
from tests.support.contexts import enter
from tests.support.http_wire import Answer as Wire
from tests.support.http_wire import Request, Server
from tests.support.processes import free_port
from tests.support.pybit_web import PybitWeb
from tests.support.settings import pybit_settings
from tests.test_loop import CAPTURE


class WebTest(unittest.TestCase):
    def setUp(self) -> None:
        self.pybit = self.server()
        self.pybit.add_job(1)

    def server(self) -> PybitWeb:
        server = PybitWeb()
        self.addCleanup(server.die)
        return server

    def web(self, user: str = "admin", timeout: float = 10.0, url: str = "") -> Web:
        return Web(pybit_settings(url or self.pybit.url, user, timeout), "bob-villa")

    def environment(self, **variables: str) -> None:
        patch = mock.patch.dict(os.environ, variables)
        patch.start()
        self.addCleanup(patch.stop)

    def test_connection_that_nobody_accepts_is_given_up_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            port = full.getsockname()[1]
            # What the kernel still takes for a server that accepts nobody; the next one waits for ever.
            for _ in range(2):
                waiting = enter(self, socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            answer = self.web(timeout=0.5, url=f"http://127.0.0.1:{port}").put(1, "Done")
        self.assertEqual((answer.code, answer.words), (None, "no answer within 0.5 s"))

    def test_answer_whose_text_never_ends_counts_at_once(self) -> None:
        self.pybit.drip(0.2)
        self.assertEqual(self.web().put(1, "Done").code, 200)

    def test_answer_whose_head_comes_a_byte_at_a_time_is_given_up_in_time(self) -> None:
        self.pybit.drip(0.2, head=True)
        answer = self.web(timeout=1.0).put(1, "Done")
        self.assertEqual((answer.code, answer.words), (None, "no answer within 1 s"))

    def test_dripping_proxy_is_given_up_in_time_too(self) -> None:
        self.pybit.drip(0.2, head=True)
        self.environment(http_proxy=self.pybit.url, no_proxy="")
        answer = self.web(timeout=1.0, url="http://pybit.example").put(1, "Done")
        self.assertEqual((answer.code, answer.words), (None, "no answer within 1 s"))

    def test_proxy_of_the_environment_is_used_but_not_for_hosts_that_it_excepts(self) -> None:
        proxy = self.server()
        self.environment(http_proxy=proxy.url, no_proxy="127.0.0.1")
        self.assertEqual(self.web().put(1, "Done").code, 200)
        self.assertEqual(proxy.requests, [])
        self.web(url="http://pybit.example").put(1, "Done")
        self.assertEqual(proxy.requests[0].path, "http://pybit.example/job/1")

    def test_redirect_is_not_followed_and_its_address_is_told_without_secrets(self) -> None:
        other = self.server()
        secret = "hunter2"
        self.pybit.redirect(f"http://bob:{secret}@127.0.0.1:{other.port}/new")
        answer = self.web().put(1, "Done")
        self.assertEqual(answer.code, 302)
        self.assertEqual(answer.words, f"the url in [pybit] redirects to '{other.url}/new', put that there")
        self.assertEqual(other.requests, [])
        self.pybit.drip(0.2)  # of 10,000 bytes; none is read
        for nonsense in ("http://[", ""):
            self.pybit.redirect(nonsense)
            self.assertEqual(self.web().put(1, "Done").code, 302)

    def test_passwords_of_netrc_are_not_used(self) -> None:
        folder = Path(enter(self, tempfile.TemporaryDirectory()))
        (folder / "netrc").write_text("machine 127.0.0.1 login admin password pass\n", "utf-8")
        self.environment(NETRC=str(folder / "netrc"))
        self.assertEqual(self.web(user="").put(1, "Done").code, 401)
        self.assertEqual(self.web().put(1, "Done").code, 200)
        self.assertEqual([request.auth for request in self.pybit.requests], [None, ("admin", "pass")])

    def test_status_that_is_no_text_for_utf_8_is_sent_all_the_same(self) -> None:
        self.assertEqual(self.web().put(1, "\udcff").code, 500)
        self.assertEqual(self.pybit.requests[0].form["status"], "?")


class AnswersTest(unittest.TestCase):
    """What PyBit says of a job and of its clients, and what else may come in its place."""

    def setUp(self) -> None:
        self.requests: list[Request] = []
        self.answer = Wire(200)
        self.server = Server(free_port(), self.respond)
        self.addCleanup(self.server.end)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def respond(self, request: Request, server: Server) -> Wire:
        self.requests.append(request)
        return self.answer

    def web(self, timeout: float = 10.0) -> Web:
        return Web(pybit_settings(self.url, timeout=timeout), "bob-villa")

    def last(
        self, body: str, timeout: float | None = None, **answer: object
    ) -> tuple[int | None, str, Entry | None]:
        self.answer = Wire(**{"status": 200, "body": body, **answer})  # type: ignore[arg-type]
        said, entry = self.web().last(7, timeout)
        return said.code, said.words, entry

    def test_last_status_is_that_of_the_last_row_with_the_jobs_client(self) -> None:
        rows = [{"status": "Waiting", "buildclient": None}, {"status": "Building", "buildclient": "b\u00f6b"}]
        self.assertEqual(self.last(json.dumps(rows)), (200, "", Entry("Building", "b\u00f6b")))
        self.assertEqual([request.path for request in self.requests], ["/job/7/status"])

    def test_job_without_a_status_has_an_entry_without_one(self) -> None:
        for body in ("[]", "null", "[{}]", '[{"status": null, "buildclient": null}]'):
            self.assertEqual(self.last(body), (200, "", Entry(None, None)), body)

    def test_answer_that_makes_no_sense_is_none(self) -> None:
        junk = (
            "", "[", '[{"status": "Done"}', '{"status": "Done"}', "1", '"Done"', "[null]", "[[]]", "[1]", "<html>",
            '[{"status": 1}]', '[{"status": "Done", "buildclient": {}}]', "[" * 100_000,
        )
        for body in junk:
            self.assertEqual(self.last(body), (200, "its answer makes no sense", None), body[:50])

    def test_refusals_and_redirects_are_told_with_their_code(self) -> None:
        for code in (401, 404, 500, 503):
            said, _, entry = self.last("[]", status=code)
            self.assertEqual((said, entry), (code, None))
        said, words, _ = self.last("[]", status=302, headers={"Location": f"{self.url}/new/job/7/status"})
        self.assertEqual((said, words), (302, f"the url in [pybit] redirects to '{self.url}/new', put that there"))

    def test_answer_that_breaks_off_is_none(self) -> None:
        said, words, entry = self.last("[]", headers={"Content-Length": "1000"})
        self.assertEqual((said, entry), (None, None))
        self.assertIn("no connection: ", words)

    def test_huge_answer_is_not_read_to_its_end(self) -> None:
        body = "[" + " " * (1 << 24) + "]"
        self.assertEqual(self.last(body), (200, "its answer makes no sense", None))

    def test_slow_head_and_slow_text_are_given_up_in_time(self) -> None:
        for head in (True, False):
            began = time.monotonic()
            said, words, entry = self.last("[" + " " * 1000, timeout=0.5, drip=0.1, drip_head=head)
            self.assertEqual((said, words, entry), (None, "no answer within 0.5 s", None))
            self.assertLess(time.monotonic() - began, 20.0)

    def test_name_that_is_listed_is_not_registered_again(self) -> None:
        self.answer = Wire(200, body='[{"name": "x"}, {"name": "bob-villa"}]')
        self.assertTrue(self.web().register())
        self.assertEqual([request.method for request in self.requests], ["GET"])

    def test_name_that_is_not_listed_is_registered(self) -> None:
        self.answer = Wire(200, body='[{"name": "x"}]')
        self.assertTrue(self.web().register())
        self.assertEqual([request.method for request in self.requests], ["GET", "PUT"])
        put = self.requests[1]
        self.assertEqual((put.path, put.form, put.auth), ("/buildd", {"name": "bob-villa"}, ("admin", "pass")))

    def test_list_of_clients_that_makes_no_sense_registers_nobody(self) -> None:
        for body in ("", "[", "null", "{}1", "[1]", "[null]", '"x"'):
            self.requests.clear()
            self.answer = Wire(200, body=body)
            self.assertTrue(self.web().register(), body)
            self.assertEqual([request.method for request in self.requests], ["GET"], body)

    def test_pybit_that_is_not_there_has_not_answered(self) -> None:
        for code, answered in ((401, True), (404, True), (500, True), (502, False), (503, False), (504, False)):
            self.answer = Wire(code)
            self.assertEqual(self.web().register(), answered, code)
        self.answer = Wire(200, body="[" + " " * 1000, drip=0.1)
        self.assertFalse(self.web(timeout=0.3).register())
        self.assertEqual({request.method for request in self.requests}, {"GET"})


class WebHostTest(BrokerCase):
    def test_host_that_a_message_names_is_never_contacted(self) -> None:
        queue = self.queue_name()
        with PybitWeb() as configured, PybitWeb() as named:
            for server in (configured, named):
                server.add_job(1)
            request = json.loads(CAPTURE) | {"web_host": f"127.0.0.1:{named.port}"}
            self.publish(queue, json.dumps(request))
            pybit = {"url": configured.url, "user": "admin", "password": "pass"}
            rbit = self.rbit(self.ini({queue: {"runner": "shell!true"}}, pybit=pybit), "--once")
            self.assertEqual(rbit.wait(), 0, rbit.output)
            self.assertEqual([status for status, _ in configured.history(1)], ["Waiting", "Building", "Done"])
            self.assertEqual(named.requests, [])


if __name__ == "__main__":
    unittest.main()
