"""Signals: the first stop signal lets jobs finish, the second ends them; SIGUSR1 and SIGHUP ask for more.

The handlers count, and ask whether a wait for the broker's answer is to end; one for something to happen ends by
itself. Used in the client's main thread, the only one in which Python runs handlers.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable

from rbit.bell import Bell

log = logging.getLogger("rbit.client")

PATIENCE = 0.3  # seconds that a client with nothing more to do waits for a broker's answer
TICK = 0.1  # seconds between two looks at whether it has waited so long


class StopSignals:
    """Counts SIGINT and SIGTERM, and notes SIGUSR1 and SIGHUP.

    Arguments:
        timeout: seconds after which the first acts as the second; None: never.
        tick: called, in the middle of whatever runs, every ``TICK`` seconds from the first signal or from
            ``hurry`` on; what it raises ends what runs.
        bell: is rung by each signal.

    Attributes:
        timeout: as given; it may be changed.
    """

    def __init__(self, timeout: float | None, tick: Callable[[], None], bell: Bell) -> None:
        self.timeout = timeout
        self._tick = tick
        self._bell = bell
        self.seen = 0  # stop signals
        self._wishes: set[int] = set()  # SIGUSR1 and SIGHUP, if they have come since ``take_wish``
        self._began = 0.0  # time.monotonic() when the first was seen

    def install(self) -> None:
        """Takes the signals over; a SIGHUP that was blocked until now comes now."""
        self._bell.ring_at_signals()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        for number in (signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, self._note_wish)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        signal.signal(signal.SIGALRM, lambda *_: self._tick())

    def hurry(self) -> None:
        """Begins to call ``tick``, signal or not."""
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)

    def rest(self) -> None:
        """Calls ``tick`` no more."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def take_wish(self, number: int) -> bool:
        """Returns whether SIGUSR1 or SIGHUP, whichever is given, has come since the last call."""
        asked = number in self._wishes
        self._wishes.discard(number)
        return asked

    def count(self) -> int:
        """Returns how many signals have come, up to 2."""
        if self.seen == 1 and self.timeout is not None:
            self._began = self._began or time.monotonic()
            if self.hurried:
                log.info("%g s are over since the first signal", self.timeout)
                self.seen = 2
        return min(self.seen, 2)

    @property
    def hurried(self) -> bool:
        """Whether the jobs are to be ended. It logs nothing, so a handler of signals may ask."""
        over = self.timeout is not None and self._began and time.monotonic() >= self._began + self.timeout
        return self.seen > 1 or bool(over)

    def _note_wish(self, number: int, frame: object) -> None:
        self._wishes.add(number)

    def _note(self, number: int, frame: object) -> None:
        self.seen += 1
        self.hurry()
