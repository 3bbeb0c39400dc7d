"""Knows which commands take code in their arguments, or run what they read: interpreters, databases, editors.

It knows shells only by the options of other commands that hand text to one. Used in the client, while the
configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rbit.shell_text.options import first_operand, option_arguments
from rbit.shell_text.parts import Word


@dataclass(frozen=True)
class Program:
    """Where a command takes code.

    Arguments:
        names: a pattern of its names.
        letters: the short options whose argument is code.
        long: the long ones.
        others: short options that take another argument, where options end at the first operand; None: options
            may stand anywhere.
        operands: the slice of them that is code when no option gave any.
        reads: whether it runs its standard input when it is given no code, nor (but with ``others`` None) operand.
    """

    names: str
    letters: str = ""
    long: tuple[str, ...] = ()
    others: str | None = None
    operands: tuple[int, int | None] = (0, 0)
    reads: bool = False


_FILE = re.compile("-[^Fveil-]*f|--file")  # of awk and sed: the code is in a file
_FIRST, _BEHIND_FIRST, _ALL = (0, 1), (1, None), (0, None)
_PROGRAMS = (
    Program("su|runuser|script|flock", "c", ("--command", "--session-command")),
    Program("env", "S", ("--split-string",)),
    Program("(g|bsd)?tar", "IF", ("--use-compress-program", "--to-command", "--checkpoint-action", "--info-script",
            "--new-volume-script", "--rsh-command", "--rmt-command")),
    Program("rsync", "e", ("--rsh", "--rsync-path")),
    Program("split", "", ("--filter",)),
    Program("zip", "", ("-TT", "--unzip-command")),
    Program("screen", "X"),
    Program("git", "c", ("--config-env",), "C"),
    Program("git", "", ("--exec", "--upload-pack", "--receive-pack")),
    Program("g?make", "E", ("--eval",), "CfIjlo", _ALL),  # it expands values of variables
    Program(r"python[\d.]*|pypy[\d.]*", "c", (), "WX", reads=True),
    Program(r"(perl|ruby|lua)[\d.]*|luajit", "eEM", (), "Ir", reads=True),
    Program("node|nodejs|bun", "ep", ("--eval", "--print"), "r", reads=True),
    Program(r"php[\d.]*", "rBRE", (), "cd", reads=True),
    Program("[gmn]?awk", "e", ("--source",), "Fvf", _FIRST),
    Program("g?sed", "e", ("--expression",), "fl", _FIRST),
    Program("gnuplot|julia|ghc|Rscript|groovy|elixir|osascript", "eE"),
    Program("octave|emacs", "", ("--eval", "-eval", "--execute")),
    Program("expect|guile|tclsh", "c", (), "", reads=True),
    Program("psql", "c", ("--command",), reads=True),
    Program("mysql|mariadb", "e", ("--execute", "--init-command"), reads=True),
    Program("sqlite3", "", ("-cmd",), "", _BEHIND_FIRST, reads=True),
    Program("r?g?vim?|nvim|ex|r?view|vimdiff", "cS+", ("--cmd",), reads=True),
    Program("gdb|lldb", "o", ("-ex", "--ex", "-iex", "-eval-command", "--eval-command"), reads=True),
    Program("r?ed", reads=True),
    Program("dc|m4", "e", ("--expression",), "DI", reads=True),
)  # fmt: skip


def takes_code(name: str) -> bool:
    """Whether a command of this name may be given code."""
    return bool(_programs(name))


def code_in(name: str, arguments: Sequence[Word]) -> list[Word]:
    """Return the words behind a command's name that may be code."""
    return [word for program in _programs(name) for word in _code(program, arguments)]


def reads_code(name: str, arguments: Sequence[Word]) -> bool:
    """Whether a command of this name and arguments runs its standard input."""
    return any(
        program.reads
        and not _code(program, arguments)
        and (program.others is None or _is_input(_operands(program, arguments)[program.operands[0] :]))
        for program in _programs(name)
    )


def _is_input(operands: Sequence[Word]) -> bool:
    return not operands or operands[0].plain == "-"


def _programs(name: str) -> list[Program]:
    return [program for program in _PROGRAMS if re.fullmatch(program.names, name)]


def _operands(program: Program, arguments: Sequence[Word]) -> Sequence[Word]:
    index, _ = first_operand(arguments, program.letters + (program.others or ""))
    return arguments[index:]


def _code(program: Program, arguments: Sequence[Word]) -> Sequence[Word]:
    operands = _operands(program, arguments)
    # The first operand may be the argument of a long option.
    options = arguments if program.others is None else arguments[: len(arguments) - len(operands) + 1]
    if program.operands == _FIRST and any(_FILE.match(word.plain) for word in options):
        return []
    return option_arguments(options, program.letters, program.long) or operands[slice(*program.operands)]
