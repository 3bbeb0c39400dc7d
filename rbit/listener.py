"""A small HTTP server in a thread of its own, which answers with pages that are made when they are asked for.

However many clients come, and whatever they send or do not read, they take a bounded share: one thread and a few
connections, each for a few seconds, and a new one takes the place of the oldest. Knows nothing of what is on a
page.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

log = logging.getLogger("rbit.listener")

PATIENCE = 5.0  # seconds from the beginning of a connection to its end
MOST = 32  # connections at once
LONGEST_HEAD = 8192  # bytes of a request
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Page:
    """An answer: its body, the type of that, and the HTTP status code."""

    body: bytes
    content_type: str = PLAIN
    status: HTTPStatus = HTTPStatus.OK


class Listener(threading.Thread):
    """The server. It listens from its construction on, answers once it is started, and ends with the process.

    Arguments:
        address: an IP address and a port; port 0: any that is free.
        pages: by path; each is made in the server's thread.

    Attributes:
        url: where it is.

    Errors: OSError when nobody can listen there.
    """

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Callable[[], Page]]) -> None:
        super().__init__(name="listener", daemon=True)
        host, _ = address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server(address, family=family)
        self.url = f"http://{shown(host, self._socket.getsockname()[1])}"
        self._pages = pages
        self._open: dict[asyncio.StreamWriter, None] = {}  # the oldest first

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        # What asyncio finds wrong with a connection is no matter for whoever reads the log.
        asyncio.get_running_loop().set_exception_handler(lambda _, context: log.debug("%s", context["message"]))
        server = await asyncio.start_server(self._take, sock=self._socket, limit=LONGEST_HEAD)
        await server.serve_forever()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection."""
        if len(self._open) >= MOST:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        self._open[writer] = None
        try:
            await asyncio.wait_for(self._talk(reader, writer), PATIENCE)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            log.debug("a client was not served: %r", error)
        finally:
            writer.transport.abort()  # all that was to be sent is with the kernel, or nobody reads it
            self._open.pop(writer, None)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads a request and writes the answer. Errors: IncompleteReadError, OSError."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            head = b""
        method, page = self._page(head.partition(b"\r\n")[0].decode("latin-1").split(" "))
        lines = (
            f"HTTP/1.1 {page.status:d} {page.status.phrase}",
            f"Content-Type: {page.content_type}",
            f"Content-Length: {len(page.body)}",
            "Cache-Control: no-store",
            *(["Allow: GET, HEAD"] if page.status == HTTPStatus.METHOD_NOT_ALLOWED else []),
            "Connection: close",
        )
        writer.transport.set_write_buffer_limits(0)  # so that drain waits until all is with the kernel
        writer.write("\r\n".join((*lines, "\r\n")).encode("latin-1") + (b"" if method == "HEAD" else page.body))
        await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
        while await reader.read(LONGEST_HEAD):  # to its end: what is unread at a close would take the answer away
            pass

    def _page(self, words: list[str]) -> tuple[str, Page]:
        """Returns the method of a request and the answer to it. Arguments: the words of its first line."""
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "", plain(HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        make = self._pages.get(target.partition("?")[0])
        if make is None:
            return method, plain(HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return method, plain(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            return method, make()
        except Exception:  # a fault in a page must not end the server
            log.exception("a page cannot be made")
            return method, plain(HTTPStatus.INTERNAL_SERVER_ERROR)


def shown(host: str, port: int) -> str:
    """Returns an address as it is written in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def plain(status: HTTPStatus) -> Page:
    """Returns a page that says a status code in words."""
    return Page(f"{status.phrase}\n".encode(), status=status)
