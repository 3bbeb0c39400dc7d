"""Carries a client's statuses from its queue ``rbit.status.NAME`` to PyBit, in order for each job.

A thread with a connection of its own; each call of PyBit runs beside it, so that heartbeats go on. An update
leaves the queue when PyBit has taken it, or refused it for good. What PyBit fails at is held for a while; when
PyBit cannot be reached all goes back. Knows nothing of jobs or HTTP.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable

from rbit import update
from rbit.bell import Bell
from rbit.broker import Connection, PrivateQueue, Queue, is_missing
from rbit.caller import LONGEST_CALL, Caller
from rbit.errors import BodyRefused, BrokerError, ConnectionLost, NameTaken, QueueUnavailable
from rbit.front import Front
from rbit.held import Hand, Held, content
from rbit.message import OUTAGES, Answer
from rbit.repeats import wait_after, worth_saying
from rbit.settings import AmqpSettings, pump_queue
from rbit.teller import Teller

log = logging.getLogger("rbit.status")

LOOK_EVERY = 10.0  # seconds between two looks at the empty queue; of what arrives from here the pump is told
ASIDE = 1.0  # seconds that others are tried after an outage before what it began with
SILENCE = 3.0  # seconds that a stop waits for an answer of the broker, which may be gone


class Pump(threading.Thread):
    """The thread.

    Arguments:
        amqp: where the queue is.
        client: the client's name.
        front: PyBit.
        runs: whether a job runs here now, by PyBit's id of it; any thread may call it.

    Attributes:
        caught_up: set once PyBit was told of what the queue held at the start.
    """

    def __init__(self, amqp: AmqpSettings, client: str, front: Front, runs: Callable[[int | None], bool]) -> None:
        super().__init__(name="pump", daemon=True)
        self.caught_up = threading.Event()
        self._amqp = amqp
        self._client = client
        self._queue_name = update.OWN_QUEUE + client
        self._bell = Bell()
        self._connection: Connection | None = None
        self._look_at = 0.0  # time.monotonic() of the next look at the queue
        self._close_by: float | None = None  # time.monotonic(), once it is to end

        # Of the pump's thread alone:
        self._queue: Queue | None = None
        self._hand = Hand()
        self._caller = Caller(front, self._hand.known, self._wait, self._bell.ring)
        self._teller = Teller(client, self._hand, self._caller, runs)
        self._resume = 0.0  # time.monotonic() before which PyBit is not tried, after an outage
        self._outages = 0  # in a row
        self._said = False  # whether the log has that PyBit does not answer
        self._breaks = 0  # of the connection, in a row
        self._greet = True  # whether the client is to be registered now
        self._registered = False
        self._was_head = False  # whether the last one that was tried had been held
        self._stuck = False  # whether there was nothing that could be done
        self._last_look = False
        self._left = 0  # messages in the queue, as of the last look

    @property
    def waiting(self) -> int:
        """How many updates PyBit has not taken, as of the last look at the queue. Any thread may ask."""
        return self._left + self._hand.count

    def wake(self) -> None:
        """Notes that an update has arrived in the queue; any thread may call it."""
        self._look_at = 0.0
        self._bell.ring()

    def close(self, timeout: float) -> None:
        """Waits until PyBit has what is in the queue, as far as it takes it, and ends; the rest stays there.

        Arguments:
            timeout: seconds for that, at most; less when the broker is silent.
        """
        began = time.monotonic()
        self._close_by = began + timeout
        self.wake()
        with contextlib.suppress(ConnectionLost):
            while self.is_alive() and (left := self._close_by - time.monotonic()) > 0:
                connection = self._connection
                if connection is not None:
                    connection.interrupt(SILENCE)
                elif time.monotonic() - began > SILENCE:
                    return
                self.join(min(left, 0.1))

    def run(self) -> None:
        while not self._is_over():
            try:
                if self._queue is None:
                    self._queue = self._open()
                self._turn(self._queue)
            except BrokerError as error:
                self._lose(error)
            except Exception as error:  # the pump must go on, whatever a library raises
                log.exception("statuses for PyBit: a fault in rbit")
                self._lose(error)
        if self._connection is not None:
            self._connection.close()  # what is held goes back

    def _open(self) -> Queue:
        """Connects. Errors: BrokerError, also when another pump has the queue, or a dead one still has it."""
        self._connection = connection = Connection(self._amqp, f"rbit {self._client} (pump)", self._bell)
        try:
            # Of two pumps each would hold a part of a job's updates: they would arrive in any order.
            PrivateQueue(connection, pump_queue(self._client))
        except QueueUnavailable as error:
            log.debug("statuses for PyBit: no other pump is kept from their queue: %s", error)
        except NameTaken as error:
            raise BrokerError("another client of this name has it, or its lost connection") from error
        return Queue(connection, self._queue_name)

    def _is_over(self) -> bool:
        if self._close_by is None:
            return False
        if self._queue is None:
            return self._breaks > 0 or time.monotonic() >= self._close_by
        if not self._last_look:
            self._last_look = True
            self._look_at = self._resume = 0.0
            self._hand.hurry()
            self._stuck = False
        return self._stuck or time.monotonic() >= self._close_by

    def _lose(self, error: Exception) -> None:
        """Gives the connection up: what is held is in the queue again."""
        self._breaks += 1
        if self._connection is not None:
            self._connection.close()
        self._queue = self._connection = None
        self._left += self._hand.count
        self._hand.drop()
        level = logging.WARNING if self._breaks > 1 and worth_saying(self._breaks) else logging.DEBUG
        log.log(level, "statuses for PyBit wait in the queue %s: %s", self._queue_name, error)
        until = time.monotonic() + wait_after(self._breaks)
        while self._close_by is None and (left := until - time.monotonic()) > 0:
            self._bell.wait(left)
        self._look_at = 0.0

    def _turn(self, queue: Queue) -> None:
        """Takes one step. Errors: BrokerError."""
        now = time.monotonic()
        if not self._hand.is_empty and self._hand.until - now < LONGEST_CALL:
            self._give_back(queue)
        if self._greet and self._caller.is_free:
            self._greet = False
            self._registered = self._registered or self._caller.register(self._hand.until)
        due, head = self._hand.next()
        look_at = math.inf if self._hand.is_full else self._look_at
        if not self._caller.is_free:
            self._rest(LOOK_EVERY)
        elif self._resume <= now and head is not None and due <= now and not (self._was_head and look_at <= now):
            self._was_head = True  # in turns, or what fails would hold up what is new
            self._tell(queue, head)
            if self._hand.is_empty:  # then the queue may be too, and PyBit knows all
                self._look_at = 0.0
        elif self._resume <= now and look_at <= now:
            self._was_head = False
            self._look_at = now + LOOK_EVERY
            self._take(queue)
        else:
            self._rest(max(self._resume, min(look_at, due)) - now)

    def _rest(self, seconds: float) -> None:
        """Waits, but not so long that something would be held for too long."""
        self._stuck = True
        if self._close_by is None:
            self._wait(min(seconds, self._hand.until - LONGEST_CALL - time.monotonic()))

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
            delivery = None
        self._breaks = 0
        self._left = queue.left
        if delivery is None or not delivery.redelivered:
            self._hand.line_up()
        if delivery is None:
            if self._hand.is_empty:
                self.caught_up.set()
            return
        self._look_at = 0.0
        self._hand.note(delivery)
        if self._hand.is_full:
            self._hand.hurry_unknown()
        try:
            said = update.parse(delivery.body)
            held = Held(delivery, said, said.job or 0)
        except BodyRefused as error:
            log.error("%s: a message is dropped: %s: %s", self._queue_name, error, content(delivery))
            self._hand.acknowledge(delivery)
            return
        if delivery.redelivered:
            self._hand.keep(held)
        elif not self._hand.waits(held):
            self._tell(queue, held)

    def _tell(self, queue: Queue, held: Held) -> None:
        """Tells PyBit, and sees to what follows from its answer."""
        taken = self._teller.taken
        outage = self._teller.tell(held)
        if outage is not None:
            self._outage(queue, held, outage)
        elif self._teller.taken > taken:
            if self._said:
                log.info("PyBit answers again")
            self._said = False
            self._outages = 0
            self._greet = not self._registered

    def _outage(self, queue: Queue, held: Held, answer: Answer) -> None:
        """Has all wait in the queue until PyBit can be reached; others are tried before this one then."""
        failures = self._hand.failures(held)
        failures.outages += 1
        self._outages += 1
        self._resume = time.monotonic() + wait_after(self._outages)
        failures.due = self._resume + ASIDE
        self._give_back(queue)
        if worth_saying(max(self._outages, failures.outages)):
            self._said = True
            log.warning(
                "PyBit does not answer (%s); statuses that wait for it in %s: %d",
                f"HTTP status {answer.code}" if answer.code in OUTAGES else answer.words,
                self._queue_name, queue.count() or 0,
            )

    def _give_back(self, queue: Queue) -> None:
        held = self._hand.count
        self._hand.give_back(queue)
        self._left += held
        self._look_at = 0.0
