"""The forms of the queues and exchanges of rbit's own, as they are made when they are missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXPIRES = 7 * 24 * 3600  # seconds after which a lease queue goes that nobody has touched
DELIVERIES = 1_000_000  # of one message of a quorum queue; RabbitMQ 4 would drop it after 20


@dataclass(frozen=True)
class Form:
    """A durable queue of rbit's own, as it is made when it is missing.

    Attributes:
        name: the queue.
        arguments: of its declaration.
        returns: whether its messages go back to another queue. An existing queue must do so too, or what
            is published to it never comes back; other differences are only worth a warning.
    """

    name: str
    arguments: dict[str, Any] = field(hash=False)
    returns: bool = False


@dataclass(frozen=True)
class Topic:
    """A durable exchange, of type topic if nothing else is said.

    Attributes:
        name: of the exchange.
        queue: one that is bound to it, if any.
        key: the key of that binding.
        type: of the exchange.
        strict: whether one that is there must be of this type.
    """

    name: str
    queue: Form | None = None
    key: str = ""
    type: str = "topic"
    strict: bool = False


def returning(name: str, queue: str, quorum: bool, expires: bool) -> Form:
    """Returns the form of a queue whose messages go to another queue when their time is over.

    Arguments:
        name: its name.
        queue: where they go to.
        quorum: whether it is a quorum queue. Dead-lettering on classic queues is safe only as long as the
            node lives; on quorum queues it can be at-least-once, which needs reject-publish.
        expires: whether it goes itself when nobody has touched it for long.
    """
    arguments: dict[str, Any] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
    if expires:
        arguments["x-expires"] = EXPIRES * 1000
    if quorum:
        arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    return Form(name, arguments | of_type(quorum), returns=True)


def keeping(name: str, limit: int, quorum: bool) -> Form:
    """Returns the form of a queue that keeps at most ``limit`` messages and drops the oldest."""
    return Form(name, {"x-max-length": limit} | of_type(quorum))


def of_type(quorum: bool) -> dict[str, Any]:
    """Returns the arguments that make a quorum queue, or none."""
    return {"x-queue-type": "quorum", "x-delivery-limit": DELIVERIES} if quorum else {}


def other_type(arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a queue that returns its messages, for the other type of queue."""
    quorum = "x-queue-type" not in arguments
    wanted = returning("", arguments["x-dead-letter-routing-key"], quorum, "x-expires" in arguments)
    return wanted.arguments
