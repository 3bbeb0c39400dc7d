"""Shell text that is nothing but words: all that a shell does with it is to start a program.

Knows nothing of jobs and runs nothing. Used in the client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SHELL = ("/bin/sh", "-c")
# What means nothing to any shell: these characters, and in single quotes all that are printed, but such a quote.
WORD = r"[A-Za-z0-9_./+:@%,=-]+|'[ -&(-~]*'"
PLAIN = re.compile(rf"(?:{WORD})(?:[ \t]+(?:{WORD}))*")
# The first is a path, so no shell looks for it or knows it as its own; it is neither an option nor an assignment.
PROGRAM = re.compile(r"(?![+-])[^=]*/[^=]*")


def words(arguments: Sequence[str]) -> list[str] | None:
    """Returns what a shell with these arguments would start itself; None if it has more to do, or may have."""
    *shell, text = arguments
    text = text.strip(" \t")
    if tuple(shell) != SHELL or not PLAIN.fullmatch(text):
        return None
    found = [word.strip("'") for word in re.findall(WORD, text)]
    return found if PROGRAM.fullmatch(found[0]) else None
