"""Knows which commands run another command that stands in their arguments, and finds that one.

It does not judge what the commands do. Used in the client, while the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rbit.shell_text.parts import Word

SHELLS = {"sh", "bash", "dash", "ksh", "ksh93", "zsh", "ash", "rbash", "mksh", "lksh", "posh", "yash", "fish"}
PARSES_ARGUMENTS = {"eval", "ssh", "rsh", "trap", "watch", "alias", "let", "parallel", "sg"}
COMMAND_OPTIONS = {
    "su": ("c", "--command", "--session-command"),
    "runuser": ("c", "--command", "--session-command"),
    "script": ("c", "--command"),
    "flock": ("c", "--command"),
    "env": ("S", "--split-string"),
}
# Commands that run the command in their arguments: short options that take an argument, operands before it.
WRAPPERS = {
    "exec": ("a", 0), "command": ("", 0), "builtin": ("", 0), "env": ("uCS", 0), "nohup": ("", 0),
    "nice": ("n", 0), "sudo": ("CDghpRrTtUu", 0), "doas": ("Cu", 0), "time": ("fo", 0), "timeout": ("ks", 1),
    "setsid": ("", 0), "stdbuf": ("ioe", 0), "xargs": ("adEILnPs", 0), "flock": ("EwW", 1),
    "ionice": ("cnpPu", 0), "chroot": ("", 1), "chrt": ("DPT", 1), "taskset": ("", 1), "runuser": ("ugG", 0),
    "busybox": ("", 0), "toybox": ("", 0), "fakeroot": ("bils", 0), "unshare": ("GSRw", 0),
    "strace": ("aeEIobpPsuUX", 0), "coproc": ("", 0), "unbuffer": ("", 0), "xvfb-run": ("efnpsw", 0),
    "systemd-run": ("CEGHMptu", 0),
}  # fmt: skip
MOST_WRAPPED = 20  # further down every word that may be a command is taken for one
FIND_ACTIONS = {"-exec", "-execdir", "-ok", "-okdir"}
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_SHELL_VARIABLE = re.compile(r'"?\$(SHELL|\{SHELL\})"?')


def invocations(words: Sequence[Word], wrapped: int = 0) -> Iterator[Sequence[Word]]:
    """Yield the command, without its assignments, and every command that it may run from its arguments.

    Arguments:
        words: the words of a command, without redirections.
        wrapped: how many commands around this one run it from their arguments.
    """
    while words and _ASSIGNMENT.match(words[0].source):
        words = words[1:]
    if not words:
        return
    yield words
    name = name_of(words[0])
    sure = wrapped < MOST_WRAPPED
    if name == "find":
        for action in _find_actions(words):
            yield from invocations(action, wrapped + 1) if sure else ()
    elif name in WRAPPERS:
        index, understood = first_operand(words[1:], WRAPPERS[name][0])
        sure = sure and understood
        rest = words[1 + index + WRAPPERS[name][1] :]
        yield from invocations(rest, wrapped + 1) if wrapped < MOST_WRAPPED else ()
    # `$SUDO sh -c ...`: the variable may hold a wrapper, or nothing.
    if not sure or words[0].dynamic:
        yield from _risky(words)


def _find_actions(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    start: int | None = None
    for index, word in enumerate(words):
        if start is None and word.static in FIND_ACTIONS:
            start = index + 1
        elif start is not None and word.static in (";", "+"):
            yield words[start:index]
            start = None
    if start is not None:
        yield words[start:]


def _risky(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    names = SHELLS | PARSES_ARGUMENTS | COMMAND_OPTIONS.keys()
    yield from (words[index:] for index in range(1, len(words)) if name_of(words[index]) in names)


def name_of(word: Word) -> str:
    """Return the name of the command that the word names, without folders; ``""`` when only the shell knows."""
    if _SHELL_VARIABLE.fullmatch(word.source):
        return "sh"
    return "" if word.static is None else word.static.rpartition("/")[2]


def first_operand(words: Sequence[Word], with_argument: str) -> tuple[int, bool]:
    """Return the index of the first word that is no option, and whether the options before it are understood."""
    index, sure = 0, True
    while index < len(words):
        plain = words[index].plain
        if plain == "--":
            return index + 1, sure
        if words[index].dynamic and not plain.startswith("-"):
            # An expansion may be an option, or nothing.
            return index, False
        if not plain.startswith("-") or plain == "-":
            return index, sure
        if plain.startswith("--") or words[index].dynamic:
            sure = sure and "=" in plain
        else:
            takes = next((place for place, letter in enumerate(plain[1:]) if letter in with_argument), None)
            index += takes is not None and takes == len(plain) - 2
        index += 1
    return index, sure
