"""The slots of a client, and which job is in which.

Used in the client's main thread.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

from rbit.gate import Gate
from rbit.job import Job, Outcome
from rbit.joblog import JobLogs
from rbit.settings import ClientSettings
from rbit.slot import Slot
from rbit.tree import TERMINATE, Forest, Ladder

log = logging.getLogger("rbit.client")


class Crew:
    """As many slots as jobs may run at once.

    Arguments:
        settings: how many, and how long their workers are kept.
        gate: knows jobs that are not to be run.
        done: called with a job that has an outcome, in any thread.
    """

    def __init__(self, settings: ClientSettings, gate: Gate, done: Callable[[Job], None]) -> None:
        self._forest = Forest()
        self._gate = gate
        self._done = done
        self._settings = settings
        self._logs = JobLogs(*logs_of(settings))
        self._numbers = itertools.count(1)
        self._slots = [self._slot() for _ in range(settings.concurrency)]  # replaced, never changed
        self._closed: list[Slot] = []  # were too many, and may not have ended yet

    @property
    def size(self) -> int:
        """How many slots there are."""
        return len(self._slots)

    @property
    def jobs(self) -> list[Job]:
        """The jobs that are in a slot. Any thread may ask."""
        return [job for job in [slot.job for slot in self._slots] if job is not None]

    @property
    def has_room(self) -> bool:
        """Whether there is a free slot."""
        return any(slot.job is None for slot in self._slots)

    @property
    def is_running(self) -> bool:
        """Whether a job has no outcome yet. It takes no lock, so a handler of signals may ask."""
        return any(job is not None and job.outcome is None for job in [slot.job for slot in self._slots])

    def runs(self, number: int | None) -> bool:
        """Whether a job of PyBit's is in a slot. Any thread may call it."""
        return any(job is not None and job.updates.job == number for job in [slot.job for slot in self._slots])

    def start(self) -> None:
        """Starts the threads."""
        self._logs.start()
        for slot in self._slots:
            slot.start()

    def renew(self, settings: ClientSettings) -> None:
        """Has the next jobs run with other settings, and in new processes."""
        if logs_of(settings) != logs_of(self._settings):  # or one that fails would be said to fail anew
            self._logs.stop()
            self._logs = JobLogs(*logs_of(settings))
            self._logs.start()
        self._settings = settings
        for slot in self._slots:
            slot.renew(self._logs, settings.max_jobs_per_worker, settings.worker_idle)
        made: list[Slot] = []
        try:
            while len(self._slots) + len(made) < settings.concurrency:
                slot = self._slot()
                slot.start()
                made.append(slot)
            self._slots = [*self._slots, *made]
        except (OSError, RuntimeError) as error:  # no more descriptors, or threads, and jobs need some too
            log.error("no more than %d jobs can run at once: %s", len(self._slots), error)
            self._close(made)
        self._trim()

    def take(self, job: Job) -> None:
        """Gives a job a free slot, in which it does not begin yet."""
        next(slot for slot in self._slots if slot.job is None).job = job

    def begin(self, job: Job) -> None:
        """Has the slot of a job begin with it."""
        self._slot_of(job).begin(job)

    def release(self, job: Job) -> None:
        """Frees the slot of a job, if it is in one."""
        for slot in self._slots:
            if slot.job is job:
                slot.job = None
        self._trim()

    def end(self, job: Job, verdict: Outcome, ladder: Ladder = TERMINATE) -> None:
        """Ends a job that is in a slot.

        Arguments:
            job: the job.
            verdict: becomes its outcome, unless it has ended by itself.
            ladder: as of ``Slot.end``.
        """
        if job.begun:
            self._slot_of(job).end(verdict, ladder)
        elif job.outcome is None:
            job.outcome = verdict
            self._done(job)

    def close(self) -> None:
        """Ends all threads and processes, once their jobs are done, and waits for that."""
        self._close(self._slots)
        for slot in self._closed:
            slot.join()

    def _slot(self) -> Slot:
        return Slot(
            next(self._numbers), self._forest, self._done, self._logs, gate=self._gate,
            worker_jobs=self._settings.max_jobs_per_worker, worker_idle=self._settings.worker_idle,
        )

    def _trim(self) -> None:
        """Ends the slots that are too many, as far as they are free."""
        free = [slot for slot in reversed(self._slots) if slot.job is None]
        surplus = free[: max(0, len(self._slots) - self._settings.concurrency)]
        if surplus:
            self._slots = [slot for slot in self._slots if slot not in surplus]
            self._close(surplus)

    def _close(self, slots: list[Slot]) -> None:
        for slot in slots:
            slot.close()
        self._closed = [slot for slot in [*self._closed, *slots] if slot.is_alive()]

    def _slot_of(self, job: Job) -> Slot:
        return next(slot for slot in self._slots if slot.job is job)


def logs_of(settings: ClientSettings) -> tuple[str | None, int, int]:
    """Returns what the settings say of job logs, as arguments of ``JobLogs``."""
    return settings.log_dir, settings.log_limit, settings.log_keep_days
