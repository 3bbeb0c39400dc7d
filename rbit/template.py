"""Placeholders in the command line of a ``shell!`` runner.

Values come from strangers, so none ever becomes shell text: a placeholder becomes a quoted reference to a
variable of the environment. What the shell, or a command in the text, would parse once more is refused.
It runs nothing and knows nothing of messages. Used in the client, while the configuration is read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rbit import shell_text
from rbit.shell_text import KEPT, Place, TooDeep, Use

PLACEHOLDERS: Mapping[str, str] = MappingProxyType(
    {name: f"RBIT_{name}" for name in "ID VERSION JOB ARCH SUITE DIST FORMAT URI QUEUE".split()}
)
"""The names of the placeholders, and the environment variable that holds the value of each."""

SETTING_PREFIX = "RBIT_SETTING_"

_MISTAKEN_PLACES = {
    Place.ARITHMETIC: (
        "stands in arithmetic, `(( ))` or `[[ ]]`, where some shells run code in a value: use `[ ]`, `expr` or"
        " `case` instead, and write `( (` for a subshell in a subshell"
    ),
    Place.DISPUTED: (
        "stands in or behind text that shells read differently: write usual quotes instead of `$'...'`, and end"
        " the text of a here-document inside the `$( )` in which it begins"
    ),
    Place.OPERATOR: (
        "stands in a `${...}` where shells differ or evaluate it; it may follow the operators :- := :? :+ # ##"
        " and, outside of here-documents, percent signs (of which each is written twice)"
    ),
    Place.DELIMITER: "is the delimiter of a here-document, which no shell expands: choose a fixed word",
}


@dataclass(frozen=True)
class Template:
    """A command line, ready for /bin/sh.

    Arguments:
        text: for ``/bin/sh -c``: every placeholder replaced by a quoted reference to its variable.
        names: the placeholders whose values the command needs, such as ``ID``.
        mistakes: why the command must not be run, one sentence each that says what to do.
        warnings: what works but may surprise, one sentence each.
    """

    text: str
    names: frozenset[str]
    mistakes: tuple[str, ...]
    warnings: tuple[str, ...]


def parse(command: str) -> Template:
    """Return the template of a command line; what is wrong with it is in the result, nothing is raised.

    Arguments:
        command: what stands behind ``shell!``. Unbalanced quotes are left for ``sh -n`` to find.
    """
    try:
        read = shell_text.read(command, PLACEHOLDERS)
    except TooDeep:
        why = "the command nests too many quotes and substitutions to be followed: put it into a script"
        return Template(command, frozenset(), (why,), ())
    mistakes = [_unknown(name) for name in read.unknown]
    warnings = list(read.notes)
    for use in read.uses:
        mistake, warning = _place(use)
        mistakes += mistake
        warnings += warning
    found = shell_text.find(read.commands, read.uses)
    return Template(
        "".join(read.out),
        frozenset(use.name for use in read.uses if use.place not in KEPT),
        _once(mistakes + found.mistakes),
        _once(warnings + found.warnings),
    )


def setting_variables(settings: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the environment variables that hold a section's settings, and the mistakes found.

    Arguments:
        settings: the values by their keys, in the spelling of the file.

    A key's variable is RBIT_SETTING_ and the key in upper case, with ``_`` for every character other than A-Z
    and 0-9. A setting with a mistake (its variable is taken, its value holds a NUL) has no variable.
    """
    variables: dict[str, str] = {}
    keys: dict[str, str] = {}
    mistakes = []
    for key, value in settings.items():
        name = SETTING_PREFIX + re.sub("[^A-Z0-9]", "_", key.upper())
        if name in keys:
            mistakes.append(f"{key}: expected a key of its own, but {keys[name]} becomes {name} too: rename one")
        elif "\0" in value:
            mistakes.append(f"{key}: expected a value that an environment can hold, got one with a NUL character")
        else:
            variables[name] = value
        keys.setdefault(name, key)
    return variables, mistakes


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, PLACEHOLDERS, 1, 0.5)
    guess = f", did you mean %{near[0]}?" if near else f"; there are %{', %'.join(PLACEHOLDERS)}."
    return f"unknown placeholder %{name}{guess} Write %%{name} for the literal text %{name}"


def _place(use: Use) -> tuple[list[str], list[str]]:
    """Return the mistakes and the warnings that the place of a placeholder alone causes."""
    if use.place in _MISTAKEN_PLACES:
        return [f"%{use.name} {_MISTAKEN_PLACES[use.place]}"], []
    warnings = []
    if use.place is Place.COMMENT:
        warnings.append(f"%{use.name} in a comment is not replaced")
    if use.place is Place.QUOTED_DOCUMENT:
        warnings.append(
            f"%{use.name} is not replaced in a here-document with a quoted delimiter: take the quotes away"
        )
    elif use.document is not None:
        warnings.append(f"%{use.name} stands in a here-document: whoever reads that must take any text there")
    if use.backquotes:
        warnings.append(f"%{use.name} stands in backquotes: $( ) is easier to read and to nest")
    return [], warnings


def _once(sentences: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentences))
