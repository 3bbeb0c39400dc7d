"""Tells PyBit of one update after the other, and decides from its answers which are settled.

What PyBit fails at is held, with the later ones of its job; what it refuses for good is dropped. Knows nothing of
HTTP or connections. Used in the pump's thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from rbit import steps
from rbit.caller import Caller, code_of
from rbit.held import Failures, Hand, Held, content
from rbit.message import NOT_FOUND, OK, OVER, PASSING, STATUSES, Answer, Entry
from rbit.repeats import wait_after, worth_saying
from rbit.update import Update

log = logging.getLogger("rbit.status")

LATE = 3.0  # seconds; what PyBit gets no sooner was held up, and meanwhile another client may have run its job
TRIES = 5  # of an update that PyBit answers with 500


class Teller:
    """Tells PyBit.

    Arguments:
        client: the client's name.
        hand: what is held.
        caller: calls PyBit.
        runs: whether a job runs here now; any thread may call it.

    Attributes:
        taken: how many updates PyBit has taken.
    """

    def __init__(self, client: str, hand: Hand, caller: Caller, runs: Callable[[int | None], bool]) -> None:
        self.taken = 0
        self._client = client
        self._hand = hand
        self._caller = caller
        self._runs = runs
        self._rejected = 0  # answers with 500, in a row

    def tell(self, held: Held) -> Answer | None:
        """Tells PyBit of an update, which is settled or held then.

        Returns what came instead of an answer when PyBit cannot be reached; nothing has changed then.
        """
        if held.id in self._hand.known:
            self._hand.settle(held)
            return None
        if self._hand.failures(held).outages or time.time() - held.update.time > LATE:
            answer, entry = self._caller.last(held.job, self._hand.until)
            if not code_of(answer):
                return answer
            if entry and self._is_out_of_date(held.update, entry):
                log.info("%s: PyBit has %s by now, so it is not told of %s", held.label, entry.status, held)
                self._hand.settle(held)
                return None
        answer = self._caller.put(held, self._hand.until)
        code = code_of(answer)
        if code == 0:
            return answer
        if code >= 500:
            self._failed(held, code)
        elif code >= 400:
            self._refused(held, code, answer.words)
        else:
            self._took(held)
        return None

    def _is_out_of_date(self, update: Update, entry: Entry) -> bool:
        """Whether PyBit has an update, only its answer was late or lost; or knows of a later run of its job."""
        if entry == Entry(update.status, self._client):
            return True
        another = entry.status in OVER or entry.client not in (None, self._client)
        return another and update.status in PASSING and not self._runs(update.job)

    def _took(self, held: Held) -> None:
        steps.reached("PyBit told")
        self._rejected = 0
        self.taken += 1
        log.debug("%s: PyBit took %s", held.label, held)
        self._hand.settle(held)

    def _refused(self, held: Held, code: int, why: str) -> None:
        said = content(held.delivery)
        log.error("%s: PyBit refused %s with %d: %s; it is dropped: %s", held.label, held, code, why, said)
        self._hand.settle(held)

    def _failed(self, held: Held, code: int) -> None:
        """Has the update tried again later, unless it is sure that PyBit refuses it and not everything."""
        failures = self._reject(held, code)
        self._hand.lane(held)
        tries = failures.count
        if self._hand.is_full and held.update.status not in STATUSES and self._history(held) == OK:
            # No other update can be taken that would show whose fault it is.
            self._refused(held, code, "PyBit may have no such status, and others wait")
        elif failures.count >= TRIES:
            if self._history(held) == NOT_FOUND:
                self._refused(held, code, f"{failures.count} times; PyBit knows no job {held.job}")
            elif self.taken > failures.taken:
                self._refused(held, code, f"{failures.count} times, while it takes other updates")
            else:
                tries = self._try_later_ones(held, code)
        failures.due = time.monotonic() + wait_after(tries)

    def _history(self, held: Held) -> int | None:
        """Returns the HTTP status code with which PyBit answers for the history of a job."""
        return self._caller.last(held.job, self._hand.until)[0].code

    def _reject(self, held: Held, code: int) -> Failures:
        """Notes that PyBit answered an update with 500."""
        failures = self._hand.failures(held)
        failures.taken = failures.taken if failures.count else self.taken
        failures.count += 1
        self._rejected += 1
        if worth_saying(self._rejected):
            log.warning("%s: PyBit answers %s with %d; trying again", held.label, held, code)
        return failures

    def _try_later_ones(self, first: Held, code: int) -> int:
        """Tries the later updates of a job whose first one fails again and again.

        If PyBit takes one, it refuses what is before it. Returns how often the last of them has failed.
        """
        failures = self._hand.failures(first)
        failed = [first]
        for held in list(self._hand.lane(first))[1:]:
            answer = self._caller.put(held, self._hand.until)
            said = code_of(answer)
            if 400 <= said < 500:
                self._refused(held, said, answer.words)
            elif said >= 500:
                failures = self._reject(held, said)
                failed.append(held)
            elif said:
                for before in failed:
                    self._refused(before, code, "again and again, but takes a later one of its job")
                self._took(held)
            if said == 0 or said < 300 or failures.count < TRIES:
                break
        return failures.count
