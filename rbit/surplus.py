"""What may come again though it is dealt with, and is one too many then: known by keys, for a time.

Knows nothing of messages. Used in the client's main thread.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable

MOST = 50_000  # keys of each kind, some 20 MB; the oldest are forgotten first


class Surplus:
    """The keys."""

    def __init__(self) -> None:
        # By time.monotonic(): until when. The oldest first.
        self._always: dict[Hashable, float] = {}
        self._once: dict[Hashable, list[tuple[float, float]]] = {}  # each with its seconds

    def remember(self, key: Hashable, seconds: float) -> None:
        """Notes that what has this key is one too many for so long, however often it comes."""
        self._always.pop(key, None)
        self._always[key] = time.monotonic() + seconds
        now = time.monotonic()
        while next(iter(self._always.values())) <= now or len(self._always) > MOST:
            del self._always[next(iter(self._always))]

    def expect(self, key: Hashable, seconds: float) -> None:
        """Notes that one more with this key may come within so long; it adds to those that are expected."""
        self._once.setdefault(key, []).append((time.monotonic() + seconds, seconds))
        while len(self._once) > MOST:
            del self._once[next(iter(self._once))]

    def forget(self, key: Hashable) -> None:
        """Notes that nothing with this key is expected any more."""
        self._once.pop(key, None)

    def renew(self, key: Hashable) -> None:
        """Counts the time of what is expected with this key from now on."""
        entries = self._once.pop(key, [])
        if entries:
            self._once[key] = [(time.monotonic() + seconds, seconds) for _, seconds in entries]

    def take(self, key: Hashable) -> float | None:
        """Returns for how many seconds one with this key was expected, which has come; None: it was not."""
        now = time.monotonic()
        if self._always.get(key, 0.0) > now:
            return self._always[key] - now
        entries = [entry for entry in self._once.pop(key, []) if entry[0] > now]
        if not entries:
            return None
        if entries[1:]:
            self._once[key] = entries[1:]
        return entries[0][1]

    def drop_old(self, kept: Collection[Hashable]) -> None:
        """Forgets what is not expected any more; what has one of the ``kept`` keys stays."""
        now = time.monotonic()
        for key in kept:
            if any(until <= now for until, _ in self._once.get(key, ())):
                self.renew(key)
        while self._once and max(until for until, _ in next(iter(self._once.values()))) <= now:
            del self._once[next(iter(self._once))]
