"""Has the configuration read anew, and has what is new in it count, without a job or the connection being lost.

The file is read in a thread, for that may take its time; all else belongs to the client's main thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from rbit import changes
from rbit.cancels import Cancels
from rbit.crew import Crew
from rbit.default_queue import DefaultQueue
from rbit.errors import ConfigError, ConnectionLost
from rbit.ini import printable
from rbit.link import Link
from rbit.rota import Rota
from rbit.runners import Runner
from rbit.settings import Config, RunnerSettings
from rbit.settlement import Settlement
from rbit.sources import Sources
from rbit.stop import StopSignals

log = logging.getLogger("rbit.client")

REMEMBERED = 3600.0  # seconds for which a job is not run that was cancelled before it came

Read = Callable[[], tuple[Config, Mapping[str, Runner]]]


class Reload:
    """Has the configuration read anew.

    Arguments:
        running: the configuration at the start.
        read: reads it anew, and makes the runner of each queue; None: that is not to be done. Errors: ConfigError.
        post: has an event called in the main thread.
        stop, cancels, link, rota, settlement, crew, default, sources: get what is new.
        take: gets the sections and the runners of the queues.
        lose: is told of a connection that broke.

    Attributes:
        busy: whether a reading is under way.
    """

    def __init__(
        self, running: Config, read: Read | None, post: Callable[[Callable[[], None]], None], *, stop: StopSignals,
        cancels: Cancels, link: Link, rota: Rota, settlement: Settlement, crew: Crew, default: DefaultQueue,
        sources: Sources, take: Callable[[Iterable[RunnerSettings], Mapping[str, Runner]], None],
        lose: Callable[[ConnectionLost], None],
    ) -> None:
        self.busy = False
        self._wanted = False  # whether one more is to follow
        self._running = running
        self._path = printable(running.path)
        self._read = read
        self._post = post
        self._stop = stop
        self._cancels = cancels
        self._link = link
        self._rota = rota
        self._settlement = settlement
        self._crew = crew
        self._default = default
        self._sources = sources
        self._take = take
        self._lose = lose

    def ask(self) -> None:
        """Has the configuration read, after the reading that is under way, if any."""
        if self._read is None:
            log.info("SIGHUP: with --once %s is read at the start only", self._path)
        elif self._stop.seen:
            log.info("SIGHUP: rbit is stopping, so %s is not read anew", self._path)
        else:
            log.info("SIGHUP: %s is read anew", self._path)
            self._wanted = True
            self._begin()

    def _begin(self) -> None:
        if self._wanted and not self.busy and self._read is not None:
            self._wanted, self.busy = False, True
            threading.Thread(target=self._work, args=(self._read,), name="reload", daemon=True).start()

    def _work(self, read: Read) -> None:
        try:
            result = partial(self._accept, *read())
        except ConfigError as error:
            result = partial(self._refuse, error.mistakes)
        except Exception:  # the client goes on
            log.exception("%s: a fault in rbit", self._path)
            result = partial(self._refuse, [])
        self._post(partial(self._end, result))

    def _end(self, result: Callable[[], None]) -> None:
        self.busy = False
        if not self._stop.seen:
            result()
        self._begin()

    def _refuse(self, mistakes: Iterable[str]) -> None:
        for mistake in mistakes:
            log.error("%s", mistake)
        log.error("%s cannot be used as it is, so what was read before goes on to count", self._path)

    def _accept(self, read: Config, runners: Mapping[str, Runner]) -> None:
        held = {self._running.client.default_queue: "default_queue", self._running.client.name: "name"}
        mistakes = [
            f"{self._path}: [runner:{section.queue}]: this is still {held[section.queue]} in [rbit], for which "
            "another value counts after a restart only"
            for section in read.runners if section.queue in held
        ]
        if mistakes:
            self._refuse(mistakes)
            return
        before, self._running = self._running, changes.merged(self._running, read)
        what = changes.counting(before, self._running) or "nothing has changed"
        log.info("%s counts from the next job on, which gets new processes: %s", self._path, what)
        if waiting := changes.waiting(self._running, read):
            log.warning("%s: these keys have changed and wait for a restart: %s", self._path, waiting)
        for warning in read.warnings:
            log.warning("%s", warning)
        self._use(runners)

    def _use(self, runners: Mapping[str, Runner]) -> None:
        client, sections = self._running.client, self._running.runners
        self._stop.timeout = client.stop_timeout
        self._cancels.seconds = remembered(sections)
        self._link.wait_for_leases(client.lease_ttl)
        self._rota.poll_every(client.polling_time)
        self._settlement.leases.settings = client
        self._crew.renew(client)
        self._take(sections, runners)
        self._default.change(runners)
        try:
            self._sources.change(runners)
        except ConnectionLost as error:
            self._lose(error)


def remembered(sections: Iterable[RunnerSettings]) -> float:
    """Returns the seconds for which a job is remembered that was cancelled before it came."""
    return REMEMBERED + max((section.retry_delay for section in sections), default=0.0)
