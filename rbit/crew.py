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
        self._forest = Forest()
        self._gate = gate
        self._done = done
        self._made: list[Slot] = []  # all slots; those of an earlier ``use`` take no job any more
        self._use(settings)

    @property
    def jobs(self) -> list[Job]:
        """The jobs that are in a slot. It takes no lock, so any thread, and a handler of signals, may ask."""
        return [job for job in [slot.job for slot in self._made] if job is not None]

    @property
    def has_room(self) -> bool:
        """Whether there is a free slot, and fewer jobs than may run at once."""
        return len(self.jobs) < len(self._slots) and any(slot.job is None for slot in self._slots)

    @property
    def is_running(self) -> bool:
        """Whether a job has no outcome yet. A handler of signals may ask."""
        return any(job.outcome is None for job in self.jobs)

    def runs(self, number: int | None) -> bool:
        """Whether a job of PyBit's is in a slot. Any thread may call it."""
        return any(job.updates.job == number for job in self.jobs)

    def start(self) -> None:
        """Starts the threads."""
        self._logs.start()
        for slot in self._slots:
            slot.start()

    def renew(self, settings: ClientSettings) -> None:
        """Has new slots take the next jobs, with these settings; the old ones end, once they are free."""
        old = self._slots
        self._logs.stop()
        self._made = [slot for slot in self._made if slot.is_alive()]
        self._use(settings)
        self.start()
        for slot in old:
            if slot.job is None:
                slot.close()

    def _use(self, settings: ClientSettings) -> None:
        self._logs = JobLogs(settings.log_dir, settings.log_limit, settings.log_keep_days)
        self._slots = [
            Slot(number + 1, self._forest, self._done, self._logs, gate=self._gate,
                 worker_jobs=settings.max_jobs_per_worker, worker_idle=settings.worker_idle)
            for number in range(settings.concurrency)
        ]
        self._made = [*self._made, *self._slots]

    def take(self, job: Job) -> None:
        """Gives a job a free slot, in which it does not begin yet."""
        next(slot for slot in self._slots if slot.job is None).job = job

    def begin(self, job: Job) -> None:
        """Has the slot of a job begin with it."""
        self._slot_of(job).begin(job)

    def release(self, job: Job) -> None:
        """Frees the slot of a job, if it is in one."""
        for slot in self._made:
            if slot.job is job:
                slot.job = None
                if slot not in self._slots:
                    slot.close()

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
        for slot in self._made:
            slot.close()
        for slot in self._made:
            slot.join()

    def _slot_of(self, job: Job) -> Slot:
        return next(slot for slot in self._made if slot.job is job)
