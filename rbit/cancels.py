"""The jobs of PyBit that are not to be run any more, and those that have ended.

Knows nothing of messages. Used by the client's main thread and by slots' threads.
"""

from __future__ import annotations

import threading
import time

MOST = 100_000  # jobs of each kind; of more the oldest are forgotten


class Cancels:
    """Remembers. Arguments, and attributes: for how many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._cancelled: dict[int, float] = {}  # time.monotonic() until which it is remembered, oldest first
        self._ended: dict[int, float] = {}

    def add(self, job: int) -> None:
        """Notes that a job which is not here was cancelled."""
        with self._lock:
            remember(self._cancelled, job, self.seconds)

    def forget(self, job: int) -> bool:
        """Notes that a job is not to be remembered as cancelled; returns whether it was."""
        with self._lock:
            return self._cancelled.pop(job, None) is not None

    def is_cancelled(self, job: int) -> bool:
        """Whether a job was cancelled before it came here."""
        with self._lock:
            return is_remembered(self._cancelled, job)

    def begin(self, job: int) -> bool:
        """Notes that a job is here; returns whether it was cancelled before, which counts once."""
        with self._lock:
            self._ended.pop(job, None)
            cancelled = is_remembered(self._cancelled, job)
            self._cancelled.pop(job, None)
            return cancelled

    def end(self, job: int) -> None:
        """Notes that a job has ended here for good."""
        with self._lock:
            remember(self._ended, job, self.seconds)

    def has_ended(self, job: int) -> bool:
        """Whether a job has ended here, so that there is nothing left to cancel."""
        with self._lock:
            return is_remembered(self._ended, job)


def remember(jobs: dict[int, float], job: int, seconds: float) -> None:
    """Adds a job, and drops what is too old or too much."""
    now = time.monotonic()
    jobs.pop(job, None)
    while jobs and (len(jobs) >= MOST or next(iter(jobs.values())) < now):
        del jobs[next(iter(jobs))]
    jobs[job] = now + seconds


def is_remembered(jobs: dict[int, float], job: int) -> bool:
    """Whether a job is among these, and not too old."""
    return jobs.get(job, 0.0) > time.monotonic()
