"""A queue that is polled, and the deliveries that come from it."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from rbit import steps
from rbit.broker import wire
from rbit.broker.connection import Connection, reason
from rbit.broker.forms import of_type
from rbit.broker.properties import plain
from rbit.errors import BrokerError, DeliveryLost, QueueUnavailable
from rbit.message import Properties, Settled

log = logging.getLogger("rbit.broker")

EXCHANGE = "pybit"  # the direct, durable exchange that PyBit publishes build requests to
NOT_FOUND = 404  # reply code of AMQP 0-9-1
NODE_DOWN = "is down or inaccessible"  # the end of what RabbitMQ says to that code for a queue of another node
FORGETS = 2.0  # seconds; a broker that is killed may forget an ack which it took up to 0.3 s before (seen)
SOON = 0.1  # seconds in which the next message may be asked for, and its answer will do

AT_ONCE = 16  # messages that are given back before the queue is asked whether it has them
TAKES_BACK = 2.0  # seconds that a queue may need for these


@dataclass(frozen=True, slots=True)  # of small jobs there are thousands
class Ack:
    """An acknowledgement that was sent; whether the broker has it shows later.

    Attributes:
        at: time.monotonic() when it was sent.
        note: what the caller of ``Delivery.ack`` wants to remember of the message; None: nothing.
    """

    at: float
    note: Settled | None


@dataclass
class Delivery:
    """A message that was taken from a queue and is not settled yet.

    Attributes:
        queue: the queue that it belongs to; it may come from the queue of its leases.
    """

    queue: str
    tag: int
    body: bytes = field(repr=False)
    properties: Properties = field(repr=False)
    redelivered: bool
    channel: BlockingChannel = field(repr=False)
    source: Queue = field(repr=False)

    @property
    def is_lease(self) -> bool:
        """Whether it comes from the queue of its queue's leases."""
        return self.source.is_lease

    @property
    def lost(self) -> bool:
        """Whether it cannot be settled any more, for its channel is closed: the broker delivers it again."""
        return not self.source.owns(self.channel)

    def ack(self, note: Settled | None = None) -> None:
        """Acknowledges it; that is sent when the connection is served next. Errors: DeliveryLost.

        Arguments:
            note: what ``Queue.doubtful`` gives back if the broker may not have the acknowledgement, if anything.
        """
        self._settle(lambda: wire.ack(self.channel, self.tag))
        self.source.acks.append(Ack(time.monotonic(), note))

    def requeue(self) -> None:
        """Puts it back at the head of its queue. Errors: DeliveryLost."""
        self._settle(lambda: self.channel.basic_nack(self.tag, requeue=True))

    def check(self) -> None:
        """Makes sure that it could be settled now. Errors: DeliveryLost, ConnectionLost."""
        self.source.serve()
        if self.lost:
            raise DeliveryLost(f"{self.queue}: the channel of the delivery is closed")

    def _settle(self, act: Callable[[], None]) -> None:
        # A tag belongs to the channel that delivered it; pika would send a stale one without complaint.
        if self.lost:
            raise DeliveryLost(f"{self.queue}: the channel of the delivery is closed")
        try:
            act()
        except (AMQPError, OSError) as error:
            raise DeliveryLost(f"{self.queue}: {reason(error)}") from error


class Queue:
    """One queue, on a channel of its own, so that what the broker refuses here harms no other queue.

    Arguments:
        connection: an open connection.
        name: the name of the queue.
        origin: the queue that its messages belong to; None: itself.

    Attributes:
        left: how many messages were in it after the last ``get``.
    """

    def __init__(self, connection: Connection, name: str, origin: str | None = None) -> None:
        self.name = name
        self.origin = origin or name
        self.is_lease = self.origin != name
        self.left = 0
        self._connection = connection
        self._channel: BlockingChannel | None = None
        self.acks: deque[Ack] = deque()  # of the channel; older ones are certain
        self._synced = 0.0  # time.monotonic() of the last answer on the channel
        self._doubtful: list[Settled] = []  # the notes of acks on channels that broke

    def prepare(self) -> None:
        """Creates the queue when it is missing, exactly as PyBit does, and binds it as PyBit does.

        A queue whose name has four parts is bound to the exchange ``pybit`` with the dotted route. Nothing is
        done without the leave to declare. Errors: QueueUnavailable, after which ``get`` may work all the same;
        ConnectionLost.
        """
        if not self._connection.declares:
            return
        if self.count() is None:
            with self._connection.translated(self.name):
                self.open().queue_declare(self.name, durable=True)
            log.info("queue %s was missing and is created", self.name)
        parts = self.name.split("_")
        if len(parts) == 4 and all(parts):
            with self._connection.translated(self.name):
                self.open().queue_bind(self.name, EXCHANGE, ".".join(parts))

    def count(self) -> int | None:
        """Returns the messages in the queue; None when there is no such queue.

        Errors: QueueUnavailable, ConnectionLost.
        """
        try:
            with self._connection.translated(self.name):
                declared = self.open().queue_declare(self.name, passive=True)
                return int(declared.method.message_count)
        except QueueUnavailable as error:
            if is_missing(error):
                return None
            raise

    def is_classic(self) -> bool:
        """Whether it is sure to be a classic queue. A "no" gives back what was taken. Errors: ConnectionLost."""
        return self._is_made_with({"x-queue-type": "classic"})

    def is_patient(self) -> bool:
        """Whether it is sure to be a quorum queue that takes back as often as rbit's own; as ``is_classic``."""
        return self._is_made_with(of_type(quorum=True))

    def _is_made_with(self, arguments: dict[str, str | int]) -> bool:
        # The broker tells the type only by taking a declaration. One with arguments of its own is not known.
        if not self._connection.declares:
            return False
        try:
            with self._connection.translated(self.name):
                self.open().queue_declare(self.name, durable=True, arguments=arguments)
        except QueueUnavailable:
            return False
        return True

    def get(self) -> Delivery | None:
        """Takes the next message; None when the queue is empty. Errors: QueueUnavailable, ConnectionLost."""
        with self._connection.translated(self.name):
            channel = self.open()
            method, properties, body = channel.basic_get(self.name)
        self._answered()
        self.left = 0 if method is None else method.message_count
        if method is None:
            return None
        return self.delivery(channel, method, properties, body)

    def delivery(self, channel: BlockingChannel, method: Any, properties: Any, body: bytes | None) -> Delivery:
        """Returns a message that the broker has sent on the queue's channel. Arguments: as pika gives them."""
        return Delivery(
            queue=self.origin,
            tag=method.delivery_tag,
            body=body or b"",
            properties=plain(properties),
            redelivered=method.redelivered,
            channel=channel,
            source=self,
        )

    def give_back(self, tags: list[int]) -> None:
        """Puts deliveries back, each to its old place, by their tags in the order in which they were taken.

        Errors: QueueUnavailable, ConnectionLost.
        """
        # A quorum queue shuffles more than 32 that are given back faster than it takes them (seen).
        patient = True
        for first in range(0, len(tags), AT_ONCE):
            part = tags[first : first + AT_ONCE]
            wanted = (self.count() or 0) + len(part)
            with self._connection.translated(self.name):
                for tag in part:
                    self.open().basic_nack(tag, requeue=True)
            deadline = time.monotonic() + TAKES_BACK
            while patient and (self.count() or 0) < wanted:
                # Not for ever: others may take from the queue meanwhile, or it drops what is too much.
                patient = time.monotonic() < deadline
                self._connection.wait(0.01)

    def close(self) -> None:
        """Closes the channel; what was delivered on it goes back. Errors: ConnectionLost."""
        if self._channel is not None and self._channel.is_open:
            with self._connection.translated():
                self._channel.close()

    def serve(self) -> None:
        """Serves the connection, without waiting. Errors: ConnectionLost."""
        self._connection.wait(0)

    def owns(self, channel: BlockingChannel) -> bool:
        """Whether what was delivered on a channel can still be settled."""
        alive: bool = channel.is_open and channel == self._channel
        return alive and not self._connection.dropped

    def prove(self, soon: float = SOON) -> None:
        """Makes sure of acks that were sent a while ago: what the broker answers now, it answers after these.

        Arguments:
            soon: seconds since the last one of them in which nothing is done.

        Errors: QueueUnavailable, ConnectionLost.
        """
        now = time.monotonic()
        last = self.unproven and self.acks[-1].at <= now - soon
        if last or (self.acks and self.acks[0].at < now - FORGETS and self._synced < now - SOON):
            with self._connection.translated(self.name):
                self.open().basic_qos(prefetch_count=0)  # the cheapest question; basic_get ignores it
            self._answered()

    @property
    def due(self) -> float:
        """time.monotonic() when ``prove`` has something to do."""
        if not self.acks:
            return math.inf
        certain = max(self.acks[0].at + FORGETS, self._synced + SOON)
        return min(certain, self.acks[-1].at + SOON) if self.unproven else certain

    @property
    def unproven(self) -> bool:
        """Whether acks were sent of which no later answer shows that the broker has them."""
        return bool(self.acks) and self.acks[-1].at >= self._synced

    def doubtful(self) -> list[Settled]:
        """Returns, once, the notes of acks that the broker may not have, for their channel broke."""
        if self._channel is not None and not self.owns(self._channel):
            self._abandon_channel()
        found, self._doubtful = self._doubtful, []
        return found

    def _answered(self) -> None:
        if self.unproven:
            steps.reached("acknowledgements proven")
        self._synced = now = time.monotonic()
        while self.acks and self.acks[0].at < now - FORGETS:
            self.acks.popleft()

    def open(self) -> BlockingChannel:
        """Returns the channel of the queue, a new one when the broker closed the last. Errors: those of pika."""
        if self._channel is not None and not self._channel.is_open:
            self._abandon_channel()
        if self._channel is None:
            self._channel = self._connection.channel()
        return self._channel

    def _abandon_channel(self) -> None:
        self._doubtful += [ack.note for ack in self.acks if ack.note is not None]
        self.acks = deque()
        self._channel = None


def is_missing(error: BrokerError) -> bool:
    """Whether the broker said that the queue or exchange does not exist, and not that its node is down."""
    cause = error.__cause__
    return (
        isinstance(cause, ChannelClosedByBroker)
        and cause.reply_code == NOT_FOUND
        and not cause.reply_text.endswith(NODE_DOWN)
    )
