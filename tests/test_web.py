"""One status over HTTP: who is contacted with which password, and how long an answer may take."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from rbit.config import PybitSettings
from rbit.web import Web
from tests.support.case import BrokerCase
from tests.support.pybit_web import PybitWeb
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
        return Web(PybitSettings(url or self.pybit.url, user, "pass", timeout), "bob-villa")

    def environment(self, **variables: str) -> None:
        patch = mock.patch.dict(os.environ, variables)
        patch.start()
        self.addCleanup(patch.stop)

    def test_connection_that_nobody_accepts_is_given_up_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            port = full.getsockname()[1]
            # What the kernel still takes for a server that accepts nobody; the next one waits for ever.
            for _ in range(2):
                waiting = self.enterContext(socket.socket())
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
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "netrc").write_text("machine 127.0.0.1 login admin password pass\n", "utf-8")
        self.environment(NETRC=str(folder / "netrc"))
        self.assertEqual(self.web(user="").put(1, "Done").code, 401)
        self.assertEqual(self.web().put(1, "Done").code, 200)
        self.assertEqual([request.auth for request in self.pybit.requests], [None, ("admin", "pass")])

    def test_status_that_is_no_text_for_utf_8_is_sent_all_the_same(self) -> None:
        self.assertEqual(self.web().put(1, "\udcff").code, 500)
        self.assertEqual(self.pybit.requests[0].form["status"], "?")


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
