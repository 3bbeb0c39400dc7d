"""What fails again and again: how long to wait before the next try, and when to say so in the log.

Knows nothing of what failed. Used in the client, by any thread.
"""

from __future__ import annotations

import random

FIRST_WAIT = 1.0  # seconds before the second try; it doubles with each try
LONGEST_WAIT = 30.0  # seconds


def wait_after(failures: int, longest: float = LONGEST_WAIT) -> float:
    """Returns the seconds to wait after so many failures in a row (from 1), ``longest`` at most; with jitter."""
    return min(longest, doubled(FIRST_WAIT, failures)) * random.uniform(0.75, 1.0)


def doubled(first: float, tries: int) -> float:
    """Returns the seconds to wait after so many tries (1 or more): ``first``, doubled with each."""
    return first * 2.0 ** min(tries - 1, 10)


def worth_saying(failures: int) -> bool:
    """Whether the log is to have this failure in a row (1 or more): the first, then ever more rarely."""
    return failures & (failures - 1) == 0
