"""The client's name on the broker: an exclusive queue, so that no two clients share their leases.

PyBit shows the client as active as long as it is there, and sends its commands to it. Used in the client's main
thread.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque

from rbit.broker import Connection, PrivateQueue, is_missing, prepare_exchange
from rbit.errors import NameTaken, QueueUnavailable
from rbit.message import Properties

log = logging.getLogger("rbit.client")

TRY_EVERY = 1.0  # seconds
LOOK_EVERY = 10.0  # seconds between two looks for a queue that somebody else has to make


class Presence:
    """Holds the name. After a lost connection the broker may keep it for that one for three heartbeats.

    Arguments:
        name: the client's name.
        patience: seconds for which a taken name is tried at the start; later it is tried for ever.
    """

    def __init__(self, name: str, patience: float) -> None:
        self._name = name
        self._patience = patience
        self._held_once = False
        self._began = 0.0  # time.monotonic() of the first try
        self._try_at = 0.0  # time.monotonic() of the next one
        self._wanted = True  # whether it is to be tried
        self._missing = False  # whether its queue is, and somebody else has to make it
        self._queue: PrivateQueue | None = None
        self._come: deque[tuple[bytes, Properties]] = deque()

    def begin(self) -> None:
        """Notes that there is a new connection."""
        self._began = self._try_at = time.monotonic()
        self._wanted = True
        self._missing = False
        self._queue = None

    def claim(self, connection: Connection) -> bool:
        """Returns whether the name is ours on this connection; it is asked for once a second.

        Errors: NameTaken at the start, when it is not free in time; ConnectionLost.
        """
        now = time.monotonic()
        if not self._wanted or now < self._try_at:
            return not self._wanted
        first = self._try_at == self._began
        self._try_at = now + TRY_EVERY
        if first:
            prepare_exchange(connection)
        queue = None
        try:
            queue = PrivateQueue(connection, self._name)
            queue.listen(lambda body, properties: self._come.append((body, properties)))
            self._queue = queue
        except NameTaken as error:
            self._missing = False
            self._taken(error, now, first)
            return False
        except QueueUnavailable as error:
            was_missing, self._missing = self._missing, not connection.declares and is_missing(error)
            if self._missing:
                self._try_at = now + LOOK_EVERY
            if was_missing and self._missing:
                pass  # that was said
            elif queue is None:
                what = "no other client is kept from this name, and"
                log.warning("the broker refuses the queue %s, so %s no job can be cancelled", error, what)
            else:
                log.warning("the broker refuses to bind or read the queue %s, so no job can be cancelled", error)
        else:
            if self._missing:
                log.info("the queue %s is there now", self._name)
            self._missing = False
        self._wanted = False
        self._held_once = True
        return True

    @property
    def due(self) -> float:
        """time.monotonic() when the name is to be asked for on this connection."""
        return self._try_at if self._wanted or self._missing else math.inf

    def command(self) -> tuple[bytes, Properties] | None:
        """Returns the next command that has come, also when its connection is lost since; None for none."""
        return self._come.popleft() if self._come else None

    def tend(self, connection: Connection) -> None:
        """Acknowledges the commands that have come, and takes the name again if only its queue is gone.

        They are obeyed by then: nothing else would bring one that is not back. Errors: ConnectionLost.
        """
        if self._queue is not None:
            self._queue.acknowledge()
        if self._queue is not None and self._queue.lost:
            log.warning("the queue %s is gone; it is made again", self._name)
            self._queue.close()
            self._queue = None
            self._began = self._try_at = max(self._try_at, time.monotonic())
            self._wanted = True
        if self._missing and time.monotonic() >= self._try_at:
            self._began = self._try_at
            self._wanted = True
        if self._wanted:
            self.claim(connection)

    def _taken(self, error: NameTaken, now: float, first: bool) -> None:
        """Has a taken name tried again. Errors: NameTaken, when it has been tried long enough."""
        if error.by_queue:
            said = f"there is a queue named {self._name} on RabbitMQ, so no client can have this name"
            advice = "please give it another one in [rbit]"
        else:
            said = f"another client named {self._name} is connected to RabbitMQ"
            advice = "give each its own name in [rbit]"
        if not self._held_once and (error.by_queue or now - self._began >= self._patience):
            raise NameTaken(error.by_queue, f"{said}; {advice}") from error
        if first:
            guess = "" if error.by_queue else ", or its lost connection is not yet found"
            time_left = "" if self._held_once else f" for {self._patience:g} s"
            log.warning("%s%s; trying again%s", said, guess, time_left)
