"""What a test enters and leaves at its end; unittest has that from Python 3.11 on."""

from __future__ import annotations

import unittest
from contextlib import AbstractContextManager
from typing import TypeVar

T = TypeVar("T")


def enter(case: unittest.TestCase, manager: AbstractContextManager[T]) -> T:
    """Enter a context manager, and leave it at the end of the test; return what entering gives."""
    entered = manager.__enter__()
    case.addCleanup(manager.__exit__, None, None, None)
    return entered
