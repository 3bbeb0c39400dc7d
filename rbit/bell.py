"""A bell that one thread waits for and any other rings; it can be waited for together with a socket.

Knows nothing of who rings it, or why.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

STALE = 4096  # rings that are taken at once


class Bell:
    """The bell.

    Errors: OSError, when no descriptor is free.
    """

    def __init__(self) -> None:
        self._ends: tuple[int, ...] = ()
        self._ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Returns the descriptor that is readable once it was rung."""
        return self._ends[0]

    def ring(self) -> None:
        """Rings it; once is as good as often."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._ends[1], b"\0")

    def ring_at_signals(self) -> None:
        """Has each signal ring it for which Python has a handler, from now on; in the main thread.

        It is rung as the signal comes. The handler itself is run later, by the main thread, which may have begun
        to wait just before: that a handler rings is not enough.
        """
        signal.set_wakeup_fd(self._ends[1], warn_on_full_buffer=False)

    def take(self) -> None:
        """Has it be as if it had not been rung."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._ends[0], STALE)

    def wait(self, seconds: float, readable: int | None = None) -> tuple[bool, bool]:
        """Waits until it was rung, or a descriptor is readable, at most so many seconds.

        Arguments:
            seconds: of which a signal takes none away.
            readable: the descriptor; None: the bell alone.

        Returns whether it was rung, which it is no more then, and whether the descriptor is ready or has failed.
        """
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        if readable is not None:
            poll.register(readable, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)]
        rung = self.fileno() in ready
        if rung:
            self.take()
        return rung, readable in ready

    def __del__(self) -> None:
        for fd in self._ends:  # when nobody can ring it any more: the descriptor may be somebody else's then
            os.close(fd)
