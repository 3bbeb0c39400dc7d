"""One status of a job as it is published to the exchange ``rbit.status``, for PyBit and whoever follows.

Knows nothing of how it is published or read. Used in the client and by ``rbit-submit``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from rbit.errors import BodyRefused
from rbit.message import PERSISTENT, Properties
from rbit.settings import LONGEST_NAME
from rbit.tokens import token

EXCHANGE = "rbit.status"  # durable, of type topic
# The only key that a client's own queue is bound with. It is sent in the header BCC, which RabbitMQ obeys and
# removes; see https://www.rabbitmq.com/docs/sender-selected.
OWN_KEY = "to."
OWN_QUEUE = "rbit.status."
LATEST = 1e12  # seconds since 1970
HALVES = re.compile("[\\ud800-\\udfff]")


@dataclass(frozen=True)
class Update:
    """A status.

    Attributes:
        job: PyBit's id of the job; None when its message is no build request.
        queue: where its message came from.
        client: the name of the client.
        status, message: as the job reported them.
        time: seconds since 1970.
        attempt: which run of the message it is, from 1.
        final: whether it is the last one: no further run follows.
    """

    job: int | None
    queue: str
    client: str
    status: str
    message: str
    time: float
    attempt: int = 1
    final: bool = False

    @property
    def body(self) -> bytes:
        """The JSON of it."""
        return json.dumps(vars(self)).encode()

    @property
    def key(self) -> str:
        """The routing key: ``QUEUE.STATUS``, cut if that is too long."""
        return f"{self.queue}.{self.status}".encode()[:LONGEST_NAME].decode("utf-8", "ignore")

    def properties(self, to_pybit: bool, answers: str | bytes | None) -> Properties:
        """Returns the properties that it is published with.

        Arguments:
            to_pybit: whether it goes to the client's own queue too, and from there to PyBit.
            answers: the message id of the message of its job, if that has one.
        """
        return Properties(
            content_type="application/json",
            headers={"BCC": [OWN_KEY + self.client]} if to_pybit else None,
            delivery_mode=PERSISTENT,
            correlation_id=answers,  # type: ignore[arg-type] # bytes for a text that is not UTF-8
            message_id=token(),
            timestamp=int(self.time),
            app_id="rbit",
        )


def parse(body: bytes) -> Update:
    """Returns what a body says. Errors: BodyRefused when it is no status that a client published."""
    try:
        plain: Any = json.loads(body)
        update = Update(**{name: plain[name] for name in Update.__dataclass_fields__})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BodyRefused(f"no status of a client: {error!r}") from error
    # Types are compared exactly: a bool is no number here.
    kinds = update.job is None or type(update.job) is int, type(update.attempt) is int, type(update.final) is bool
    moment = type(update.time) in (int, float) and abs(update.time) < LATEST  # which NaN is not
    texts = all(map(_is_text, (update.queue, update.client, update.status))) and isinstance(update.message, str)
    if not all(kinds) or not moment or not texts:
        raise BodyRefused("no status of a client: a value is of another type")
    return update


def _is_text(value: object) -> bool:
    # JSON can spell half a character, which nothing else can.
    return isinstance(value, str) and not HALVES.search(value)
