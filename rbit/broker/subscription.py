"""A queue of one's own on an exchange, to follow what is published there."""

from __future__ import annotations

from collections import deque

from rbit.broker.connection import Connection
from rbit.errors import QueueUnavailable


class Subscription:
    """An exclusive queue without a name, bound to an exchange; it goes with the connection.

    What was published before is not in it. What comes is acknowledged at once.

    Arguments:
        connection: an open connection.
        exchange: of type topic; it is made (durable) when it is missing.
        keys: of the bindings.

    Errors: QueueUnavailable when the broker refuses it; ConnectionLost.
    """

    def __init__(self, connection: Connection, exchange: str, *keys: str) -> None:
        self._connection = connection
        self._come: deque[tuple[bytes, str | bytes | None]] = deque()
        with connection.translated(f"exchange {exchange}"):
            channel = connection.channel()
            channel.exchange_declare(exchange, "topic", durable=True)
            name = channel.queue_declare("", exclusive=True).method.queue
            for key in keys:
                channel.queue_bind(name, exchange, key)
            channel.basic_consume(name, self._take, auto_ack=True, exclusive=True)
        self._channel = channel

    def wait(self, seconds: float) -> list[tuple[bytes, str | bytes | None]]:
        """Waits, at most so many seconds, for what is published; returns bodies, each with its correlation id.

        Errors: ConnectionLost, QueueUnavailable.
        """
        if not self._come:
            self._connection.wait(seconds)
        if not self._channel.is_open:
            raise QueueUnavailable("the broker closed the channel")
        found = list(self._come)
        self._come.clear()
        return found

    def _take(self, channel: object, method: object, properties: object, body: bytes) -> None:
        self._come.append((body, getattr(properties, "correlation_id", None)))
