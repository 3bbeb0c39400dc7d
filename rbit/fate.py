"""What becomes of a message when its job has ended: acknowledged, given back, or copied elsewhere first.

Decides and does nothing. Used in the client's main thread.
"""

from __future__ import annotations

import math
import time
from typing import Any

from rbit import envelope
from rbit.broker import Form, keeping, returning
from rbit.job import Fate, Job
from rbit.message import BLOCKED, CANCELLED, FAILED, GOOD, WAITING, Properties
from rbit.settings import RunnerSettings, own_queues
from rbit.tokens import token

PAUSE = 60.0  # seconds, at the most, before a message is tried again whose job could not even start


class Fates:
    """Decides by the settings of a client.

    Arguments:
        name: the client's name.
        quorum: whether rbit's own queues are quorum queues.
    """

    def __init__(self, name: str, quorum: bool) -> None:
        self._name = name
        self._quorum = quorum

    def lease(self, job: Job, ttl: float) -> tuple[str, Properties, Form]:
        """Returns where the next lease of a job goes, with which properties, and the form of that queue."""
        name = own_queues(self._name, job.message.queue)["lease"]
        properties = envelope.copy(
            job.properties, ttl, job=job.token, lease=job.leases + 1, client=self._name,
            attempt=job.attempt if job.attempt > 1 else None, copy=envelope.tag_of(job.properties).copy,
        )
        return name, properties, returning(name, job.message.queue, self._quorum, expires=True)

    def decide(self, job: Job) -> Fate:
        """Returns the fate of the message of a job that has an outcome."""
        outcome, section = job.outcome, job.section
        assert outcome is not None
        status, why, limit = outcome.status, outcome.why, section.max_attempts
        if job.cancelled and status not in GOOD:  # also when its time was up, or it had failed by itself
            return Fate(CANCELLED, job.cancelled, True)
        if status == WAITING:
            # Not back: a quorum queue drops what is put back again and again.
            return self._again(job, status, why, job.attempt, PAUSE) if outcome.later else self._back(job)
        if status == BLOCKED:
            if not 0 < limit <= job.attempt:
                return self._again(job, status, why, job.attempt + 1)
            status, why = FAILED, f"Blocked in each of {job.attempt} attempts: {why}"
        again = section.on_failure == "requeue" and not outcome.for_good
        if status == FAILED and again and not 0 < limit <= job.attempt:
            later = f"attempt {job.attempt} failed, tried again in {section.retry_delay:g} s: {why}"
            return self._again(job, WAITING, later, job.attempt + 1)
        if status == FAILED and outcome.status == FAILED and job.attempt > 1:
            why = f"in attempt {job.attempt}: {why}"
        if status == FAILED and (section.on_failure != "discard" or outcome.skipped):  # it has not had its chance
            return Fate(status, why, True, self._parked(job, section, status, why))
        return Fate(status, why, True)

    def _back(self, job: Job) -> Fate:
        assert job.outcome is not None
        if not job.lease:
            return Fate(WAITING, job.outcome.why, False, back=True)
        # Put back, a lease would wait in its queue until its time is over.
        properties = envelope.anew(job.properties, job.attempt)
        return Fate(WAITING, job.outcome.why, False, (job.message.queue, properties, None))

    def _again(self, job: Job, status: str, why: str, attempt: int, longest: float = math.inf) -> Fate:
        queue = job.message.queue
        name = own_queues(self._name, queue)["retry"]
        properties = envelope.anew(job.properties, attempt, min(longest, job.section.retry_delay))
        return Fate(status, why, False, (name, properties, returning(name, queue, self._quorum, expires=False)))

    def _parked(self, job: Job, section: RunnerSettings, status: str, why: str) -> tuple[str, Properties, Form]:
        assert job.outcome is not None
        headers: dict[str, Any] = {
            "queue": job.message.queue,
            "copy": token(8),
            "status": status,
            "why": envelope.short(why),
            "client": self._name,
            "failed_at": int(time.time()),
            "attempt": job.attempt,
            "exit_status": job.outcome.exit_status,
        }
        name = own_queues(self._name, job.message.queue)["failed"]
        properties = envelope.copy(job.properties, **headers)
        return name, properties, keeping(name, section.failed_max, self._quorum)
