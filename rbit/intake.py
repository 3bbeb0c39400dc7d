"""Takes messages from their queues, and gives them to free slots.

Looks also for messages of jobs that live here and have lost them. Settles nothing itself. Used in the client's
main thread.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from rbit import envelope
from rbit.broker import Delivery
from rbit.crew import Crew
from rbit.errors import DeliveryLost
from rbit.feed import Feed
from rbit.job import Job
from rbit.rota import Rota
from rbit.runners import Runner
from rbit.settings import Config, RunnerSettings
from rbit.settlement import Settlement
from rbit.sources import Sources

log = logging.getLogger("rbit.client")

MOST_OTHERS = 1000  # leases that are set aside to find one; no more jobs run at once
MOST_ENDED = 50  # jobs of a queue whose last status is on its way to RabbitMQ

GRACE = 0.2  # seconds that a message which was sent may wait for a slot
# How many messages are sent ahead if a job has taken less than so many seconds: its statuses take 0.03 to be
# confirmed, and no message is to wait here for longer than GRACE.
AHEAD = ((0.005, 50), (0.05, 10))
LONGEST_HOLD = 1500.0  # seconds; RabbitMQ closes the channel after 1800, and it has the deliveries of jobs too
RETURNS = 10  # of a message: a quorum queue counts them, and RabbitMQ 4 drops it at 20, unless told otherwise


class Intake:
    """Takes messages.

    Arguments:
        config: the settings.
        runners: the runner of each queue, by its name.
        sources, rota: the queues, and their turns.
        settlement, crew: take the messages over.
        feed: what statuses are published through.
        push: whether the queues send their messages.
        open: whether a message may be taken now, if there is a slot for it.
    """

    def __init__(
        self, config: Config, runners: Mapping[str, Runner], *, sources: Sources, rota: Rota,
        settlement: Settlement, crew: Crew, feed: Feed, open: Callable[[], bool],
        push: bool,
    ) -> None:
        self.change(config.runners, runners)
        self._sources = sources
        self._rota = rota
        self._settlement = settlement
        self._claims = settlement.claims
        self._crew = crew
        self._feed = feed
        self._open = open
        self._push = push
        self._numbers = itertools.count(1)

    def change(self, sections: Iterable[RunnerSettings], runners: Mapping[str, Runner]) -> None:
        """Has these sections and runners count from the next message on; jobs that are here keep theirs."""
        self._sections = {section.queue: section for section in sections}
        self._runners = runners

    @property
    def due(self) -> float:
        """time.monotonic() when ``search`` has something to do that no message tells of."""
        if not self._sources.ready:
            return math.inf
        now = time.monotonic()
        waits = [waited for name, waited in self._sources.flowing.items() if waited and self._sources.sends(name)]
        stem_at = now + GRACE - max(waits) if waits else math.inf
        return min(self._claims.due, stem_at)

    def search(self) -> None:
        """Asks for messages of jobs that live here, though there may be no free slot for others.

        Errors: ConnectionLost.
        """
        if not self._sources.ready:
            return
        if self._push:
            self._sources.sort(self._settlement.knows)
            self._stem()
        for name in self._claims.to_search():
            others: list[Delivery] = []
            while len(others) < MOST_OTHERS and (delivery := self._get(name)):
                if self._settlement.knows(delivery):
                    continue
                if self.has_room and not self.is_full(name):
                    self._begin(delivery)
                    continue
                delivery.body = b""  # the tag is enough to give it back, and there may be many
                others.append(delivery)
                # What came again stands at the head of its queue, but leases stand in any order.
                if not delivery.is_lease:
                    break
            for delivery in reversed(others):
                self._return(delivery)
            self._claims.looked_at(name)
        self._settlement.settle_all()

    def take_one(self) -> bool:
        """Asks the next queue whose turn it is; returns False if none can be asked now. Errors: ConnectionLost."""
        if self._push:
            self._sources.sort(self._settlement.knows)
        name = self._rota.next(self.is_full) if self.has_room else None
        if name is None:
            return False
        delivery = self._get(name, *self._prefetch(name)) if self._push else self._get(name)
        if delivery is None or self._settlement.knows(delivery):
            return True
        if self._open():
            self._begin(delivery)
        else:  # a signal came while the message was on its way
            self._return(delivery)
        return True

    def _get(self, name: str, prefetch: int = 0, ahead: int = 0, used: bool = False) -> Delivery | None:
        delivery = self._sources.get(name, prefetch, ahead, used)
        self._claims.doubt(self._sources.doubtful())
        # What has not been sent may be in the queue all the same.
        if name in self._sections and (delivery is not None or not (prefetch or self._sources.refused)):
            self._claims.passed(name, delivery)
        return delivery

    @property
    def has_room(self) -> bool:
        """Whether a message could start now."""
        return self._open() and self._sources.ready and self._crew.has_room

    def is_full(self, name: str) -> bool:
        """Whether no more jobs of a queue are to be begun now."""
        section = self._sections.get(self._sources.origin(name))
        if section is None:  # it was taken away, and is asked for the messages of its last jobs only
            return True
        jobs = [job for job in self._claims.jobs if job.message.queue == section.queue]
        ended = [job for job in jobs if job.ended_at]
        if any(job.copy or (job.fate and job.fate.copy and not job.copied) for job in ended):
            return True  # under an alarm, or its ended jobs would pile up
        if len(ended) >= MOST_ENDED and sum(job.updates.pending for job in ended) >= MOST_ENDED:
            return True
        return section.concurrency is not None and len(jobs) - len(ended) >= section.concurrency

    def _prefetch(self, name: str) -> tuple[int, int, bool]:
        """Returns how many messages a queue may send that are not settled, how many more ahead, if some are used.

        The first is what the slots can take soon. A job that has ended is in no slot, but its message is not
        settled before its statuses are confirmed. If jobs are quick, there are more such messages than slots;
        else the queue is asked for what it may not send yet.
        """
        if self._sources.is_lease(name):
            return 0, 0, False
        jobs = self._claims.jobs
        before = time.monotonic() - GRACE
        slow = sum(not job.ended_at and job.taken_at < before for job in jobs)
        ended = [job for job in jobs if job.ended_at and job.message.queue == name]
        least = min((job.ended_at - job.taken_at for job in ended), default=math.inf)
        ahead = next((messages for seconds, messages in AHEAD if least < seconds), 0)
        slots = min(self._sections[name].concurrency or self._crew.size, self._crew.size - slow)
        return max(1, slots), ahead, bool(ended) and not ahead

    def _stem(self) -> None:
        """Has queues send no more when their messages would wait here, though another client could run them."""
        for name, waited in self._sources.flowing.items():
            unwanted = not self._open() or name not in self._sections or self._rota.is_held(name)
            late = waited > GRACE and (not self.has_room or self.is_full(name))  # else it has its turn soon
            if unwanted or late:
                most = RETURNS if waited < LONGEST_HOLD else math.inf
                self._sources.stem(name, partial(may_go_back, most))

    def _return(self, delivery: Delivery) -> None:
        with contextlib.suppress(DeliveryLost):  # then it is back already
            delivery.requeue()

    def _begin(self, delivery: Delivery) -> None:
        """Has a free slot work off a message."""
        section = self._sections[delivery.queue]
        runner = self._runners[delivery.queue]
        job = Job(delivery, section, runner, next(self._numbers), self._feed)
        log.debug("%s: taken%s", job, " once more" if delivery.redelivered else "")
        self._crew.take(job)
        if self._settlement.take(job):
            self._crew.begin(job)


def may_go_back(most: float, delivery: Delivery) -> bool:
    """Whether a message was given back fewer than ``most`` times."""
    return envelope.given_back(delivery.properties) < most
