"""The first step of each command: from here on a stop signal is a plain end.

It imports next to nothing, for until then a signal gives a traceback or kills.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence

from rbit import errors

STOPS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``rbit``; returns its exit status. Arguments: those of the command line, or None.

    Stop signals are ignored afterwards: the process is about to end with that status.
    """
    return run("command", arguments, errors.EXIT_OK, (signal.SIGUSR1, signal.SIGHUP))


def submit(arguments: Sequence[str] | None = None) -> int:
    """Runs ``rbit-submit``, as ``main`` does ``rbit``."""
    return run("submit", arguments, errors.EXIT_INTERRUPTED, (signal.SIGUSR1,))


def run(
    module: str, arguments: Sequence[str] | None, interrupted: int, wishes: Sequence[signal.Signals]
) -> int:
    """Runs the command that is in a module.

    Arguments:
        module: its name in rbit.
        arguments: those of the command line, or None.
        interrupted: the exit status for a signal.
        wishes: signals that end nothing, though nobody may listen yet, or any more.
    """
    try:
        # They ask for what a start does anyway. A handler, for what is ignored would be so in children too.
        for number in wishes:
            signal.signal(number, lambda *_: None)
        for number in STOPS:  # until the client's loop takes them over
            signal.signal(number, signal.default_int_handler)
        status: int = importlib.import_module(f"rbit.{module}").main(arguments)
        return status
    except KeyboardInterrupt:
        return interrupted
    finally:
        for number in (*STOPS, *wishes):
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
