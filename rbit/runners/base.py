"""The terms of runners; see ``rbit.runners``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rbit.decode import Facts
from rbit.message import Message

NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
TARGET = re.compile(rf"{NAME}:{NAME}")  # of a call


@dataclass(frozen=True)
class Call:
    """A Python function to be called in the slot's worker: ``callable(message, set_status, settings)``.

    Attributes:
        target: ``package.module:name``.
    """

    target: str


@dataclass(frozen=True)
class Command:
    """A program to be started for one job, with the body on its standard input.

    Attributes:
        arguments: the whole path of the program, and its arguments.
        environment: variables added to rbit's own; ``RBIT_STATUS_FD`` is added by itself.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class Runner(Protocol):
    """Turns a message into what is to be run.

    Attributes:
        mistakes: what is wrong in the INI file, a sentence each; a runner with mistakes is not used.
        warnings: what may surprise, a sentence each; shown by ``rbit --check``.
    """

    @property
    def mistakes(self) -> Sequence[str]: ...

    @property
    def warnings(self) -> Sequence[str]: ...

    def prepare(self, message: Message, facts: Facts | None) -> Call | Command:
        """Returns what to run for a message. Called in the threads of the slots, in several at once.

        Arguments:
            message: the message.
            facts: the names in its build request; None when it holds none.

        Errors: rbit.Failed or rbit.Blocked, with the reason, when this message cannot be run, or not now. With
        anything else its job is Failed, and the log has the traceback.
        """

    def probe(self) -> Sequence[str] | None:
        """Returns a command that ``rbit --check`` runs; it must exit 0, else its stderr is a mistake."""
