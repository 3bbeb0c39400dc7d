"""Knows which commands parse their arguments or their input once more, as shell text or as a program.

A placeholder must not stand in such a text. It looks at commands that were read already and knows nothing of
quoting. Used in the client, while the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rbit.shell_text.commands import read
from rbit.shell_text.parts import KEPT, Command, Place, TooDeep, Use, Word
from rbit.shell_text.wrappers import (
    COMMAND_OPTIONS,
    PARSES_ARGUMENTS,
    SHELLS,
    first_operand,
    invocations,
    name_of,
)

READS_COMMANDS = {"at", "batch"}
SSH_OPTIONS = "BbcDEeFIiJLlmOoPpQRSWw"
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
            if name_of(words[0]) in ("echo", "printf"):
                for reader in sorted({pipeline.reader for pipeline in command.pipelines} - {"", "ssh"}):
                    findings.refuse(words, f"text that is piped into `{reader}`", AS_ARGUMENT)
    for use in uses:
        for reader in sorted({pipeline.reader for pipeline in use.document or ()} - {""}):
            instead = AS_INPUT if reader == "ssh" else AS_ARGUMENT
            findings.refuse([Word(uses=[use])], f"a here-document that feeds `{reader}`", instead)
    return findings


def _look_at(words: Sequence[Word], findings: Findings) -> None:
    name, arguments = name_of(words[0]), words[1:]
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
        _look_at_script(name, arguments, findings)
    elif name in ("ssh", "rsh"):
        findings.refuse(arguments, f"an argument of `{name}`", AS_INPUT)
    elif name in PARSES_ARGUMENTS:
        findings.refuse(arguments, f"an argument of `{name}`", AS_VARIABLE if name == "trap" else AS_ARGUMENT)
    elif name in COMMAND_OPTIONS:
        option, *long = COMMAND_OPTIONS[name]
        texts = _option_arguments(arguments, option, long)
        findings.refuse(texts, f"the text behind `{name} -{option}`", AS_ARGUMENT)
    for pattern, (option, others) in _LANGUAGES.items():
        if pattern.fullmatch(name):
            for word in _program(name, arguments, option, others):
                findings.warnings += [
                    f"%{use.name} stands in the program text of `{name}`, which reads the value as code:"
                    " pass it as an argument, or read the variable in the program"
                    for use in word.uses
                ]


def _look_at_script(name: str, arguments: Sequence[Word], findings: Findings) -> None:
    index, flags = _shell_options(arguments)
    dashes = index > 0 and arguments[index - 1].plain == "--"
    script = arguments[index] if index < len(arguments) else Word()
    if script.uses and re.match("[\"']*%", script.source) and "c" not in flags and not dashes:
        findings.mistakes.append(
            f"%{script.uses[0].name} begins the name of the script that `{name}` runs, so that a value that begins"
            f" with a dash would be an option such as -c: write ./%{script.uses[0].name}"
        )


def _command_string(arguments: Sequence[Word]) -> list[Word]:
    """Return the words that may be the text behind the option -c of a shell."""
    index, flags = _shell_options(arguments)
    if "c" not in flags:
        return []
    unsure = next((place for place, word in enumerate(arguments[:index]) if not _is_option(word)), index)
    return [*arguments[unsure:index], *_one_word(arguments[index:])]


def _is_option(word: Word) -> bool:
    return word.plain[:1] in ("-", "+")


def _one_word(words: Sequence[Word]) -> list[Word]:
    """Return the words of which the first one that does not expand to nothing is surely among."""
    found: list[Word] = []
    for word in words:
        found.append(word)
        if len(found) > 1 and _is_option(word):
            continue
        if word.plain or not word.dynamic or (word.source[0] in "\"'" and "$@" not in word.source):
            break
    return found


def _shell_options(arguments: Sequence[Word]) -> tuple[int, str]:
    """Return the index of a shell's first operand, and all letters of the options before it."""
    index, flags = 0, ""
    while index < len(arguments):
        plain = arguments[index].plain
        if arguments[index].dynamic and not _is_option(arguments[index]):
            # It may be options, or nothing, if options follow.
            later = any(re.fullmatch("-[A-Za-z]*c[A-Za-z]*", word.plain) for word in arguments[index + 1 :])
            if "c" in flags or not later:
                break
        elif plain in ("-", "--"):
            index += 1
            break
        elif plain[:1] not in ("-", "+"):
            break
        if not plain.startswith("--"):
            flags += plain[1:] + ("c" if arguments[index].dynamic and plain else "")
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
    index, _ = first_operand(arguments, option + others)
    found = _option_arguments(arguments[:index], option)
    if not found and name.endswith(_FIRST_OPERAND):
        found = [*arguments[index : index + 1]]
    return found


def _mark_reader(words: Sequence[Word], command: Command) -> None:
    """Mark the pipelines around a command that runs what it reads from its standard input."""
    name, arguments = name_of(words[0]), words[1:]
    if command.reads_file or not (reader := _reader(name, arguments)):
        return
    for pipeline in command.pipelines:
        if pipeline.reader in ("", "ssh"):
            pipeline.reader = reader


def _reader(name: str, arguments: Sequence[Word]) -> str:
    """Return what reads its input as shell text here; "ssh" for one that has a remote command of its own."""
    if name in SHELLS:
        index, flags = _shell_options(arguments)
        script = arguments[index : index + 1]
        if "c" in flags:
            return name if script and _runs_input(script[0].plain) else ""
        return name if "s" in flags or not script or _is_input(script) else ""
    if name in READS_COMMANDS or (name in (".", "source") and _is_input(arguments[:1])):
        return name
    if name not in ("ssh", "rsh"):
        return ""
    index, _ = first_operand(arguments, SSH_OPTIONS)
    remote = " ".join(word.plain for word in arguments[index + 1 :])
    return f"{name} host {remote}".rstrip() if not remote or _runs_input(remote) else "ssh"


def _runs_input(text: str) -> bool:
    """Whether a command in this text runs what it reads from the standard input, as in `sh -c 'cd x; sh'`."""
    try:
        commands = read(text, {}).commands
    except TooDeep:
        return True
    return any(
        not command.reads_file and _reader(name_of(words[0]), words[1:]) not in ("", "ssh")
        for command in commands
        for words in invocations(command.words)
    )


def _is_input(words: Sequence[Word]) -> bool:
    return any(word.static in ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0") for word in words)
