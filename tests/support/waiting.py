"""Waiting for a condition with a bound, instead of waiting for a time. It runs in the process that tests."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP = 0.02  # seconds between two looks


def wait_until(
    condition: Callable[[], object], bound: float = 30.0, what: str | Callable[[], str] = "the condition"
) -> None:
    """Look every 20 ms until a condition holds.

    Arguments:
        condition: what to ask; it holds when it returns something true.
        bound: seconds, above 0.
        what: what is waited for, in words, or a function that says it when the bound is over.

    Errors:
        AssertionError: the condition did not hold within the bound; says what was waited for.
    """
    deadline = time.monotonic() + bound
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {bound:g} s for {what() if callable(what) else what}")
        time.sleep(STEP)
