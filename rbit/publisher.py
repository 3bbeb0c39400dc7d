"""Publishes copies of messages, in a thread and on a connection of its own.

Under a broker alarm a publish hangs inside pika, and nothing else may hang with it: heartbeats, acks and
a stop go on. Knows nothing of jobs: whoever hands over a copy says what to do when it is confirmed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rbit.broker import Outlet
from rbit.config import AmqpSettings
from rbit.errors import BrokerError, PublishFailed
from rbit.message import Properties

SERVE_EVERY = 1.0  # seconds between two looks at the heartbeats while nothing is published

# Headers that would route a copy to further queues.
ROUTING_HEADERS = frozenset({"CC", "BCC"})


@dataclass(frozen=True)
class Copy:
    """A message to be published to a queue.

    Attributes:
        queue, body, properties: what and where to.
        done: called in the publisher's thread, with None once the broker has confirmed the copy, else
            with the error; after an error the broker may or may not hold a copy.
    """

    queue: str
    body: bytes = field(repr=False)
    properties: Properties = field(repr=False)
    done: Callable[[BrokerError | None], None] = field(repr=False)


class Publisher(threading.Thread):
    """The thread. Arguments: where to publish, and the name to be shown in RabbitMQ's list."""

    def __init__(self, amqp: AmqpSettings, name: str) -> None:
        super().__init__(name="publisher", daemon=True)
        self._amqp = amqp
        self._connection_name = name
        self._copies: queue.SimpleQueue[Copy | None] = queue.SimpleQueue()
        self._outlet: Outlet | None = None

    def put(self, copy: Copy) -> None:
        """Takes a copy; returns at once."""
        self._copies.put(copy)

    def close(self, timeout: float) -> None:
        """Ends the thread after what it has; waits at most ``timeout`` seconds for it."""
        self._copies.put(None)
        self.join(timeout)

    def run(self) -> None:
        while True:
            try:
                copy = self._copies.get(timeout=SERVE_EVERY if self._outlet else None)
            except queue.Empty:
                self._serve()
                continue
            if copy is None:
                break
            copy.done(self._publish(copy))
        if self._outlet is not None:
            self._outlet.close()

    def _publish(self, copy: Copy) -> BrokerError | None:
        self._serve()  # a connection that broke unnoticed shows here, before it takes a copy
        failure: BrokerError
        try:
            self._outlet = self._outlet or Outlet(self._amqp, self._connection_name)
            self._outlet.publish(copy.queue, copy.body, publishable(copy.properties))
        except BrokerError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - the thread must go on, whatever the properties hold
            failure = PublishFailed(f"{copy.queue}: {error!r}")
        else:
            return None
        if self._outlet is not None:
            self._outlet.close()
        self._outlet = None
        return failure

    def _serve(self) -> None:
        try:
            if self._outlet is not None:
                self._outlet.serve()
        except BrokerError:
            self._outlet = None


def publishable(properties: Properties) -> Properties:
    """Returns the properties that a copy may have.

    Another user's ``user_id`` makes RabbitMQ close the channel ("Validated User-ID"), and the headers CC
    and BCC would send the copy to further queues once more ("Sender-selected Distribution").
    """
    headers = properties.headers
    if headers is not None:
        headers = {key: value for key, value in headers.items() if key not in ROUTING_HEADERS}
    return replace(properties, user_id=None, headers=headers)
