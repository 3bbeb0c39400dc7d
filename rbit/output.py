"""Lines out of the bytes that a job prints.

Knows nothing of jobs: it turns a non-blocking descriptor into whole lines of text, whatever comes. Used
by a slot's thread.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

CHUNK = 1 << 16  # bytes read at once
DRAIN = 64  # reads; more than a pipe can hold, yet an end when a stray thread prints without pause
LONGEST_LINE = 1 << 14  # bytes; what is longer comes in pieces of this size


class Lines:
    """Reads a pipe and hands over its lines.

    Arguments:
        fd: the reading end; it becomes non-blocking and is closed by ``close``.
        sink: called with each line, without its newline; bytes that are not UTF-8 are shown as ``\\xNN``.
    """

    def __init__(self, fd: int, sink: Callable[[str], None]) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.open = True  # False after the end of the file
        self._sink = sink
        self._rest = b""

    def fileno(self) -> int:
        return self.fd

    def read(self) -> bool:
        """Hands over the lines that one read gives; returns False when there is nothing more to read now."""
        try:
            chunk = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return False
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            self._give(line)
        while len(self._rest) >= LONGEST_LINE:
            piece, self._rest = self._rest[:LONGEST_LINE], self._rest[LONGEST_LINE:]
            self._give(piece)
        self.open = bool(chunk)
        return self.open

    def drain(self) -> None:
        """Hands over all that is in the pipe now, a last line without a newline too."""
        for _ in range(DRAIN):
            if not self.read():
                break
        if self._rest:
            self._give(self._rest)
            self._rest = b""

    def close(self) -> None:
        os.close(self.fd)

    def _give(self, line: bytes) -> None:
        for start in range(0, len(line) or 1, LONGEST_LINE):
            piece = line[start : start + LONGEST_LINE]
            self._sink(piece.rstrip(b"\r").decode("utf-8", "backslashreplace"))


class Tail:
    """Remembers the last lines that it was given, for a failure's message.

    Arguments:
        lines: how many lines at the most.
        characters: how many characters at the most, counted from the end.
    """

    def __init__(self, lines: int = 5, characters: int = 2000) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._characters = characters

    def add(self, line: str) -> None:
        if line.strip():
            self._lines.append(line[-self._characters :])

    def text(self) -> str:
        """Returns the lines, joined by newlines; '' when there were none."""
        return "\n".join(self._lines)[-self._characters :]
