"""Publishing several messages with one wait for the confirms of all.

pika's blocking channel waits for a confirm within each publish, which costs every message a round trip. So the
confirms here are those of the channel below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pika
from pika import spec
from pika.exceptions import ChannelClosedByBroker

from rbit.broker import wire
from rbit.broker.connection import reason
from rbit.errors import PublishFailed, Unroutable
from rbit.message import Properties


@dataclass(frozen=True)
class Sending:
    """A message to be published.

    Attributes:
        key: the routing key: the name of a queue, for the default exchange.
        body, properties: what. Of several that are published at once the mandatory ones need ids of their own.
        exchange: where to.
        mandatory: whether it is refused when no queue takes it; else it is thrown away then.
        name: what errors call the place where it goes to, if not by the exchange or the key.
    """

    key: str
    body: bytes = field(repr=False)
    properties: Properties = field(repr=False)
    exchange: str = ""
    mandatory: bool = True
    name: str = ""


class Burst:
    """A channel with confirms, to be used until it is closed.

    Arguments:
        connection: an open connection.

    Errors: those of pika.
    """

    def __init__(self, connection: pika.BlockingConnection) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._impl = wire.below(self._channel)
        self._count = 0  # of what was published: the broker numbers it so, from 1
        self._open: set[int] = set()  # the numbers of those of which it has said nothing
        self._refused: set[int] = set()
        self._returned: set[str | None] = set()  # message ids
        self._impl.add_on_return_callback(self._on_return)
        self._impl.confirm_delivery(self._on_confirm)

    @property
    def is_open(self) -> bool:
        """Whether something can be published."""
        return bool(self._channel.is_open)

    def publish(self, sendings: Sequence[Sending]) -> list[PublishFailed | None]:
        """Publishes messages in this order; waits until the broker has answered for each, or closed the channel.

        Returns what is wrong with each; None when the broker has it. If it closed the channel, that was for one of
        those that say so, and it may have others of them.

        Errors: those of pika when the connection broke: the broker may have each of them or not.
        """
        first = self._count + 1
        self._refused.clear()
        self._returned.clear()
        closed: ChannelClosedByBroker | None = None
        try:
            for sending in sendings:
                properties = pika.BasicProperties(**vars(sending.properties))
                self._impl.basic_publish(
                    sending.exchange, sending.key, sending.body, properties, mandatory=sending.mandatory
                )
                self._count += 1
                self._open.add(self._count)
            wire.join(self._connection)
            wire.wait_for(self._channel, lambda: not self._open)
        except ChannelClosedByBroker as error:
            closed = error
        alone = len(sendings) == 1
        return [self._failure(number, sending, alone, closed) for number, sending in enumerate(sendings, first)]

    def bind(self, queue: str, exchange: str, key: str) -> None:
        """Binds a queue. Errors: those of pika; what the broker refuses closes the channel."""
        self._channel.queue_bind(queue, exchange, key)

    def _failure(
        self, number: int, sending: Sending, alone: bool, closed: ChannelClosedByBroker | None
    ) -> PublishFailed | None:
        where = sending.name or sending.exchange or sending.key
        if number in self._open or number > self._count:
            return not_taken(where, reason(closed) if closed else "its channel is closed", refused=alone)
        if number in self._refused:
            return not_taken(where, "it is full, or has failed", refused=False)
        if self._returned and (alone or sending.properties.message_id in self._returned):
            return not_taken(where, "no queue takes it", refused=True, kind=Unroutable)
        return None

    def _on_confirm(self, frame: pika.frame.Method[Any]) -> None:
        answer, tag = frame.method, frame.method.delivery_tag
        numbers = {number for number in self._open if number <= tag} if answer.multiple else {tag}
        self._open -= numbers
        if isinstance(answer, spec.Basic.Nack):
            self._refused |= numbers

    def _on_return(self, _channel: Any, _method: Any, properties: pika.BasicProperties, _body: bytes) -> None:
        self._returned.add(properties.message_id)


def not_taken(where: str, why: str, refused: bool, kind: type[PublishFailed] = PublishFailed) -> PublishFailed:
    """Returns the error for a message that the broker did not take.

    Arguments:
        where: the queue or the exchange that it was for; may be ''.
        why: in words.
        refused: whether it is certain that the broker has not got it.
        kind: of the error.
    """
    return kind(f"the broker took no copy{f' for {where}' if where else ''}: {why}", refused)
