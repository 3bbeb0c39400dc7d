"""A queue that is polled, and the deliveries that come from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from rbit.broker.connection import Connection, reason
from rbit.broker.properties import plain
from rbit.errors import DeliveryLost, QueueUnavailable
from rbit.message import Properties

log = logging.getLogger("rbit.broker")

EXCHANGE = "pybit"  # the direct, durable exchange that PyBit publishes build requests to
NOT_FOUND = 404  # reply code of AMQP 0-9-1


@dataclass
class Delivery:
    """A message that was taken from a queue and is not settled yet."""

    queue: str
    tag: int
    body: bytes = field(repr=False)
    properties: Properties = field(repr=False)
    redelivered: bool
    channel: BlockingChannel = field(repr=False)

    @property
    def lost(self) -> bool:
        """Whether it cannot be settled any more, for its channel is closed: the broker delivers it again."""
        return not self.channel.is_open

    def ack(self) -> None:
        """Acknowledges it. Errors: DeliveryLost."""
        self._settle(lambda: self.channel.basic_ack(self.tag))

    def requeue(self) -> None:
        """Puts it back at the head of its queue. Errors: DeliveryLost."""
        self._settle(lambda: self.channel.basic_nack(self.tag, requeue=True))

    def _settle(self, act: Callable[[], None]) -> None:
        # A tag belongs to the channel that delivered it; pika would send a stale one without complaint.
        if self.lost:
            raise DeliveryLost(f"{self.queue}: the channel of the delivery is closed")
        try:
            act()
        except (AMQPError, OSError) as error:
            raise DeliveryLost(f"{self.queue}: {reason(error)}") from error


def prepare_exchange(connection: Connection) -> None:
    """Creates the exchange of PyBit when it is missing, exactly as PyBit does.

    What the broker refuses is logged: queues can be read all the same. Errors: ConnectionLost.
    """
    # Passively first: an existing exchange of another form would refuse a declaration.
    for passive in (True, False):
        channel = connection.channel()
        try:
            with connection.translated(f"exchange {EXCHANGE}"):
                channel.exchange_declare(EXCHANGE, "direct", passive=passive, durable=True)
                channel.close()
                return
        except QueueUnavailable as error:
            if not is_missing(error):
                log.warning("the broker refuses the %s", error)
                return


class Queue:
    """One queue, on a channel of its own, so that what the broker refuses here harms no other queue.

    Arguments:
        connection: an open connection.
        name: the name of the queue.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self._connection = connection
        self._channel: BlockingChannel | None = None

    def prepare(self) -> None:
        """Creates the queue when it is missing, exactly as PyBit does, and binds it as PyBit does.

        A queue whose name has four parts is bound to the exchange ``pybit`` with the dotted route.
        Errors: QueueUnavailable, after which ``get`` may work all the same; ConnectionLost.
        """
        if self.count() is None:
            with self._connection.translated(self.name):
                self._open().queue_declare(self.name, durable=True)
            log.info("queue %s was missing and is created", self.name)
        parts = self.name.split("_")
        if len(parts) == 4 and all(parts):
            with self._connection.translated(self.name):
                self._open().queue_bind(self.name, EXCHANGE, ".".join(parts))

    def count(self) -> int | None:
        """Returns the messages in the queue; None when there is no such queue.

        Errors: QueueUnavailable, ConnectionLost.
        """
        try:
            with self._connection.translated(self.name):
                declared = self._open().queue_declare(self.name, passive=True)
                return int(declared.method.message_count)
        except QueueUnavailable as error:
            if is_missing(error):
                return None
            raise

    def get(self) -> Delivery | None:
        """Takes the next message; None when the queue is empty. Errors: QueueUnavailable, ConnectionLost."""
        with self._connection.translated(self.name):
            channel = self._open()
            method, properties, body = channel.basic_get(self.name)
        if method is None:
            return None
        return Delivery(
            queue=self.name,
            tag=method.delivery_tag,
            body=body or b"",
            properties=plain(properties),
            redelivered=method.redelivered,
            channel=channel,
        )

    def _open(self) -> BlockingChannel:
        """Returns the channel of the queue, a new one when the broker closed the last."""
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
        return self._channel


def is_missing(error: QueueUnavailable) -> bool:
    """Whether the broker said that the queue or exchange does not exist."""
    cause = error.__cause__
    return isinstance(cause, ChannelClosedByBroker) and cause.reply_code == NOT_FOUND
