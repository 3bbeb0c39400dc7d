"""A TCP proxy on 127.0.0.1 between a client and a broker, which can cut, silence and forget.

It runs in a thread of the process that tests, and knows nothing of AMQP.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from dataclasses import dataclass

CHUNK = 65536  # bytes
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


@dataclass(eq=False)
class Pair:
    """One connection through the proxy: its two sockets, and whether nothing passes any more."""

    near: socket.socket
    far: socket.socket
    silent: bool = False

    def other(self, one: socket.socket) -> socket.socket:
        """Return the socket at the other side."""
        return self.far if one is self.near else self.near


class Proxy:
    """The proxy; a context manager. All methods may be called by any thread.

    Arguments:
        target: the port on 127.0.0.1 to which it connects.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[Pair] = []
        self._silent = False
        self._closed = False
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self._thread.join(10)
        self.cut()
        self._listener.close()
        self._selector.close()

    def cut(self) -> None:
        """Reset every connection, on both sides; new ones are let through."""
        with self._lock:
            for pair in list(self._pairs):
                self._drop(pair)

    def silence(self, on: bool = True) -> None:
        """Let nothing pass on the connections that are there and on new ones: what comes is thrown away.

        With ``on=False`` new connections are let through again; the others stay silent.
        """
        with self._lock:
            self._silent = on
            for pair in self._pairs:
                pair.silent = pair.silent or on

    def forget(self) -> None:
        """Silence the connections that are there, and close their far side only: the near one learns nothing."""
        with self._lock:
            for pair in self._pairs:
                pair.silent = True
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(pair.far)
                pair.far.close()

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.events & selectors.EVENT_READ and key.data in self._pairs:
                        self._pass(key.data, key.fileobj)  # type: ignore[arg-type]

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.target), 5.0)
        except OSError:
            near.close()
            return
        pair = Pair(near, far, self._silent)
        self._pairs.append(pair)
        for side in (near, far):
            self._selector.register(side, selectors.EVENT_READ, pair)

    def _pass(self, pair: Pair, side: socket.socket) -> None:
        try:
            data = side.recv(CHUNK)
            if data and not pair.silent:
                pair.other(side).sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(pair)

    def _drop(self, pair: Pair) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
        for side in (pair.near, pair.far):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(side)
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            side.close()
