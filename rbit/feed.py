"""Has the statuses of jobs published to the exchange ``rbit.status``, from which PyBit gets them.

Knows nothing of jobs. Used by any thread of the client.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rbit.broker import Copy, Form, Topic, of_type
from rbit.publisher import Publisher
from rbit.update import EXCHANGE, OWN_KEY, OWN_QUEUE, Update


class Feed:
    """What ``rbit.status.Updates`` publish through.

    Arguments:
        client: the client's name.
        publisher: publishes.
        arrived: called when the client's own queue has got an update, in the publisher's thread; None without
            ``[pybit]``: then there is no such queue.
        quorum: whether that is a quorum queue.
        binds: whether it is bound to the exchange. Else what is for PyBit goes to it besides: nothing tells
            whether somebody else has bound it, if another queue takes what is published.

    Attributes:
        client: as given.
    """

    def __init__(
        self, client: str, publisher: Publisher, arrived: Callable[[], None] | None, quorum: bool,
        binds: bool = True,
    ) -> None:
        self.client = client
        self._publisher = publisher
        self._arrived = arrived
        self._binds = binds
        self._queue = Form(OWN_QUEUE + client, of_type(quorum))
        self._topic = Topic(EXCHANGE, strict=True)
        self._own = Topic(EXCHANGE, self._queue, OWN_KEY + client, strict=True)

    @property
    def to_pybit(self) -> bool:
        """Whether PyBit is told of statuses."""
        return self._arrived is not None

    def publish(
        self, update: Update, to_pybit: bool, answers: str | None, done: Callable[[bool], None]
    ) -> None:
        """Publishes an update; returns at once.

        It is given up when the broker refuses it, as for a follower whose queue is full. What is for PyBit goes to
        the client's own queue alone then, and is tried until it is there; the pump tells PyBit once of two.

        Arguments:
            update: the status.
            to_pybit: whether PyBit is to get it.
            answers: the message id of its job's message, if that has one.
            done: called when it is published (True) or given up because of a stop (False), in the
                publisher's thread.
        """

        def settled(confirmed: bool) -> None:
            done(confirmed)
            if to_pybit and confirmed and self._arrived is not None:
                self._arrived()

        def tried(confirmed: bool) -> None:
            if to_pybit and (copy.cancelled or (confirmed and not bound)):
                self._publisher.put(
                    Copy(self._queue.name, copy.body, replace(copy.properties, headers=None), settled, self._queue)
                )
            else:
                settled(confirmed)

        bound = to_pybit and self._binds
        copy = Copy(
            update.key, update.body, update.properties(bound, answers), tried,
            form=self._own if bound else self._topic, exchange=EXCHANGE, mandatory=bound, optional=True,
        )
        self._publisher.put(copy)
