"""Calls PyBit beside the pump's thread, which serves the broker meanwhile.

Knows nothing of HTTP or of the order of updates. Used in the pump's thread; each call runs in one of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rbit.errors import BrokerError
from rbit.front import Front
from rbit.held import Held, Known
from rbit.message import OUTAGES, Answer, Entry

LONGEST_CALL = 25.0  # seconds that an answer is waited for


class Call(threading.Thread):
    """One call; it starts at once.

    Arguments:
        act: the call.
        ended: called in this thread when it is over.
        held: the update that PyBit is told of, if it is.

    Attributes:
        over: set when it is over.
        result: what it returned; None before that, or when it raised an error.
        held: as given.
    """

    def __init__(self, act: Callable[[], Any], ended: Callable[[], None], held: Held | None) -> None:
        super().__init__(name="call of PyBit", daemon=True)
        self.over = threading.Event()
        self.result: Any = None
        self.held = held
        self._act = act
        self._ended = ended
        self.start()

    def run(self) -> None:
        try:
            self.result = self._act()
        finally:
            self.over.set()
            self._ended()


class Caller:
    """Calls PyBit, one call at a time, or it could take updates in another order.

    Arguments:
        front: PyBit.
        known: is told of an update that PyBit took when nobody waited for its answer any more.
        wait: serves the broker for so many seconds, less after ``ring``. Errors: BrokerError.
        ring: ends that early.
    """

    def __init__(
        self, front: Front, known: Known, wait: Callable[[float], None], ring: Callable[[], None]
    ) -> None:
        self._front = front
        self._known = known
        self._wait = wait
        self._ring = ring
        self._late: Call | None = None  # the one under way, also when nobody waits for it any more

    @property
    def is_free(self) -> bool:
        """Whether no call is under way."""
        call = self._late
        if call is not None and call.over.is_set():
            self._late = None
            if call.held is not None and call.result and 0 < code_of(call.result) < 300:
                self._known.add(call.held.id)
        return self._late is None

    def put(self, held: Held, until: float) -> Answer:
        """Tells PyBit of an update; returns its answer.

        Arguments:
            held: the update.
            until: time.monotonic() until which an answer is waited for.
        """
        answer = self._call(lambda: self._front.put(held.job, held.update.status), until, held)
        return answer or _late()

    def last(self, job: int, until: float) -> tuple[Answer, Entry | None]:
        """Asks for the last status of a job; None for it when the answer is none.

        Arguments: the job's id; as of ``put``.
        """
        said: tuple[Answer, Entry | None] | None = self._call(lambda: self._front.last(job), until)
        return said or (_late(), None)

    def register(self, until: float) -> bool:
        """Makes the client known to PyBit; returns whether it has answered. Arguments: as of ``put``."""
        return bool(self._call(self._front.register, until))

    def _call(self, act: Callable[[], Any], until: float, held: Held | None = None) -> Any:
        """Returns what the call returns; None when that takes too long.

        A connection that is lost meanwhile is given up by whoever uses it next: the answer counts all the same.
        """
        until = min(until, time.monotonic() + LONGEST_CALL)
        if not self.is_free or until <= time.monotonic():
            return None
        self._late = call = Call(act, self._ring, held)
        try:
            while not call.over.is_set() and (left := until - time.monotonic()) > 0:
                self._wait(left)
        except BrokerError:
            call.over.wait(max(0.0, until - time.monotonic()))
        if not call.over.is_set():
            return None
        self._late = None
        return call.result


def code_of(answer: Answer) -> int:
    """Returns the HTTP status code of an answer; 0 if PyBit was not reached, or only what sends to elsewhere."""
    code = answer.code or 0
    return code if 200 <= code < 300 or (code >= 400 and code not in OUTAGES) else 0


def _late() -> Answer:
    return Answer(None, f"no answer within {LONGEST_CALL:g} s")
