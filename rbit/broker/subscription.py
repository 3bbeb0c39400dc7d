"""A queue of one's own on an exchange, to follow what is published there."""

from __future__ import annotations

import time
from collections import deque

from rbit.broker.connection import ACCESS_REFUSED, Connection
from rbit.broker.outlet import OTHER_TYPE, PRECONDITION_FAILED
from rbit.broker.private import code_of
from rbit.broker.queue import is_missing
from rbit.errors import QueueUnavailable

Published = tuple[bytes, "str | bytes | None"]  # a body, and its correlation id
LOOKS = 5.0  # seconds after which it is bound anew: the binding goes with its exchange, and nobody says so


class Subscription:
    """An exclusive queue without a name, for all that is published to an exchange; it goes with the connection.

    What was published before is not in it. What comes is acknowledged at once.

    Arguments:
        connection: an open connection.
        exchange: of type topic; it is made (durable) when it is missing.

    Errors: QueueUnavailable when the broker refuses it, or the exchange is of another type; ConnectionLost.
    """

    def __init__(self, connection: Connection, exchange: str) -> None:
        self._connection = connection
        self._exchange = exchange
        self._come: deque[Published] = deque()
        self._prepare()
        try:
            self._channel = connection.channel()
            with connection.translated("a queue to follow with"):
                self._queue = self._channel.queue_declare("", exclusive=True).method.queue
            self._bind()
            with connection.translated(self._queue):
                self._channel.basic_consume(self._queue, self._take, auto_ack=True, exclusive=True)
        except QueueUnavailable as error:
            if code_of(error) != ACCESS_REFUSED:
                raise
            rights = f"to configure, write and read amq.gen-*, and to read {exchange}"
            raise QueueUnavailable(f"{error}; the user needs the rights {rights}") from error

    def wait(self, seconds: float) -> list[Published]:
        """Waits, at most so many seconds, for what is published; returns bodies, each with its correlation id.

        Errors: ConnectionLost; QueueUnavailable, also when the queue or the exchange was deleted.
        """
        if not self._come:
            if time.monotonic() - self._bound_at > LOOKS:
                self._bind()
            self._connection.wait(seconds)
        if not self._channel.is_open:
            raise QueueUnavailable("the broker closed the channel")
        found = list(self._come)
        self._come.clear()
        return found

    def _bind(self) -> None:
        with self._connection.translated(f"exchange {self._exchange}"):
            self._channel.queue_bind(self._queue, self._exchange, "#")
        self._bound_at = time.monotonic()

    def _prepare(self) -> None:
        try:
            self._declare(passive=False)  # for only this tells the type of one that is there
        except QueueUnavailable as error:
            if code_of(error) == PRECONDITION_FAILED and OTHER_TYPE in str(error):
                raise QueueUnavailable(f"{error}; it must be of type topic, please delete it") from error
            if code_of(error) not in (ACCESS_REFUSED, PRECONDITION_FAILED):
                raise
            if not self._is_there():  # else it will do, also for a user who may not make it
                right = f"the right to configure {self._exchange}, which is missing"
                raise QueueUnavailable(f"{error}; the user needs {right}") from error

    def _is_there(self) -> bool:
        try:
            self._declare(passive=True)
        except QueueUnavailable as error:
            if is_missing(error):
                return False
            raise
        return True

    def _declare(self, passive: bool) -> None:
        channel = self._connection.channel()  # of its own, for a refusal closes it
        with self._connection.translated(f"exchange {self._exchange}"):
            channel.exchange_declare(self._exchange, "topic", passive=passive, durable=True)
            channel.close()

    def _take(self, channel: object, method: object, properties: object, body: bytes) -> None:
        self._come.append((body, getattr(properties, "correlation_id", None)))
