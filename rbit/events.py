"""What other threads have the client's main thread do in its next turn. Knows nothing of what that is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Event = Callable[[], None]


class Events:
    """The events that wait. True as long as there are any.

    Arguments:
        wake: ends a wait of the main thread, if it is in one.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: deque[Event] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def post(self, event: Event) -> None:
        """Has an event called in the next turn; any thread may call this."""
        self._waiting.append(event)
        self._wake()

    def run(self) -> bool:
        """Calls those that wait, and those that these post; in the main thread. Returns whether there were any."""
        if not self._waiting:
            return False
        while self._waiting:
            self._waiting.popleft()()
        return True
