"""What the readers of shell text find: words, commands, pipelines, and where placeholders stand.

It knows nothing of how a text is read, nor of what commands do. Used in the client, while the configuration is
read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class TooDeep(Exception):
    """Raised when a text nests more quotes and substitutions than are followed."""


class Place(enum.Enum):
    """Where a placeholder stands, as far as that matters: only ORDINARY ones are surely understood.

    FILLED is for text that another command puts there while it runs, not for a placeholder.
    """

    ORDINARY = enum.auto()
    COMMENT = enum.auto()
    ARITHMETIC = enum.auto()
    DISPUTED = enum.auto()
    OPERATOR = enum.auto()
    DELIMITER = enum.auto()
    QUOTED_DOCUMENT = enum.auto()
    FILLED = enum.auto()


KEPT = (Place.COMMENT, Place.QUOTED_DOCUMENT)  # the shell expands nothing there: left as they stand


class Mode(enum.Enum):
    """How the shell reads a character: outside of quotes, inside of them, in a here-document.

    The value is the reference that stands for a placeholder there.
    """

    BARE = '"${{{}}}"'
    DOUBLE = "${{{}}}"
    SINGLE = "'\"${{{}}}\"'"
    DOCUMENT = "${{{}}}\0"  # the NUL only makes it another member; it is not written


@dataclass(eq=False)
class Pipeline:
    """One pipeline; ``reader`` is for the name of the shell that reads its input as text to run."""

    reader: str = ""


@dataclass(eq=False)
class Use:
    """One placeholder in the text: its name, its place, and what it stands in.

    The name of one in Place.FILLED says in words what stands for that text.

    ``document`` holds the pipelines around the command that a here-document feeds, innermost last; it is None
    outside of here-documents.
    """

    name: str
    place: Place
    backquotes: bool = False
    document: tuple[Pipeline, ...] | None = None

    @property
    def shown(self) -> str:
        """How messages call it."""
        return self.name if self.place is Place.FILLED else f"%{self.name}"


@dataclass(eq=False)
class Word:
    """One word of a command: ``plain`` is its literal text without quotes, ``source`` how it was written.

    ``dynamic`` says that the word holds more than ``plain``; ``uses`` are the placeholders anywhere inside.
    """

    plain: str = ""
    source: str = ""
    dynamic: bool = False
    uses: list[Use] = field(default_factory=list)

    @property
    def static(self) -> str | None:
        """The word's value, or None when only the shell knows it."""
        return None if self.dynamic else self.plain


@dataclass(eq=False)
class Command:
    """One simple command: its words without redirections, the pipelines around it (innermost last)."""

    words: list[Word]
    pipelines: tuple[Pipeline, ...]
    reads_file: bool  # its standard input is a file or a descriptor
