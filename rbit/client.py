"""The client's loop: takes messages from their queues, has slots work them off, and settles them.

All of it runs in the main thread, one step a turn; other threads only post events. See docs/design.rst
for the life of a message.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from rbit.broker import Delivery, Queue, prepare_exchange
from rbit.config import Config, RunnerSettings
from rbit.errors import BrokerError, ConnectionLost, DeliveryLost, QueueUnavailable
from rbit.job import Job, Outcome, Slot
from rbit.link import Link
from rbit.message import BLOCKED, GOOD, WAITING
from rbit.publisher import Copy, Publisher
from rbit.repeats import worth_saying
from rbit.rota import Rota
from rbit.runners import Runner
from rbit.status import Reporter
from rbit.tree import Forest

log = logging.getLogger("rbit.client")

SLICE = 0.5  # seconds; pika's wait is not cut short by a signal, so this is how long a signal may wait
LAST_WAIT = 10.0  # seconds that a stop waits for statuses and copies on their way
LAST_CLOSE = 2.0  # seconds for the publisher to close its connection, unless an alarm holds it
REMEMBERED = 3600.0  # seconds that an ended job is kept whose message is expected to come again


class Client:
    """Works off the queues of a configuration.

    Arguments:
        config: the configuration.
        runners: the runner of each queue, by its name.
        poll_time: seconds between two polls.
        once: whether to stop when nothing more can run now.
    """

    def __init__(
        self, config: Config, runners: Mapping[str, Runner], poll_time: float, once: bool = False
    ) -> None:
        self._sections: dict[str, RunnerSettings] = {section.queue: section for section in config.runners}
        self._runners = runners
        self._rota = Rota(self._sections, math.inf if once else poll_time)
        self._once = once
        name = f"rbit {config.client.name}"
        self._link = Link(config.amqp, name)
        self._publisher = Publisher(config.amqp, f"{name} (publisher)")
        self._reporter = Reporter(config.pybit, config.client.name) if config.pybit else None
        forest = Forest()
        self._slots = [
            Slot(number + 1, forest, self._reporter, self._post_end)
            for number in range(config.client.concurrency)
        ]
        self._events: deque[Callable[[], None]] = deque()
        self._queues: dict[str, Queue] = {}
        self._failures: dict[str, int] = {}  # how often the broker refused a queue, in a row
        self._numbers = itertools.count(1)
        self._jobs: list[Job] = []  # not settled
        self._signals = 0
        self._obeyed = 0
        self._copies_until: float | None = None
        self.all_good = True  # whether every job so far ended Done

    def run(self) -> None:
        """Runs until a signal, or with ``once`` until nothing more can run now.

        Errors, before the first connection only: BrokerRefused, BrokerUnreachable.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        for thread in (self._publisher, self._reporter, *self._slots):
            if thread is not None:
                thread.start()
        try:
            while not self._may_leave():
                self.turn()
        finally:
            self._leave()

    def turn(self) -> None:
        """Takes one step: obeys signals, settles what ended, takes one message, else waits."""
        self._obey()
        if self._link.tend():
            self._prepare()
        while self._events:
            self._events.popleft()()
        try:
            if not self._take_one() and not self._events:
                self._link.wait(min(SLICE, self._rota.pause()) if self._may_take() else SLICE)
        except ConnectionLost as error:
            self._queues.clear()
            self._link.lost(error)

    def _note_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def _obey(self) -> None:
        """Acts on signals that have come: the first ends the taking of messages, the second the jobs."""
        signals = min(self._signals, 2)
        if self._obeyed == 0 and signals > 0:
            running = [str(slot.job) for slot in self._slots if slot.job]
            if running:
                log.info("stopping after %s; a second signal stops them now", ", ".join(running))
            else:
                log.info("stopping")
        if self._obeyed < 2 <= signals:
            for slot in self._slots:
                if slot.job:
                    slot.end(Outcome(WAITING, "rbit was stopped"))
        self._obeyed = signals

    def _prepare(self) -> None:
        """Looks at every queue after a connection was made."""
        connection = self._link.connection
        assert connection is not None
        self._queues = {name: Queue(connection, name) for name in self._sections}
        self._rota.ask_again()
        try:
            prepare_exchange(connection)
            for queue in self._queues.values():
                try:
                    queue.prepare()
                except QueueUnavailable as error:  # it may be readable all the same
                    log.warning("the broker refuses to prepare the queue %s", error)
        except ConnectionLost as error:
            self._queues.clear()
            self._link.lost(error)

    def _take_one(self) -> bool:
        """Asks the next queue whose turn it is; returns False when none can be asked now."""
        name = self._rota.next(self._is_full) if self._may_take() else None
        if name is None:
            return False
        delivery = self._get(name)
        if delivery is not None:
            self._begin(delivery)
        return True

    def _may_take(self) -> bool:
        """Whether a message could start now."""
        return not self._obeyed and bool(self._queues) and any(slot.job is None for slot in self._slots)

    def _is_full(self, name: str) -> bool:
        if any(job.copying and job.message.queue == name for job in self._jobs):
            return True  # under an alarm, or its Blocked jobs would pile up
        limit = self._sections[name].concurrency
        if limit is None:
            return False
        return sum(slot.job is not None and slot.job.message.queue == name for slot in self._slots) >= limit

    def _get(self, name: str) -> Delivery | None:
        failures = self._failures.get(name, 0)
        try:
            if failures:
                with contextlib.suppress(QueueUnavailable):
                    self._queues[name].prepare()
            delivery = self._queues[name].get()
        except QueueUnavailable as error:
            self._failures[name] = failures = failures + 1
            if worth_saying(failures):
                log.error("the broker refuses the queue %s; it is tried again at each poll", error)
            self._rota.hold(name)
            return None
        if failures:
            del self._failures[name]
            log.info("the queue %s can be read again", name)
        if delivery is None:
            self._rota.found_empty(name)
        return delivery

    def _begin(self, delivery: Delivery) -> None:
        """Has a free slot work off a message, unless its job lives here already."""
        if delivery.redelivered and (job := self._owner(delivery)):
            self._adopt(job, delivery)
            return
        section = self._sections[delivery.queue]
        job = Job(delivery, section, self._runners[delivery.queue], next(self._numbers))
        log.debug("%s: taken%s", job, " once more" if delivery.redelivered else "")
        self._jobs.append(job)
        next(slot for slot in self._slots if slot.job is None).begin(job)

    def _owner(self, delivery: Delivery) -> Job | None:
        """Returns a job whose delivery was lost and whose message this is."""
        key = (delivery.queue, delivery.properties.message_id, delivery.body)
        return next((job for job in self._jobs if job.delivery.lost and job.key == key), None)

    def _adopt(self, job: Job, delivery: Delivery) -> None:
        """Gives a job, running or ended, the delivery in which its message came again."""
        log.info("%s: its message came again; it is not run twice", job)
        job.delivery = delivery
        if job.ended_at:
            self._settle(job)

    def _post(self, event: Callable[[], None]) -> None:
        """Has the main thread call ``event`` in its next turn; any thread may call this."""
        self._events.append(event)
        self._link.wake()

    def _post_end(self, job: Job) -> None:
        self._post(partial(self._end, job))

    def _end(self, job: Job) -> None:
        """Frees the slot of a job that has an outcome."""
        for slot in self._slots:
            if slot.job is job:
                slot.job = None
        job.ended_at = time.monotonic()
        self.all_good = self.all_good and job.outcome is not None and job.outcome.status in GOOD
        self._rota.ask_again()
        self._settle(job)

    def _settle(self, job: Job) -> None:
        """Acknowledges or gives back the message of an ended job, after its copy and its final status."""
        outcome = job.outcome
        assert outcome is not None
        if job.copying:
            return
        if outcome.status == BLOCKED and not job.copied and not job.delivery.lost:
            job.copying = True
            self._rota.hold(job.message.queue)
            message = job.message
            done = partial(self._post_copied, job)
            self._publisher.put(Copy(message.queue, message.body, message.properties, done))
            return
        if outcome.status != WAITING or job.updates.last is not None:
            job.updates.finish(outcome.status, outcome.why)
        else:
            log.error("%s: not run: %s", job, outcome.why)
        try:
            if outcome.status == WAITING:
                job.delivery.requeue()
            else:
                job.delivery.ack()
        except DeliveryLost:
            if outcome.status != WAITING:
                log.warning("%s: its connection was lost; its message is settled when it comes again", job)
                return
        log.debug("%s: its message is %s", job, "put back" if outcome.status == WAITING else "acknowledged")
        self._jobs.remove(job)
        if outcome.pause:
            self._rota.hold(job.message.queue)

    def _post_copied(self, job: Job, error: BrokerError | None) -> None:
        self._post(partial(self._copied, job, error))

    def _copied(self, job: Job, error: BrokerError | None) -> None:
        """Goes on with a Blocked job, whose copy is published or not."""
        job.copying = False
        job.copied = error is None
        if error is not None:
            job.outcome = Outcome(WAITING, f"its copy could not be published: {error}", pause=True)
        self._settle(job)

    def _may_leave(self) -> bool:
        """Whether there is nothing left to wait for."""
        self._forget()
        if self._events or any(slot.job for slot in self._slots):
            return False
        settled = all(job.delivery.lost for job in self._jobs)  # nobody knows when those come again
        if self._obeyed:
            if self._copies_until is None:
                self._copies_until = time.monotonic() + LAST_WAIT
            return settled or time.monotonic() >= self._copies_until or self._obeyed > 1
        return self._once and self._link.connection is not None and settled and self._rota.is_done()

    def _forget(self) -> None:
        """Drops ended jobs whose message another client must have got."""
        before = time.monotonic() - REMEMBERED
        for job in [job for job in self._jobs if 0 < job.ended_at < before]:
            if job.delivery.lost and not job.copying:
                self._jobs.remove(job)

    def _recover(self) -> None:
        """Looks once more for the messages of ended jobs whose connection was lost, and settles them."""
        jobs = [job for job in self._jobs if job.ended_at and job.delivery.lost]
        jobs = [job for job in jobs if job.copied or (job.outcome and job.outcome.status != BLOCKED)]
        for name in {job.message.queue for job in jobs} & self._queues.keys():
            others: list[Delivery] = []
            with contextlib.suppress(BrokerError):
                # What comes again stands at the head of its queue.
                for _ in range(len(jobs) + len(self._slots)):
                    delivery = self._queues[name].get()
                    if delivery is None:
                        break
                    job = self._owner(delivery) if delivery.redelivered else None
                    if job is not None and job in jobs:
                        self._adopt(job, delivery)
                    else:
                        others.append(delivery)
            for delivery in reversed(others):
                with contextlib.suppress(DeliveryLost):
                    delivery.requeue()

    def _leave(self) -> None:
        """Ends all threads and processes, and gives back what is not settled."""
        self._recover()
        for slot in self._slots:
            if slot.job:  # only when the loop itself failed
                slot.end(Outcome(WAITING, "rbit failed"))
            slot.close()
        self._publisher.close(LAST_CLOSE)
        while self._events:  # copies that were confirmed meanwhile
            self._events.popleft()()
        for job in self._jobs:
            log.warning("%s: not acknowledged; its message will be delivered again", job)
            if job.copying:
                job.updates.finish(WAITING, "rbit was stopped")
        if self._reporter is not None:
            self._reporter.close(LAST_WAIT)
        self._link.close()
        log.info("stopped")
