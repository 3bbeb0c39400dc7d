"""Goes through a queue once: takes all messages that are there, moves some, and leaves the others where they were.

What stays is taken, never acknowledged, and given back; if this process is killed the broker does that. Only tags
are kept of it, so there may be many. Knows nothing of what is moved, and why. Used by one thread.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rbit import envelope, steps
from rbit.broker import Connection, Delivery, Form, Outlet, Queue, Sending
from rbit.errors import BrokerError
from rbit.message import Properties, Settled

MANY = 1000  # messages; RabbitMQ takes the longer for an acknowledgement the more a channel holds
FEW = 100  # messages that are given back one by one
CHANNELS = 100  # at most, but for one; their number is limited
LONGEST = 900.0  # seconds; the broker takes back itself what is held for 30 minutes, and giving back takes a while
OFTEN = 2  # times that a message was given back; some quorum queues drop what they take back too often
TAKES_BACK = 5.0  # seconds that a queue may need for what a channel held


class Sweep:
    """The messages of a queue that are there now; a context manager that gives back what was not moved.

    Arguments:
        connection: an open connection.
        name: of the queue; it may be missing.
        what: names one of the messages in ``rbit.steps``.

    Attributes:
        looked: how many were handed out.
        moved: how many of these were moved.
        renewed: how many of these were put at the end anew.
        cut_short: whether there were more than could be looked at in ``LONGEST``.

    Errors: QueueUnavailable, ConnectionLost.
    """

    def __init__(self, connection: Connection, name: str, what: str) -> None:
        self._connection = connection
        self._name = name
        self._what = what
        self._may_drop: bool | None = None  # whether the queue drops what is given back too often, once asked
        self._parts: list[tuple[Queue, list[int]]] = []  # channels, and the tags of what is held on them
        self.looked = 0
        self.moved = 0
        self.renewed = 0
        self.cut_short = False

    def __enter__(self) -> Sweep:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokerError) if error else contextlib.nullcontext():
            self._give_back()

    def __iter__(self) -> Iterator[Delivery]:
        """Hands them out, the oldest first; each may be moved until the next one is asked for."""
        # Not until the queue is empty: what is moved may come back meanwhile.
        count = Queue(self._connection, self._name).count() or 0
        most = max(MANY, count // CHANNELS)
        until = time.monotonic() + LONGEST
        while self.looked < count and not self.cut_short:
            if self.looked % most == 0:
                self._parts.append((Queue(self._connection, self._name), []))
            queue, tags = self._parts[-1]
            delivery = queue.get()
            if delivery is None:
                break
            self.looked += 1
            tags.append(delivery.tag)
            yield delivery
            self.cut_short = self.looked < count and time.monotonic() >= until

    def move(
        self, delivery: Delivery, queue: str, named: Properties, outlet: Outlet, note: Settled | None = None
    ) -> None:
        """Moves the message that was handed out last: to another queue, confirmed, and only then from this one.

        Arguments:
            delivery: the message.
            queue: where to; made as PyBit would make it if it is missing.
            named: the properties of its copy; if they do not fit a frame, they lose what ``envelope.anew`` adds.
            outlet: publishes.
            note: what ``doubtful`` gives back if the broker may not have the acknowledgement.

        Errors: PublishFailed; also DeliveryLost, ConnectionLost, and then there may be two of it.
        """
        outlet.ensure(Form(queue, {}))
        outlet.probe()
        delivery.check()  # or, with a connection that broke under an alarm, there would be two of it
        if outlet.room(named) < 0:  # rather all of its own headers than a name
            named = envelope.copy(delivery.properties)
        properties, _ = envelope.fitted(named, outlet.room)
        outlet.publish(Sending(queue, delivery.body, properties))
        steps.reached(f"{self._what} published")
        delivery.ack(note)
        self._parts[-1][1].pop()
        self.moved += 1
        delivery.source.serve()  # so that it is sent now, and not when the next message is asked for
        steps.reached(f"{self._what} acknowledged")

    def must_renew(self, delivery: Delivery) -> bool:
        """Whether ``renew`` is to be called, for RabbitMQ may drop the message if it is given back ever again.

        If so, this is so for all behind it too, or they would overtake. Errors: ConnectionLost.
        """
        if self._may_drop is None and envelope.given_back(delivery.properties) >= OFTEN:
            self._may_drop = not self._is(Queue.is_classic) and not self._is(Queue.is_patient)
        return bool(self._may_drop)

    def renew(self, delivery: Delivery, outlet: Outlet) -> None:
        """Puts the message that was handed out last at the end of its own queue; else as ``move``."""
        self.move(delivery, self._name, envelope.put_anew(delivery.properties), outlet)
        self.moved -= 1
        self.renewed += 1

    def doubtful(self) -> list[Settled]:
        """Returns, once the connection is closed, the notes of acknowledgements that the broker may not have."""
        return [note for queue, _ in self._parts for note in queue.doubtful()]

    def _give_back(self) -> None:
        held = sum(len(tags) for _, tags in self._parts)
        # A classic queue takes what a closed channel held, each to its old place. One by one it takes ever longer.
        # A quorum queue shuffles what a channel held.
        if held > FEW and self._is(Queue.is_classic):
            queue = Queue(self._connection, self._name)
            wanted = (queue.count() or 0) + held
            for part, _ in self._parts:
                part.close()
            deadline = time.monotonic() + TAKES_BACK
            while (queue.count() or 0) < wanted and time.monotonic() < deadline:  # others may take from it
                self._connection.wait(0.01)
        else:
            for part, tags in self._parts:
                part.give_back(tags)

    def _is(self, ask: Callable[[Queue], bool]) -> bool:
        asked = Queue(self._connection, self._name)  # on a channel of its own, for a refusal closes it
        answer = ask(asked)
        asked.close()
        return answer
