"""A socket of a service manager: it notes what a service says of itself. It runs in the process that tests."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path


class NotifySocket:
    """The socket; a context manager.

    Arguments:
        abstract: whether it has a name of Linux instead of a file.

    Attributes:
        name: what NOTIFY_SOCKET is to be.
        lines: all lines that came, in their order.
    """

    def __init__(self, abstract: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rbit-test-")
        path = str(Path(self._folder.name) / "notify")
        self.name = f"@{path}" if abstract else path
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path}" if abstract else path)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> NotifySocket:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._reader.join()
        self._socket.close()
        self._folder.cleanup()

    def of(self, key: str) -> list[str]:
        """Return the values of a key, in their order."""
        return [line.partition("=")[2] for line in list(self.lines) if line.startswith(f"{key}=")]

    def _read(self) -> None:
        while data := self._socket.recv(65536):
            self.lines += data.decode("utf-8").split("\n")
