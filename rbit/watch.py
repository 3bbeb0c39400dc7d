"""Shows how jobs go, from the statuses that their clients publish: a live line on a terminal, else plain lines.

Knows nothing of RabbitMQ. Used by ``rbit-submit --wait``.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping

from rbit import update
from rbit.errors import BodyRefused
from rbit.message import GOOD
from rbit.output import printable
from rbit.update import Update

CLEAR = "\r\x1b[K"  # to the beginning of the line, which is erased; see console_codes(4)
LONGEST = 2000  # characters of a message
NARROWEST = 20  # columns of a terminal


class Watch:
    """The jobs that are waited for.

    Arguments:
        labels: how each is shown, by the message id of its message.
        write: writes a text to standard output.
    """

    def __init__(self, labels: Mapping[str, str], write: Callable[[str], object]) -> None:
        self._labels = labels
        self._write = write
        self._open = dict(labels)
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
        """For how long it has been going on."""
        return time.monotonic() - self._began

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
            del self._open[answers]
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
        text = f"[{count}{self.seconds:.0f} s] {self._last or 'waiting for a client'}"
        # One column stays free: a full line would make some terminals begin another.
        width = max(NARROWEST, shutil.get_terminal_size().columns) - 1
        self._write(f"{CLEAR}{text[:width]}")

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
