"""What a process is given, and leaves to read: its lines, and how it ended, in words; any text made harmless.

Knows nothing of jobs: it turns a pipe into whole lines of text, whatever comes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable

# Bytes in a pipe and in one read of it. One read takes all that was printed before it; and as some ten
# thousand lines fit, no more, it does not hold up the thread for long when a job prints without pause.
CHUNK = 1 << 14
DRAIN = 64  # reads; more than a pipe can hold, yet an end when a stray thread prints without pause
LONGEST_LINE = 1 << 14  # bytes; what is longer comes in pieces of this size

SHELL_WORDS = {126: "not executable", 127: "command not found"}
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
CONTROLS |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029)}  # they end a line, too


def visible(text: str) -> str:
    """Returns a text with its control characters shown as ``\\xNN``, but for tabs and newlines."""
    return text.translate(CONTROLS)


def printable(text: str | bytes, limit: int = 80) -> str:
    """Returns a text from a stranger in one line, fit for the log; pika gives bytes for what is not UTF-8.

    Arguments: the text; how many characters of it at most.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "?" for char in text[:limit])


def indented(text: str) -> str:
    """Returns a text with its further lines indented, so that none can pass for an entry of the log."""
    return text.replace("\n", "\n    ")


def pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    """Returns a new pipe; each stack closes its end, ``ours`` the reading one. Errors: OSError."""
    read, write = os.pipe()
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    with contextlib.suppress(PermissionError):  # this user has too much memory in pipes already
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, CHUNK)
    return read, write


def in_memory(body: bytes, before: bytes = b"") -> int:
    """Returns the descriptor of a file in memory that holds ``before`` and ``body``, at its start."""
    fd = os.memfd_create("rbit-body")
    try:
        for part in (before, body):
            view = memoryview(part)
            while view:
                view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError:
        os.close(fd)
        raise
    return fd


class Lines:
    """Reads a pipe and hands over its lines.

    Arguments:
        fd: the reading end; it becomes non-blocking and is closed by ``close``.
        sink: called with each line, without its newline; bytes that are not UTF-8 are shown as ``\\xNN``.
        before: called when something was read, before its lines are handed over.
    """

    def __init__(
        self, fd: int, sink: Callable[[str], None], before: Callable[[], object] = lambda: None
    ) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.open = True  # False after the end of the file
        self._sink = sink
        self._before = before
        self._rest = b""
        self._watched = False

    def register(self, selector: selectors.BaseSelector) -> None:
        """Has the pipe read as it fills, until its end: registered with the function to call."""

        def read() -> None:
            if not self.read() and not self.open:
                self._forget(selector)

        selector.register(self.fd, selectors.EVENT_READ, read)
        self._watched = True

    def read(self) -> bool:
        """Hands over the lines that one read gives; returns False when there is nothing more to read now."""
        try:
            chunk = os.read(self.fd, CHUNK) if self.open else b""
        except BlockingIOError:
            return False
        if not chunk:
            self.open = False
            return False
        self._before()
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            self._give(line)
        while len(self._rest) > LONGEST_LINE:
            piece, self._rest = cut(self._rest)
            self._sink(piece.decode("utf-8", "backslashreplace"))
        return True

    def drain(self) -> None:
        """Hands over all that is in the pipe now, a last line without a newline too."""
        for _ in range(DRAIN):
            if not self.read():
                break
        if self._rest:
            self._give(self._rest)
            self._rest = b""

    def close(self, selector: selectors.BaseSelector) -> None:
        """Closes the descriptor, and has it watched no more."""
        self._forget(selector)
        os.close(self.fd)

    def _forget(self, selector: selectors.BaseSelector) -> None:
        if self._watched:
            selector.unregister(self.fd)
            self._watched = False

    def _give(self, line: bytes) -> None:
        rest: bytes | None = line.rstrip(b"\r")
        while rest is not None:
            piece, rest = cut(rest) if len(rest) > LONGEST_LINE else (rest, None)
            self._sink(piece.decode("utf-8", "backslashreplace"))


def cut(line: bytes) -> tuple[bytes, bytes]:
    """Cuts a line that is too long in two, before the UTF-8 character that stands across the border."""
    for at in range(LONGEST_LINE, LONGEST_LINE - 4, -1):
        if line[at] & 0xC0 != 0x80:  # no character goes on here
            return line[:at], line[at:]
    return line[:LONGEST_LINE], line[LONGEST_LINE:]


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
        """Takes a line; empty ones do not count."""
        if line.strip():
            self._lines.append(line[-self._characters :])

    def text(self) -> str:
        """Returns the lines, joined by newlines; '' when there were none."""
        return "\n".join(self._lines)[-self._characters :]


def forget(selector: selectors.BaseSelector, fd: int) -> None:
    """Has a descriptor watched no more; it may have been forgotten before, at its end of file."""
    if fd in selector.get_map():
        selector.unregister(fd)


def exit_words(code: int) -> str:
    """Returns how a process ended, in words. Arguments: its exit status, or minus the signal's number."""
    if code >= 0:
        return f"exited with status {code} in the middle of the job"
    return f"was {signal_words(-code)}"


def signal_words(number: int) -> str:
    """Returns a signal that ended a process, in words."""
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = "a real-time signal"
    guess = ", perhaps out of memory" if number == signal.SIGKILL else ""
    return f"killed by signal {number} ({name}{guess})"


def command_words(code: int) -> str:
    """Returns the end of a shell command in words; see sh(1), "EXIT STATUS"."""
    if code < 0:
        return signal_words(-code)
    if code in SHELL_WORDS:
        return f"exit status {code} ({SHELL_WORDS[code]})"
    if code > 128 and code - 128 < signal.NSIG:
        return f"exit status {code} ({signal_words(code - 128)})"
    return f"exit status {code}"
