"""The processors that installed distributions register in the group ``rbit.runners`` of their entry points.

rbit registers its own in the same way, in its setup.py; there is no other table of them. What is installed is
looked through once, at the start, and only the processors that sections name are loaded.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rbit.errors import ConfigError
from rbit.runners.guard import words

GROUP = "rbit.runners"
OWNER = "rbit"  # the distribution whose processors must be there
NO_OWNER = (
    "rbit is not installed in this Python, or was before it had processors, so nothing says what python! and "
    "shell! are; install it (again): pip install, and the folder of its checkout"
)


def load(text: str) -> tuple[str, Callable[..., Any], str]:
    """Returns what makes the runner of a section.

    Arguments:
        text: the section's ``runner``, such as ``python!package.module:callable``.

    Returns the processor in words, its factory, and the part behind the first ``!``.

    Errors: ConfigError when there is no such processor, or none that can be used.
    """
    name, mark, rest = text.partition("!")
    found = _registered()
    if not mark or name not in found:
        known = ", ".join(f"{name}!..." for name in sorted(found))
        near = difflib.get_close_matches(name, found, 1)
        hint = f"; did you mean {near[0]}!?" if mark and near else ""
        raise ConfigError([f"expected one of {known}, got {text!r}{hint}"])
    return *_load(name), rest


@functools.cache
def _registered() -> dict[str, tuple[EntryPoint, ...]]:
    """Returns the entry points of each name. Errors: ConfigError when rbit's own are not among them."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    try:
        for entry in entry_points(group=GROUP):
            found[entry.name] = (*found.get(entry.name, ()), entry)
        owners = {_distribution(entry).partition(" ")[0] for entries in found.values() for entry in entries}
    except Exception as error:  # of any distribution that is damaged
        raise ConfigError([f"the installed distributions cannot be looked through: {words(error)}"]) from error
    if OWNER not in owners:
        raise ConfigError([NO_OWNER])
    return found


@functools.cache
def _load(name: str) -> tuple[str, Callable[..., Any]]:
    first, *more = _registered()[name]
    if more:
        owners = " and ".join(sorted(_distribution(entry) for entry in (first, *more)))
        raise ConfigError([f"the processor {name}! is registered by {owners}; uninstall all of them but one"])
    who = f"the processor {name}! of {_distribution(first)}"
    try:
        factory = first.load()
    except KeyboardInterrupt:  # a stop signal
        raise
    except BaseException as error:
        raise ConfigError([f"{who} cannot be loaded: {words(error)}"]) from error
    if not callable(factory):
        raise ConfigError([f"{who} is no factory: {first.value} is of the type {type(factory).__name__}"])
    return who, factory


def _distribution(entry: EntryPoint) -> str:
    """Returns the name and the version of the distribution that an entry point is of."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
