"""The client's private queue: its name on the broker, and where commands for it arrive."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from rbit.broker.connection import ACCESS_REFUSED, Connection
from rbit.broker.properties import plain
from rbit.broker.queue import EXCHANGE, is_missing
from rbit.errors import NameTaken, QueueUnavailable
from rbit.message import Properties
from rbit.settings import LONGEST_NAME

log = logging.getLogger("rbit.broker")

RESOURCE_LOCKED = 405  # reply code of AMQP 0-9-1
IN_USE = "in exclusive use"  # the end of what RabbitMQ says with ACCESS_REFUSED when there is another consumer
THERE = 0
PREFETCH = 100  # messages that the broker sends before these are acknowledged


class PrivateQueue:
    """An exclusive, auto-delete queue as PyBit's own client declares it, and its consumer.

    Nobody else can have a queue of this name as long as the connection lives. On a connection that declares
    nothing it is an ordinary queue that somebody has made: nobody else can consume it then.

    Arguments:
        connection: an open connection.
        name: the name of the queue, and the key by which it is bound to the exchange ``pybit``.

    Errors: NameTaken when somebody has it; QueueUnavailable when we may not, or it is missing; ConnectionLost.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._take: Callable[[bytes, Properties], object] = lambda body, properties: None
        self._last = 0  # delivery tag of the last message that has come
        self._gone = False
        self._channel = self._declare() if connection.declares else self._seize()

    @property
    def lost(self) -> bool:
        """Whether it is gone though the connection may live, as with a node of a cluster."""
        return self._gone or not self._channel.is_open

    def listen(self, take: Callable[[bytes, Properties], object]) -> None:
        """Binds it, if it is our own, and has messages sent from now on.

        Arguments:
            take: called with the body and the properties of each, while the connection is served.

        Errors: QueueUnavailable, ConnectionLost.
        """

        self._take = take
        if self._connection.declares:
            with self._connection.translated(self._name):
                self._channel.queue_bind(self._name, EXCHANGE, self._name)
                self._consume(self._channel)

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

    def _come(self, channel: object, method: Any, properties: Any, body: bytes) -> None:
        self._last = method.delivery_tag
        self._take(body, plain(properties))

    def _consume(self, channel: BlockingChannel) -> None:
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.add_on_cancel_callback(lambda _: self._cancelled())
        channel.basic_consume(self._name, self._come, exclusive=True)

    def _seize(self) -> BlockingChannel:
        try:
            channel = self._connection.channel()
            with self._connection.translated(self._name):
                self._consume(channel)
                return channel
        except QueueUnavailable as error:
            code = code_of(error)
            # Locked: another client, which declares, has it as a queue of its own.
            if code == RESOURCE_LOCKED or (code == ACCESS_REFUSED and IN_USE in str(error)):
                raise NameTaken(by_queue=False) from error
            raise

    def _declare(self) -> BlockingChannel:
        try:
            with self._connection.translated(self._name):
                channel = self._connection.channel()
                channel.queue_declare(self._name, exclusive=True, auto_delete=True)
                return channel
        except QueueUnavailable as error:
            if code_of(error) == RESOURCE_LOCKED:
                raise NameTaken(look(self._connection, self._name)[0] == THERE) from error
            raise


def prepare_exchange(connection: Connection) -> None:
    """Creates the exchange of PyBit when it is missing, exactly as PyBit does.

    What the broker refuses is logged: queues can be read all the same. Errors: ConnectionLost.
    """
    if not connection.declares:
        return
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


def is_connected(connection: Connection, name: str) -> bool:
    """Whether a client of this name is connected to the broker.

    Its queue is another connection's own then, or, if it may not make one, a queue with a consumer. What the
    broker does not say counts as no. Errors: ConnectionLost.
    """
    # RabbitMQ strips line breaks from a name, and pika would wait for ever for an answer about the whole one.
    if "\r" in name or "\n" in name:
        return False
    try:
        if len(name.encode()) > LONGEST_NAME:
            return False
    except UnicodeEncodeError:  # half a character: the name is a stranger's
        return False
    code, consumers = look(connection, name)
    return code == RESOURCE_LOCKED or consumers > 0


def look(connection: Connection, name: str) -> tuple[int | None, int]:
    """Looks at a queue, and changes nothing. Errors: ConnectionLost.

    Returns the reply code with which the broker refuses it, ``THERE`` for one that it does not refuse; and how
    many consumers it has.
    """
    channel = connection.channel()  # of its own, for a refusal closes it
    try:
        with connection.translated(name):
            found = channel.queue_declare(name, passive=True).method
            channel.close()
            return THERE, int(found.consumer_count)
    except QueueUnavailable as error:
        return code_of(error), 0


def code_of(error: QueueUnavailable) -> int | None:
    """Returns the reply code that is behind an error."""
    cause = error.__cause__
    return cause.reply_code if isinstance(cause, ChannelClosedByBroker) else None
