"""A command on a terminal of its own, started, watched and interrupted. It runs in the process that tests."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.processes import end

REWRITTEN = "\r\x1b[K"  # before what takes the place of a line


class Terminal:
    """One run of a command; it starts at once, and ``close`` must be called in the end.

    Arguments:
        command: the program and its arguments.
        folder: where it runs.
        columns: of the terminal.
        environment: of the command; None: that of the test.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, columns: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self._near, far = pty.openpty()
        self.resize(columns)
        # Ctrl+C reaches the command though the tests may run where it is ignored.
        own = ("setsid", "--ctty", "env", "--default-signal=INT")
        self._process = subprocess.Popen(
            [*own, *command], cwd=folder, env=environment, stdin=far, stdout=far, stderr=far
        )
        os.close(far)
        self.text = ""  # all that it wrote
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def screen(self) -> str:
        """What stands on it, without what was rewritten."""
        lines = self.text.replace("\r\n", "\n").split("\n")
        return "\n".join(line.split(REWRITTEN)[-1] for line in lines)

    @property
    def lines(self) -> list[str]:
        """Every line that stood on it, those too that were rewritten."""
        return [line for line in re.split("\r\n|" + re.escape(REWRITTEN), self.text) if line]

    def resize(self, columns: int) -> None:
        """Set its width; 0: it does not say."""
        fcntl.ioctl(self._near, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def interrupt(self) -> None:
        """Press Ctrl+C."""
        os.write(self._near, b"\x03")

    def wait(self, bound: float = 60.0) -> int:
        """Wait for the end of the command; return its exit status.

        Errors:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        status = self._process.wait(bound)
        self._reader.join(bound)
        return status

    def close(self) -> None:
        """End the command, if it runs."""
        end(self._process)
        self._reader.join()
        os.close(self._near)

    def _read(self) -> None:
        written = b""
        try:
            while data := os.read(self._near, 65536):
                written += data
                self.text = written.decode(errors="replace")
        except OSError:  # the other side is closed
            pass
