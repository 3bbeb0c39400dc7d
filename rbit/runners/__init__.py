"""Runners: what a runner section's ``processor!rest`` turns a message into.

A runner only says what to run: a ``Call`` of a Python function or a ``Command``. It starts nothing and
knows nothing of queues, slots or statuses. Used in the client.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from rbit.config import RunnerSettings
from rbit.errors import ConfigError
from rbit.runners.base import Call, Command, Runner
from rbit.runners.python import PythonRunner
from rbit.runners.shell import ShellRunner

__all__ = ["PROCESSORS", "Call", "Command", "Runner", "make", "mistakes"]

# The part before the first "!" of a runner, and what makes a runner of the part behind it.
PROCESSORS: Mapping[str, Callable[[str, RunnerSettings], Runner]] = {
    "python": PythonRunner,
    "shell": ShellRunner,
}


def make(section: RunnerSettings) -> Runner:
    """Returns the runner of a section.

    Errors: ConfigError with every mistake in the section's ``runner`` and settings.
    """
    processor, mark, rest = section.runner.partition("!")
    if not mark or processor not in PROCESSORS:
        known = ", ".join(f"{name}!..." for name in sorted(PROCESSORS))
        near = difflib.get_close_matches(processor, PROCESSORS, 1)
        hint = f"; did you mean {near[0]}!?" if mark and near else ""
        raise ConfigError([f"expected one of {known}, got {section.runner!r}{hint}"])
    runner = PROCESSORS[processor](rest, section)
    if runner.mistakes:
        raise ConfigError(list(runner.mistakes))
    return runner


def mistakes(section: RunnerSettings) -> list[str]:
    """Returns the mistakes of a section's runner; see ``rbit.config.read``."""
    try:
        make(section)
    except ConfigError as error:
        return error.mistakes
    return []
