"""Whose turn it is to be asked for a message.

Queues are asked in turn, again and again, until all are empty; then not before the next poll, or before
a job has ended. Knows nothing of the broker. Used in the client's main thread.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable


class Rota:
    """The queues' turns.

    Arguments:
        names: the queues.
        poll_time: seconds from the moment that a queue must wait to the next poll; infinity for one poll.
    """

    def __init__(self, names: Iterable[str], poll_time: float) -> None:
        self._turns = deque(names)
        self._poll_time = poll_time
        self._empty: set[str] = set()  # found empty since a job ended
        self._sending: set[str] = set()  # say themselves when a message has come, and had none
        self._held: set[str] = set()  # not to be asked before the next poll, whatever ends
        self._poll_at: float | None = None  # time.monotonic(); None while no queue waits for a poll

    def add(self, name: str) -> None:
        """Has one more queue asked, the next time first; one that is there already stays."""
        if name not in self._turns:
            self._turns.appendleft(name)

    def remove(self, name: str) -> None:
        """Has a queue not asked any more."""
        if name in self._turns:
            self._turns.remove(name)
        self._empty.discard(name)
        self._sending.discard(name)
        self._held.discard(name)

    def poll_every(self, seconds: float) -> None:
        """Changes the time between two polls, and begins with one."""
        self._poll_time = seconds
        self.restart()

    def next(self, full: Callable[[str], bool]) -> str | None:
        """Returns the queue to be asked now, and makes it the last in turn; None when none can be asked.

        Arguments:
            full: whether a queue has as many jobs running as it may have.
        """
        if self._poll_at is not None and time.monotonic() >= self._poll_at:
            self.restart()
        for _ in range(len(self._turns)):
            name = self._turns[0]
            self._turns.rotate(-1)
            if not (name in self._empty or name in self._sending or name in self._held or full(name)):
                return name
        return None

    def restart(self) -> None:
        """Has every queue asked again, as at the beginning of a poll."""
        self._empty.clear()
        self._sending.clear()
        self._held.clear()
        self._poll_at = None

    def found_empty(self, name: str) -> None:
        """Notes that a queue has no message now."""
        self._empty.add(name)
        self._wait_for_poll()

    def sends(self, name: str) -> None:
        """Notes that a queue has no message now, and says itself when one has come."""
        self._sending.add(name)
        self._wait_for_poll()

    def came(self, name: str) -> None:
        """Notes that a message has come from a queue, or is not sent any more: it is to be asked, unless held."""
        self._empty.discard(name)
        self._sending.discard(name)

    def is_held(self, name: str) -> bool:
        """Whether a queue is to be left alone until the next poll."""
        return name in self._held

    def hold(self, name: str) -> None:
        """Leaves a queue alone until the next poll."""
        self._held.add(name)
        self._wait_for_poll()

    def ask_again(self, sending: str | None = None) -> None:
        """Has the empty queues asked once more, and one of those that send; what is held stays held."""
        self._empty.clear()
        self._sending.discard(sending or "")

    def is_done(self, full: Callable[[str], bool]) -> bool:
        """Whether no queue is to be asked before the next poll. Arguments: as of ``next``."""
        still = self._empty | self._sending | self._held
        return all(name in still or full(name) for name in self._turns)

    @property
    def due(self) -> float:
        """time.monotonic() of the next poll; infinity when no queue waits for one."""
        return math.inf if self._poll_at is None else self._poll_at

    def _wait_for_poll(self) -> None:
        # Counted from the first queue that waits, so that a busy queue cannot put the poll off for ever.
        if self._poll_at is None:
            self._poll_at = time.monotonic() + self._poll_time
