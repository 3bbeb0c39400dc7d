"""What is sent to the client's command queue: requests to cancel a job.

Used in the client's main thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from rbit import decode, envelope, models
from rbit.cancels import Cancels
from rbit.claims import Claims
from rbit.errors import BodyRefused
from rbit.feed import Feed
from rbit.job import Job, Outcome
from rbit.message import CANCELLED, Properties
from rbit.output import printable
from rbit.settings import LONGEST_NAME
from rbit.status import TELLING, Updates
from rbit.update import Update

log = logging.getLogger("rbit.client")

WHY = "cancelled by request"


@dataclass(frozen=True)
class Cancelled:
    """What a CancelRequest is about: the job's number at PyBit, and its build queue; '' if it names none."""

    job: int
    queue: str


class Commands:
    """Obeys commands.

    Arguments:
        claims: the jobs that are here.
        cancels: remembers jobs that are not.
        feed: what their last status is published through.
        end: ends a job that has no outcome yet with the outcome that is given.
    """

    def __init__(
        self, claims: Claims, cancels: Cancels, feed: Feed, end: Callable[[Job, Outcome], None]
    ) -> None:
        self._claims = claims
        self._cancels = cancels
        self._feed = feed
        self._end = end
        self._told: dict[Updates, float] = {}  # time.monotonic() when it was reported of those that are not here

    @property
    def pending(self) -> bool:
        """Whether RabbitMQ has not got all that was reported of jobs that are not here."""
        return any(updates.pending for updates in self._told)

    @property
    def needs_time(self) -> bool:
        """Whether also a hurried stop waits for that."""
        return self.pending and time.monotonic() < max(self._told.values()) + TELLING

    def obey(self, body: bytes, properties: Properties) -> None:
        """Does what a command says; what is none is logged and dropped."""
        try:
            request = cancelled(body)
        except BodyRefused as error:
            log.warning("a message in the queue %s is no command and is dropped: %s", self._feed.client, error)
            return
        if request is None:
            log.info("a command in the queue %s is none that rbit knows, and is dropped", self._feed.client)
            return
        label = f"{printable(request.queue) or 'a queue'} job {request.job}"
        if self._cancels.is_cancelled(request.job):
            return
        # Before the look: of a job that a slot finds to be this one meanwhile, one of the two knows.
        self._cancels.add(request.job)
        jobs = [job for job in self._claims.jobs if job.updates.job == request.job]
        here = [job for job in jobs if not job.ended_at]
        if here:
            self._cancels.forget(request.job)
            for job in here:
                self._stop(job)
            return
        if self._cancels.has_ended(request.job):
            self._cancels.forget(request.job)
            log.info("%s: has ended before it could be cancelled", label)
            return
        # PyBit has it as Building until it is told. Its message may be in a queue, here or elsewhere.
        log.info("%s: is not here; it is not run when its message comes", label)
        first = Update(request.job, request.queue, self._feed.client, "", "", 0.0)
        updates = jobs[0].updates if jobs else Updates(label, first, None, self._feed.publish)
        local = envelope.is_local(properties) or any(job.is_local for job in jobs)
        updates.to_pybit = self._feed.to_pybit and not local
        updates.set_status(CANCELLED, WHY, final=True)
        self._told = {updates: at for updates, at in self._told.items() if updates.pending}
        self._told[updates] = time.monotonic()

    def _stop(self, job: Job) -> None:
        if not job.cancelled:
            log.info("%s: is to be cancelled", job)
        job.cancelled = WHY
        if job.outcome is None:
            self._end(job, Outcome(CANCELLED, WHY))


def cancelled(body: bytes) -> Cancelled | None:
    """Returns what a CancelRequest is about; None for another object of PyBit's.

    Errors: BodyRefused when it is no object of PyBit's, or names no job.
    """
    request = decode.decode(body)
    if not isinstance(request, models.CancelRequest):
        return None
    job = getattr(getattr(request, "job", None), "id", None)
    if job is None:
        raise BodyRefused("the cancel request names no job")
    try:
        instance = request.job.packageinstance
        parts = (instance.distribution, instance.arch, instance.suite, instance.format)
        queue = "_".join(part.name for part in parts)
    except (AttributeError, TypeError):  # incomplete, or a name is null
        queue = ""
    # Else it is no text that a queue's name or a line of the log can hold.
    fits = queue.isprintable() and len(queue.encode()) <= LONGEST_NAME
    return Cancelled(job, queue if fits else "")
