"""What stands between rbit and the runner of a processor, which anybody may have written.

Whatever that returns or raises, rbit meets only what the protocol allows. Used in the client: at the start in the
main thread, at a reload in a thread of its own, else in the threads of the slots.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rbit.config import RunnerSettings
from rbit.decode import Facts
from rbit.errors import Blocked, CommandRefused, ConfigError, RbitError, RunnerBroken
from rbit.message import Message
from rbit.output import visible
from rbit.runners.base import TARGET, Call, Command

LONGEST = 500  # characters of an error's text that are shown


class Guard:
    """A runner that keeps to the protocol, made of one that may not.

    Arguments:
        who: the processor, in words.
        factory: makes the runner.
        rest: what stands behind the processor's ``!``.
        section: the settings of the queue.

    Errors: ConfigError when the factory raises, or what it makes is no runner.
    """

    def __init__(self, who: str, factory: Callable[..., Any], rest: str, section: RunnerSettings) -> None:
        self._who = who
        try:
            self._runner = factory(rest, section)
            missing = [name for name in ("prepare", "probe") if not callable(getattr(self._runner, name, None))]
            self.mistakes = _texts(self._runner, "mistakes")
            self.warnings = _texts(self._runner, "warnings")
        except KeyboardInterrupt:  # a stop signal at the start
            raise
        except BaseException as error:
            raise ConfigError([f"{who} cannot make a runner of this: {words(error)}"]) from error
        if missing:
            kind = type(self._runner).__name__
            raise ConfigError([f"{who} makes no runner: {kind} has no method {' and no '.join(missing)}"])

    def prepare(self, message: Message, facts: Facts | None) -> Call | Command:
        """Returns what to run for a message.

        Errors: Blocked and CommandRefused as the runner says; RunnerBroken when it raises anything else, or
        returns what cannot be run.
        """
        try:
            return _plan(self._runner.prepare(message, facts))
        except Blocked as error:
            raise Blocked(_reason(error)) from error
        except RbitError as error:
            raise CommandRefused(_reason(error)) from error
        except BaseException as error:  # sys.exit() too: it must not end the slot's thread
            raise RunnerBroken(f"{self._who} failed: {words(error)}", _traceback(error)) from error

    def probe(self) -> Sequence[str] | None:
        """Returns the command for ``rbit --check``. Errors: ConfigError when the runner has no proper one."""
        try:
            found = self._runner.probe()
            return None if found is None else _command(found, {}).arguments
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise ConfigError([f"{self._who} cannot be checked: {words(error)}"]) from error


def words(error: BaseException) -> str:
    """Returns an error of a stranger's code in one line."""
    name, text = type(error).__name__, _reason(error)
    return f"{name}: {text}" if text else name


def _reason(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - the error's own code, which may exit too
        return ""
    # No half characters, which a header cannot hold.
    return visible(" ".join(text.split())[:LONGEST]).encode("utf-8", "backslashreplace").decode()


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - the error's own code
        return ""


def _texts(runner: object, name: str) -> list[str]:
    found = getattr(runner, name)
    if not isinstance(found, (list, tuple)) or not all(isinstance(text, str) for text in found):
        raise TypeError(f"{name} is no list of texts")
    return [visible(" ".join(text.split())) for text in found]


def _plan(plan: object) -> Call | Command:
    """Returns what a runner has prepared, as rbit's own types. Errors: TypeError, ValueError."""
    if isinstance(plan, Command):
        return _command(plan.arguments, plan.environment)
    if not isinstance(plan, Call):
        raise TypeError(f"prepare() returned neither a Call nor a Command, but a {type(plan).__name__}")
    if not isinstance(plan.target, str) or not TARGET.fullmatch(plan.target):
        raise ValueError(f"expected package.module:callable as the target of a Call, got {plan.target!r}")
    return Call(plan.target)


def _command(arguments: object, environment: object) -> Command:
    if not isinstance(arguments, (list, tuple)) or not arguments:
        raise TypeError("the arguments of a command are no list of texts, or there are none")
    if not isinstance(environment, Mapping):
        raise TypeError("the environment of a command is no mapping")
    for text in (*arguments, *environment, *environment.values()):
        # Not shown: it may be a secret.
        if not isinstance(text, str) or "\0" in text:
            raise TypeError("an argument or a variable of a command is no text, or holds a NUL character")
        text.encode("utf-8")
    if not os.path.isabs(arguments[0]):
        raise ValueError(f"expected the whole path of a command's program, got {arguments[0]!r}")
    if wrong := [name for name in environment if not name or "=" in name]:
        raise ValueError(f"a variable of a command has no proper name: {wrong[0]!r}")
    return Command(tuple(arguments), dict(environment))
