"""Whose message a delivery is: that of a job which lives here, one that was settled here, or a new one.

A broker delivers a message again when the connection of its delivery was lost, and also when only the
acknowledgement was. Decides, and remembers; settles nothing itself. Used in the client's main thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from rbit import envelope
from rbit.broker import Delivery
from rbit.envelope import Identity
from rbit.job import Job
from rbit.message import Settled
from rbit.repeats import doubled
from rbit.settings import own_queues
from rbit.surplus import Surplus

REMEMBERED = 3600.0  # seconds that a message is known by which no other can be mistaken for it
FIRST_SEARCH = 0.5  # seconds between the first two looks for a message; it doubles
LONGEST_SEARCH = 30.0  # seconds
PUBLISHED_SEARCHES = 7  # looks for a lease, about half a minute, while the delivery before it is there
# Looks for a message in the queue of its runner, where others wait too: each may count, for one of these, as a
# delivery that failed, and a quorum queue drops what has failed too often (RabbitMQ 4: 20 times).
ORIGIN_SEARCHES = 3
AT_SEARCH = (0, 3, 9)  # of all looks after a loss, those that may be such ones: at once, after 3.5 s and 2 min


@dataclass(frozen=True)
class Extra:
    """A message that is one too many: to be acknowledged, and not run.

    Attributes:
        note: what is to be remembered of it when its acknowledgement is doubtful.
        key: what it is known by.
        seconds: for how long it was expected.
    """

    note: Settled
    key: Hashable
    seconds: float


class Claims:
    """The jobs that are not settled, and what may come again of those that are.

    Arguments:
        name: the client's name.
        mistaken: seconds for which a message without a name is expected that is sure to come again: what a
            broker needs to find a lost connection. Another one that is just like it would do.
    """

    def __init__(self, name: str, mistaken: float) -> None:
        self.jobs: list[Job] = []
        self._name = name
        self._mistaken = mistaken
        self._surplus = Surplus()
        self._doubted: dict[str, float] = {}  # queues in which it may come again, until when by time.monotonic()
        self._last_looks = False

    def add(self, job: Job) -> None:
        """Takes a new job."""
        self.jobs.append(job)
        if job.lease == 1 and job.identity.is_named:
            # An earlier process made the lease, and may have been killed before it acknowledged the original.
            self._surplus.expect(job.identity, self._mistaken)

    def owner(self, delivery: Delivery) -> Job | None:
        """Returns the job whose message this is."""
        tag = envelope.tag_of(delivery.properties)
        if tag.job is not None:
            return next((job for job in self.jobs if job.token == tag.job), None)
        if not may_be_known(delivery):
            return None
        jobs = [job for job in self.jobs if is_of(job, delivery)]
        # A leased one has its lease to wait for; another message may have the same body.
        lost = [job for job in jobs if job.delivery.lost and not job.lease]
        return next(iter(lost or (jobs if tag.copy else ())), None)

    def take(self, job: Job, delivery: Delivery) -> Delivery | None:
        """Gives a job a delivery of its message; returns the one that it does not need any more."""
        number = envelope.tag_of(delivery.properties).lease
        job.awaited = job.awaited and number < job.leases
        before = None if job.delivery.lost else job.delivery
        if before is not None and number <= job.lease:
            return delivery
        if before is None:
            job.lease_at = min(job.lease_at, time.monotonic())  # nobody knows how old it is
            if number and not job.lease:  # the original was not acknowledged, so it comes again, for sure
                self._surplus.expect(job.identity, REMEMBERED if job.is_named else self._mistaken)
                job.doubles_at = 0.0 if job.is_named else time.monotonic() + self._mistaken
        job.delivery, job.lease, job.looked = delivery, number, 0
        job.searched, job.search_at = 0, 0.0
        delivery.body = job.message.body  # one of the two is enough
        return before

    def absorbs(self, delivery: Delivery) -> Extra | None:
        """Returns how a message is known that was settled here, or replaced by a lease; None for a new one."""
        token = envelope.tag_of(delivery.properties).job
        if token is None and not may_be_known(delivery):
            return None
        # What is expected for a job that lives here is expected as long as it does, and a while after that.
        self._surplus.drop_old({job.identity for job in self.jobs})
        key: Hashable = token or Identity.of(delivery.queue, delivery.properties, delivery.body)
        seconds = self._surplus.take(key)
        if seconds is None:
            return None
        certain = token is None and seconds <= self._mistaken
        return Extra(Settled(delivery.source.name, None if certain else key), key, seconds)

    def passed(self, queue: str, delivery: Delivery | None) -> None:
        """Notes what stood at the head of a runner's queue, None if it was empty.

        An original without a name that is not there, though the broker has put it back by now, is another
        client's: it is expected no more, for a message that is just like it may come.
        """
        now = time.monotonic()
        for job in self.jobs:
            back = 0 < job.doubles_at <= now and job.message.queue == queue
            if back and (delivery is None or not is_of(job, delivery)):
                job.doubles_at = 0.0
                self._surplus.forget(job.identity)

    def expect(self, extra: Extra) -> None:
        """Notes that a message which is one too many was not acknowledged, and comes again."""
        self._surplus.expect(extra.key, extra.seconds)

    def settled(self, job: Job, back: bool) -> None:
        """Notes that the message of a job is acknowledged, or put back as it was: then it is to come again."""
        self._surplus.renew(job.identity)
        self.jobs.remove(job)
        if job.leases and not back:
            self._surplus.remember(job.token, REMEMBERED)
        if job.identity.copy and not back:
            self._surplus.remember(job.identity, REMEMBERED)

    def note_of(self, delivery: Delivery, job: Job | None = None) -> Settled:
        """Returns what is to be remembered of a delivery whose acknowledgement is doubtful.

        Arguments:
            delivery: the delivery.
            job: its job, if that is known.
        """
        name = delivery.source.name
        if token := envelope.tag_of(delivery.properties).job:
            return Settled(name, token)
        identity = job.identity if job else Identity.of(delivery.queue, delivery.properties, delivery.body)
        named = job.is_named if job else identity.is_named
        # What has no name is rather run twice than another that is just like it not at all.
        return Settled(name, identity if named else None)

    def doubt(self, acknowledged: Iterable[Settled]) -> None:
        """Notes messages whose acknowledgement the broker may not have: each may come again, once."""
        for settled in acknowledged:
            if settled.key is not None:
                self._surplus.expect(settled.key, REMEMBERED)
                self._doubted[settled.queue] = time.monotonic() + self._mistaken

    @property
    def doubted(self) -> bool:
        """Whether a settled message may stand in a queue again, which a stop is to look at."""
        now = time.monotonic()
        return any(until > now for until in self._doubted.values())

    @property
    def unsettled(self) -> bool:
        """Whether something is left to wait for at a stop."""
        return bool(self.jobs) or self.doubted

    @property
    def due(self) -> float:
        """time.monotonic() when ``to_search`` or ``forget`` is to be asked; before a stop it may be earlier."""
        lost = [job for job in self.jobs if job.delivery.lost]
        searches = [job.search_at for job in self.jobs if job.awaited or job in lost]
        ends = [job.lease_ends for job in lost if job.leases and not job.begun and not job.copy]
        return min((*searches, *ends), default=math.inf)

    def to_search(self) -> list[str]:
        """Returns the queues that are to be asked now for messages of jobs that live here, in this order."""
        now = time.monotonic()
        # The runners' queues first: an original is known by its job before a lease takes its place.
        origins: dict[str, None] = dict.fromkeys(self._doubted) if self._last_looks else {}
        leases: dict[str, None] = {}
        for job in self.jobs:
            lost = job.delivery.lost
            job.lost_at = (job.lost_at or now) if lost else 0.0
            if not lost and not job.awaited:
                job.searched, job.search_at = 0, 0.0
            elif not lost and job.searched >= PUBLISHED_SEARCHES:
                job.awaited = False  # it was taken away; the delivery that is there will do
            elif job.search_at <= now:
                leased = job.lease and now < job.lease_ends
                budget = job.searched in AT_SEARCH and job.looked < ORIGIN_SEARCHES
                if lost and not leased and (budget or self._is_last_look(job, now)):
                    job.looked += 1
                    origins[job.message.queue] = None
                if job.leases:
                    leases[own_queues(self._name, job.message.queue)["lease"]] = None
                job.searched += 1
                job.search_at = now + min(LONGEST_SEARCH, doubled(FIRST_SEARCH, job.searched))
                if self._last_looks and now < (back := job.lost_at + self._mistaken):
                    job.search_at = min(job.search_at, back)
        return [*origins, *leases]

    def looked_at(self, queue: str) -> None:
        """Notes that a queue was searched to the end, or to the first message that belongs to no job here."""
        for job in self.jobs:
            if job.message.queue == queue:
                job.looked_at = time.monotonic()
        if self._last_looks:
            self._doubted.pop(queue, None)

    def _is_last_look(self, job: Job, now: float) -> bool:
        """Whether a stop is to look for a message once more, as the broker has put it back by now."""
        return self._last_looks and job.looked_at < job.lost_at + self._mistaken <= now

    def search_anew(self, once_more: bool = False) -> None:
        """Has every lost delivery looked for as if it had just been lost; for a new connection.

        Arguments:
            once_more: rbit is stopping, so also for a last time in the queues of the runners; and what may come
                again of the settled ones is looked for.
        """
        self._last_looks = self._last_looks or once_more
        for job in self.jobs:
            job.searched, job.search_at = 0, 0.0
            if once_more:
                job.looked = min(job.looked, ORIGIN_SEARCHES - 1)

    def forget(self) -> list[Job]:
        """Drops jobs that do not run and whose message another client must have got, and returns them."""
        now = time.monotonic()
        dropped = [job for job in self.jobs if self._is_elsewhere(job, now)]
        for job in dropped:
            self.jobs.remove(job)
        return dropped

    def _is_elsewhere(self, job: Job, now: float) -> bool:
        if not (job.lost_at and job.delivery.lost and not job.copy):
            return False
        if not job.ended_at:  # it has waited for a lease that is over, and was never begun
            return job.leases > 0 and not job.begun and now > job.lease_ends
        if self._last_looks and not job.leases:
            return job.looked_at > job.lost_at + self._mistaken
        return now > max(job.ended_at, job.lost_at) + REMEMBERED


def may_be_known(delivery: Delivery) -> bool:
    """Whether a message that is no lease may have come before: one that rbit named never comes twice by right."""
    return delivery.redelivered or envelope.tag_of(delivery.properties).copy is not None


def is_of(job: Job, delivery: Delivery) -> bool:
    """Whether a delivery is known by the same as a job's message."""
    if (job.message.queue, len(job.message.body)) != (delivery.queue, len(delivery.body)):
        return False
    return job.identity == Identity.of(delivery.queue, delivery.properties, delivery.body)
