"""The first step of the ``rbit`` command: from here on a stop signal is a plain end.

It imports next to nothing, for until then a signal gives a traceback or kills.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from rbit import errors

STOPS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Arguments: those of the command line, or None.

    Stop signals are ignored afterwards: the process is about to end with that status.
    """
    try:
        for number in STOPS:  # until the client's loop takes them over
            signal.signal(number, signal.default_int_handler)
        from rbit import command  # noqa: PLC0415

        return command.main(arguments)
    except KeyboardInterrupt:
        return errors.EXIT_OK
    finally:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
