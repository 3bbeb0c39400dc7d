"""What a job is given: the message, its properties, and the names of the statuses.

The same in the client and in its workers. Knows nothing of pika: a worker does not load it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from rbit import decode
from rbit.models import BuildRequest

WAITING = "Waiting"
BUILDING = "Building"
DONE = "Done"
UPLOADED = "Uploaded"
FAILED = "Failed"
BLOCKED = "Blocked"
CANCELLED = "Cancelled"

# PyBit's statuses, as its database is populated; see "Statuses" in the protocol of PyBit.
STATUSES = frozenset({WAITING, BUILDING, DONE, UPLOADED, FAILED, BLOCKED, CANCELLED})
FINAL = frozenset({DONE, UPLOADED, FAILED, BLOCKED, CANCELLED})
GOOD = frozenset({DONE, UPLOADED})
OVER = GOOD | {CANCELLED}  # no further run follows
PASSING = frozenset({WAITING, BUILDING, BLOCKED})  # another status follows
OK = 200  # HTTP status codes of PyBit
NOT_FOUND = 404  # for a job that it does not know
OUTAGES = frozenset({502, 503, 504})  # HTTP status codes that say that PyBit cannot be reached
PERSISTENT = 2  # delivery_mode


@dataclass(frozen=True)
class Properties:
    """The AMQP properties of a message, by the names of AMQP 0-9-1; None where the publisher set none.

    A text that is not UTF-8 comes as bytes.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None  # milliseconds, in digits
    message_id: str | None = None
    timestamp: int | None = None  # seconds since 1970
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


@dataclass(frozen=True, slots=True)  # thousands are remembered
class Settled:
    """A message that was acknowledged.

    Attributes:
        queue: where it was taken from: it would come again there.
        key: what it is known by: the token of its job if it was a lease, else its identity; None when that
            could be another's.
    """

    queue: str
    key: Hashable | None


@dataclass(frozen=True)
class Answer:
    """What came of a call to PyBit.

    Attributes:
        code: the HTTP status code; None when no answer came in time.
        words: what is wrong; may be ''.
    """

    code: int | None
    words: str


@dataclass(frozen=True)
class Entry:
    """One line of PyBit's history of a job: a status, and the job's present client; None where there is none."""

    status: str | None
    client: str | None


@dataclass(frozen=True)
class Message:
    """A message as it came from its queue.

    Attributes:
        body: the body, unchanged.
        queue: the name of the queue that it came from.
        properties: its AMQP properties.
        redelivered: whether the broker has delivered it before.
    """

    body: bytes = field(repr=False)
    queue: str
    properties: Properties = field(default_factory=Properties, repr=False)
    redelivered: bool = False

    @property
    def headers(self) -> dict[str, Any]:
        """The headers of the message; empty when it has none."""
        return self.properties.headers or {}

    def build_request(self) -> BuildRequest:
        """Returns the PyBit build request in the body, decoded safely.

        Errors: rbit.errors.BodyRefused when the body is none.
        """
        return decode.build_request(self.body)
