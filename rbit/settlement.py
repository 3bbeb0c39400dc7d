"""Settling messages: what is done about the deliveries of jobs, from the first lease to the acknowledgement.

It knows which job a delivery belongs to, has the copies published that a job's end or its lease needs, and
only then acknowledges or gives back. Knows nothing of slots and signals. Used in the client's main thread.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial

from rbit import steps
from rbit.broker import Copy, Delivery
from rbit.claims import Claims
from rbit.errors import DeliveryLost
from rbit.events import Event
from rbit.fate import Fates
from rbit.job import Job
from rbit.leases import Leases
from rbit.message import WAITING
from rbit.publisher import Publisher
from rbit.rota import Rota
from rbit.settings import Config
from rbit.sources import Sources
from rbit.status import TELLING

log = logging.getLogger("rbit.client")

MISTAKEN = 4  # heartbeats; a broker notices a lost connection within three



class Settlement:
    """Sees to the deliveries of all jobs that are not settled.

    Arguments:
        config: the settings.
        publisher: publishes the copies.
        sources, rota: are told of lease queues, and of queues to leave alone.
        post: has an event called in the main thread; any thread may call it.
        begin: starts a job that has waited for its lease.

    Attributes:
        claims: the jobs.
        leases: what publishes the leases.
    """

    def __init__(
        self, config: Config, publisher: Publisher, sources: Sources, rota: Rota,
        *, post: Callable[[Event], None], begin: Callable[[Job], None],
    ) -> None:
        self.claims = Claims(config.client.name, MISTAKEN * config.amqp.heartbeat)
        self._fates = Fates(config.client.name, config.amqp.queue_type == "quorum")
        self.leases = Leases(config.client, self._fates, publisher, self._post_leased)
        self._publisher = publisher
        self._sources = sources
        self._rota = rota
        self._post = post
        self._begin = begin

    def take(self, job: Job) -> bool:
        """Takes over the delivery of a new job; returns whether the job may begin before it has a lease."""
        self.claims.add(job)
        self.leases.plan(job)
        return bool(job.lease) or not self.leases.at_once

    @property
    def due(self) -> float:
        """time.monotonic() when ``tend`` has something to do."""
        return self.leases.due(self.claims.jobs)

    def tend(self) -> None:
        """Publishes the leases that are due."""
        self.leases.tend(self.claims.jobs)

    def knows(self, delivery: Delivery) -> bool:
        """Whether a message came again that is worked off here, or was; it is dealt with then."""
        if job := self.claims.owner(delivery):
            if delivery.redelivered or job.delivery.lost:
                log.info("%s: its message came again; it is not run twice", job)
            superseded = self.claims.take(job, delivery)
            steps.reached("lease fetched")
            if superseded is not None:
                self._acknowledge(superseded, job)
            steps.reached("lease held")
            if job.lease:
                log.debug("%s: holds lease %d", job, job.lease)
            if job.ended_at:
                self.settle(job)
            elif job.lease and not job.begun:
                self._begin(job)
            return True
        if extra := self.claims.absorbs(delivery):
            log.info("%s: a message came again that is one too many here; it is not run", delivery.queue)
            try:
                delivery.ack(extra.note)
            except DeliveryLost:
                self.claims.expect(extra)
            return True
        return False

    def _acknowledge(self, delivery: Delivery, job: Job) -> None:
        with contextlib.suppress(DeliveryLost):  # then it comes again, and so here
            delivery.ack(self.claims.note_of(delivery, job))

    def end(self, job: Job) -> None:
        """Reports the outcome of a job, and settles its message as soon as that can be done."""
        job.ended_at = time.monotonic()
        job.fate = fate = self._fates.decide(job)
        assert job.outcome is not None
        if job.outcome.pause:
            self._rota.hold(job.message.queue)
        if job.copy is not None and job.copy.cancel():  # a lease that it does not need any more
            job.copy = None
        # Nobody has told PyBit of a cancel that the slot saw before it could be ended for that.
        job.updates.to_pybit = job.updates.to_pybit and (not job.outcome.skipped or job.cancelled != "")
        if fate.status != WAITING or job.updates.last is not None:
            job.updates.finish(fate.status, fate.why, fate.final, partial(self._post_told, job))
        else:
            log.log(logging.INFO if job.outcome.skipped else logging.ERROR, "%s: not run: %s", job, fate.why)
        self.settle(job)

    def settle_all(self) -> None:
        """Settles the ended jobs that have waited for a lease which is not there; once it was looked for."""
        for job in [job for job in self.claims.jobs if job.searched and job.ended_at and not job.delivery.lost]:
            self.settle(job)

    def settle_at_last(self) -> None:
        """Acknowledges what else would be run again for sure: rbit is about to end, and waits no more."""
        for job in [job for job in self.claims.jobs if job.ended_at and not job.delivery.lost]:
            fate = job.fate
            if fate is not None and not fate.back and (fate.copy is None or job.copied):
                job.copy, job.awaited = None, False
                self.settle(job, at_last=True)

    def settle(self, job: Job, at_last: bool = False) -> None:
        """Acknowledges or gives back the message of an ended job, after its statuses and the copy that it needs.

        Arguments:
            job: the job.
            at_last: whether followers need not know of it any more. PyBit must: it is rather run again.
        """
        fate = job.fate
        assert fate is not None
        if job.copy is not None or job.awaited or (job.updates.owed if at_last else job.updates.pending):
            return
        if fate.back and job.lease:  # a lease was on its way when it ended, and has come
            job.fate = fate = self._fates.decide(job)
        if fate.copy is not None and not job.copied and not job.delivery.lost:
            name, properties, form = fate.copy
            job.copy = Copy(name, job.message.body, properties, partial(self._post_copied, job), form)
            self._publisher.put(job.copy)
            return
        steps.reached("about to be settled")
        try:
            if fate.back:
                job.delivery.requeue()
            else:
                job.delivery.ack(self.claims.note_of(job.delivery, job))
        except DeliveryLost:
            if not fate.back:
                log.warning("%s: its connection was lost; its message is settled when it comes again", job)
                return
        if fate.back:
            log.info("%s: its message is put back", job)
        else:
            log.debug("%s: its message is acknowledged", job)
        steps.reached("settled")
        job.updates.close()
        self.claims.settled(job, fate.back)

    def _post_told(self, job: Job) -> None:
        self._post(partial(self._told, job))

    def _told(self, job: Job) -> None:
        """Goes on with an ended job whose statuses are published."""
        if job in self.claims.jobs:
            self.settle(job)

    def _post_copied(self, job: Job, confirmed: bool) -> None:
        self._post(partial(self._copied, job, confirmed))

    def _copied(self, job: Job, confirmed: bool) -> None:
        """Goes on with an ended job whose copy is published, or was given up at a stop."""
        if confirmed and job.copy is not None:
            expiration = job.copy.properties.expiration
            wait = f", for {int(expiration) / 1000:g} s" if expiration else ""
            log.info("%s: a copy of its message is in %s%s", job, job.copy.queue, wait)
        job.copy = None
        job.copied = confirmed
        if confirmed:
            self.settle(job)

    def _post_leased(self, job: Job, confirmed: bool) -> None:
        self._post(partial(self._leased, job, confirmed))

    def _leased(self, job: Job, confirmed: bool) -> None:
        """Goes on with a job whose lease is published, or was given up after it had been sent."""
        copy, job.copy = job.copy, None
        if copy is not None and (copy.too_large or copy.nowhere):
            if copy.nowhere:
                self.leases.postpone(job)
            else:
                self.leases.forgo(job)
            if not (job.begun or job.ended_at):
                self._begin(job)
        else:
            job.leases += 1
            self._sources.add_leases(job.message.queue)
            if confirmed:
                self.leases.confirmed(job)
            else:
                self.leases.await_(job)  # the broker may have it
        if job.ended_at:
            self.settle(job)

    @property
    def leases_renewed(self) -> int:
        """How many leases RabbitMQ has confirmed after the first of their jobs."""
        return self.leases.renewed

    @property
    def needs_time(self) -> bool:
        """Whether also a hurried stop waits: a message would be there twice, or be run again."""
        return any(map(needs_time, self.claims.jobs)) or self.claims.doubted


def needs_time(job: Job) -> bool:
    """Whether also a hurried stop waits for a job."""
    if job.copy is not None or job.copied or job.awaited:
        return True
    if job.updates.pending and time.monotonic() < job.ended_at + TELLING:
        return True
    return job.leases > 0 and job.fate is not None and job.fate.status != WAITING
