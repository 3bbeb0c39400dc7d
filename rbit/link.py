"""The client's connection to the broker: made in the background, and made again when it is lost.

Connecting can take long when a network is silent, so each attempt runs in a thread of its own; everything
else here belongs to the main thread, but for ``wake``. Knows nothing of queues or jobs.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from rbit.bell import Bell
from rbit.broker import Connection
from rbit.errors import BrokerError, BrokerRefused, BrokerUnreachable, ConnectionLost
from rbit.repeats import LONGEST_WAIT, wait_after, worth_saying
from rbit.settings import AmqpSettings

log = logging.getLogger("rbit.client")

OF_A_LEASE = 0.1  # the longest wait between two attempts is no longer part of a lease's life: it runs meanwhile
HURRY = 1.0  # seconds; the longest wait once rbit is stopping


class Link:
    """Keeps a connection.

    Arguments:
        amqp: where, and for how many seconds the first connection is tried.
        name: shown in RabbitMQ's list of connections.
        lease_ttl: seconds that a lease lasts.

    Attributes:
        bell: ends a ``wait``.
        reconnects: how many connections were made after the first.
    """

    def __init__(self, amqp: AmqpSettings, name: str, lease_ttl: float) -> None:
        self.connection: Connection | None = None
        self.reconnects = 0
        self._heard_at = time.monotonic()  # of the last connection; before the first one, the start
        self._amqp = amqp
        self._name = name
        self.bell = Bell()
        self._result: Connection | BrokerError | None = None  # of an attempt, until the main thread takes it
        self._trying = False
        self._waits = False
        self.wait_for_leases(lease_ttl)
        self._failures = 0  # in a row; a connection that broke soon counts as one
        self._said = True  # whether the log has that there is no connection
        self._why = ""  # the last attempt failed
        self._refused = False  # whether the broker refused us since the last connection
        self._made_at = 0.0  # time.monotonic()
        self._waited_at = 0.0  # time.monotonic()
        self._lost_at = 0.0  # time.monotonic()
        self._try_at = 0.0
        self._give_up_at: float | None = time.monotonic() + amqp.connect_timeout  # None after the first

    def wait_for_leases(self, lease_ttl: float) -> None:
        """Sets the longest wait between two attempts. Arguments: seconds that a lease lasts."""
        self._longest = min(LONGEST_WAIT, max(HURRY, OF_A_LEASE * lease_ttl))

    @property
    def heard_at(self) -> float:
        """time.monotonic() when something came from the broker last; until then the start. Any thread may ask."""
        connection = self.connection
        return self._heard_at if connection is None else connection.heard_at

    @property
    def due(self) -> float:
        """time.monotonic() when ``tend`` has something to do; what is tried at the moment ends a ``wait``."""
        if self.connection is not None:
            return math.inf
        return min(math.inf if self._trying else self._try_at, self._give_up_at or math.inf)

    def tend(self) -> bool:
        """Takes the connection one step on; returns True when a new one has just been made.

        Errors, before the first connection only: BrokerRefused at once; BrokerUnreachable when the time
        for it is over.
        """
        if self.connection is not None:
            return False
        result, self._result = self._result, None
        if isinstance(result, Connection):
            return self._made(result)
        if result is not None:
            self._failed(result)
        now = time.monotonic()
        if self._give_up_at is not None and now >= self._give_up_at:
            raise BrokerUnreachable(
                f"no connection to RabbitMQ at {self._amqp.where} within "
                f"{self._amqp.connect_timeout:g} s ({self._why or 'no answer'}); is it running, and are host and "
                "port in [amqp] right?"
            )
        if not self._trying and now >= self._try_at:
            self._trying = True
            threading.Thread(target=self._attempt, name="connect", daemon=True).start()
        return False

    def lost(self, error: ConnectionLost) -> None:
        """Notes that the connection broke; ``tend`` makes a new one."""
        self.close()
        self._lost_at = time.monotonic()
        if self._lost_at - self._made_at > LONGEST_WAIT:
            self._failures = 0
        self._schedule()
        # One that breaks again and again is said ever more rarely, and so is the next one that is made.
        self._said = worth_saying(self._failures)
        level = logging.WARNING if self._said else logging.DEBUG
        log.log(level, "connection to RabbitMQ lost: %s; running jobs go on", error)

    def hurry(self) -> None:
        """Has the connection tried at once if there is none, and then again and again: rbit is stopping."""
        self._longest = HURRY
        self._try_at = 0.0

    def wait(self, seconds: float, unless: Callable[[], bool] = lambda: False) -> None:
        """Serves the connection, or waits for one, at most ``seconds``. Errors: ConnectionLost.

        Arguments:
            seconds: 0 for what can be done without a wait.
            unless: whether there is something better to do; what becomes true later comes with a ``wake``.
        """
        self._waits = True
        try:
            seconds = 0.0 if unless() else seconds
            if self.connection is not None:
                self.connection.wait(seconds)
            else:
                self.bell.wait(seconds)
        finally:
            self._waits = False
            self._waited_at = time.monotonic()

    def breathe(self, seconds: float) -> None:
        """Serves the connection if that was not done for so many seconds. Errors: ConnectionLost."""
        if time.monotonic() - self._waited_at > seconds:
            self.wait(0.0)

    def wake(self) -> None:
        """Ends a ``wait`` early, if there is one; any thread may call it, and a handler of signals."""
        if self._waits:  # to ring costs the waking thread a system call, and the other a turn
            self.bell.ring()

    def interrupt(self, patience: float) -> None:
        """Gives up a call that has waited so many seconds for the broker; for a handler of signals.

        Errors: ConnectionLost, in the middle of that call.
        """
        if self.connection is not None:
            self.connection.interrupt(patience)

    def close(self) -> None:
        """Closes the connection; what is not settled goes back to its queue."""
        if self.connection is not None:
            self._heard_at = self.connection.heard_at
            self.connection.close()
            self.connection = None

    def _attempt(self) -> None:
        try:
            self._result = Connection(self._amqp, self._name, self.bell)
        except BrokerError as error:
            self._result = error
        except Exception as error:  # noqa: BLE001 - or nobody would ever try again
            self._result = BrokerUnreachable(repr(error))
        self.bell.ring()

    def _made(self, connection: Connection) -> bool:
        again = "again " if self._give_up_at is None else ""
        log.log(
            logging.INFO if self._said else logging.DEBUG, "connected %sto RabbitMQ at %s", again, connection.where
        )
        self.connection = connection
        self.reconnects += self._give_up_at is None
        self._made_at = time.monotonic()
        self._trying = False
        self._refused = False
        self._give_up_at = None
        return True

    def _failed(self, error: BrokerError) -> None:
        self._trying = False
        if self._give_up_at is not None and isinstance(error, BrokerRefused):
            raise error
        self._why = str(error)
        self._schedule()
        if self._give_up_at is not None and self._failures == 1:
            log.warning("%s; trying for %g s", error, self._amqp.connect_timeout)
        elif isinstance(error, BrokerRefused) and not self._refused:
            self._refused = True
            log.error("%s; running jobs go on, and rbit goes on trying", error)
        elif not self._said and time.monotonic() > self._lost_at + LONGEST_WAIT:
            self._said = True  # that one was no hiccup like those before it
            log.warning("no connection to RabbitMQ for %g s: %s; running jobs go on", LONGEST_WAIT, error)
        else:
            log.debug("%s", error)

    def _schedule(self) -> None:
        self._failures += 1
        self._try_at = time.monotonic() + wait_after(self._failures, self._longest)
