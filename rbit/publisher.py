"""Copies of messages, and statuses, are published here, in a thread with a connection of its own.

Under a broker's alarm a publish hangs inside pika, and nothing else may hang with it: heartbeats, acks and
a stop go on. Knows nothing of jobs: whoever hands over a copy says what to do when it is confirmed.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time

from rbit import envelope, steps
from rbit.broker import Copy, Outlet, Sending
from rbit.errors import BrokerError, ConnectionLost, PublishFailed, Unroutable
from rbit.output import visible
from rbit.repeats import LONGEST_WAIT, wait_after, worth_saying
from rbit.settings import AmqpSettings

log = logging.getLogger("rbit.client")

AT_ONCE = 100  # statuses that are published with one wait for their confirms
GATHERING = 0.01  # seconds between two publishes, for more to come together
SERVE_EVERY = 1.0  # seconds after which a connection is looked at before it is given a copy
HURRY = 1.0  # seconds between two tries at most, once rbit is stopping
BLOCKED = 600.0  # seconds that a publish may hang under an alarm before it is tried on a new connection


def nothing(confirmed: bool) -> None:
    """Does nothing."""


class Publisher(threading.Thread):
    """The thread. It tries each copy until the broker has it.

    Arguments:
        amqp: where to publish.
        name: shown in RabbitMQ's list of connections.
        blocked: seconds that a publish may hang under an alarm.
    """

    def __init__(self, amqp: AmqpSettings, name: str, blocked: float = BLOCKED) -> None:
        super().__init__(name="publisher", daemon=True)
        self._amqp = amqp
        self._connection_name = name
        self._blocked = blocked
        self._new: queue.SimpleQueue[Copy | None] = queue.SimpleQueue()
        self._waiting: list[Copy] = []
        self._lock = threading.Lock()
        self._open = 0  # copies that are not done with; guarded by the lock
        self._failures: dict[str, int] = {}  # of copies for a queue or an exchange, in a row
        self._outlet: Outlet | None = None
        self._sent_at = 0.0  # time.monotonic() of the last confirm
        self._longest = LONGEST_WAIT  # seconds between two tries
        self._alarm = False  # whether the log has that the broker takes no copies

    def put(self, copy: Copy) -> None:
        """Takes a copy; returns at once."""
        with self._lock:
            self._open += 1
        self._new.put(copy)

    @property
    def is_busy(self) -> bool:
        """Whether it has something to publish."""
        return self._open > 0

    def hurry(self) -> None:
        """Has what failed be tried again within a second from now on: rbit is stopping. Any thread may call it."""
        self._longest = HURRY
        for copy in list(self._waiting):
            copy.due = min(copy.due, time.monotonic() + HURRY)

    def close(self) -> None:
        """Gives up what is not published, and ends the thread; ``join`` waits for that."""
        self._new.put(None)

    def run(self) -> None:
        while self._take():
            self._round()
        self._give_up()
        self._drop()

    def _round(self) -> None:
        """Tries all copies that are due: the statuses among them at once, and alone what is not confirmed then."""
        now = time.monotonic()
        statuses = [copy for copy in self._due(now) if copy.exchange and not copy.cancelled]
        for first in range(0, len(statuses), AT_ONCE):
            self._try(statuses[first : first + AT_ONCE])
        for copy in self._due(now):
            self._try([copy])

    def _due(self, now: float) -> list[Copy]:
        return [copy for copy in self._waiting if copy.cancelled or copy.due <= now]

    def _try(self, copies: list[Copy]) -> None:
        confirmed = self._publish(copies)
        for copy in copies:
            if copy in confirmed or copy.cancelled or copy.too_large or copy.nowhere:
                self._waiting.remove(copy)
                self._finish(copy, copy in confirmed)

    def _give_up(self) -> None:
        """Gives up what waits, and what is put while that is done, as the next status of a job."""
        while self.is_busy:
            while not self._waiting or not self._new.empty():  # one that is counted comes
                if (late := self._new.get()) is not None:
                    self._waiting.append(late)
            self._finish(self._waiting.pop(0), False)

    def _finish(self, copy: Copy, confirmed: bool) -> None:
        if copy.awaited:
            copy.done(confirmed)
        copy.done = nothing  # or it would be its own last user
        with self._lock:
            self._open -= 1

    def _take(self) -> bool:
        """Waits until there is something to do; returns False when that is to end."""
        wait = self._outlet.serve_every if self._outlet else None
        if self._waiting:  # ``hurry`` may have made them due earlier meanwhile
            wait = min(SERVE_EVERY, max(0.0, min(copy.due for copy in self._waiting) - time.monotonic()))
        try:
            new = [self._new.get(timeout=wait)]
        except queue.Empty:
            self._serve()
            return True
        if time.monotonic() < self._sent_at + GATHERING:  # it is busy, so more comes soon
            time.sleep(GATHERING)
        with contextlib.suppress(queue.Empty):
            while new[-1] is not None:
                new.append(self._new.get_nowait())
        self._waiting += [copy for copy in new if copy is not None]
        return new[-1] is not None

    def _publish(self, copies: list[Copy]) -> set[Copy]:
        """Tries copies at once; returns those that the broker has confirmed.

        Of several it does not always say which one it refused; so they are as they were before.
        """
        if all(copy.cancelled for copy in copies):
            return set()
        if time.monotonic() > self._sent_at + SERVE_EVERY:
            self._serve()  # a connection that broke unnoticed shows here, before it takes a copy
        try:
            self._outlet = self._outlet or Outlet(
                self._amqp, self._connection_name, self._blocked, self._on_alarm
            )
            return self._send(copies, self._outlet)
        except PublishFailed as error:
            if len(copies) == 1:
                self._failed(copies, error)
            self._renew()
        except BrokerError as error:
            self._failed(copies, error)
            self._drop()
        except Exception as error:  # noqa: BLE001 - the thread must go on, whatever the properties hold
            self._failed(copies, BrokerError(f"{copies[0].where}: {error!r}"))
            self._drop()
        return set()

    def _send(self, copies: list[Copy], outlet: Outlet) -> set[Copy]:
        """Publishes copies, but for those that are given up; returns the confirmed ones. Errors: BrokerError."""
        for form in {copy.form for copy in copies if copy.form is not None}:
            outlet.ensure(form)
        outlet.probe()
        if self._alarm:
            self._alarm = False
            log.info("RabbitMQ takes copies again")
        made = {copy: self._sending(copy, outlet) for copy in copies}
        sendings = {copy: sending for copy, sending in made.items() if sending is not None}
        for copy in sendings:
            steps.reached(f"{copy.what} about to be published")
        failures = dict(zip(sendings, outlet.publish_all(list(sendings.values())), strict=True))
        self._sent_at = time.monotonic()
        for copy, failure in failures.items():
            if failure is None:
                self._confirmed(copy)
                continue
            copy.nowhere = copy.whole and isinstance(failure, Unroutable) and not self._amqp.declare
            if failure.refused and not copy.nowhere:  # else it counts as sent, for ``done`` is about to be called
                copy.refuse()
        wrong = [failure for failure in failures.values() if failure is not None]
        if len(copies) == 1 and wrong and not copies[0].nowhere:
            raise wrong[0]
        if wrong:
            log.debug("statuses that are tried alone: %d: %s", len(wrong), wrong[0])
            outlet.renew()
        return {copy for copy, failure in failures.items() if failure is None}

    def _sending(self, copy: Copy, outlet: Outlet) -> Sending | None:
        """Returns a copy as it is published now; None if it is given up."""
        if not copy.send():
            return None
        properties, copy.left_out = envelope.fitted(copy.properties, outlet.room)
        copy.too_large = copy.whole and copy.left_out != ""
        if copy.too_large:
            return None
        return Sending(copy.queue, copy.body, properties, copy.exchange, copy.mandatory)

    def _confirmed(self, copy: Copy) -> None:
        steps.reached(f"{copy.what} confirmed")
        self._failures.pop(copy.where, None)
        if copy.left_out:
            left_out = visible(copy.left_out)
            log.warning("a copy for %s goes without headers that do not fit a frame: %s", copy.where, left_out)

    def _on_alarm(self, reason: str) -> None:
        if not self._alarm:
            self._alarm = True
            log.warning("RabbitMQ has an alarm and takes no copies: %s; jobs go on, their messages stay", reason)

    def _failed(self, copies: list[Copy], error: BrokerError) -> None:
        """Has copies, which go to the same place, tried again later, or gives them up."""
        for copy in copies:
            copy.failures += 1
            copy.due = time.monotonic() + wait_after(copy.failures, self._longest)
            copy.cancelled = copy.cancelled or (copy.optional and isinstance(error, PublishFailed))
        where, given_up = copies[0].where, copies[0].cancelled
        self._failures[where] = failures = self._failures.get(where, 0) + 1
        if worth_saying(failures):
            why = "the connection broke" if isinstance(error, ConnectionLost) else "RabbitMQ did not take it"
            what = "given up" if given_up else "tried again"
            log.warning("a copy for %s is %s, as %s: %s", where, what, why, error)

    def _renew(self) -> None:
        try:
            if self._outlet is not None:
                self._outlet.renew()
        except BrokerError:
            self._drop()

    def _drop(self) -> None:
        if self._outlet is not None:
            self._outlet.close()
        self._outlet = None

    def _serve(self) -> None:
        try:
            if self._outlet is not None:
                self._outlet.serve()
        except BrokerError:
            self._outlet = None

