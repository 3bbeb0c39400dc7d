"""Tells options from operands in the words of a command.

It knows how options are written, but not what commands do. Used in the client, while the configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rbit.shell_text.parts import Word

_SHELL_VARIABLE = re.compile(r'"?\$(SHELL|\{SHELL\})"?')


def name_of(word: Word) -> str:
    """Return the name of the command that the word names, without folders; ``""`` when only the shell knows."""
    if _SHELL_VARIABLE.fullmatch(word.source):
        return "sh"
    return "" if word.static is None else word.static.rpartition("/")[2]


def first_operand(words: Sequence[Word], with_argument: str) -> tuple[int, bool]:
    """Return the index of the first word that is no option, and whether the options before it are understood.

    Arguments:
        words: the words behind the command's name.
        with_argument: the short options that take an argument.
    """
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


def shell_options(arguments: Sequence[Word]) -> tuple[int, str]:
    """Return the index of a shell's first operand, and all letters of the options before it."""
    index, flags = 0, ""
    while index < len(arguments):
        plain = arguments[index].plain
        if arguments[index].dynamic and not _is_option(arguments[index]):
            # It may be options, or nothing, if options follow.
            later = any(has_letter(word, "c") for word in arguments[index + 1 :])
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


def command_string(arguments: Sequence[Word]) -> list[Word]:
    """Return the words that may be the text behind the option -c of a shell."""
    index, flags = shell_options(arguments)
    found = option_arguments(arguments[:index], "", ("--command", "--init-command"))
    if "c" not in flags:
        return found
    unsure = next((place for place, word in enumerate(arguments[:index]) if not _is_option(word)), index)
    return [*found, *arguments[unsure:index], *_one_word(arguments[index:])]


def option_arguments(arguments: Sequence[Word], letters: str, long: Sequence[str] = ()) -> list[Word]:
    """Return the arguments of some options: the words behind them, and those that hold both.

    Arguments:
        arguments: the words in which the options may stand.
        letters: the short options; ``+`` for words that begin with it.
        long: the long ones, with their dashes; abbreviations of them count too.
    """
    found: list[Word] = []
    for index, word in enumerate(arguments):
        cluster = re.match(rf"(?:-[A-Za-z]*|(?=\+))[{letters}]", word.plain) if letters else None
        head = word.plain.partition("=")[0]
        is_long = head[:1] == "-" and len(head) > 2 and any(name.startswith(head) for name in long)
        if (is_long and head == word.static) or (cluster and cluster[0] == word.static):
            found += _one_word(arguments[index + 1 :])
        elif cluster or is_long:
            found.append(word)
    return found


def has_letter(word: Word, letter: str) -> bool:
    """Whether the word is a group of short options with this letter among them."""
    return re.fullmatch(f"-[A-Za-z]*{letter}[A-Za-z]*", word.plain) is not None


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
