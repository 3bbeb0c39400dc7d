"""The HTTP server for metrics, over real connections: what it answers, and that nobody holds it up."""

from __future__ import annotations

import contextlib
import socket
import unittest
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from unittest import mock
from urllib.parse import urlsplit

import psutil

from rbit.listener import LONGEST_HEAD, MOST, Listener, Page
from tests.support.waiting import wait_until

LARGE = b"x" * (64 << 20)  # bytes; more than the kernel keeps of an answer that nobody reads
FOR_EVER = 1000.0  # seconds


def fails() -> Page:
    """Make no page."""
    raise ValueError("no page today")


class ListenerTest(unittest.TestCase):
    def start(self, host: str = "127.0.0.1", patience: float = FOR_EVER) -> Listener:
        """Start a server; it is at ``self.address``, and gives a connection so many seconds."""
        patch = mock.patch("rbit.listener.PATIENCE", patience)
        patch.start()
        self.addCleanup(patch.stop)
        pages = {"/page": lambda: Page(b"hello\n"), "/fails": fails, "/large": lambda: Page(LARGE)}
        listener = Listener((host, 0), pages)
        listener.start()
        parts = urlsplit(listener.url)
        self.address = parts.hostname or "", parts.port or 0
        return listener

    def connect(self, sent: bytes = b"") -> socket.socket:
        """Return a connection on which something was sent; reads on it wait for 30 seconds."""
        connection = socket.create_connection(self.address, 30.0)
        self.addCleanup(connection.close)
        connection.sendall(sent)
        return connection

    def connected(self) -> int:
        """Return how many connections the server has."""
        connections = psutil.Process().net_connections("tcp")
        return sum(each.laddr == self.address and each.status == psutil.CONN_ESTABLISHED for each in connections)

    def ask(self, path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
        """Return what is answered to a request."""
        connection = HTTPConnection(*self.address, timeout=30.0)
        self.addCleanup(connection.close)
        connection.request(method, path)
        response = connection.getresponse()
        return response, response.read()

    def test_pages_are_there_for_get_and_head_and_nothing_else_is(self) -> None:
        self.start()
        for method, path, status, body in (
            ("GET", "/page", 200, b"hello\n"), ("GET", "/page?a=b", 200, b"hello\n"), ("HEAD", "/page", 200, b""),
            ("GET", "/", 404, b"Not Found\n"), ("GET", "/page/", 404, b"Not Found\n"),
            ("POST", "/", 404, b"Not Found\n"), ("POST", "/page", 405, b"Method Not Allowed\n"),
            ("DELETE", "/page", 405, b"Method Not Allowed\n"), ("HEAD", "/none", 404, b""),
        ):
            with self.subTest(f"{method} {path}"):
                response, found = self.ask(path, method)
                self.assertEqual((response.status, found), (status, body))
                allowed = "GET, HEAD" if status == HTTPStatus.METHOD_NOT_ALLOWED else None
                self.assertEqual(response.headers["Allow"], allowed)
        self.assertEqual(self.ask("/page", "HEAD")[0].headers["Content-Length"], "6")

    def test_what_is_no_request_is_refused(self) -> None:
        self.start()
        for sent in (
            b"\r\n\r\n", b"GET\r\n\r\n", b"GET /page\r\n\r\n", b"GET /page SMTP\r\n\r\n",
            b"GET  /page HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\r\n\r\n", b"\xff\x00 \xff \xff\r\n\r\n",
            b"GET /page HTTP/1.1\r\nA: " + b"x" * LONGEST_HEAD + b"\r\n\r\n", b"x" * 2 * LONGEST_HEAD,
        ):
            with self.subTest(sent[:20]):
                self.assertRegex(self.connect(sent).recv(100), rb"^HTTP/1\.1 400 Bad Request\r\n")

    def test_fault_in_a_page_ends_neither_the_server_nor_others(self) -> None:
        self.start()
        with self.assertLogs("rbit.listener", "ERROR") as logs:
            self.assertEqual(self.ask("/fails")[0].status, 500)
        self.assertIn("ValueError: no page today", logs.output[0])
        self.assertEqual(self.ask("/page")[1], b"hello\n")

    def test_whole_large_answer_reaches_who_reads_it(self) -> None:
        self.start()
        self.assertEqual(len(self.ask("/large")[1]), len(LARGE))

    def test_request_comes_in_pieces_and_the_far_side_may_have_closed_its_own(self) -> None:
        self.start()
        connection = self.connect(b"GET /page HT")
        connection.sendall(b"TP/1.1\r\n\r")
        connection.sendall(b"\n")
        connection.shutdown(socket.SHUT_WR)
        self.assertTrue(received(connection).endswith(b"\r\n\r\nhello\n"))

    def test_any_number_of_clients_that_say_nothing_hold_up_nobody_and_only_some_stay(self) -> None:
        self.start()
        idle = [self.connect(b"GET /pa" if number % 2 else b"") for number in range(3 * MOST)]
        self.assertEqual(self.ask("/page")[1], b"hello\n")
        wait_until(lambda: self.connected() <= MOST, what=lambda: f"few connections, not {self.connected()}")
        idle[-1].sendall(b"ge HTTP/1.1\r\n\r\n")
        self.assertTrue(received(idle[-1]).endswith(b"hello\n"))

    def test_client_that_sends_ever_more_is_cut_off(self) -> None:
        self.start(patience=0.3)
        for first, more in ((b"GET /page HTTP/1.1\r\n", b"A"), (b"GET /page HTTP/1.1\r\n\r\n", b"A" * 100_000)):
            connection = self.connect(first)

            def is_cut_off() -> bool:
                try:
                    connection.sendall(more)  # noqa: B023
                except OSError:
                    return True
                return False

            wait_until(is_cut_off, what="the end of the connection")

    def test_client_that_reads_nothing_holds_up_nobody(self) -> None:
        self.start()
        connection = self.connect(b"GET /large HTTP/1.1\r\n\r\n")
        self.assertEqual(connection.recv(12), b"HTTP/1.1 200")
        self.assertEqual(self.ask("/page")[1], b"hello\n")

    def test_client_that_reads_nothing_is_cut_off(self) -> None:
        self.start(patience=0.3)
        connection = self.connect(b"GET /large HTTP/1.1\r\n\r\n")
        self.assertEqual(connection.recv(12), b"HTTP/1.1 200")
        wait_until(lambda: self.connected() == 0, what="the end of the connection")
        self.assertLess(len(received(connection)), len(LARGE))

    def test_it_listens_at_an_address_of_the_other_family(self) -> None:
        try:
            listener = self.start("::1")
        except OSError as error:
            self.skipTest(f"there is no ::1 here: {error}")
        self.assertRegex(listener.url, r"^http://\[::1\]:[1-9]\d*$")
        self.assertEqual(self.ask("/page")[1], b"hello\n")


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the end of a connection."""
    parts = [b""]
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


if __name__ == "__main__":
    unittest.main()
