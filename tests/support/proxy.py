"""A TCP proxy on 127.0.0.1 between a client and a broker, which can cut, hold, silence and forget.

It runs in a thread of the process that tests. Of AMQP it knows that the name of a connection comes first.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from dataclasses import dataclass, field

CHUNK = 65536  # bytes
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


@dataclass(eq=False)
class Pair:
    """One connection through the proxy.

    Attributes:
        near, far: its sockets, to the client and to the broker.
        silent: whether nothing passes any more.
        beginning: the first bytes of the client, which hold the connection's name.
        held: what came from a socket and is held back, by that socket.
    """

    near: socket.socket
    far: socket.socket
    silent: bool = False
    beginning: bytes = b""
    held: dict[socket.socket, bytes] = field(default_factory=dict)

    def is_called(self, name: str) -> bool:
        """Return whether the client gave the connection this name; every connection has the name ``""``."""
        _, _, found = self.beginning.partition(b"connection_nameS")
        return not name or found[4 : 4 + int.from_bytes(found[:4], "big")] == name.encode()

    def other(self, one: socket.socket) -> socket.socket:
        """Return the socket at the other side."""
        return self.far if one is self.near else self.near


class Proxy:
    """The proxy; a context manager. All methods may be called by any thread.

    Arguments:
        target: the port on 127.0.0.1 to which it connects.
        port: where it listens; 0: on a free one.

    Attributes:
        port: where it listens.
        accepted: how many connections came so far.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0
        self._pairs: list[Pair] = []
        self._silent = False
        self._trap, self._trap_answers = b"", True
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

    def cut(self, name: str = "") -> None:
        """Reset every connection of a name, on both sides; new ones are let through."""
        with self._lock:
            for pair in [pair for pair in self._pairs if pair.is_called(name)]:
                self._drop(pair)

    def hold(self, name: str, answers: bool = True) -> None:
        """Hold back the broker's ``answers``, or what it is sent, on the connections of a name that are there."""
        with self._lock:
            for pair in self._pairs:
                if pair.is_called(name):
                    pair.held.setdefault(pair.far if answers else pair.near, b"")

    def hold_after(self, text: str, answers: bool = True) -> None:
        """Hold back the broker's ``answers`` on each connection from the moment that a client sends this text.

        Or what the client sends, from this text on.
        """
        with self._lock:
            self._trap, self._trap_answers = text.encode(), answers

    @property
    def holds(self) -> bool:
        """Whether something is held back now."""
        with self._lock:
            return any(data for pair in self._pairs for data in pair.held.values())

    def release(self) -> None:
        """Let through what is held back, and hold nothing any more."""
        with self._lock:
            self._trap = b""
            for pair in list(self._pairs):
                held, pair.held = pair.held, {}
                for side, data in held.items():
                    with contextlib.suppress(OSError):
                        pair.other(side).sendall(data)

    def silence(self, on: bool = True) -> None:
        """Let nothing pass on the connections that are there and on new ones: what comes is thrown away.

        With ``on=False`` new connections are let through again; the others stay silent.
        """
        with self._lock:
            self._silent = on
            for pair in self._pairs:
                pair.silent = pair.silent or on

    def forget(self, name: str = "") -> None:
        """Silence the connections of a name that are there, and close their far side only.

        The near one learns nothing.
        """
        with self._lock:
            for pair in [pair for pair in self._pairs if pair.is_called(name)]:
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
        self.accepted += 1
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
            if side is pair.near and len(pair.beginning) < CHUNK:
                pair.beginning += data
            if side is pair.near and self._trap and self._trap in data:
                pair.held.setdefault(pair.far if self._trap_answers else pair.near, b"")
            if data and side in pair.held:
                pair.held[side] += data
            elif data and not pair.silent:
                pair.other(side).sendall(data)
        except OSError:
            data = b""
        if not data and pair.silent and side is pair.near:  # the broker does not learn of it
            self._selector.unregister(side)
            side.close()
        elif not data:
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
