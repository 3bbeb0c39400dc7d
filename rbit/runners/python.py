"""The ``python!package.module:callable`` runner."""

from __future__ import annotations

from collections.abc import Sequence

from rbit import start
from rbit.config import RunnerSettings
from rbit.decode import Facts
from rbit.message import Message
from rbit.runners.base import TARGET, Call


class PythonRunner:
    """Calls a Python function in the slot's worker. Arguments: the part behind ``python!``, its section."""

    def __init__(self, target: str, section: RunnerSettings) -> None:
        self.target = target.strip()
        self.mistakes: list[str] = []
        self.warnings: list[str] = []
        if not TARGET.fullmatch(self.target):
            self.mistakes.append(f"expected python!package.module:callable, got {section.runner!r}")

    def prepare(self, message: Message, facts: Facts | None) -> Call:
        """Returns the call; every message can be run."""
        return Call(self.target)

    def probe(self) -> Sequence[str]:
        """Returns the command that imports the target as a worker would."""
        return start.worker("--check", self.target)
