"""The ``shell!command line`` runner."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from rbit import template
from rbit.config import RunnerSettings
from rbit.decode import Facts
from rbit.errors import CommandRefused
from rbit.message import Message
from rbit.runners.base import Command

SHELL = "/bin/sh"
PLAIN_WORD = re.compile(r"[A-Za-z0-9_./+-]+")


class ShellRunner:
    """Runs a command line with ``/bin/sh -c``. Arguments: the part behind ``shell!``, its section.

    Values from the message reach the command through its environment only; see ``rbit.template``.
    """

    def __init__(self, command: str, section: RunnerSettings) -> None:
        parsed = template.parse(command)
        self.text = parsed.text
        self.names = parsed.names
        self.warnings: list[str] = list(parsed.warnings)
        self.settings, clashes = template.setting_variables(section.settings)
        self.mistakes: list[str] = [*parsed.mistakes, *clashes]
        if not command.strip():
            self.mistakes.append("expected a command line after shell!, got none")
        self._look_up(command)

    def _look_up(self, command: str) -> None:
        first = (command.split() or [""])[0]
        if PLAIN_WORD.fullmatch(first) and not shutil.which(first) and first not in BUILTINS:
            self.warnings.append(f"there is no command {first!r} on the PATH, or it is not executable")

    def prepare(self, message: Message, facts: Facts | None) -> Command:
        """Returns the command.

        Errors: CommandRefused when the command needs a build request and the message is none, or a value
        cannot stand in an environment.
        """
        values = {"QUEUE": message.queue} | (dict(facts.values) if facts else {})
        missing = sorted(self.names - values.keys())
        if missing:
            raise CommandRefused(
                f"the command needs %{' %'.join(missing)} from a PyBit build request, and this message is none"
            )
        environment = {template.PLACEHOLDERS[name]: value for name, value in values.items()}
        for name, value in environment.items():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                raise CommandRefused(f"the value of {name} is no text: {error.reason}") from error
            if "\0" in value:
                raise CommandRefused(f"the value of {name} holds a NUL character")
        environment |= self.settings
        return Command([SHELL, "-c", self.text], environment)

    def probe(self) -> Sequence[str]:
        """Returns the command that lets the shell check the syntax."""
        return [SHELL, "-n", "-c", self.text]


# Words that begin a command line and are no program: POSIX's reserved words and built-in utilities.
BUILTINS = frozenset(
    ". : [ alias bg break case cd command continue do done elif else esac eval exec exit export false fc fg "
    "fi for getopts hash if jobs kill local newgrp printf pwd read readonly return set shift test then times "
    "trap true type ulimit umask unalias unset until wait while".split()
)
