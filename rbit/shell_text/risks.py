"""Knows which commands parse their arguments or their input once more, as shell text or as a program.

A placeholder must not stand in such a text. It looks at commands that were read already and knows nothing of
quoting. Used in the client, while the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rbit.shell_text.parts import KEPT, Command, Place, Use, Word

SHELLS = {"sh", "bash", "dash", "ksh", "ksh93", "zsh", "ash", "rbash", "mksh", "lksh", "posh", "yash", "fish"}
PARSES_ARGUMENTS = {"eval", "ssh", "rsh", "trap", "watch", "alias", "let", "parallel", "sg"}
COMMAND_OPTIONS = {
    "su": ("c", "--command", "--session-command"),
    "runuser": ("c", "--command", "--session-command"),
    "script": ("c", "--command"),
    "flock": ("c", "--command"),
    "env": ("S", "--split-string"),
}
READS_COMMANDS = {"at", "batch"}
SSH_OPTIONS = "BbcDEeFIiJLlmOoPpQRSWw"
# Commands that run the command in their arguments: short options that take an argument, operands before it.
WRAPPERS = {
    "exec": ("a", 0), "command": ("", 0), "builtin": ("", 0), "env": ("uCS", 0), "nohup": ("", 0),
    "nice": ("n", 0), "sudo": ("CDghpRrTtUu", 0), "doas": ("Cu", 0), "time": ("fo", 0), "timeout": ("ks", 1),
    "setsid": ("", 0), "stdbuf": ("ioe", 0), "xargs": ("adEILnPs", 0), "flock": ("EwW", 1),
    "ionice": ("cnpPu", 0), "chroot": ("", 1), "chrt": ("DPT", 1), "taskset": ("", 1), "runuser": ("ugG", 0),
    "busybox": ("", 0), "toybox": ("", 0), "fakeroot": ("bils", 0), "unshare": ("GSRw", 0),
    "strace": ("aeEIobpPsuUX", 0),
    "coproc": ("", 0), "unbuffer": ("", 0), "xvfb-run": ("efnpsw", 0), "systemd-run": ("CEGHMptu", 0),
}  # fmt: skip
MOST_WRAPPED = 20  # further down every word that may be a command is taken for one
FIND_ACTIONS = {"-exec", "-execdir", "-ok", "-okdir"}
# Program text in another language: the options that take it, and others that take an argument.
_LANGUAGES = {
    re.compile(r"python[\d.]*|pypy[\d.]*"): ("c", "WX"),
    re.compile(r"perl[\d.]*|ruby[\d.]*|lua[\d.]*"): ("eE", "Ir"),
    re.compile(r"node|nodejs"): ("ep", "r"),
    re.compile(r"php[\d.]*"): ("r", ""),
    re.compile(r"[gmn]?awk"): ("e", "Fvf"),
    re.compile(r"g?sed"): ("e", "fl"),
}
_FIRST_OPERAND = ("awk", "sed")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_SHELL_VARIABLE = re.compile(r'"?\$(SHELL|\{SHELL\})"?')


@dataclass
class Findings:
    """Sentences: why a command must not be run, and what may surprise."""

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self, words: Sequence[Word], where: str, instead: str) -> None:
        """Add a mistake for every placeholder in the words."""
        for use in (use for word in words for use in word.uses if use.place is not Place.COMMENT):
            self.mistakes.append(
                f"%{use.name} stands in {where}, which is parsed once more, so that a stranger's value would"
                f" become shell text: {instead.format(use.name)}"
            )


AS_ARGUMENT = "pass it as an argument instead, as in `sh -c '... \"$1\" ...' sh %{}`"
AS_VARIABLE = "put it into a variable first, as in `value=%{}`, and write \"$value\" there in single quotes"
AS_INPUT = "pass it on standard input instead, as in `printf '%s\\n' %{} | ssh host '... read ...'`"


def find(commands: Sequence[Command], uses: Sequence[Use]) -> Findings:
    """Return what is wrong with the places of the placeholders in these commands.

    Arguments:
        commands: all commands of a text, also those in its substitutions.
        uses: all placeholders of the text.
    """
    findings = Findings()
    for command in commands:
        for words in invocations(command.words):
            _look_at(words, findings)
            _mark_reader(words, command)
    for command in commands:
        for words in invocations(command.words):
            if _name(words[0]) in ("echo", "printf"):
                for reader in sorted({pipeline.reader for pipeline in command.pipelines} - {"", "ssh"}):
                    findings.refuse(words, f"text that is piped into `{reader}`", AS_ARGUMENT)
    for use in uses:
        for reader in sorted({pipeline.reader for pipeline in use.document or ()} - {""}):
            instead = AS_INPUT if reader == "ssh" else AS_ARGUMENT
            findings.refuse([Word(uses=[use])], f"a here-document that feeds `{reader}`", instead)
    return findings


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
    name = _name(words[0])
    sure = wrapped < MOST_WRAPPED
    if name == "find":
        for action in _find_actions(words):
            yield from invocations(action, wrapped + 1) if sure else ()
    elif name in WRAPPERS:
        index, understood = _first_operand(words[1:], WRAPPERS[name][0])
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
    yield from (words[index:] for index in range(1, len(words)) if _name(words[index]) in names)


def _name(word: Word) -> str:
    if _SHELL_VARIABLE.fullmatch(word.source):
        return "sh"
    return "" if word.static is None else word.static.rpartition("/")[2]


def _first_operand(words: Sequence[Word], with_argument: str) -> tuple[int, bool]:
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


def _look_at(words: Sequence[Word], findings: Findings) -> None:
    name, arguments = _name(words[0]), words[1:]
    for use in words[0].uses:
        if "${" in words[0].source:
            findings.mistakes.append(
                f"%{use.name} stands in a command word that holds `${{ }}`, which may become a whole command:"
                " write the command's name as it is, and the value behind it"
            )
        elif use.place not in KEPT:
            findings.warnings.append(f"%{use.name} is (part of) the command word: its value chooses what is run")
    if name in SHELLS:
        findings.refuse(_command_string(arguments), f"the command string of `{name} -c`", AS_ARGUMENT)
    elif name in ("ssh", "rsh"):
        findings.refuse(arguments, f"an argument of `{name}`", AS_INPUT)
    elif name in PARSES_ARGUMENTS:
        findings.refuse(arguments, f"an argument of `{name}`", AS_VARIABLE if name == "trap" else AS_ARGUMENT)
    elif name in COMMAND_OPTIONS:
        option, *long = COMMAND_OPTIONS[name]
        texts = _option_arguments(arguments, option, long)
        findings.refuse(texts, f"the command string of `{name} -{option}`", AS_ARGUMENT)
    for pattern, (option, others) in _LANGUAGES.items():
        if pattern.fullmatch(name):
            for word in _program(name, arguments, option, others):
                findings.warnings += [
                    f"%{use.name} stands in the program text of `{name}`, which reads the value as code:"
                    " pass it as an argument, or read the variable in the program"
                    for use in word.uses
                ]


def _command_string(arguments: Sequence[Word]) -> list[Word]:
    index, flags = _shell_options(arguments)
    return _one_word(arguments[index:]) if "c" in flags else []


def _one_word(words: Sequence[Word]) -> list[Word]:
    """Return the words of which the first one that does not expand to nothing is surely among."""
    found: list[Word] = []
    for word in words:
        found.append(word)
        if word.plain or not word.dynamic or (word.source[0] in "\"'" and "$@" not in word.source):
            break
    return found


def _shell_options(arguments: Sequence[Word]) -> tuple[int, str]:
    """Return the index of a shell's first operand, and all letters of the options before it."""
    index, flags = 0, ""
    while index < len(arguments):
        plain = arguments[index].plain
        if arguments[index].dynamic and not plain.startswith("-"):
            if not any(re.fullmatch("-[a-z]*c[a-z]*", later.plain) for later in arguments[index + 1 :]):
                break
        elif plain in ("-", "--"):
            index += 1
            break
        elif plain[:1] not in ("-", "+"):
            break
        if not plain.startswith("--"):
            flags += plain[1:]
        takes_argument = plain in ("--rcfile", "--init-file") or (plain[:2] != "--" and plain[-1:] in ("o", "O"))
        index += 2 if takes_argument else 1
    return index, flags


def _option_arguments(arguments: Sequence[Word], letters: str, long: Sequence[str] = ()) -> list[Word]:
    """Return the arguments of an option: the words behind it, and those that hold both."""
    found: list[Word] = []
    for index, word in enumerate(arguments):
        cluster = re.match(rf"-[A-Za-z]*[{letters}]", word.plain)
        if word.static in long or (cluster and cluster[0] == word.static):
            found += _one_word(arguments[index + 1 :])
        elif cluster or any(word.plain.startswith(f"{name}=") for name in long):
            found.append(word)
    return found


def _program(name: str, arguments: Sequence[Word], option: str, others: str) -> list[Word]:
    index, _ = _first_operand(arguments, option + others)
    found = _option_arguments(arguments[:index], option)
    if not found and name.endswith(_FIRST_OPERAND):
        found = [*arguments[index : index + 1]]
    return found


def _mark_reader(words: Sequence[Word], command: Command) -> None:
    """Mark the pipelines around a command that runs what it reads from its standard input."""
    name, arguments = _name(words[0]), words[1:]
    if command.reads_file or not (reader := _reader(name, arguments)):
        return
    for pipeline in command.pipelines:
        if pipeline.reader in ("", "ssh"):
            pipeline.reader = reader


def _reader(name: str, arguments: Sequence[Word]) -> str:
    """Return what reads its input as shell text here; "ssh" for one that has a remote command of its own."""
    first = arguments[0].static if arguments else None
    if name in SHELLS:
        index, flags = _shell_options(arguments)
        operand = arguments[index].static if index < len(arguments) else ""
        from_input = "c" not in flags and ("s" in flags or operand in ("", "/dev/stdin", "/proc/self/fd/0"))
        return name if from_input else ""
    if name in READS_COMMANDS or (name in (".", "source") and first in ("/dev/stdin", "/proc/self/fd/0")):
        return name
    if name not in ("ssh", "rsh"):
        return ""
    index, _ = _first_operand(arguments, SSH_OPTIONS)
    remote = [Word(part) for word in arguments[index + 1 :] for part in word.plain.split()]
    readers = {_reader(_name(words[0]), words[1:]) for words in invocations(remote)} - {"", "ssh"}
    return " ".join([name, "host", *(word.plain for word in remote)]) if readers or not remote else "ssh"
