"""Goes through the default queue, where build requests are collected for which there was no queue when they came.

Those that belong to a queue of this client are moved there; all else keeps its place. A thread with connections of
its own, which starts none of the jobs and stops none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from rbit import decode, envelope
from rbit.broker import DELIVERIES, Connection, Delivery, Form, Outlet, PrivateQueue, Topic, of_type
from rbit.envelope import Identity
from rbit.errors import (
    BodyRefused,
    BrokerError,
    BrokerUnreachable,
    ConnectionLost,
    DeliveryLost,
    NameTaken,
    PublishFailed,
    QueueUnusable,
)
from rbit.message import Properties, Settled
from rbit.repeats import wait_after, worth_saying
from rbit.settings import Config, turn_queue
from rbit.sweep import LONGEST, Sweep
from rbit.tokens import token

log = logging.getLogger("rbit.client")

ALARM = 20.0  # seconds that a publish may hang under an alarm
ASK_EVERY = 0.5  # seconds between two tries to be the only one
SERVE_EVERY = 0.3  # seconds; the shortest heartbeat is 1
LONGEST_END = 10.0  # seconds that a stop waits for what is given back
PASSES = (BrokerUnreachable, ConnectionLost, DeliveryLost)  # what is likely to be over soon


class DefaultQueue(threading.Thread):
    """The thread.

    Arguments:
        config: names the default queue, if there is one; without one nothing is ever done.
        moved: called after messages were moved, in this thread.
        once: whether a pass that the broker refuses is not tried again.

    Attributes:
        refused: whether there was such a pass.
    """

    def __init__(self, config: Config, moved: Callable[[], None], once: bool) -> None:
        super().__init__(name="default queue", daemon=True)
        self._amqp = config.amqp
        self._client = config.client.name
        self._name = config.client.default_queue or ""
        self._quorum = config.amqp.queue_type == "quorum"
        self._sections = frozenset(section.queue for section in config.runners)  # replaced, never changed
        self._moved = moved
        self._once = once
        self._bell = threading.Event()
        self._asked = 1  # for so many passes, the first one at the start
        self._done = 0  # of these
        self._stopping = False
        self._failures = 0  # in a row
        self._alarm = False  # whether the log has that there is one
        self._names: dict[Identity, str] = {}  # of copies that the broker may have though the message comes again
        self.refused = False

    @property
    def busy(self) -> bool:
        """Whether a pass is still to come or to end; not after ``stop``."""
        return self._name != "" and not self._stopping and self._done < self._asked

    def begin(self) -> None:
        """Has the first pass begin, once the client's own queues are there; only the first call counts."""
        if self.busy and self.ident is None:
            self.start()

    def change(self, queues: Iterable[str]) -> None:
        """Has messages for these queues moved, and no others; goes through the queue if there is a new one."""
        before, self._sections = self._sections, frozenset(queues)
        if self._name and not self._sections <= before:
            self.ask("new queues")

    def ask(self, why: str) -> None:
        """Has one more pass made, after the one that is under way, if any."""
        if self._stopping:
            return
        if not self._name:
            log.info("%s: there is no default_queue in [rbit] to go through", why)
            return
        log.info("%s: the default queue %s is gone through", why, self._name)
        self._asked += 1
        self._bell.set()

    def stop(self) -> None:
        """Has the pass that is under way end soon, and no other begin."""
        self._stopping = True
        self._bell.set()

    def close(self) -> None:
        """Stops, and waits until all is given back, for 10 seconds at most."""
        self.stop()
        if self.is_alive():
            self.join(LONGEST_END)

    def run(self) -> None:
        while not self._stopping:
            asked = self._asked
            if self._done == asked:
                self._bell.wait()
                self._bell.clear()
                continue
            try:
                self._pass()
            except BrokerError as error:
                self._failed(error, asked)
            except Exception as error:  # the thread must go on, whatever a message holds
                log.exception("the default queue %s: a fault in rbit", self._name)
                self._failed(error, asked)
            else:
                if self._failures:
                    log.info("the default queue %s can be gone through again", self._name)
                self._failures = 0
                self._alarm = False
                self._done = asked

    def _failed(self, error: Exception, asked: int) -> None:
        """Has the pass tried again later."""
        if self._stopping:
            return
        passes = isinstance(error, PASSES) and not isinstance(error, QueueUnusable)
        self.refused = self._once and not passes
        self._failures += 1
        if worth_saying(self._failures):
            again = "left as it is" if self.refused else "tried again"
            log.warning("the default queue %s cannot be gone through, it is %s: %s", self._name, again, error)
        if self.refused:
            self._done = asked
        else:
            self._bell.wait(wait_after(self._failures))
            self._bell.clear()

    def _pass(self) -> None:
        """Goes through the queue once, when no other client does. Errors: BrokerError."""
        connection = Connection(self._amqp, f"rbit {self._client} (default queue)")
        sweep = Sweep(connection, self._name, "collected message")
        whole = False
        try:
            self._wait_for_turn(connection)
            if not self._stopping:
                with sweep:
                    self._move_all(sweep)
                if not sweep.moved and not self._stopping and (sweep.looked or self._asked > 1):
                    none = "no message of %s belongs to a queue of this client, %d stay"
                    log.info(none, self._name, sweep.looked)
            whole = True
        finally:
            connection.close()
            self._remember(sweep.doubtful(), whole)
            if sweep.moved:
                self._moved()

    def _remember(self, acknowledged: list[Settled], whole: bool) -> None:
        """Keeps, after a pass that was broken off, the names of messages that may come again."""
        if whole:
            self._names.clear()
            return
        for settled in acknowledged:
            assert isinstance(settled.key, tuple)
            identity, name = settled.key
            self._names[identity] = name

    def _wait_for_turn(self, connection: Connection) -> None:
        """Returns when this is the only client that goes through the queue, or at a stop.

        What another one has taken, and is about to give back, would be missed.
        """
        turn = turn_queue(self._name)
        said = False
        while not self._stopping:
            try:
                PrivateQueue(connection, turn)  # it goes with the connection
                return
            except NameTaken as error:
                if error.by_queue:
                    raise BrokerError(f"there is a queue named {turn}, which only rbit may have") from error
            if not said:
                log.info("another client goes through the default queue %s; waiting until it has", self._name)
            said = True
            connection.wait(ASK_EVERY)

    def _move_all(self, sweep: Sweep) -> None:
        outlet = Outlet(self._amqp, f"rbit {self._client} (default queue, publisher)", ALARM, self._on_alarm)
        refused: dict[str, PublishFailed] = {}
        try:
            form = Form(self._name, of_type(self._quorum))
            outlet.ensure(form)
            self._ensure_exchange(outlet, Topic(self._name, form, type="fanout"))
            serve_at = 0.0
            for delivery in sweep:
                if time.monotonic() >= serve_at:
                    outlet.serve()
                    serve_at = time.monotonic() + SERVE_EVERY
                queue = queue_of(delivery.body) or ""
                moved = queue in self._sections and self._tried(sweep, delivery, queue, outlet, refused)
                if sweep.must_renew(delivery) and not moved:
                    self._tried(sweep, delivery, self._name, outlet, refused)
                if self._stopping:
                    break
        finally:
            outlet.close()
            self._say(sweep, bool(refused))
        if refused:
            raise PublishFailed("; ".join(map(str, refused.values())))

    def _on_alarm(self, reason: str) -> None:
        if not self._alarm:
            self._alarm = True
            log.warning("RabbitMQ has an alarm, nothing is moved from %s until it is over: %s", self._name, reason)

    def _tried(
        self, sweep: Sweep, delivery: Delivery, queue: str, outlet: Outlet, refused: dict[str, PublishFailed]
    ) -> bool:
        """Puts a message into a queue, unless that has refused one in this pass; returns whether it is there."""
        if queue in refused:
            return False
        try:
            if queue == self._name:
                sweep.renew(delivery, outlet)
            else:
                self._move(sweep, delivery, queue, outlet)
        except PublishFailed as error:  # the other queues may take theirs
            refused[queue] = error
            outlet.renew()
        return queue not in refused

    def _ensure_exchange(self, outlet: Outlet, form: Topic) -> None:
        try:
            outlet.ensure(form)
        except PublishFailed as error:  # what is in the queue can be moved all the same
            log.warning("nothing can be collected in %s through an exchange: %s", self._name, error)
            outlet.renew()

    def _move(self, sweep: Sweep, delivery: Delivery, queue: str, outlet: Outlet) -> None:
        # By its name a client knows a copy that it gets twice. A name is drawn, and not made of what is in the
        # message: someone may send the same request once more. It is used again only for what is to come again.
        identity = Identity.of(queue, delivery.properties, delivery.body)
        known = self._names.pop(identity, None) if delivery.redelivered else None
        name = known or token(8)
        try:
            sweep.move(
                delivery, queue, named(delivery.properties, name), outlet, Settled(self._name, (identity, name))
            )
        except BrokerError:
            self._names[identity] = name
            raise

    def _say(self, sweep: Sweep, refused: bool) -> None:
        if sweep.moved:
            one = sweep.moved == 1
            log.info(
                "%d message%s of %s belong%s to queues of this client and %s moved, %d stay", sweep.moved,
                "" if one else "s", self._name, "s" if one else "", "is" if one else "are",
                sweep.looked - sweep.moved,
            )
        if sweep.renewed:
            log.warning(
                "RabbitMQ may drop what %s gives out too often, so %d messages were put at its end anew; "
                "x-delivery-limit = %d would spare that", self._name, sweep.renewed, DELIVERIES,
            )
        if sweep.cut_short:
            log.warning(
                "the first %d messages of %s took %g s; those behind them are left for the next time",
                sweep.looked, self._name, LONGEST,
            )


def queue_of(body: bytes) -> str | None:
    """Returns the queue that a build request belongs to, by the names in it; None when the body is none."""
    try:
        facts = decode.facts(decode.check(body))
    except BodyRefused:
        return None
    return f"{facts.distribution}_{facts.arch}_{facts.suite}_{facts.format}" if facts else None


def named(properties: Properties, name: str) -> Properties:
    """Returns the properties of a copy that is the same message in another queue, but has a name of its own."""
    attempt = envelope.tag_of(properties).attempt
    copy = envelope.copy(properties, attempt=attempt if attempt > 1 else None, copy=name)
    return replace(copy, expiration=properties.expiration)  # it was to wait no longer in that queue either
