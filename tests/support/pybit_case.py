"""Test cases with a stand-in for PyBit, which compare it with what was captured of a real one.

It runs in the process that tests and knows nothing of rbit.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import unittest
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests

from tests.support.case import BrokerCase
from tests.support.pybit_web import PybitWeb
from tests.support.waiting import wait_until

CAPTURES = Path(__file__).parent.parent / "captures"
LOGIN = ("admin", "pass")
BOUND = 10.0  # seconds for an answer
TIME = re.compile(r'"time": "\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?"')
QUEUES = ("cnx_any_latex_pdf", "cnx_any_latexenv_pdf")
FIRST_CLIENTS = ("build_client_pyarm01", "build_client_arm02", "build_client_buildbox")  # of a new PyBit


def exchange(name: str) -> Any:
    """Return a captured exchange, the file of this name without its ending."""
    return json.loads((CAPTURES / "http" / f"{name}.json").read_text("utf-8"))


def without_host(body: bytes) -> str:
    """Return a body without the place of the web, which differs with each stand-in."""
    return re.sub(r'"web_host": "127\.0\.0\.1:\d+"', '"web_host": "HOST"', body.decode("ascii"))


def without_ids(body: bytes) -> str:
    """Return a body without the place of the web and without ids."""
    return re.sub(r'"id": \d+', '"id": N', without_host(body))


FORM = exchange("32-vcshook")["request"]["form"]  # a submission


class ExchangeCase(unittest.TestCase):
    """A test with a stand-in, ``self.web``, that is ended after it."""

    web: PybitWeb

    def setUp(self) -> None:
        """Start the stand-in."""
        super().setUp()
        self.web = self.make_web()
        self.addCleanup(self.web.die)

    def make_web(self) -> PybitWeb:
        """Return the stand-in to use."""
        return PybitWeb()

    def add_first_clients(self) -> None:
        """Register the build clients that a new PyBit has, so that ids are as captured."""
        for client in FIRST_CLIENTS:
            self.assertEqual(200, self.call("PUT", "/buildd", data={"name": client}).status_code)

    def call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request, with the login if ``auth`` does not say otherwise, and return its answer."""
        return requests.request(method, self.web.url + path, **{"auth": LOGIN, "timeout": BOUND, **arguments})

    def put(self, job: int, status: str, client: str = "", **more: Any) -> requests.Response:
        """Send an update of a job, with the login; further arguments are those of ``requests.put``."""
        form = {"status": status, "client": client} if client else {"status": status}
        arguments = {"data": form, "auth": LOGIN, "timeout": BOUND, **more}
        return requests.put(f"{self.web.url}/job/{job}", **arguments)

    def raw(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, str]:
        """Send a request with these headers alone; return its answer and the text of it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=BOUND)
        self.addCleanup(connection.close)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response, response.read().decode()

    def replay(self, name: str, password: str = "pass") -> None:
        """Send a captured request and compare the answer with the captured one, times aside.

        Arguments:
            name: of the file in captures/http, without its ending.
            password: what is sent when the captured request had a login.
        """
        with self.subTest(name):
            sent, expected = exchange(name)["request"], exchange(name)["response"]
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


class PybitCase(ExchangeCase, BrokerCase):
    """A test with a stand-in that publishes to the broker; without the queues that the captures name."""

    def setUp(self) -> None:
        """Start the stand-in; delete the queues, now and after the test."""
        super().setUp()
        for queue in QUEUES:
            self.channel.queue_delete(queue)
            self.addCleanup(self.channel.queue_delete, queue)

    def make_web(self) -> PybitWeb:
        """Return a stand-in with the broker of the test."""
        return PybitWeb(broker=self.node)

    def client_queue(self, name: str) -> Any:
        """Declare and bind the command queue of a build client; return the channel of its connection."""
        connection = self.node.connect()
        self.addCleanup(lambda: connection.is_open and connection.close())
        channel = connection.channel()
        channel.exchange_declare("pybit", "direct", durable=True)
        channel.queue_declare(name, exclusive=True, auto_delete=True)
        channel.queue_bind(name, "pybit", name)
        return channel

    def next_message(self, queue: str, channel: Any = None) -> tuple[Any, Any, bytes]:
        """Wait for a message and return its delivery, its properties and its body.

        Arguments:
            queue: its name.
            channel: the one that may read it; None for the test's own.
        """
        found: list[tuple[Any, Any, bytes]] = []

        def got() -> bool:
            message = (channel or self.channel).basic_get(queue, auto_ack=True)
            if message[0] is not None:
                found.append(message)
            return bool(found)

        wait_until(got, what=f"a message in {queue}")
        return found[0]

    def assert_captured(self, name: str, message: tuple[Any, Any, bytes], ids: bool = True) -> None:
        """Fail unless a message has the body, the properties and the key of a capture.

        Arguments:
            name: of the file in captures, without its ending.
            message: as ``next_message`` returned it.
            ids: whether the ids must be those of the capture, too.
        """
        delivery, properties, body = message
        written = without_host if ids else without_ids
        self.assertEqual(written((CAPTURES / f"{name}.json").read_bytes()), written(body))
        expected = json.loads((CAPTURES / f"{name}.properties.json").read_text("utf-8"))
        self.assertEqual(expected["properties"], {key: getattr(properties, key) for key in expected["properties"]})
        self.assertEqual(expected["delivery"]["exchange"], delivery.exchange)
        self.assertEqual(expected["delivery"]["routing_key"], delivery.routing_key)
        host = json.loads(body)["web_host"]
        self.assertEqual(f"127.0.0.1:{self.web.port}", host)

    def add_captured_job(self, job: int, capture: str) -> None:
        """Add a job with the PackageInstance of a captured message."""
        body = json.loads((CAPTURES / f"{capture}.json").read_bytes())
        self.web.add_job(job, body["job"]["packageinstance"])

    def statuses(self, job: int) -> list[str]:
        """Return the statuses of a job, oldest first."""
        return [status for status, _ in self.web.history(job)]

    def hook(self, **changes: str | None) -> requests.Response:
        """Submit with the captured form, changed; None leaves a field out."""
        return self.call("POST", "/job/vcshook", data={**FORM, **changes})
