"""What is to be published until the broker has it, or it is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from rbit.broker.forms import Form, Topic
from rbit.message import Properties


@dataclass(eq=False)
class Copy:
    """A message to be published.

    Attributes:
        queue: where to; for an exchange, the routing key.
        body, properties: what.
        done: called once, in the publisher's thread: with True when the broker has confirmed the copy,
            with False when it was given up. Not called after a ``cancel`` that returned True.
        form: of the queue or the exchange, if it is one of rbit's own, to be made when it is missing.
        whole: whether it is given up if its headers do not fit a frame; else it goes without the largest.
        too_large: whether it was given up for that.
        left_out: the names of headers that it went without.
        nowhere: whether it was given up, as one that is ``whole``, for its queue is missing and may not be made.
        exchange: where to, if not to a queue: then it is a status.
        mandatory: whether a queue must take it.
        optional: whether it is given up when the broker, or one of the queues that it goes to, refuses it.
    """

    queue: str
    body: bytes = field(repr=False)
    properties: Properties = field(repr=False)
    done: Callable[[bool], None] = field(repr=False)
    form: Form | Topic | None = None
    whole: bool = False
    too_large: bool = False
    left_out: str = ""
    nowhere: bool = False
    exchange: str = ""
    mandatory: bool = True
    optional: bool = False
    failures: int = 0  # in a row
    due: float = 0.0  # time.monotonic() of the next try
    sent: bool = False  # the broker may have it
    unsure: bool = False  # so also before the try that is under way
    cancelled: bool = False
    awaited: bool = True  # whether ``done`` is to be called
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def where(self) -> str:
        """Where it goes to, in words."""
        return f"the exchange {self.exchange}" if self.exchange else f"the queue {self.queue}"

    @property
    def what(self) -> str:
        """What it is, in a word."""
        return "status" if self.exchange else "copy"

    def cancel(self) -> bool:
        """Gives it up; returns whether it is sure that the broker never has it. Any thread may call it."""
        with self._lock:
            self.cancelled = True
            self.awaited = self.sent
            if not self.sent:
                self.body = b""  # it may have to wait long until it is thrown away
            return not self.sent

    def send(self) -> bool:
        """Notes that it is about to be sent; returns False when it was given up before."""
        with self._lock:
            self.unsure = self.sent
            self.sent = self.sent or not self.cancelled
            return not self.cancelled

    def refuse(self) -> None:
        """Notes that the broker has not got it in this try."""
        with self._lock:
            self.sent = self.unsure
