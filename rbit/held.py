"""Updates that the pump has taken from its queue and not settled, and what it knows of others.

Knows nothing of PyBit. Used in the pump's thread.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from dataclasses import dataclass

from rbit.broker import Delivery, Queue
from rbit.errors import DeliveryLost
from rbit.message import STATUSES
from rbit.output import indented, visible
from rbit.update import Update

LONGEST_HOLD = 60.0  # seconds
COLLECTING = 10.0  # seconds that what comes again is collected, or there would be no time left to tell it
MOST_HELD = 1000  # updates
MOST_KNOWN = 10_000  # ids of settled updates; a second copy of one comes soon or never


@dataclass(eq=False)
class Held:
    """An update that was taken from the queue and is not settled."""

    delivery: Delivery
    update: Update
    job: int

    @property
    def id(self) -> str:
        """Its message id; of one that rbit has not published, its body."""
        return str(self.delivery.properties.message_id or self.delivery.body)

    @property
    def label(self) -> str:
        """How the log calls its job."""
        return visible(f"{self.update.queue} job {self.job}")

    def __str__(self) -> str:
        return indented(visible(f"the status {self.update.status}"))


@dataclass
class Failures:
    """How often PyBit failed at an update.

    Attributes:
        taken: how many updates PyBit had taken before it first answered with 500.
        count: how often it did.
        outages: how often there was no answer, or none of PyBit's own.
        due: time.monotonic() of the next try.
    """

    taken: int = 0
    count: int = 0
    outages: int = 0
    due: float = 0.0


class Known:
    """The ids of the last 10,000 updates that are settled.

    One may come again, for its acknowledgement was lost, or its publisher learned too late that the broker had it.
    """

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._ids

    def add(self, key: str) -> None:
        """Notes one that is settled."""
        self._ids[key] = None
        while len(self._ids) > MOST_KNOWN:
            del self._ids[next(iter(self._ids))]


class Hand:
    """What is held: those at which PyBit has failed, and the later ones of their jobs.

    Attributes:
        known: what is settled.
    """

    def __init__(self) -> None:
        self.known = Known()
        self._lanes: dict[int, deque[Held]] = {}  # by job
        self._taken: dict[int, float] = {}  # time.monotonic() when it was taken, by tag, oldest first
        self._again: list[Held] = []  # what has come again, so far
        self._line_up_by = 0.0  # time.monotonic()
        self._failures: dict[str, Failures] = {}  # by id, also of what went back

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return not self._taken

    @property
    def count(self) -> int:
        """How many are held."""
        return len(self._taken)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be taken."""
        return len(self._taken) >= MOST_HELD

    @property
    def until(self) -> float:
        """time.monotonic() by which the first of what is held goes back."""
        return next(iter(self._taken.values()), time.monotonic()) + LONGEST_HOLD

    def note(self, delivery: Delivery) -> None:
        """Notes that a message was taken from the queue."""
        self._taken[delivery.tag] = time.monotonic()

    def failures(self, held: Held) -> Failures:
        """Returns how often PyBit failed at an update, to be counted on."""
        return self._failures.setdefault(held.id, Failures())

    def waits(self, held: Held) -> bool:
        """Whether an update just taken is not to be tried yet; it is kept in its job's lane then."""
        failures = self._failures.get(held.id)
        waits = held.job in self._lanes or (failures is not None and failures.due > time.monotonic())
        if waits:
            self._lanes.setdefault(held.job, deque()).append(held)
        return waits

    def keep(self, held: Held) -> None:
        """Keeps an update that has come again, until ``line_up``; does that itself when it takes long."""
        if not self._again:
            self._line_up_by = time.monotonic() + COLLECTING
        self._again.append(held)
        if self.is_full or time.monotonic() > self._line_up_by:
            self.line_up()

    def line_up(self) -> None:
        """Puts what has come again into the lanes, in the order of its time.

        All that a lost connection held comes again before anything else, but a quorum queue shuffles it (seen).
        """
        again, self._again = self._again, []
        for held in sorted(again, key=lambda held: held.update.time):
            self._lanes.setdefault(held.job, deque()).append(held)

    def lane(self, held: Held) -> deque[Held]:
        """Keeps the first update of a job; returns it with the later ones."""
        return self._lanes.setdefault(held.job, deque([held]))

    def next(self) -> tuple[float, Held | None]:
        """Returns the first update of that job which is due first, and when."""
        heads = [lane[0] for lane in self._lanes.values()]
        due = [(self._failures.get(head.id, Failures()).due, head) for head in heads]
        return min(due, key=lambda entry: entry[0], default=(math.inf, None))

    def hurry(self) -> None:
        """Has everything be due now."""
        for failures in self._failures.values():
            failures.due = 0.0

    def hurry_unknown(self) -> None:
        """Has those be due now that PyBit may have no such status for."""
        for lane in self._lanes.values():
            if lane[0].update.status not in STATUSES:
                self.failures(lane[0]).due = 0.0

    def settle(self, held: Held) -> None:
        """Acknowledges an update that is done with."""
        self.known.add(held.id)
        self._failures.pop(held.id, None)
        lane = self._lanes.get(held.job)
        if lane is not None:
            lane.remove(held)
            if not lane:
                del self._lanes[held.job]
        self.acknowledge(held.delivery)

    def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledges a message."""
        del self._taken[delivery.tag]
        with contextlib.suppress(DeliveryLost):  # then it comes again, and is known
            delivery.ack()

    def give_back(self, queue: Queue) -> None:
        """Puts all back into the queue. Errors: QueueUnavailable, ConnectionLost."""
        queue.give_back(list(self._taken))
        self.drop()

    def drop(self) -> None:
        """Notes that the connection is lost: all is in the queue again."""
        self._lanes, self._taken, self._again = {}, {}, []


def content(delivery: Delivery) -> str:
    """Returns the body of a message in one line, fit for the log."""
    return visible(delivery.body.decode("utf-8", "replace")).replace("\n", " ")
