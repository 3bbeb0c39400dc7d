"""Statuses of jobs: into the log, and to the broker's exchange ``rbit.status``.

Knows nothing of queues, slots, HTTP or how a status is published. Used by a slot's thread, by the publisher's
and by the main thread.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rbit.message import FAILED, STATUSES
from rbit.output import indented, printable
from rbit.update import Update

log = logging.getLogger("rbit.status")

LARGEST_LANE = 4 << 20  # characters of the updates of one job that wait; of more, the oldest are passed over
LEAST = 500  # characters that an update counts for, at least
TELLING = 3.0  # seconds that a hurried stop waits for the last status of a job

# Publishes an update, and calls the last argument when it is published (True) or given up (False). The others:
# whether PyBit is to get it, and the message id of its job.
Publish = Callable[[Update, bool, "str | None", Callable[[bool], None]], None]


class Updates:
    """The statuses of one job. They are published in order, one at a time.

    Arguments:
        label: how the log calls the job.
        first: what its updates have in common; its status does not matter.
        answers: the message id of its message, if that has one.
        publish: publishes an update.
        to_pybit: whether PyBit is to get the transitions of a build request.

    Attributes:
        last: the last status; None before the first.
    """

    def __init__(
        self, label: str, first: Update, answers: str | None, publish: Publish, to_pybit: bool = False
    ) -> None:
        self.label = label
        self.to_pybit = to_pybit
        self.last: str | None = None
        self._first = first
        self._answers = answers
        self._publish = publish
        self._last_message = ""
        self._done: Callable[[], None] = nothing
        self._lock = threading.Lock()  # guards what follows
        self._waiting: deque[tuple[Update, bool]] = deque()
        self._under_way: tuple[Update, bool] | None = None
        self._time = 0.0  # of the last one
        self._size = 0  # of those that wait
        self._others = 0  # how many of them are not for PyBit
        self._passed_over = 0
        self._owed = False  # whether one for PyBit was given up

    def __str__(self) -> str:
        return self.label

    @property
    def job(self) -> int | None:
        """PyBit's id of the job; None when its message is no build request."""
        return self._first.job

    @property
    def client(self) -> str:
        """The name of the client."""
        return self._first.client

    @property
    def log_fields(self) -> dict[str, Any]:
        """What a line of the log that names the job says of it, see ``rbit.logs``."""
        first, named = self._first, self._answers
        message_id = None if named is None else printable(named, len(named))
        return {"queue": first.queue, "job": first.job, "message_id": message_id, "attempt": first.attempt}

    def name(self, label: str, job: int) -> None:
        """Notes that the job is one of PyBit's. Arguments: how the log calls it; PyBit's id of it."""
        self.label = label
        self._first = replace(self._first, job=job)

    @property
    def waiting(self) -> int:
        """How many of them the broker has not got."""
        return len(self._waiting) + (self._under_way is not None)

    @property
    def pending(self) -> bool:
        """Whether the broker has not got all of them."""
        with self._lock:
            return self._owed or self._under_way is not None or bool(self._waiting)

    @property
    def owed(self) -> bool:
        """Whether the broker has not got all that are for PyBit."""
        with self._lock:
            under_way = [self._under_way] if self._under_way else []
            return self._owed or any(to_pybit for _, to_pybit in (*under_way, *self._waiting))

    def set_status(self, status: str, message: str = "", final: bool = False) -> None:
        """Logs a status and has it published; PyBit gets it when it differs from the last one.

        Arguments: the status; what else is to be known; whether no further run follows.
        """
        self._say(status, message)
        self._put(status, message, final)

    def finish(self, status: str, message: str, final: bool, done: Callable[[], None]) -> None:
        """Reports how the job ended; the log has it already if the job has just reported the same.

        Arguments:
            status, message: how.
            final: whether no further run follows.
            done: called when the broker has all of its statuses, in the publisher's thread.
        """
        self._done = done
        if (status, message) != (self.last, self._last_message):
            self._say(status, message)
        self._put(status, message, final)

    def close(self) -> None:
        """Notes that nobody waits for them any more. Else a job, and its body, would be its own last user."""
        self._done = nothing

    def _say(self, status: str, message: str) -> None:
        if status not in STATUSES:
            log.warning("%s: PyBit has no status %r; it is passed on as it is", self, status)
        level = logging.WARNING if status == FAILED else logging.INFO
        text = indented(f"{status}: {message}" if message else status)
        log.log(level, "%s: %s", self, text, extra={"status": status})

    def _put(self, status: str, message: str, final: bool) -> None:
        with self._lock:
            # Always later than the one before, though the clock may go back: it says the order.
            self._time = max(math.nextafter(self._time, math.inf), time.time())
            update = replace(self._first, status=status, message=message, time=self._time, final=final)
            to_pybit = self.to_pybit and self.job is not None and status != self.last
            self.last, self._last_message = status, message
            self._waiting.append((update, to_pybit))
            self._size += size_of(update)
            self._others += not to_pybit
            while self._size > LARGEST_LANE and len(self._waiting) > 1:
                self._pass_over()
        self._go_on()

    def _pass_over(self) -> None:
        """Drops the oldest that waits, rather one that is not for PyBit, and never the last."""
        place = 0
        if self._others > (not self._waiting[-1][1]):
            place = next(n for n, (_, to_pybit) in enumerate(self._waiting) if not to_pybit)
        update, to_pybit = self._waiting[place]
        del self._waiting[place]
        self._count_out(update, to_pybit)
        self._passed_over += 1

    def _count_out(self, update: Update, to_pybit: bool) -> None:
        self._size -= size_of(update)
        self._others -= not to_pybit

    def _go_on(self) -> None:
        """Publishes the next one, unless one is under way."""
        with self._lock:
            if self._under_way is not None or not self._waiting:
                return
            self._under_way = update, to_pybit = self._waiting.popleft()
            self._count_out(update, to_pybit)
            passed_over, self._passed_over = self._passed_over, 0
        if passed_over:
            log.info("%s: older statuses that are not published, as newer ones came: %d", self, passed_over)
        self._publish(update, to_pybit, self._answers, self._settle)

    def _settle(self, published: bool) -> None:
        with self._lock:
            update, to_pybit = self._under_way or (self._first, False)
            self._under_way = None
            self._owed = self._owed or (to_pybit and not published)
            over = not self._waiting
        if to_pybit and not published:
            log.error("%s: the status %s was not published before the stop", self, indented(update.status))
        if over:
            self._done()
        self._go_on()


def nothing() -> None:
    """Does nothing."""


def size_of(update: Update) -> int:
    """Returns how many characters an update counts for."""
    return LEAST + len(update.status) + len(update.message)
