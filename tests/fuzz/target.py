"""A target of the fuzzing, and its run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis
from hypothesis import HealthCheck, strategies

PATIENCE = 20.0  # seconds of the processor, thousands of times what a case takes: it grows out of all bounds


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Arguments:
        name: in words.
        cases: what a case is made of.
        check: raises AssertionError, or anything that must not happen, for a case.
        share: how many of a thousand cases it gets.
    """

    name: str
    cases: strategies.SearchStrategy[Any]
    check: Callable[[Any], None]
    share: int


def run(target: Target, cases: int, seed: int | None, patience: float | None = None) -> int:
    """Try cases; return how many there were, fewer if there are no others. Raises what the smallest bad one does.

    Arguments:
        target: what.
        cases: how many at the most.
        seed: decides on the cases; None: they are the same in each run.
        patience: seconds of the processor that one may take; None: any number.
    """
    count = 0

    def check(case: Any) -> None:
        nonlocal count
        count += 1
        began = time.thread_time()
        target.check(case)
        taken = time.thread_time() - began
        assert patience is None or taken < patience, f"took {taken:.1f} s"

    settings = hypothesis.settings(
        max_examples=cases, database=None, deadline=None, derandomize=seed is None, print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    test = settings(hypothesis.given(target.cases)(check))
    log = logging.getLogger("rbit")
    log.propagate = False
    quiet = logging.NullHandler()
    log.addHandler(quiet)
    try:
        (hypothesis.seed(seed)(test) if seed is not None else test)()
    finally:
        log.removeHandler(quiet)
        log.propagate = True
    return count
