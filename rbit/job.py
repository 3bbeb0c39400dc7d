"""A job: one message to be worked off, what it is known by, and what becomes of it.

Made by the client's main thread, which alone decides over its message; a slot's thread works it off.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from typing import Any

from rbit import decode, envelope
from rbit.broker import Copy, Delivery, Form
from rbit.decode import Facts
from rbit.envelope import Identity
from rbit.errors import BodyRefused
from rbit.feed import Feed
from rbit.message import Message, Properties
from rbit.output import printable
from rbit.process import Outcome
from rbit.runners import Runner
from rbit.settings import ClientSettings, RunnerSettings
from rbit.status import Updates
from rbit.tokens import token
from rbit.update import Update

__all__ = ["Fate", "Job", "Outcome"]


@dataclass(frozen=True)
class Fate:
    """What becomes of a message.

    Attributes:
        status, why: what is reported of its job.
        final: whether no further run follows.
        copy: the queue and the properties of the copy that must be confirmed before the message is
            acknowledged, and the form of that queue if it is one of rbit's own; None: no copy.
        back: whether the message itself is put back instead of acknowledged.
    """

    status: str
    why: str
    final: bool
    copy: tuple[str, Properties, Form | None] | None = None
    back: bool = False


class Job:
    """One message to be worked off.

    Arguments:
        delivery: the message as it was taken from its queue.
        section: the settings of its queue.
        runner: says what to run.
        number: counts this client's jobs; names the job when the message has no name.
        feed: what its statuses are published through.
    """

    def __init__(
        self, delivery: Delivery, section: RunnerSettings, runner: Runner, number: int, feed: Feed
    ) -> None:
        self.delivery = delivery
        self.section = section
        self.runner = runner
        self.properties = delivery.properties  # as they came; those of a copy have headers of rbit's own
        shown = envelope.original(delivery.properties)
        self.message = Message(delivery.body, delivery.queue, shown, delivery.redelivered)
        tag = envelope.tag_of(delivery.properties)
        known = tag.job if tag.lease < envelope.LARGEST else None  # else it is a stranger's
        self.token = known or token()  # its leases are known by it
        self.attempt = tag.attempt
        self.lease = tag.lease if known else 0  # which one ``delivery`` is; 0: the original
        self.leases = self.lease  # the last one that was published
        self.lease_ends = math.inf  # time.monotonic() when it is over, at the latest
        self.lease_settings: ClientSettings | None = None  # by which the last one was published
        self.lease_at = 0.0  # time.monotonic() when the next one is due
        self.awaited = False  # whether a lease is published and not fetched
        self.taken_at = time.monotonic()
        self.begun = False
        self.cancelled = ""  # why it is not to go on and not to be run again, in words
        self.outcome: Outcome | None = None
        self.seconds: float | None = None  # that its run has taken; None while it runs, and if there was none
        self.workers_replaced = 0  # workers that took the place of one that was not idle, to run it
        self.fate: Fate | None = None
        self.copy: Copy | None = None  # with the publisher
        self.copied = False  # whether the broker has confirmed the copy that its end needs
        self.lost_at = 0.0  # time.monotonic() when its delivery was found to be lost; 0.0 while it is not
        self.searched = 0  # how often its message was looked for since the delivery was lost
        self.search_at = 0.0  # time.monotonic() of the next look
        self.looked = 0  # how often in the queue of its runner, where others stand too
        self.looked_at = 0.0  # time.monotonic() when that was done last
        self.doubles_at = 0.0  # time.monotonic() by which its unnamed original is back, if it is to come again
        self.is_request = False  # whether the body is a build request, which names a job of PyBit's
        self.ended_at = 0.0  # time.monotonic(); 0.0 while it runs
        self.is_local = envelope.is_local(delivery.properties)  # PyBit knows nothing of it
        named = delivery.properties.message_id
        self.updates = Updates(
            f"{delivery.queue} message {printable(named or f'#{number}')}",
            Update(None, delivery.queue, feed.client, "", "", 0.0, tag.attempt), named or None, feed.publish,
            to_pybit=feed.to_pybit and not self.is_local,
        )

    def __str__(self) -> str:
        return self.updates.label

    @property
    def log_fields(self) -> dict[str, Any]:
        """What a line of the log that names the job says of it, see ``rbit.logs``."""
        return self.updates.log_fields

    @functools.cached_property
    def identity(self) -> Identity:
        """What its message is known by when it comes again."""
        return Identity.of(self.message.queue, self.properties, self.message.body)

    @property
    def is_named(self) -> bool:
        """Whether no other message can have the same identity: it has a message id or names a job of PyBit's."""
        return self.is_request or self.identity.is_named

    def check(self) -> Facts | None:
        """Checks the body and returns the names in its build request, if it is one.

        Errors: BodyRefused when the body must not reach a job.
        """
        self.identity  # noqa: B018 - computed here, in the slot's thread, for a body may be large
        try:
            facts = decode.facts(decode.check(self.message.body))
        except BodyRefused:
            if not self.section.unsafe_jsonpickle:
                raise
            facts = None
        if facts is not None:
            self.is_request = True
            self.updates.name(f"{self.message.queue} job {facts.job}", facts.job)
        return facts
