"""Knows for which assignments and builtin commands a shell, or what it runs, takes a value for code or a name.

A name such as ``a[$(command)]`` runs the command in bash. It looks at words only. Used in the client, while the
configuration is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rbit.shell_text.options import name_of
from rbit.shell_text.parts import Command, Word
from rbit.shell_text.wrappers import NO_WRAPPERS

# Values of these variables are code, or choose what is loaded, or (the last ones) are evaluated by bash.
_CODE = (
    r"BASH_ENV|ENV|IFS|PATH|SHELL|SHELLOPTS|BASHOPTS|PS[0-4]|PROMPT_COMMAND|LD_\w+|DYLD_\w+|GCONV_PATH"
    r"|PYTHON(?:STARTUP|PATH|HOME|BREAKPOINT|WARNINGS)|PERL5?(?:OPT|LIB|DB|_\w+)|RUBY(?:OPT|LIB)"
    r"|NODE_(?:OPTIONS|PATH)|LUA_\w+|(?:_JAVA|JAVA_TOOL|JDK_JAVA|TAR)_OPTIONS|CLASSPATH|\w*MAKE(?:FLAGS|FILES)"
    r"|GIT_(?:SSH\w*|EXTERNAL_DIFF|PROXY_COMMAND|EXEC_PATH|CONFIG\w*|TEMPLATE_DIR)|\w*(?:PAGER|EDITOR|ASKPASS)"
    r"|VISUAL|BROWSER|LESS(?:OPEN|CLOSE)|RSYNC_RSH|RANDOM|SRANDOM|SECONDS|LINENO|OPTIND|HISTCMD"
)
_DECLARES = {"declare", "typeset", "local", "export", "readonly", "integer", "nameref"}
_TAKES_NAMES = {"read", "unset", "getopts", "mapfile", "readarray", "enable", "history", "wait"}
_SUBSCRIPT = re.compile(r"\w*\[.*%.*\]\+?=", re.DOTALL)


def evaluated_names(commands: Sequence[Command]) -> set[str]:
    """Return the names that are declared to be integers, arrays or references: bash parses what they are given.

    Arguments:
        commands: all commands of a text.
    """
    declared = [word for command in commands if _evaluates(command.words) for word in command.words[1:]]
    return {word.plain.partition("=")[0] for word in declared} - {""}


def assignments(words: Sequence[Word], evaluated: set[str]) -> Iterator[Word]:
    """Yield the words that give a placeholder's value to a variable (or a subscript) from which it is run.

    Arguments:
        words: all words of a command, with the assignments before it.
        evaluated: names of further such variables.
    """
    names = "|".join([_CODE, *(re.escape(name) for name in evaluated)])
    if name_of(words[0]) in ("for", "select") and len(words) > 1 and re.fullmatch(names, words[1].plain):
        yield from words[2:]
    if name_of(words[0]) in NO_WRAPPERS:
        return
    for word in words:
        source = _unquoted(word)
        if word.uses and (re.match(rf"(?:-[a-z-]+=?)?(?:{names})\+?=", source) or _SUBSCRIPT.match(source)):
            yield word


def names(name: str, arguments: Sequence[Word]) -> Iterator[Word]:
    """Yield the arguments of a builtin command that it takes for the name of a variable.

    Arguments:
        name: the command's name.
        arguments: the words behind it.
    """
    used = [word for word in arguments if word.uses]
    if name in _TAKES_NAMES:
        yield from used
    elif name in _DECLARES:
        every = name in ("integer", "nameref") or _evaluates([Word(plain=name), *arguments])
        yield from (word for word in used if every or not re.match(r"\w+\+?=", _unquoted(word)))
    elif name == "printf" and arguments:
        # A format that begins with -v is the option.
        yield from (word for word in arguments[:1] if word in used and _begins(word))
        yield from _behind(arguments, "-v")
        yield from (word for word in used if word.plain.startswith("-v"))
    elif name in ("[", "test"):
        yield from _behind(arguments, "-v", "-R")
        # The first value may be -v.
        pairs = pairwise(arguments)
        yield from (second for first, second in pairs if first.uses and second.uses and _begins(first))


def _unquoted(word: Word) -> str:
    return re.sub(r"[\"'\\]", "", word.source)


def _behind(arguments: Sequence[Word], *options: str) -> Iterator[Word]:
    pairs = pairwise(arguments)
    return (second for first, second in pairs if first.static in options and second.uses)


def _begins(word: Word) -> bool:
    return re.match("[\"']*%", word.source) is not None


def _evaluates(words: Sequence[Word]) -> bool:
    if name_of(words[0]) not in _DECLARES:
        return False
    return any(re.match("-[A-Za-z]*[aAin]", word.plain) for word in words[1:])
