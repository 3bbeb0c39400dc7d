"""The steps of a message's life between which a crash must lose nothing, named for the tests of just that.

A test names one in the environment, and the process ends there as by kill -9. Without it a step is a call
of a function that does nothing.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "RBIT_TEST_KILL_AT"  # a step, or step:n for the n-th time that it is reached

_wanted, _, _count = os.environ.get(VARIABLE, "").partition(":")
_left = [int(_count or 1)]


def _nothing(step: str) -> None:
    pass


def _end(step: str) -> None:
    if step == _wanted:
        _left[0] -= 1
        if _left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


reached = _end if _wanted else _nothing
