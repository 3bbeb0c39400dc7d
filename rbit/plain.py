"""Shell text that is nothing but words: all that a shell does with it is to start a program.

Whoever starts a program waits for the kernel to have read its file, a keeper too, which must not wait for another
machine; a shell may. So this is for programs on disks of this machine.

Knows nothing of jobs and runs nothing. Used in the client.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
from collections.abc import Sequence

SHELL = ("/bin/sh", "-c")
# What means nothing to any shell: these characters, and in single quotes all that are printed, but such a quote.
WORD = r"[A-Za-z0-9_./+:@%,=-]+|'[ -&(-~]*'"
PLAIN = re.compile(rf"(?:{WORD})(?:[ \t]+(?:{WORD}))*")
# The first is a path, so no shell looks for it or knows it as its own; it is neither an option nor an assignment.
PROGRAM = re.compile(r"(?![+-])[^=]*/[^=]*")
LONGEST_FIRST = 256  # bytes; the kernel reads no more of the first line of a program
DEEPEST = 5  # programs of which each names the next in its first line


def words(arguments: Sequence[str]) -> list[str] | None:
    """Returns what a shell with these arguments would start itself; None if it may have more to do."""
    *shell, text = arguments
    text = text.strip(" \t")
    if tuple(shell) != SHELL or not PLAIN.fullmatch(text):
        return None
    found = [word.strip("'") for word in re.findall(WORD, text)]
    return found if PROGRAM.fullmatch(found[0]) and near(found[0]) else None


@functools.cache
def near(program: str) -> bool:
    """Whether a program and what its first line names are on disks: what comes over a network has no device."""
    with contextlib.suppress(OSError):
        for _ in range(DEEPEST):
            found = os.stat(program)
            if not stat.S_ISREG(found.st_mode) or not os.major(found.st_dev):
                break
            with open(program, "rb") as file:
                mark, first = file.read(2), file.readline(LONGEST_FIRST).split()
            if mark != b"#!":
                return True
            program = os.fsdecode(first[0]) if first else ""
    return False
