"""Whose message a delivery is: that of a job which lives here, one that was settled here, or a new one.

A broker delivers a message again when the connection of its delivery was lost, and also when only the
acknowledgement was. Decides, and remembers; settles nothing itself. Used in the client's main thread.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable

from rbit import envelope
from rbit.broker import Delivery
from rbit.envelope import Identity
from rbit.job import Job
from rbit.message import Settled
from rbit.repeats import doubled
from rbit.settings import own_queues

REMEMBERED = 3600.0  # seconds that a message is known by which no other can be mistaken for it
MOST = 50_000  # messages that are remembered, some 20 MB; the oldest are forgotten first
FIRST_SEARCH = 0.5  # seconds between the first two looks for a message; it doubles
LONGEST_SEARCH = 30.0  # seconds
PUBLISHED_SEARCHES = 7  # looks for a lease, about half a minute, while the delivery before it is there
# Looks for a message in the queue of its runner, where others wait too: each may count, for one of these, as a
# delivery that failed, and a quorum queue drops what has failed too often (RabbitMQ 4: 20 times).
ORIGIN_SEARCHES = 3
AT_SEARCH = (0, 3, 9)  # of all looks after a loss, those that may be such ones: at once, after 3.5 s and 2 min


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
        # What may come again, until when, by time.monotonic(); the oldest first.
        self._known: dict[Hashable, float] = {}  # any number of times
        self._doubtful: dict[Hashable, list[float]] = {}  # once for each entry
        self._doubted: dict[str, float] = {}  # the queues of such messages
        self._last_looks = False

    def add(self, job: Job) -> None:
        """Takes a new job."""
        self.jobs.append(job)
        if job.lease == 1 and job.identity.is_named:
            # An earlier process made the lease, and may have been killed before it acknowledged the original.
            self._expect(job.identity, self._mistaken)

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
                self._expect(job.identity, REMEMBERED if job.is_named else self._mistaken)
        job.delivery, job.lease, job.looked = delivery, number, 0
        delivery.body = job.message.body  # one of the two is enough
        return before

    def absorbs(self, delivery: Delivery) -> bool:
        """Whether this is a message that was settled here, or replaced by a lease."""
        token = envelope.tag_of(delivery.properties).job
        if (token is None and not may_be_known(delivery)) or not (self._known or self._doubtful):
            return False
        key: Hashable = token or Identity.of(delivery.queue, delivery.properties, delivery.body)
        now = time.monotonic()
        if self._known.get(key, 0.0) > now:
            return True
        left = [until for until in self._doubtful.pop(key, ()) if until > now]
        if left[1:]:
            self._doubtful[key] = left[1:]
        return bool(left)

    def settled(self, job: Job, back: bool) -> None:
        """Notes that the message of a job is acknowledged, or put back as it was: then it is to come again."""
        self.jobs.remove(job)
        if job.leases and not back:
            self._remember(job.token)
        if job.identity.copy and not back:
            self._remember(job.identity)

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
                self._expect(settled.key, REMEMBERED)
                self._doubted[settled.queue] = time.monotonic() + self._mistaken

    def _expect(self, key: Hashable, seconds: float) -> None:
        self._doubtful.setdefault(key, []).append(time.monotonic() + seconds)
        self._drop_old()

    @property
    def unsettled(self) -> bool:
        """Whether something is left to wait for at a stop: a job, or a look for what may come again."""
        now = time.monotonic()
        return bool(self.jobs) or any(until > now for until in self._doubted.values())

    def to_search(self) -> list[str]:
        """Returns the queues that are to be asked now for messages of jobs that live here, in this order."""
        now = time.monotonic()
        # The runners' queues first: an original is known by its job before a lease takes its place.
        origins: dict[str, None] = dict.fromkeys(self._doubted) if self._last_looks else {}
        self._doubted = {} if self._last_looks else self._doubted
        leases: dict[str, None] = {}
        for job in self.jobs:
            lost = job.delivery.lost
            job.lost_at = (job.lost_at or now) if lost else 0.0
            if not lost and not job.awaited:
                job.searched, job.search_at = 0, 0.0
            elif not lost and job.searched == PUBLISHED_SEARCHES:
                job.awaited = False  # it was taken away; the delivery that is there will do
            elif job.search_at <= now:
                leased = job.lease and now < job.lease_ends
                if lost and not leased and job.searched in AT_SEARCH and job.looked < ORIGIN_SEARCHES:
                    job.looked += 1
                    origins[job.message.queue] = None
                if job.leases:
                    leases[own_queues(self._name, job.message.queue)["lease"]] = None
                job.searched += 1
                job.search_at = now + min(LONGEST_SEARCH, doubled(FIRST_SEARCH, job.searched))
        return [*origins, *leases]

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
        """Drops ended jobs whose message another client must have got, and returns them."""
        before = time.monotonic() - REMEMBERED
        dropped = [
            job for job in self.jobs
            if 0 < job.ended_at < before and 0 < job.lost_at < before and job.delivery.lost and not job.copy
        ]
        for job in dropped:
            self.jobs.remove(job)
        return dropped

    def _remember(self, key: Hashable) -> None:
        self._known.pop(key, None)
        self._known[key] = time.monotonic() + REMEMBERED
        self._drop_old()

    def _drop_old(self) -> None:
        now = time.monotonic()
        while self._known and (next(iter(self._known.values())) <= now or len(self._known) > MOST):
            del self._known[next(iter(self._known))]
        while self._doubtful and (
            max(next(iter(self._doubtful.values()))) <= now or len(self._doubtful) > MOST
        ):
            del self._doubtful[next(iter(self._doubtful))]


def may_be_known(delivery: Delivery) -> bool:
    """Whether a message that is no lease may have come before: one that rbit named never comes twice by right."""
    return delivery.redelivered or envelope.tag_of(delivery.properties).copy is not None


def is_of(job: Job, delivery: Delivery) -> bool:
    """Whether a delivery is known by the same as a job's message."""
    if (job.message.queue, len(job.message.body)) != (delivery.queue, len(delivery.body)):
        return False
    return job.identity == Identity.of(delivery.queue, delivery.properties, delivery.body)
