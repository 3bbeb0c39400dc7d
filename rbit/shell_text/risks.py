"""Knows which commands parse their arguments or their input once more, as shell text or as a program.

A placeholder must not stand in such a text. It looks at commands that were read already and knows nothing of
quoting. Used in the client, while the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rbit.shell_text import builtins
from rbit.shell_text.commands import read
from rbit.shell_text.options import command_string, first_operand, has_letter, name_of, shell_options
from rbit.shell_text.parts import KEPT, Command, Place, TooDeep, Use, Word
from rbit.shell_text.programs import code_in, reads_code, takes_code
from rbit.shell_text.wrappers import PARSES_ARGUMENTS, SHELLS, invocations

READS_COMMANDS = {"at", "batch", "crontab"}
SSH_OPTIONS = "BbcDEeFIiJLlmOoPpQRSWw"
PRINTS_WORDS = {"echo", "printf", "find", "ls"}

AS_ARGUMENT = "pass it as an argument instead, as in `sh -c '... \"$1\" ...' sh {}`"
AS_VARIABLE = "put it into a variable first, as in `value={}`, and write \"$value\" there in single quotes"
AS_INPUT = "pass it on standard input instead, as in `printf '%s\\n' {} | ssh host '... read ...'`"
AS_DATA = "let the program take it from an argument or from its environment"
AS_FIXED = "write something fixed there, chosen by `case {} in ...` if need be"


@dataclass
class Findings:
    """Sentences: why a command must not be run, and what may surprise."""

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self, words: Iterable[Word], where: str, instead: str) -> bool:
        """Add a mistake for every placeholder in the words; a warning for what another command puts there.

        Return whether there was one of the latter.
        """
        found = False
        for use in (use for word in words for use in word.uses if use.place is not Place.COMMENT):
            filled = use.place is Place.FILLED
            found |= filled
            (self.warnings if filled else self.mistakes).append(
                f"{use.shown} stands in {where}, which is parsed once more, so that a stranger's value would"
                f" become code: {instead.format('{}' if filled else use.shown)}"
            )
        return found


def find(commands: Sequence[Command], uses: Sequence[Use]) -> Findings:
    """Return what is wrong with the places of the placeholders in these commands.

    Arguments:
        commands: all commands of a text, also those in its substitutions.
        uses: all placeholders of the text.
    """
    findings = Findings()
    evaluated = builtins.evaluated_names(commands)
    for command in commands:
        findings.refuse(builtins.assignments(command.words, evaluated), "an assignment", AS_FIXED)
        for words in invocations(command.words):
            filled = _look_at(words, findings)
            _mark_reader(words, command, filled)
    for command in commands:
        for words in invocations(command.words):
            if name_of(words[0]) in PRINTS_WORDS:
                for reader in sorted({pipeline.reader for pipeline in command.pipelines} - {"", "ssh"}):
                    findings.refuse(words, f"text that is piped into `{reader}`", _instead(reader))
    for use in uses:
        for reader in sorted({pipeline.reader for pipeline in use.document or ()} - {""}):
            findings.refuse([Word(uses=[use])], f"a here-document that feeds `{reader}`", _instead(reader))
    return findings


def _instead(reader: str) -> str:
    return AS_INPUT if reader == "ssh" else AS_DATA if takes_code(reader) else AS_ARGUMENT


def _look_at(words: Sequence[Word], findings: Findings) -> bool:
    """Look at one command; return whether text that another one puts into its words is parsed once more."""
    name, arguments = name_of(words[0]), words[1:]
    for use in words[0].uses:
        if "${" in words[0].source:
            findings.mistakes.append(
                f"{use.shown} stands in a command word that holds `${{ }}`, which may become a whole command:"
                " write the command's name as it is, and the value behind it"
            )
        elif use.place not in KEPT:
            findings.warnings.append(f"{use.shown} is (part of) the command word: its value chooses what is run")
    if name in SHELLS:
        texts = command_string(arguments)
        filled = findings.refuse(texts, f"the command string of `{name} -c`", AS_ARGUMENT)
        return _look_at_script(name, arguments, findings) or filled
    if name in (".", "source"):
        _warn_of_script(name, arguments[:1], findings)
    if name in ("ssh", "rsh"):
        return findings.refuse(arguments, f"an argument of `{name}`", AS_INPUT)
    if name in PARSES_ARGUMENTS:
        instead = AS_VARIABLE if name == "trap" else AS_ARGUMENT
        return findings.refuse(arguments, f"an argument of `{name}`", instead)
    if name in ("scp", "rsync") and not any(has_letter(word, "s") for word in arguments):
        remote = [word for word in arguments if ":" in word.plain]
        findings.refuse(remote, f"a remote path of `{name}`", "add the option -s")
    findings.refuse(builtins.names(name, arguments), f"an argument of `{name}`", AS_FIXED)
    return findings.refuse(code_in(name, arguments), f"code for `{name}`", AS_DATA)


def _look_at_script(name: str, arguments: Sequence[Word], findings: Findings) -> bool:
    index, flags = shell_options(arguments)
    script = arguments[index : index + 1]
    if "c" in flags or "s" in flags or not script or not script[0].uses:
        return False
    dashes = index > 0 and arguments[index - 1].plain == "--"
    if dashes or not re.match("[\"']*%", script[0].source):
        _warn_of_script(name, script, findings)
        return False
    where = f"the beginning of the name of the script that `{name}` runs"
    return findings.refuse(script, where, "write ./{} lest it be an option such as -c")


def _warn_of_script(name: str, words: Sequence[Word], findings: Findings) -> None:
    for use in (use for word in words for use in word.uses):
        findings.warnings.append(f"{use.shown} is (part of) the name of what `{name}` runs as shell text")


def _mark_reader(words: Sequence[Word], command: Command, filled: bool) -> None:
    """Mark the pipelines around a command that runs what it reads from its standard input."""
    name, arguments = name_of(words[0]), words[1:]
    if command.reads_file or not (reader := f"xargs {name}" if filled else _reader(name, arguments)):
        return
    for pipeline in command.pipelines:
        if pipeline.reader in ("", "ssh"):
            pipeline.reader = reader


def _reader(name: str, arguments: Sequence[Word]) -> str:
    """Return what reads its input as shell text here; "ssh" for one that has a remote command of its own."""
    if name in SHELLS:
        index, flags = shell_options(arguments)
        script = arguments[index : index + 1]
        if "c" in flags:
            return name if script and _runs_input(script[0].plain) else ""
        return name if "s" in flags or not script or _is_input(script) else ""
    if name in READS_COMMANDS or (name in (".", "source") and _is_input(arguments[:1])):
        return name
    if name not in ("ssh", "rsh"):
        return name if reads_code(name, arguments) else ""
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
