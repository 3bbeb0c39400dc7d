"""What the commands have in common: a wrong command line, the exit status of an error, the standard streams.

Knows nothing of what a command does.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from rbit import errors

log = logging.getLogger("rbit")

_status = [errors.EXIT_OK]  # of what was written so far


class Parser(argparse.ArgumentParser):
    """Ends with the exit status of sysexits(3) for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        complain(f"{self.format_usage()}{self.prog}: {message}")
        raise SystemExit(errors.EXIT_USAGE)

    def _print_message(self, message: str, file: object = None) -> None:
        write(message, self.prog)  # the help or the version; argparse's own fails, or is silent, on a full disk


def run(program: str, action: Callable[[], int], told: Callable[[Exception], object] = lambda error: None) -> int:
    """Runs a command; returns its exit status, after it has said on standard error what went wrong.

    Arguments:
        program: the name of the command, for what is said.
        action: does what the command line asks for; returns the exit status, or raises an RbitError.
        told: gets the error too when it is RabbitMQ's, or that a port is taken.

    Errors: KeyboardInterrupt.
    """
    try:
        return action()
    except SystemExit as end:  # argparse has said why, or shown the version or the help
        return say([], program) or int(end.code or errors.EXIT_OK)
    except errors.UsageError as error:
        complain(f"{program}: {error}")
        return errors.EXIT_USAGE
    except errors.ConfigError as error:
        complain("\n".join(error.mistakes))
        return errors.EXIT_CONFIG
    except (errors.BrokerRefused, errors.BrokerUnreachable, errors.AddressTaken) as error:
        complain(f"{program}: {error}")
        told(error)
        return errors.EXIT_REFUSED if isinstance(error, errors.BrokerRefused) else errors.EXIT_UNAVAILABLE
    except Exception:  # a fault of rbit's own: the one place that shows a traceback
        log.exception("%s failed", program)
        return errors.EXIT_INTERNAL


def complain(text: str) -> None:
    """Prints a line on standard error at once, if that can be written."""
    put(sys.stderr, f"{text}\n")


def say(lines: Sequence[str], program: str) -> int:
    """Prints lines, and what else waits for standard output; returns an exit status."""
    return write("".join(f"{line}\n" for line in lines), program)


def write(text: str, program: str) -> int:
    """Writes a text to standard output at once; returns an exit status.

    After a failure what is written goes nowhere, and the exit status stays the same.
    """
    error = put(sys.stdout, text)
    if error is not None and not isinstance(error, BrokenPipeError):  # "| head": the reader has seen enough
        complain(f"{program}: standard output cannot be written: {error.strerror}")
        _status[0] = errors.EXIT_OUTPUT
    return _status[0]


def put(stream: TextIO | None, text: str) -> OSError | None:
    """Writes a text at once; returns what went wrong, and then what is written goes nowhere.

    Arguments: a standard stream, None if it was closed before the start; the text.
    """
    try:
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
            stream.write(text)
            stream.flush()
    except OSError as error:
        # What is still in Python's buffer would fail once more at the exit.
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())  # type: ignore[union-attr]
        return error
    return None
