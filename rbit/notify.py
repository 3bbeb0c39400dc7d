"""Tells the service manager that has started rbit how it goes: the protocol of sd_notify(3).

A datagram of lines goes to a socket that the environment names; without one nothing is sent. There is no library
for it here: that of pure Python has had no release since 2017, the others bind libsystemd. Knows nothing of the
broker. Used in the client's main thread.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Sequence

log = logging.getLogger("rbit.client")

SHARE = 0.25  # of the watchdog's time, after which it is fed again
EXTEND_EVERY = 5.0  # seconds
MARGIN = 60.0  # seconds; the work after the last turn, such as the last statuses, takes half of it at most
STATUS_EVERY = 1.0  # seconds
AGAIN = 0.2  # seconds after which what could not be sent is tried again
MOST_JOBS = 8  # that are named in a status; systemd ignores a datagram of more than 4096 bytes
LONGEST_JOB = 100  # characters of its name


class Notifier:
    """What the service manager knows. Nothing is ever waited for, and no failure matters to jobs.

    Arguments:
        longest_turn: seconds that may be between two calls of ``tend``.

    Attributes:
        due: time.monotonic() when ``tend`` has something to send though nothing has changed.
    """

    def __init__(self, longest_turn: float) -> None:
        name = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        watchdog = watchdog_time() if self._address else math.inf
        if watchdog <= longest_turn:
            log.warning(
                "the watchdog's time is %g s, and with this heartbeat a silent broker may hold rbit up for %g s",
                watchdog, longest_turn,
            )
        self._feed_every = SHARE * watchdog
        self._extension = longest_turn + MARGIN
        self._ready = self._reloading = self._stopping = self._failing = False
        self._extend_at = self._say_at = -math.inf  # time.monotonic()
        self._feed_at = -math.inf if watchdog < math.inf else math.inf
        self._status = ""
        self.due = math.inf

    def tend(
        self, *, connected: bool, ready: bool, stopping: bool, jobs: Sequence[object], reloading: bool = False
    ) -> None:
        """Sends what is due; to be called whenever something may have changed, and at ``due``.

        Arguments:
            connected: whether there is a connection to the broker.
            ready: whether messages may be taken; what is ready once stays so.
            stopping: whether a stop signal has come.
            jobs: those that run; their names are shown.
            reloading: whether the configuration is being read anew; until rbit is ready that is part of its start.
        """
        if self._socket is None:
            return
        now = time.monotonic()
        lines = []
        reloading = reloading and self._ready and not stopping
        if reloading and not self._reloading:
            lines += ["RELOADING=1", f"MONOTONIC_USEC={now * 1e6:.0f}"]
        if (ready and not self._ready) or (self._reloading and not reloading and not stopping):
            lines.append("READY=1")
        if stopping and not self._stopping:
            lines.append("STOPPING=1")
        feeds = now >= self._feed_at
        if feeds:
            lines.append("WATCHDOG=1")
        extends = (stopping or not (ready or self._ready)) and now >= self._extend_at
        if extends:
            lines.append(f"EXTEND_TIMEOUT_USEC={self._extension * 1e6:.0f}")
        status = status_of(connected, self._ready, stopping, jobs)
        says = status != self._status and now >= self._say_at
        if says:
            lines.append(f"STATUS={status}")
        if lines and not self._send(lines):
            self.due = now + AGAIN
            return
        self._ready, self._reloading, self._stopping = self._ready or ready, reloading, stopping
        self._feed_at = now + self._feed_every if feeds else self._feed_at
        self._extend_at = now + EXTEND_EVERY if extends else self._extend_at
        if says:
            self._status, self._say_at = status, now + STATUS_EVERY
        self.due = min(
            self._feed_at,
            self._extend_at if stopping or not self._ready else math.inf,
            self._say_at if status != self._status else math.inf,
        )

    def _send(self, lines: Sequence[str]) -> bool:
        assert self._socket is not None
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), socket.MSG_DONTWAIT, self._address)
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
            if not (self._failing or isinstance(error, BlockingIOError)):
                self._failing = True
                log.warning("the service manager cannot be told how it goes: NOTIFY_SOCKET: %s", error)
            return False
        self._failing = False
        return True


def watchdog_time() -> float:
    """Returns the seconds after which the service manager ends a process that was silent; infinite for never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return math.inf  # it is meant for the process that has started this one
    time_given = os.environ.get("WATCHDOG_USEC", "")
    return (int(time_given) / 1e6 if time_given.isdecimal() else 0.0) or math.inf


def status_of(connected: bool, again: bool, stopping: bool, jobs: Sequence[object]) -> str:
    """Returns in one line what rbit does; ``again``: whether it was connected before."""
    parts = ["stopping"] if stopping else []
    parts.append("connected" if connected else "no connection to RabbitMQ" if again else "connecting to RabbitMQ")
    named = ", ".join(str(job)[:LONGEST_JOB] for job in jobs[:MOST_JOBS])
    more = f" and {len(jobs) - MOST_JOBS} more" if len(jobs) > MOST_JOBS else ""
    parts.append(f"running: {named}{more}" if jobs else "idle")
    return "; ".join(parts)
