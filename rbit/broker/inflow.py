"""A consumer of a queue: RabbitMQ sends its messages without being asked, as many as were asked for."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel

from rbit.broker.connection import Connection
from rbit.broker.queue import Delivery, Queue
from rbit.errors import DeliveryLost


class Inflow:
    """The consumer of a queue, and the deliveries that have come and were not taken.

    Arguments:
        connection: an open connection.
        queue: the queue, on that connection.
        come: called when a message has come, while the connection is served.
    """

    def __init__(self, connection: Connection, queue: Queue, come: Callable[[], object]) -> None:
        self._connection = connection
        self._queue = queue
        self._come = come
        self._channel: BlockingChannel | None = None
        self._tag = ""
        self._prefetch = 0
        self._new: deque[Delivery] = deque()
        self._waiting: deque[tuple[float, Delivery]] = deque()  # each with time.monotonic() of its coming

    @property
    def is_open(self) -> bool:
        """Whether messages are sent."""
        return self._channel is not None and self._queue.owns(self._channel)

    @property
    def waited(self) -> float:
        """For how many seconds the oldest delivery has waited; 0 if there is none."""
        return time.monotonic() - self._waiting[0][0] if self._waiting else 0.0

    def begin(self, prefetch: int) -> None:
        """Has messages sent, unless they are already. Errors: QueueUnavailable, ConnectionLost.

        Arguments:
            prefetch: how many may have come and not be settled. Fewer than before count after an ``end`` only.
        """
        if self.is_open and prefetch <= self._prefetch:
            return
        self._prefetch = prefetch
        with self._connection.translated(self._queue.name):
            if self.is_open and self._channel is not None:  # a consumer cannot change it
                self._channel.basic_cancel(self._tag)
            channel = self._queue.open()
            channel.basic_qos(prefetch_count=prefetch)
            channel.add_on_cancel_callback(self._cancelled)
            self._tag = channel.basic_consume(self._queue.name, self._take)
        self._channel = channel

    def end(self, back: Callable[[Delivery], bool]) -> None:
        """Has no more sent, and gives back what was not taken.

        Arguments:
            back: whether a delivery is given back; else it waits on.

        Errors: QueueUnavailable, ConnectionLost.
        """
        if self.is_open:
            assert self._channel is not None
            with self._connection.translated(self._queue.name):
                self._channel.basic_cancel(self._tag)
        self._channel = None
        for entry in reversed(list(self._waiting)):  # each to the head of the queue
            if back(entry[1]):
                self._waiting.remove(entry)
                with contextlib.suppress(DeliveryLost):  # then it is back already
                    entry[1].requeue()

    def sort(self, known: Callable[[Delivery], bool]) -> None:
        """Looks at each delivery once, as soon as it has come.

        Arguments:
            known: whether it is of a job that lives here, and is dealt with then.
        """
        if self._channel is not None and not self.is_open:  # the broker closed the channel, and will deliver again
            self._waiting.clear()
            self._new.clear()
            self._cancelled()
        while self._new:
            delivery = self._new.popleft()
            if not known(delivery):
                self._waiting.append((time.monotonic(), delivery))

    def take(self) -> Delivery | None:
        """Returns the oldest delivery; None if there is none."""
        while self._waiting:
            _, delivery = self._waiting.popleft()
            if not delivery.lost:
                return delivery
        return None

    def _take(self, channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self._new.append(self._queue.delivery(channel, method, properties, body))
        self._come()

    def _cancelled(self, _frame: object = None) -> None:
        """Notes that the broker sends no more, for the queue or its node is gone; it is to be asked again."""
        self._channel = None
        self._come()
