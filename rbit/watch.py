"""Shows how jobs go, from the statuses that their clients publish: a live line on a terminal, else plain lines.

Knows nothing of RabbitMQ. Used by ``rbit-submit --wait``.
"""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from collections.abc import Callable

from rbit import update
from rbit.errors import BodyRefused
from rbit.message import GOOD
from rbit.output import printable
from rbit.update import Update

CLEAR = "\r\x1b[K"  # to the beginning of the line, which is erased; see console_codes(4)
LONGEST = 2000  # characters of a message
USUAL = 80  # columns of a terminal that does not say how many it has


class Watch:
    """The jobs that are waited for.

    Arguments:
        write: writes a text to standard output.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._labels: dict[str, str] = {}  # by the message id
        self._open: set[str] = set()  # those that have not ended
        self._good = 0
        self._last = ""
        self._shown: dict[str, str] = {}
        self._live = sys.stdout is not None and sys.stdout.isatty()
        self._began = time.monotonic()
        self.silent = True  # whether nothing was heard of any job

    @property
    def is_over(self) -> bool:
        """Whether the last status of each job has come."""
        return not self._open

    @property
    def all_good(self) -> bool:
        """Whether each of them ended Done or Uploaded."""
        return self._good == len(self._labels)

    @property
    def seconds(self) -> float:
        """For how long it has been going on, since the last job was added."""
        return time.monotonic() - self._began

    def add(self, message_id: str, label: str) -> None:
        """Adds a job. Arguments: the id of its message, by which its statuses are known; how it is shown."""
        self._labels[message_id] = label
        self._open.add(message_id)
        self._began = time.monotonic()

    def knows(self, answers: str | bytes | None) -> bool:
        """Whether a status with this correlation id is one of these jobs'."""
        return answers in self._labels

    def take(self, body: bytes, answers: str | bytes | None) -> None:
        """Shows a status, if it is one of these jobs'. Arguments: as it was published, and its correlation id."""
        if not isinstance(answers, str) or answers not in self._open:
            return
        try:
            said = update.parse(body)
        except BodyRefused:
            return
        self.silent = False
        line = self._line(said, self._labels[answers])
        self._last = self._line(said, short(self._labels[answers]))
        again = line == self._shown.get(answers)  # a job may have reported its last status itself
        self._shown[answers] = line
        if said.final:
            self._open.remove(answers)
            del self._shown[answers]
            self._good += said.status in GOOD
        if self._live and said.final:
            self._write(f"{CLEAR}{line}\n")
        elif not self._live and not again:
            self._write(f"{line}\n")
        self.refresh()

    def refresh(self) -> None:
        """Draws the live line anew, if there is one."""
        if not self._live or self.is_over:
            return
        ended = len(self._labels) - len(self._open)
        count = f"{ended} of {len(self._labels)} ended, " if len(self._labels) > 1 else ""
        text = f"[{count}{self.seconds:.0f} s] {self._last or 'waiting for its turn'}"
        # One column stays free: a full line would make some terminals begin another.
        self._write(f"{CLEAR}{fitted(text, columns() - 1)}")

    def leave(self) -> None:
        """Removes the live line."""
        if self._live:
            self._write(CLEAR)

    @staticmethod
    def _line(said: Update, label: str) -> str:
        text = f"{said.status}: {said.message}" if said.message else said.status
        attempt = f" (attempt {said.attempt})" if said.attempt > 1 else ""
        return f"{label}{attempt}: {printable(' '.join(text.split()), LONGEST)}"


def short(label: str) -> str:
    """Returns how a job is called without its queue, which may be long."""
    return " ".join(label.rsplit(" ", 2)[1:])


def columns() -> int:
    """Returns how wide the terminal is now, in columns."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or USUAL
    except OSError:
        return USUAL


def fitted(text: str, width: int) -> str:
    """Returns as much of a text as has room in so many columns."""
    for at, char in enumerate(text):
        if unicodedata.category(char) not in ("Mn", "Me"):  # these are drawn over the one before
            width -= 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if width < 0:
            return text[:at]
    return text
