"""What is to be known of a client from outside: what it has done, what it has to do, and whether it is well.

Most of it is kept by others and only read here; the loop reports what nobody else counts. Whoever reads is another
thread, so all that is read are single values and copies. Knows nothing of how figures are shown.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Iterable

from rbit.crew import Crew
from rbit.job import Job
from rbit.link import Link
from rbit.message import FINAL, WAITING
from rbit.pump import Pump
from rbit.settlement import Settlement

# Seconds that a run takes; a last group has those that take longer.
BOUNDS = (
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0,
    300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0,
)
OTHER = "other"
ENDS = (*sorted(FINAL), WAITING, OTHER)


class Runs:
    """What became of the jobs of one queue.

    Attributes:
        ended: how many, by the status that was reported, and other; Waiting for those that are to be run again.
        groups: how many runs took as long as the same place of ``BOUNDS`` says, but longer than the one before.
        seconds: that all of these runs took.
    """

    def __init__(self) -> None:
        self.ended = dict.fromkeys(ENDS, 0)
        self.groups = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0


class Figures:
    """The figures of a client. ``turn`` and ``end`` are for its main thread, all else for any.

    Arguments:
        queues: of the runners.
        longest_turn: seconds that may be between two calls of ``turn``.
        longest_silence: seconds for which nothing need come from the broker.
        link, crew, settlement, pump: of the client; no pump without ``[pybit]``.

    Attributes:
        workers_replaced: how many workers took the place of one that had died, was spoilt, or had run as many jobs
            as it may; counted with the end of their first job.
    """

    def __init__(
        self, queues: Iterable[str], longest_turn: float, longest_silence: float, link: Link, crew: Crew,
        *, settlement: Settlement, pump: Pump | None,
    ) -> None:
        self._runs = {queue: Runs() for queue in queues}
        self._longest_turn = longest_turn
        self._longest_silence = longest_silence
        self._link = link
        self._crew = crew
        self._settlement = settlement
        self._pump = pump
        self._turned_at = time.monotonic()
        self.workers_replaced = 0

    def turn(self) -> None:
        """Notes that a turn of the loop begins."""
        self._turned_at = time.monotonic()

    def end(self, job: Job) -> None:
        """Counts a job that has a fate."""
        assert job.outcome is not None and job.fate is not None
        self.workers_replaced += job.workers_replaced
        runs = self._runs.setdefault(job.message.queue, Runs())
        # A job may end with a status of its own making, and there is no end to these.
        runs.ended[job.fate.status if job.fate.status in ENDS else OTHER] += 1
        if job.seconds is not None and job.outcome.status in FINAL:  # else it was broken off
            runs.groups[bisect.bisect_left(BOUNDS, job.seconds)] += 1
            runs.seconds += job.seconds

    @property
    def runs(self) -> list[tuple[str, Runs]]:
        """Each queue, and what became of its jobs."""
        return list(self._runs.items())

    @property
    def running(self) -> dict[str, int]:
        """How many jobs are in a slot, by queue."""
        return dict.fromkeys(self._runs.copy(), 0) | Counter(job.message.queue for job in self._crew.jobs)

    @property
    def silence(self) -> float:
        """Seconds since something came from the broker on the loop's connection; at first, since the start."""
        return max(0.0, time.monotonic() - self._link.heard_at)

    @property
    def reconnects(self) -> int:
        """How many times the loop's connection was made again."""
        return self._link.reconnects

    @property
    def leases_renewed(self) -> int:
        """How many leases RabbitMQ has confirmed after the first of their jobs."""
        return self._settlement.leases_renewed

    @property
    def unpublished(self) -> int:
        """How many statuses of the jobs that are not settled RabbitMQ has not got."""
        return sum(job.updates.waiting for job in list(self._settlement.claims.jobs))

    @property
    def untold(self) -> int | None:
        """How many statuses PyBit has not taken, as of the pump's last look; None without PyBit."""
        return None if self._pump is None else self._pump.waiting

    @property
    def trouble(self) -> str:
        """Why the client is not well, in one line; '' when its loop turns and the broker answers."""
        idle = time.monotonic() - self._turned_at
        if idle > self._longest_turn:
            return f"the loop has not turned for {idle:.0f} s"
        silence = self.silence
        if self._link.connection is None:
            return f"no connection to RabbitMQ; nothing has come from it for {silence:.0f} s"
        if silence > self._longest_silence:  # pika gives the connection up after one more heartbeat
            return f"nothing has come from RabbitMQ for {silence:.0f} s"
        return ""
