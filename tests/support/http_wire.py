"""An HTTP/1.0 server for stand-ins: reads whole requests, asks one function for the answer, writes it.

Each connection is closed after its answer, as wsgiref does. It knows nothing of PyBit. It runs in threads of
the process that tests.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import email.parser
import email.policy
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

HTML = "text/html; charset=UTF-8"


@dataclass
class Request:
    """A request as it was seen; ``status`` is the code of its answer, None while (or if never) answered."""

    time: float  # time.monotonic() when it had been read
    method: str
    path: str  # with the query
    form: dict[str, str]
    auth: tuple[str, str] | None  # user and password of basic authentication
    body: bytes
    headers: dict[str, str]  # names in lower case
    status: int | None = None


@dataclass
class Answer:
    """What goes back for a request: code, reason phrase, text, content type and further headers.

    ``drip`` is the seconds before each byte, of the text only or, with ``drip_head``, of the whole answer.
    """

    status: int
    reason: str = "OK"
    body: str = ""
    content_type: str = HTML
    headers: dict[str, str] = field(default_factory=dict)
    drip: float = 0.0
    drip_head: bool = False


class Server(http.server.ThreadingHTTPServer):
    """A server on 127.0.0.1 that serves from its creation to ``end``.

    Arguments:
        port: the TCP port.
        respond: called with each request, in a thread of its connection; returns its answer, or None to
            close the connection without one.
        tls: what HTTPS is spoken with; None: HTTP.

    Errors:
        OSError: the port is taken.
    """

    daemon_threads = False  # so that end() waits for the handlers

    def __init__(
        self, port: int, respond: Callable[[Request, Server], Answer | None], tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        if tls is not None:  # with the handshake in the thread of each connection
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.respond = respond
        self.gone = threading.Event()  # set when the server is about to end
        self._live: set[socket.socket] = set()
        self._live_lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="stand-in", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Close the port and all connections, and wait for the threads."""
        self.gone.set()
        self.shutdown()
        self._thread.join()
        self.socket.close()
        with self._live_lock:
            for connection in self._live:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection, then handle it in a thread."""
        with self._live_lock:
            self._live.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection and forget it."""
        with self._live_lock:
            self._live.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that give up are what the tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self._read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        form = _read_form(headers.get("content-type", ""), body)
        auth = _read_auth(headers.get("authorization", ""))
        request = Request(time.monotonic(), self.command, self.path, form, auth, body, headers)
        answer = self.server.respond(request, self.server)
        if answer is None:
            return
        quick: Any = self.wfile
        slow = _Dripping(quick, answer.drip, self.server.gone) if answer.drip else quick
        text = answer.body.encode()
        self.wfile = slow if answer.drip_head else quick
        self.send_response(answer.status, answer.reason)
        lines = {"Content-Type": answer.content_type, "Content-Length": str(len(text)), **answer.headers}
        for name, value in lines.items():
            self.send_header(name, value)
        self.end_headers()
        slow.write(text)
        self.wfile = quick

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Dripping:
    """Writes a byte at a time, until the server is about to end."""

    def __init__(self, file: Any, seconds: float, gone: threading.Event) -> None:
        self._file = file
        self._seconds = seconds
        self._gone = gone

    def write(self, data: bytes) -> None:
        for byte in data:
            if self._gone.wait(self._seconds):
                return
            self._file.write(bytes([byte]))


def _read_form(content_type: str, body: bytes) -> dict[str, str]:
    kind = content_type.split(";", maxsplit=1)[0].strip().lower()
    if kind in {"", "application/x-www-form-urlencoded"}:
        return dict(parse_qsl(body.decode("utf-8", errors="replace"), keep_blank_values=True))
    if kind != "multipart/form-data":
        return {}
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    return {
        str(part.get_param("name", header="content-disposition")): str(part.get_payload()).rstrip("\r\n")
        for part in parts.iter_parts()
    }


def _read_auth(header: str) -> tuple[str, str] | None:
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value.strip()).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user, password
