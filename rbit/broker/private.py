"""The client's private queue: its name on the broker, and where commands for it arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from rbit.broker.connection import Connection
from rbit.broker.properties import plain
from rbit.broker.queue import EXCHANGE
from rbit.errors import NameTaken, QueueUnavailable
from rbit.message import Properties
from rbit.settings import LONGEST_NAME

RESOURCE_LOCKED = 405  # reply code of AMQP 0-9-1
THERE = 0
PREFETCH = 100  # messages that the broker sends before these are acknowledged


class PrivateQueue:
    """An exclusive, auto-delete queue as PyBit's own client declares it, and its consumer.

    Nobody else can have a queue of this name as long as the connection lives.

    Arguments:
        connection: an open connection.
        name: the name of the queue, and the key by which it is bound to the exchange ``pybit``.

    Errors: NameTaken when somebody has it; QueueUnavailable when we may not; ConnectionLost.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._last = 0  # delivery tag of the last message that has come
        self._gone = False
        self._channel = self._declare()

    @property
    def lost(self) -> bool:
        """Whether it is gone though the connection may live, as with a node of a cluster."""
        return self._gone or not self._channel.is_open

    def listen(self, take: Callable[[bytes, Properties], object]) -> None:
        """Binds it, and has messages sent from now on.

        Arguments:
            take: called with the body and the properties of each, while the connection is served.

        Errors: QueueUnavailable, ConnectionLost.
        """

        def come(channel: object, method: Any, properties: Any, body: bytes) -> None:
            self._last = method.delivery_tag
            take(body, plain(properties))

        with self._connection.translated(self._name):
            self._channel.queue_bind(self._name, EXCHANGE, self._name)
            self._channel.basic_qos(prefetch_count=PREFETCH)
            self._channel.add_on_cancel_callback(lambda _: self._cancelled())
            self._channel.basic_consume(self._name, come, exclusive=True)

    def acknowledge(self) -> None:
        """Acknowledges all that has come. Errors: ConnectionLost."""
        tag, self._last = self._last, 0
        if tag and not self.lost:
            with self._connection.translated():
                self._channel.basic_ack(tag, multiple=True)

    def close(self) -> None:
        """Closes its channel. Errors: ConnectionLost."""
        if self._channel.is_open:
            with self._connection.translated():
                self._channel.close()

    def _cancelled(self) -> None:
        self._gone = True

    def _declare(self) -> BlockingChannel:
        try:
            with self._connection.translated(self._name):
                channel = self._connection.channel()
                channel.queue_declare(self._name, exclusive=True, auto_delete=True)
                return channel
        except QueueUnavailable as error:
            if code_of(error) == RESOURCE_LOCKED:
                raise NameTaken(code_for(self._connection, self._name) == THERE) from error
            raise


def is_connected(connection: Connection, name: str) -> bool:
    """Whether a client of this name is connected to the broker: its queue is another connection's own.

    What the broker does not say counts as no. Errors: ConnectionLost.
    """
    # RabbitMQ strips line breaks from a name, and pika would wait for ever for an answer about the whole one.
    if "\r" in name or "\n" in name:
        return False
    try:
        if len(name.encode()) > LONGEST_NAME:
            return False
    except UnicodeEncodeError:  # half a character: the name is a stranger's
        return False
    return code_for(connection, name) == RESOURCE_LOCKED


def code_for(connection: Connection, name: str) -> int | None:
    """Returns the reply code with which the broker refuses a queue, ``THERE`` for one that it does not refuse."""
    channel = connection.channel()  # of its own, for a refusal closes it
    try:
        with connection.translated(name):
            channel.queue_declare(name, passive=True)
            channel.close()
            return THERE
    except QueueUnavailable as error:
        return code_of(error)


def code_of(error: QueueUnavailable) -> int | None:
    """Returns the reply code that is behind an error."""
    cause = error.__cause__
    return cause.reply_code if isinstance(cause, ChannelClosedByBroker) else None
