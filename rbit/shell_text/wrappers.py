"""Knows which commands run another command that stands in their arguments, and finds that one.

It does not judge what the commands do. Used in the client, while the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rbit.shell_text.options import command_string, first_operand, has_letter, name_of, shell_options
from rbit.shell_text.parts import Place, Use, Word
from rbit.shell_text.programs import takes_code

SHELLS = {
    "sh", "bash", "dash", "ksh", "ksh93", "rksh", "zsh", "rzsh", "ash", "rbash", "mksh", "lksh", "oksh", "posh",
    "yash", "hush", "csh", "tcsh", "fish", "elvish", "nu", "osh", "ysh", "xonsh", "pwsh",
}  # fmt: skip
PARSES_ARGUMENTS = {
    "eval", "ssh", "rsh", "trap", "watch", "alias", "let", "parallel", "sg", "tmux", "socat", "bind", "complete",
    "compgen", "fc", "autossh", "mosh",
}  # fmt: skip
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
# Commands that take their words for data, or whose arguments are known: no other command is looked for in these.
NO_WRAPPERS = {
    ":", "[", "[[", "apt", "apt-get", "basename", "case", "cat", "cd", "chmod", "chown", "cmp", "cp", "curl",
    "cut", "diff", "dirname", "dpkg", "echo", "egrep", "expr", "false", "fgrep", "find", "for", "grep", "head",
    "install", "kill", "ln", "logger", "ls", "mail", "mkdir", "mv", "pgrep", "pkill", "printf", "read", "rm",
    "rmdir", "rsync", "scp", "select", "sort", "stat", "su", "tail", "tee", "test", "touch", "tr", "true", "type",
    "unzip", "wc", "which", "zip",
}  # fmt: skip
MOST_WRAPPED = 20  # further down every word that may be a command is taken for one
FIND_ACTIONS = {"-exec", "-execdir", "-ok", "-okdir"}
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_REPLACED = re.compile(r"-[0oprtx]*[Ii](.*)|--replace(?:=(.*))?")


def invocations(words: Sequence[Word], wrapped: int = 0) -> Iterator[Sequence[Word]]:
    """Yield the command, without its assignments, and every command that it may run from its arguments.

    Where ``find`` or ``xargs`` puts text into the words, they hold a use of Place.FILLED.

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
    if name in WRAPPERS and sure:
        index, sure = first_operand(words[1:], WRAPPERS[name][0])
        rest = words[1 + index + WRAPPERS[name][1] :]
        yield from invocations(_filled_by_xargs(words, rest) if name == "xargs" else rest, wrapped + 1)
    elif name == "find" and sure:
        for action in _filled_by_find(words):
            yield from invocations(action, wrapped + 1)
    elif name not in NO_WRAPPERS and name not in PARSES_ARGUMENTS:
        sure = False
    if not sure:
        yield from _guessed(words, 0 if name in SHELLS else 1)


def _guessed(words: Sequence[Word], index: int) -> Iterator[Sequence[Word]]:
    """Yield what an unknown command may run: whatever begins with a word that names something risky."""
    while index < len(words):
        option, _, name = name_of(words[index]).rpartition("=")
        arguments = words[index + 1 :]
        if name in SHELLS:
            if not option:
                yield words[index:]
            later = next((place for place, word in enumerate(arguments) if has_letter(word, "c")), None)
            if index and later is not None:
                # As in `docker run --entrypoint=sh image -c '...'`.
                yield [Word(plain=name, source=name), *arguments[later:]]
            operand, flags = shell_options(arguments)
            if "c" in flags or not index:
                index += operand + 1
            if "c" in flags:
                # The word behind the text only names the shell, unless the text runs it: `'"$0" "$@"' sh -c ...`.
                index += not command_string(words[index + 2 :])
        elif name in PARSES_ARGUMENTS or takes_code(name):
            yield words[index:]
        index += 1


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


def _filled_by_find(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    first = next((index for index, word in enumerate(words) if word.static in FIND_ACTIONS), len(words))
    # A path that it finds begins with the value of a placeholder in front.
    uses = [use for word in words[:first] for use in word.uses if use.place is not Place.FILLED]
    for action in _find_actions(words):
        yield _filled(action, "{}", uses)


def _filled_by_xargs(words: Sequence[Word], run: Sequence[Word]) -> Sequence[Word]:
    options = words[1 : len(words) - len(run)]
    for word, following in zip(options, [*options[1:], Word(plain="{}")], strict=False):
        if match := _REPLACED.fullmatch(word.plain):
            mark = match[1] or match[2] or ("{}" if match[1] is None or word.plain[-1] == "i" else following.plain)
            return _filled(run, mark, [])
    end = Word(source="%", dynamic=True, uses=[Use("what xargs reads", Place.FILLED)])
    return [*run, end] if run else run


def _filled(words: Sequence[Word], mark: str, uses: list[Use]) -> list[Word]:
    """Return the words, with the uses (or one of Place.FILLED) in those that hold the mark."""
    added = uses or [Use(mark, Place.FILLED)]
    return [
        Word(word.plain, word.source, True, list(dict.fromkeys(word.uses + added))) if mark in word.plain else word
        for word in words
    ]
