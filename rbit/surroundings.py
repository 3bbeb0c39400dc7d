"""What a process has that a job may change for the job after it: limits, signals, folder, environment, threads.

Knows nothing of jobs. What belongs to Python modules (their globals, ``sys.path``) is not looked at: a
module is imported once and lives on. Used in the main thread of a worker.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import os
import resource
import select
import signal
import sys
from typing import Any

# What signal wraps: to make members of enums of the answers takes twenty times as long as to ask.
get_handler = _signal.getsignal
set_handler = _signal.signal
LIMITS = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})
# What SIGINT does is set anew for each job: see rbit.worker.
SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGINT})
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
TRACKER_WAIT = 1.0  # seconds; it ends at once, unless a process of the job still holds its pipe


class Surroundings:
    """What is there now, to be restored after each job."""

    def __init__(self) -> None:
        self._threads = threads()
        self._state = look()

    def begin(self) -> None:
        """Notes the threads at the beginning of a job: those of an imported module may have started others."""
        self._threads = threads()

    def restore(self) -> bool:
        """Undoes what was changed since; returns False when something is left that cannot be undone."""
        end_timers()
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(OSError, ValueError):
            for stream in self._state["streams"]:
                stream.flush()
        for name, value in self._state["environment"].items():
            os.putenv(name, value)  # in any case: what was changed past os.environ is not seen
        same = look() == self._state  # as most jobs leave it, and to undo costs more than to look
        if not same:
            self._undo()
            same = look() == self._state
        end_tracker()
        return same and threads() <= self._threads

    def _undo(self) -> None:
        state = self._state
        with contextlib.suppress(OSError, ValueError):
            sys.stdout, sys.stderr = state["streams"]
            for number, handler in zip(SIGNALS, state["handlers"], strict=True):
                if handler is not None:  # it was not set from Python, so Python cannot set it again
                    set_handler(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, state["mask"])
            os.umask(state["umask"])
            os.environ.clear()
            os.environ.update(
                {os.fsdecode(name): os.fsdecode(value) for name, value in state["environment"].items()})
            os.chdir(state["folder"])
            os.setpriority(os.PRIO_PROCESS, 0, state["nice"])
            for number, limits in zip(LIMITS, state["limits"], strict=True):
                resource.setrlimit(number, limits)


def look() -> dict[str, Any]:
    """Returns what a job may change, by names of its own; two equal results mean that nothing differs."""
    umask = os.umask(0)
    os.umask(umask)
    streams = (sys.stdout, sys.stderr)
    return {
        "streams": streams,
        "closed": [getattr(stream, "closed", False) for stream in streams],
        "descriptors": [descriptor(fd) for fd in range(3)],
        "handlers": list(map(get_handler, SIGNALS)),
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "timers": [signal.getitimer(timer) for timer in TIMERS],
        "umask": umask,
        "folder": folder(),
        # What it keeps, bytes: to copy the mapping itself is to decode each name and value.
        "environment": dict(getattr(os.environ, "_data", os.environ)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "limits": list(map(resource.getrlimit, LIMITS)),
        "user": (os.getresuid(), os.getresgid(), os.getgroups()),
        "processors": os.sched_getaffinity(0),
    }


def descriptor(fd: int) -> tuple[int, int] | None:
    """Returns what a descriptor stands for; None when it is closed."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def folder() -> str:
    """Returns the current folder; '' when it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def threads() -> set[int]:
    """Returns the threads that run Python code, those that ``threading`` does not know too."""
    return set(sys._current_frames())


def end_timers() -> None:
    """Stops the timers of this process; a handler that still runs for one of them may raise anything here."""
    for timer in TIMERS:
        signal.setitimer(timer, 0)


def end_tracker() -> None:
    """Ends multiprocessing's resource tracker, which ignores SIGTERM; it starts again when it is needed.

    Its own way of ending waits for ever when a process of the job still holds the tracker's pipe.
    """
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    fd, pid = getattr(tracker, "_fd", None), getattr(tracker, "_pid", None)
    if tracker is None or fd is None or pid is None:
        return
    tracker._fd = tracker._pid = None
    with contextlib.suppress(OSError):
        os.close(fd)
        watched = os.pidfd_open(pid)
        try:
            select.select([watched], [], [], TRACKER_WAIT)
        finally:
            os.close(watched)
        os.waitpid(pid, os.WNOHANG)
