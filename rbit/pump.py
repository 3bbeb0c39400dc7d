"""Carries a client's statuses from its queue ``rbit.status.NAME`` to PyBit, in order for each job.

A thread with a connection of its own; each call of PyBit runs beside it, so that heartbeats go on. An update
leaves the queue when PyBit has taken it, or refused it for good. What PyBit fails at is held for a while, with
the later ones of its job; when PyBit cannot be reached all goes back. Knows nothing of jobs or HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from rbit import update
from rbit.broker import Connection, Delivery, Queue, is_missing
from rbit.errors import BodyRefused, BrokerError, DeliveryLost, QueueUnavailable
from rbit.front import Front
from rbit.message import OUTAGES, Answer, Settled
from rbit.output import visible
from rbit.repeats import wait_after, worth_saying
from rbit.settings import AmqpSettings
from rbit.update import Update

log = logging.getLogger("rbit.status")

TRIES = 5  # of an update that PyBit answers with 500
NOT_FOUND = 404  # HTTP status code
LOOK_EVERY = 10.0  # seconds between two looks at the empty queue; of what arrives from here the pump is told
LONGEST_CALL = 25.0  # seconds that an answer is waited for
LONGEST_HOLD = 60.0 - LONGEST_CALL  # seconds that an update has been held when PyBit is called at the latest
MOST_HELD = 1000  # updates

T = TypeVar("T")


@dataclass(eq=False)
class Held:
    """An update that was taken from the queue and is not settled. ``at``: time.monotonic() when it was taken."""

    delivery: Delivery
    update: Update
    job: int
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """Its message id."""
        return str(self.delivery.properties.message_id)

    @property
    def label(self) -> str:
        """How the log calls its job."""
        return visible(f"{self.update.queue} job {self.job}")

    def __str__(self) -> str:
        return visible(f"the status {self.update.status}").replace("\n", "\n    ")


@dataclass
class Failures:
    """How often PyBit failed at an update.

    Attributes:
        taken: how many updates PyBit had taken before the first failure.
        due: time.monotonic() of the next try.
    """

    taken: int
    count: int = 0
    due: float = 0.0


class Pump(threading.Thread):
    """The thread.

    Arguments:
        amqp: where the queue is.
        client: the client's name.
        front: PyBit.
    """

    def __init__(self, amqp: AmqpSettings, client: str, front: Front) -> None:
        super().__init__(name="pump", daemon=True)
        self._amqp = amqp
        self._name = f"rbit {client} (pump)"
        self._queue_name = update.OWN_QUEUE + client
        self._front = front
        self._bell = threading.Event()
        self._connection: Connection | None = None
        self._look_at = 0.0  # time.monotonic() of the next look at the queue
        self._close_by: float | None = None  # time.monotonic(), once it is to end

        # Of the pump's thread alone:
        self._queue: Queue | None = None
        self._lanes: dict[int, deque[Held]] = {}  # of the jobs at whose first update PyBit has failed
        self._tags: list[int] = []  # of all that is held, as they were taken
        self._failures: dict[str, Failures] = {}  # by message id
        self._told: set[str] = set()  # ids of what PyBit has, though the broker may have no acknowledgement
        self._taken = 0  # updates that PyBit has taken
        self._resume = 0.0  # time.monotonic() before which PyBit is not tried, after an outage
        self._outages = 0  # in a row
        self._breaks = 0  # of the connection, in a row
        self._greet = True  # whether the client is to be registered now
        self._registered = False
        self._stuck = False  # whether there was nothing that could be done
        self._last_look = False

    def wake(self) -> None:
        """Notes that an update has arrived in the queue; any thread may call it."""
        self._look_at = 0.0
        self._ring()

    def _ring(self) -> None:
        self._bell.set()
        connection = self._connection
        if connection is not None:
            connection.wake()

    def close(self, timeout: float) -> None:
        """Waits until PyBit has what is in the queue, as far as it takes it, and ends; the rest stays there.

        Arguments:
            timeout: seconds for that, at most.
        """
        self._close_by = time.monotonic() + timeout
        self.wake()
        if self.is_alive():
            self.join(timeout)

    def run(self) -> None:
        while not self._is_over():
            try:
                if self._queue is None:
                    self._connection = Connection(self._amqp, self._name)
                    self._queue = Queue(self._connection, self._queue_name)
                self._turn(self._queue)
            except BrokerError as error:
                self._lose(error)
            except Exception as error:  # the pump must go on, whatever a library raises
                log.exception("statuses for PyBit: a fault in rbit")
                self._lose(error)
        if self._connection is not None:
            self._connection.close()  # what is held goes back

    def _is_over(self) -> bool:
        if self._close_by is None:
            return False
        if not self._last_look and self._queue is not None:
            self._last_look = True
            self._look_at = self._resume = 0.0
            self._stuck = False
        return self._queue is None or self._stuck or time.monotonic() >= self._close_by

    def _lose(self, error: Exception) -> None:
        """Gives the connection up: what is held is in the queue again."""
        self._breaks += 1
        if self._connection is not None:
            self._connection.close()
        if self._queue is not None:
            self._told.update(str(settled.key) for settled in self._queue.doubtful())
        self._queue = self._connection = None
        self._lanes, self._tags = {}, []
        level = logging.WARNING if self._breaks > 1 and worth_saying(self._breaks) else logging.DEBUG
        log.log(level, "statuses for PyBit wait in the queue %s: %s", self._queue_name, error)
        until = time.monotonic() + wait_after(self._breaks)
        while self._close_by is None and (left := until - time.monotonic()) > 0:
            self._bell.wait(left)
            self._bell.clear()
        self._look_at = 0.0

    def _turn(self, queue: Queue) -> None:
        """Takes one step. Errors: BrokerError."""
        if self._greet:
            self._greet = False
            self._registered = self._registered or bool(self._call(self._front.register))
        now = time.monotonic()
        if self._tags and now - min(lane[0].at for lane in self._lanes.values()) > LONGEST_HOLD:
            self._give_back(queue)
        heads = {self._due(lane[0]): lane[0] for lane in self._lanes.values()}
        if self._resume <= now and heads and min(heads) <= now:
            self._tell(queue, heads[min(heads)])
        elif self._resume <= now and self._look_at <= now and len(self._tags) < MOST_HELD:
            self._look_at = now + LOOK_EVERY
            self._take(queue)
        else:
            self._stuck = True
            if self._close_by is None:
                self._wait(max(self._resume, min([self._look_at, *heads])) - now)

    def _due(self, held: Held) -> float:
        failures = self._failures.get(held.id)
        return failures.due if failures else 0.0

    def _wait(self, seconds: float) -> None:
        if self._connection is not None:
            self._connection.wait(max(0.0, seconds))

    def _take(self, queue: Queue) -> None:
        """Takes an update, if there is one, and tells PyBit unless an earlier one of its job must go first."""
        try:
            delivery = queue.get()
        except QueueUnavailable as error:
            if not is_missing(error):  # else no update for PyBit was published yet
                raise
            return
        self._breaks = 0
        if delivery is None:
            return
        self._look_at = 0.0
        self._tags.append(delivery.tag)
        try:
            said = update.parse(delivery.body)
            held = Held(delivery, said, said.job or 0)
        except BodyRefused as error:
            log.error("a message in the queue %s is dropped: %s", self._queue_name, error)
            self._acknowledge(delivery)
            return
        if held.id in self._told:
            self._told.discard(held.id)
            self._acknowledge(delivery)
        elif held.job in self._lanes:
            self._lanes[held.job].append(held)
        elif self._due(held) > time.monotonic():
            self._lanes[held.job] = deque([held])
        else:
            self._tell(queue, held)

    def _tell(self, queue: Queue, held: Held) -> None:
        """Tells PyBit, and sees to what follows from its answer."""
        answer = self._put(held)
        code = answer.code
        if code is None or code in OUTAGES:
            self._outage(queue, answer.words if code is None else f"HTTP status {code}")
        elif code >= 500:
            self._failed(queue, held, code)
        elif code >= 300:
            self._refused(held, code, answer.words)
        else:
            self._took(held)

    def _put(self, held: Held) -> Answer:
        answer = self._call(lambda: self._front.put(held.job, held.update.status))
        return answer or Answer(None, f"no answer within {LONGEST_CALL:g} s")

    def _took(self, held: Held) -> None:
        if self._outages:
            log.info("PyBit answers again")
        self._outages = 0
        self._greet = not self._registered
        self._taken += 1
        log.debug("%s: PyBit took %s", held.label, held)
        self._settle(held)

    def _refused(self, held: Held, code: int, why: str) -> None:
        body = visible(held.delivery.body.decode("utf-8", "replace"))
        log.error("%s: PyBit refused %s with %d: %s; it is dropped: %s", held.label, held, code, why, body)
        self._settle(held)

    def _failed(self, queue: Queue, held: Held, code: int) -> None:
        """Has the update tried again later, unless it is sure that PyBit refuses it and not everything."""
        failures = self._failures.setdefault(held.id, Failures(self._taken))
        failures.count += 1
        lane = self._lanes.setdefault(held.job, deque([held]))
        if failures.count == 1:
            log.warning("%s: PyBit answers %s with %d; trying again", held.label, held, code)
        if failures.count < TRIES:
            failures.due = time.monotonic() + wait_after(failures.count)
            return
        answer, _ = self._call(lambda: self._front.last(held.job)) or (Answer(None, ""), None)
        if answer.code == NOT_FOUND:
            self._refused(held, code, f"{failures.count} times; PyBit knows no job {held.job}")
        elif self._taken > failures.taken:
            self._refused(held, code, f"{failures.count} times, while it takes other updates")
        elif len(lane) > 1 and (self._put(lane[1]).code or code) < 300:
            self._refused(held, code, f"{failures.count} times, and takes the next one of its job")
            self._took(lane[0])
        else:
            self._outage(queue, f"HTTP status {code}")

    def _outage(self, queue: Queue, reason: str) -> None:
        """Has all wait in the queue until PyBit can be reached."""
        self._outages += 1
        self._resume = time.monotonic() + wait_after(self._outages)
        self._give_back(queue)
        if worth_saying(self._outages):
            log.warning(
                "PyBit does not answer (%s); statuses that wait for it in %s: %d",
                reason, self._queue_name, queue.count() or 0,
            )

    def _give_back(self, queue: Queue) -> None:
        queue.give_back(self._tags)
        self._lanes, self._tags = {}, []
        self._look_at = 0.0

    def _settle(self, held: Held) -> None:
        """Acknowledges an update that is done with, and goes on with the next one of its job."""
        self._failures.pop(held.id, None)
        lane = self._lanes.get(held.job)
        if lane is not None:
            lane.popleft()
            if not lane:
                del self._lanes[held.job]
        self._acknowledge(held.delivery)

    def _acknowledge(self, delivery: Delivery) -> None:
        key = str(delivery.properties.message_id)
        self._tags.remove(delivery.tag)
        try:
            delivery.ack(Settled(self._queue_name, key))
        except DeliveryLost:
            self._told.add(key)

    def _call(self, act: Callable[[], T]) -> T | None:
        """Calls PyBit beside this thread, which serves the broker meanwhile; None when that takes too long.

        A connection that is lost meanwhile is given up by whoever uses it next: the answer counts all the same.
        """
        results: list[T] = []

        def call() -> None:
            try:
                results.append(act())
            finally:
                over.set()
                self._ring()

        over = threading.Event()
        until = time.monotonic() + LONGEST_CALL
        threading.Thread(target=call, name="call of PyBit", daemon=True).start()
        try:
            while not over.is_set() and (left := until - time.monotonic()) > 0:
                self._wait(left)
        except BrokerError:
            over.wait(until - time.monotonic())
        return results[0] if results else None
