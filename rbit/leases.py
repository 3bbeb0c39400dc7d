"""Leases: the message of a long job is moved, again and again, to a queue of this client.

A broker takes an unacknowledged message back after 30 minutes; one that is published anew is young again.
So a copy is published and confirmed, the copy is fetched, and then only the one before is acknowledged:
never two of these steps in another order. Used in the client's main thread.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial

from rbit.broker import Copy
from rbit.fate import Fates
from rbit.job import Job
from rbit.publisher import Publisher
from rbit.repeats import worth_saying
from rbit.settings import ClientSettings

log = logging.getLogger("rbit.client")


class Leases:
    """Publishes a lease for each job that needs one now.

    Arguments:
        settings: how long a lease lasts, and when it is renewed.
        fates: knows what a lease looks like.
        publisher: publishes it.
        done: called in the publisher's thread with the job, and whether its lease is confirmed.

    Attributes:
        settings: as given; others count from the next lease on.
    """

    def __init__(
        self, settings: ClientSettings, fates: Fates, publisher: Publisher, done: Callable[[Job, bool], None]
    ) -> None:
        self.settings = settings
        self.renewed = 0
        self._fates = fates
        self._publisher = publisher
        self._done = done
        self._homeless = 0  # leases for which there was no queue

    @property
    def at_once(self) -> bool:
        """Whether a job is not begun before it has a lease."""
        return self.settings.lease_after == 0

    def plan(self, job: Job) -> None:
        """Sets the time of the next lease of a job that is about to begin."""
        now = time.monotonic()
        job.lease_at = now + self.settings.lease_after
        job.lease_ends = now + self.settings.lease_ttl  # of one that was left by an earlier process

    def due(self, jobs: list[Job]) -> float:
        """Returns time.monotonic() when the next lease is to be published."""
        return min((job.lease_at for job in jobs if not waits(job)), default=math.inf)

    def tend(self, jobs: list[Job]) -> None:
        """Publishes the leases that are due."""
        now = time.monotonic()
        for job in jobs:
            if job.lease_at <= now and not waits(job):
                job.lease_settings = self.settings
                name, properties, form = self._fates.lease(job, self.settings.lease_ttl)
                job.copy = Copy(name, job.message.body, properties, partial(self._done, job), form, whole=True)
                self._publisher.put(job.copy)

    def forgo(self, job: Job) -> None:
        """Notes that no lease of a job can be published, for its headers would not fit a frame."""
        job.lease_at = math.inf
        log.warning("%s: its headers leave no room for those of a lease; it runs without one", job)

    def postpone(self, job: Job) -> None:
        """Notes that there is no queue for the lease of a job; it is tried again when it would be renewed."""
        job.lease_at = time.monotonic() + self.settings.lease_renew
        self._homeless += 1
        if worth_saying(self._homeless):
            log.error(
                "%s: there is no queue for its lease, so it runs without one, and may be run twice if it takes "
                "long; rbit CONFIG --definitions shows how to make it", job
            )

    def confirmed(self, job: Job) -> None:
        """Notes that the broker has a lease, which is to be fetched now."""
        self.await_(job)
        self.renewed += job.leases > 1
        self._homeless = 0
        now = time.monotonic()
        settings = job.lease_settings or self.settings
        job.lease_at = now + settings.lease_renew
        job.lease_ends = now + settings.lease_ttl
        log.debug("%s: lease %d is published", job, job.leases)

    def await_(self, job: Job) -> None:
        """Has the last lease of a job looked for, which the broker has, or may have."""
        job.awaited = job.lease < job.leases  # a look for another job's may have fetched it already
        job.searched, job.search_at = 0, 0.0


def waits(job: Job) -> bool:
    """Whether a job gets no lease now, whenever it is due: something else comes first, or it needs none."""
    return bool(job.ended_at) or job.copy is not None or job.awaited or job.delivery.lost
