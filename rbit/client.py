"""The client's loop: takes messages from their queues, has slots work them off, and settles them.

All of it runs in the main thread, one step a turn; other threads only post events. See docs/design.rst
for the life of a message.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from rbit import steps
from rbit.broker import Connection, is_connected
from rbit.cancels import Cancels
from rbit.commands import Commands
from rbit.crew import Crew
from rbit.default_queue import DefaultQueue
from rbit.definitions import Missing
from rbit.errors import ConnectionLost
from rbit.events import Events
from rbit.feed import Feed
from rbit.figures import Figures
from rbit.front import Front
from rbit.gate import Gate
from rbit.intake import Intake
from rbit.job import Job, Outcome
from rbit.link import Link
from rbit.message import FAILED, GOOD, WAITING
from rbit.notify import Notifier
from rbit.presence import Presence
from rbit.publisher import Publisher
from rbit.pump import Pump
from rbit.reload import Read, Reload, remembered
from rbit.rota import Rota
from rbit.runners import Runner
from rbit.settings import Config
from rbit.settlement import Settlement
from rbit.sources import Sources
from rbit.stop import PATIENCE, StopSignals
from rbit.tree import INTERRUPT_FIRST

log = logging.getLogger("rbit.client")

LONGEST = 20.0  # seconds between two looks at all jobs
SLICE = 0.2  # seconds between two of them while rbit is to end; also, that it may be too busy to hear RabbitMQ
SOON = 0.01  # seconds from when something was done, or was said to be due now, to a look at all jobs
BUSY_PATIENCE = 3.0  # seconds that a stop waits for a broker's answer while there are messages to be settled
SILENCE = 5.0  # seconds; of a silent broker pika waits for an answer for twice so much and a heartbeat
NAME_PATIENCE = 3.5  # heartbeats; the broker lets go of a dead connection's name after 2 to 3 (seen)
LAST_WAIT = 10.0  # seconds that a stop waits for statuses, for copies, and for messages to come again
STOPPED = Outcome(WAITING, "rbit was stopped")


class Part(Protocol):
    """What has to do something at a time that nothing else tells of."""

    @property
    def due(self) -> float: ...  # time.monotonic(); infinite if there is nothing


class Client:
    """Works off the queues of a configuration.

    Arguments:
        config: the configuration.
        runners: the runner of each queue, by its name.
        once: whether to stop when nothing more can run now.
        front: makes a caller of PyBit, which one thread may use; None without ``[pybit]``.
        read: reads the configuration anew, after SIGHUP; not with ``once``.

    Attributes:
        figures: what is to be known of it; any thread may look.
    """

    def __init__(
        self, config: Config, runners: Mapping[str, Runner], once: bool = False,
        front: Callable[[], Front] | None = None, read: Read | None = None,
    ) -> None:
        queues = [section.queue for section in config.runners]
        self._rota = Rota(queues, math.inf if once else config.client.polling_time)
        self._once = once
        name = f"rbit {config.client.name}"
        self._link = Link(config.amqp, name, config.client.lease_ttl)
        self._events = Events(self._link.wake)
        self._publisher = Publisher(config.amqp, f"{name} (publisher)")
        self._pump = Pump(config.amqp, config.client.name, front(), self._runs) if front else None
        quorum = config.amqp.queue_type == "quorum"
        arrived = self._pump.wake if self._pump else None
        self._feed = Feed(config.client.name, self._publisher, arrived, quorum, config.amqp.declare)
        self._cancels = Cancels(remembered(config.runners))
        timeout = config.pybit.gate_timeout if config.pybit else 0.0
        caught_up = self._pump.caught_up if self._pump else threading.Event()
        gate = Gate(config.client.name, self._cancels, front, timeout, caught_up=caught_up, look=self._look)
        self._crew = Crew(config.client, gate, self._post_end)
        self._sources = Sources(queues, config.client.name, self._rota)
        self._presence = Presence(config.client.name, NAME_PATIENCE * config.amqp.heartbeat)
        self._settlement = Settlement(
            config, self._publisher, self._sources, self._rota, post=self._events.post, begin=self._crew.begin
        )
        self._claims = self._settlement.claims
        self._commands = Commands(self._claims, self._cancels, self._feed, self._cancel)
        self._default = DefaultQueue(config, partial(self._events.post, self._rota.ask_again), once)
        self._intake = Intake(
            config, runners, sources=self._sources, rota=self._rota, settlement=self._settlement, crew=self._crew,
            feed=self._feed, open=self._is_open, push=config.client.delivery == "push" and not once,
        )
        self._stop = StopSignals(config.client.stop_timeout, self._tick, self._link.bell)
        self._reload = Reload(
            config, None if once else read, self._events.post, stop=self._stop, cancels=self._cancels,
            link=self._link, rota=self._rota, settlement=self._settlement, crew=self._crew, default=self._default,
            sources=self._sources, take=self._intake.change, lose=self._lose,
        )
        self._missing = Missing(config)
        silence = config.amqp.heartbeat + SILENCE
        self._notifier = Notifier(2 * silence)
        self.figures = Figures(
            queues, 2 * silence, silence, self._link, self._crew, settlement=self._settlement, pump=self._pump
        )
        self._longest = min(LONGEST, silence)
        self._obeyed = 0
        self._look_at = 0.0  # time.monotonic()
        self._waited = False  # whether the last turn did
        self._leave_by: float | None = None
        self._all_good = True  # whether every job so far ended Done

    @property
    def all_good(self) -> bool:
        """Whether every job so far ended Done, and every queue could be read."""
        return self._all_good and not self._sources.refused and not self._default.refused

    def run(self) -> None:
        """Runs until a signal, or with ``once`` until nothing more can run now.

        Errors, before the first connection only: BrokerRefused, BrokerUnreachable.
        """
        self._stop.install()
        self._publisher.start()
        if self._pump is not None:
            self._pump.start()
        self._crew.start()
        try:
            while time.monotonic() < self._look_at or not self._may_leave():
                self.turn()
        finally:
            self._leave()
            self._stop.rest()

    def turn(self) -> None:
        """Takes one step: obeys signals, settles what ended, takes one message, else waits.

        All else is looked at when that is due: each look goes through all jobs.
        """
        self._obey()
        if time.monotonic() >= self._look_at:
            self._waited = False
            self._look_around()
            self._look_at = self._next_look()
        worked = self._events.run()
        try:
            if self._intake.take_one() or worked:
                self._look_at = min(self._look_at, time.monotonic() + SOON)
                self._waited = False
                return
            if self._waited:  # and what has come is none of these
                self._look_at = 0.0
                return
            until = min(self._look_at, self._rota.due) if self._intake.has_room else self._look_at
            self._link.wait(max(0.0, until - time.monotonic()), unless=self._events.__bool__)
            self._waited = True
        except ConnectionLost as error:
            self._lose(error)

    def _look_around(self) -> None:
        """Looks at the connection, the queues and the jobs that are here."""
        self.figures.turn()
        if self._link.tend():
            self._presence.begin()
        connection = self._link.connection
        self._tell()
        if connection is not None and not self._sources.ready:
            self._prepare(connection)
        self._settlement.tend()
        try:
            self._listen()
            self._sources.tend({job.message.queue for job in self._claims.jobs})
            self._intake.search()
            self._sources.prove(at_once=self._once or self._obeyed > 0)
        except ConnectionLost as error:
            self._lose(error)
        self._tell()

    def _next_look(self) -> float:
        """Returns time.monotonic() of the next look, if nothing is done before."""
        parts: list[Part] = [self._link, self._notifier]
        if self._link.connection is not None:
            parts += [self._presence, self._settlement, self._sources, self._intake]
        now = time.monotonic()
        longest = SLICE if self._once or self._obeyed else self._longest
        return min(now + longest, max(now + SOON, min(part.due for part in parts)))

    def _tell(self) -> None:
        """Tells the service manager what is new."""
        self._notifier.tend(
            connected=self._link.connection is not None, ready=self._sources.ready, stopping=self._obeyed > 0,
            jobs=self._crew.jobs, reloading=self._reload.busy,
        )

    def _is_open(self) -> bool:
        """Whether messages may be taken: no signal has come, and what --once has to do first is done."""
        return self._stop.seen == 0 == self._obeyed and not (self._once and self._default.busy)

    def _tick(self) -> None:
        """Ends a wait for a silent broker: soon, if nothing is left that it could do for us."""
        if self._obeyed and not self._stop.hurried and self._crew.is_running:
            return  # while jobs run it may take its time
        done = not self._claims.unsettled and not self._sources.unproven
        self._link.interrupt(PATIENCE if done else BUSY_PATIENCE)

    def _obey(self) -> None:
        """Acts on signals that have come: the first ends the taking of messages, the second the jobs."""
        if self._stop.take_wish(signal.SIGUSR1):
            self._default.ask("SIGUSR1")
        if self._stop.take_wish(signal.SIGHUP):
            self._reload.ask()
            self._look_at = 0.0  # for the service manager is told before the answer is there
        signals = self._stop.count()
        if signals != self._obeyed:
            self._look_at = 0.0
        if self._obeyed == 0 < signals:
            self._default.stop()
            running = ", ".join(map(str, self._crew.jobs))
            log.info("stopping%s", f" after {running}; a second signal ends what runs" if running else "")
            self._link.hurry()
            self._publisher.hurry()
            for job in self._crew.jobs:
                if not job.begun:  # it waits for its lease, and an alarm may hold that up
                    self._crew.end(job, STOPPED)
        if self._obeyed < 2 <= signals:
            log.info("stopping now")
            for job in self._crew.jobs:
                self._crew.end(job, STOPPED)
        self._obeyed = signals

    def _prepare(self, connection: Connection) -> None:
        """Looks at every queue after a connection was made, once the client's name is ours."""
        try:
            if self._presence.claim(connection):
                for line in self._missing.look(connection):
                    log.error("%s", line)
                self._sources.prepare(connection)
                self._claims.search_anew()
                self._default.begin()
        except ConnectionLost as error:
            self._lose(error)

    def _listen(self) -> None:
        """Obeys commands, also while one message comes after the other. Errors: ConnectionLost."""
        connection = self._link.connection
        if connection is not None:
            self._link.breathe(SLICE)
        while command := self._presence.command():
            self._commands.obey(*command)
        if connection is not None:
            self._presence.tend(connection)

    def _cancel(self, job: Job, verdict: Outcome) -> None:
        self._crew.end(job, verdict, INTERRUPT_FIRST)

    def _look(self, client: str, answer: Callable[[bool], None]) -> None:
        """Has the main thread find out whether a client is connected, if it can; any thread may call this."""
        self._events.post(partial(self._look_now, client, answer))

    def _look_now(self, client: str, answer: Callable[[bool], None]) -> None:
        if self._link.connection is not None:
            try:
                answer(is_connected(self._link.connection, client))
            except ConnectionLost as error:
                self._lose(error)

    def _lose(self, error: ConnectionLost) -> None:
        """Gives the connection up, and remembers what may come again."""
        self._look_at = 0.0
        self._link.lost(error)
        self._sources.lose(error)
        self._claims.doubt(self._sources.doubtful())

    def _runs(self, number: int | None) -> bool:
        return self._crew.runs(number)

    def _post_end(self, job: Job) -> None:
        self._events.post(partial(self._end, job))

    def _end(self, job: Job) -> None:
        """Frees the slot of a job that has an outcome, and has it settled."""
        self._crew.release(job)
        assert job.outcome is not None
        self._all_good = self._all_good and job.outcome.status in GOOD
        self._rota.ask_again(job.message.queue)
        self._settlement.end(job)
        self.figures.end(job)
        # One that has failed may be put back, and cancelled then.
        if job.fate and job.fate.final and job.fate.status != FAILED and job.updates.job is not None:
            self._cancels.end(job.updates.job)

    def _may_leave(self) -> bool:
        """Whether there is nothing left to wait for."""
        if (self._once and self._default.busy) or self._events:  # in this order: what it moved is an event
            return False
        for job in self._claims.forget():
            log.warning("%s: its message did not come again; another client has it, or takes it next", job)
            self._crew.release(job)
            self._rota.ask_again()
        idle = not self._crew.jobs
        worked_off = self._once and self._sources.ready and self._rota.is_done(self._intake.is_full)
        if not idle or not (self._obeyed or worked_off):
            self._leave_by = None
            return False
        # A copy may be on its way, or a message that is to be settled when it comes again.
        begins = self._leave_by is None
        if self._leave_by is None:
            self._leave_by = time.monotonic() + LAST_WAIT
            self._claims.search_anew(once_more=True)
        left = self._claims.unsettled or self._sources.unproven or self._commands.pending
        over = not left or time.monotonic() >= self._leave_by
        if over or (self._obeyed > 1 and not (self._settlement.needs_time or self._commands.needs_time)):
            return True
        if begins and (lost := [str(job) for job in self._claims.jobs if job.delivery.lost]):
            log.info("waiting up to %g s for the messages of %s to come again", LAST_WAIT, ", ".join(lost))
        return False

    def _leave(self) -> None:
        """Ends all threads and processes, and gives back what is not settled."""
        with contextlib.suppress(ConnectionLost):
            self._link.wait(0.0)
        for job in self._crew.jobs:  # only when the loop itself failed
            self._crew.end(job, Outcome(WAITING, "rbit failed"))
        self._crew.close()
        self._default.close()
        for job in self._claims.jobs:
            if job.fate and job.fate.copy and not job.copied:
                job.updates.finish(WAITING, "rbit was stopped", False, lambda: None)
        late = self._publisher.is_busy
        self._publisher.close()
        if late:
            self._publisher.join(PATIENCE)
        self._events.run()  # copies that were confirmed meanwhile
        self._settlement.settle_at_last()
        with contextlib.suppress(ConnectionLost):
            self._link.wait(0.0)  # what was acknowledged goes out before the end of anything that takes time
        steps.reached("settled at last")
        for job in self._claims.jobs:
            log.warning("%s: not acknowledged; its message will be delivered again", job)
        if self._pump is not None:
            self._pump.close(LAST_WAIT if self._obeyed < 2 else PATIENCE)
        self._stop.hurry()
        self._link.close()
        log.info("stopped")
