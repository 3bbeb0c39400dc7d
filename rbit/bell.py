"""A bell that one thread waits for and any other rings; it can be waited for together with sockets.

Knows nothing of who rings it, or why.
"""

from __future__ import annotations

import contextlib
import os
import select


class Bell:
    """The bell. To ring it takes no lock, so a handler of signals may, also in the middle of a wait."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Returns the descriptor, which is readable once it was rung."""
        return self._fd

    def ring(self) -> None:
        """Rings it; once is as good as often."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._fd, 1)

    def take(self) -> None:
        """Has it be as if it had not been rung."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def wait(self, seconds: float, readable: int | None = None) -> tuple[bool, bool]:
        """Waits until it was rung, or a descriptor is readable, at most so many seconds.

        Arguments:
            seconds: of which a signal takes none away.
            readable: the descriptor; None: the bell alone.

        Returns whether it was rung, which it is no more then, and whether the descriptor is ready or has failed.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if readable is not None:
            poll.register(readable, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)]
        rung = self._fd in ready
        if rung:
            self.take()
        return rung, readable in ready

    def __del__(self) -> None:
        os.close(self._fd)  # when nobody can ring it any more: the descriptor may be somebody else's then
