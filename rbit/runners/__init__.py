"""Runners: what a runner section's ``processor!rest`` turns a message into.

A runner only says what to run: a ``Call`` of a Python function or a ``Command``. It starts nothing and
knows nothing of queues, slots or statuses. Used in the client.

Processors are registered by their distributions, see docs/processors.rst, which describes for their authors what
they import from here: Call, Command, Facts, Message, Runner and RunnerSettings.
"""

from __future__ import annotations

from rbit.config import RunnerSettings
from rbit.decode import Facts
from rbit.errors import ConfigError
from rbit.message import Message
from rbit.runners import processors
from rbit.runners.base import Call, Command, Runner
from rbit.runners.guard import Guard

__all__ = ["Call", "Command", "Facts", "Message", "Runner", "RunnerSettings", "make", "mistakes"]


def make(section: RunnerSettings) -> Runner:
    """Returns the runner of a section.

    Errors: ConfigError with every mistake in the section's ``runner`` and settings.
    """
    runner = Guard(*processors.load(section.runner), section)
    if runner.mistakes:
        raise ConfigError(runner.mistakes)
    return runner


def mistakes(section: RunnerSettings) -> list[str]:
    """Returns the mistakes of a section's runner; see ``rbit.config.read``."""
    try:
        make(section)
    except ConfigError as error:
        return error.mistakes
    return []
