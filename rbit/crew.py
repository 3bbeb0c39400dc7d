"""The slots of a client, and which job is in which.

Used in the client's main thread.
"""

from __future__ import annotations

from collections.abc import Callable

from rbit.gate import Gate
from rbit.job import Job, Outcome
from rbit.joblog import JobLogs
from rbit.settings import ClientSettings
from rbit.slot import Slot
from rbit.tree import TERMINATE, Forest, Ladder


class Crew:
    """As many slots as jobs may run at once.

    Arguments:
        settings: how many, and how long their workers are kept.
        gate: knows jobs that are not to be run.
        done: called with a job that has an outcome, in any thread.
    """

    def __init__(self, settings: ClientSettings, gate: Gate, done: Callable[[Job], None]) -> None:
        forest = Forest()
        self._logs = JobLogs(settings.log_dir, settings.log_limit, settings.log_keep_days)
        self._done = done
        self._slots = [
            Slot(number + 1, forest, done, self._logs, gate=gate, worker_jobs=settings.max_jobs_per_worker,
                 worker_idle=settings.worker_idle)
            for number in range(settings.concurrency)
        ]

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
        for slot in self._slots:
            slot.close()
        for slot in self._slots:
            slot.join()

    def _slot_of(self, job: Job) -> Slot:
        return next(slot for slot in self._slots if slot.job is job)
