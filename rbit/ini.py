"""Reads an INI file into sections and typed values, and collects the user's mistakes as lines to print.

Knows the INI format and kinds of values (seconds, whole numbers, yes and no). It must not know which
sections and keys rbit has. Runs in the client's process.
"""

from __future__ import annotations

import configparser
import difflib
import functools
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rbit import files
from rbit.errors import ConfigError

SIZE_LIMIT = 16 * 1024 * 1024  # bytes; stops at files given by accident
SECONDS_LIMIT = 2_000_000.0  # seconds; sockets refuse longer timeouts (2**31 milliseconds)
SHOWN_LINES = 10  # lines that are no INI, or repetitions, named before the rest is only mentioned
SECONDS = "a number of seconds above 0, at most 2000000"

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15}")
_SWITCH = ("no", "false", "off", "0", "yes", "true", "on", "1")
# A NUL cannot come from a file (it is refused), so names of our own hold one.
_MARK = "\0"


class Unexpected(ValueError):
    """Raised by the `parse` of a key with a hint for the user; other ValueErrors are not shown to them."""


class _PlainParser(configparser.RawConfigParser):
    """A parser that keeps keys in the spelling of the file and gives [DEFAULT] no meaning."""

    def __init__(self) -> None:
        super().__init__(default_section=_MARK)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@dataclass(frozen=True)
class Key:
    """One key of a section.

    Arguments:
        name: its spelling in the file.
        parse: turns the text into the value; raises ValueError, Unexpected if it has a hint.
        expected: what the text must be, to follow the word "expected".
        default: the text that stands for a missing key, or what gives it; None: the value is None then.
        required: a missing key is a mistake.
        secret: the value is never shown.
        lines: the value may have more than one line.
    """

    name: str
    parse: Callable[[str], Any]
    expected: str
    default: str | Callable[[], str] | None = None
    required: bool = False
    secret: bool = False
    lines: bool = False


@dataclass
class Document:
    """A file that was read.

    Arguments:
        path: the file's name as it is shown in mistakes.
        sections: the keys and texts of each section, in the order and spelling of the file.
        mistakes: one line for each mistake found so far; the methods add to it.
        faulty: the sections with mistakes; '' for a mistake in none.
    """

    path: str
    sections: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    mistakes: list[str] = field(default_factory=list)
    faulty: set[str] = field(default_factory=set)

    def line(self, text: str, section: str, key: str = "") -> str:
        """Return a line that says where in the file `text` applies; an empty key names the section only."""
        return f"{printable(self.path)}: [{printable(section)}]{key and ' ' + _first_word(key)}: {text}"

    def mistake(self, text: str, section: str, key: str = "") -> None:
        """Note a mistake at a section, or at one of its keys."""
        self.mistakes.append(self.line(text, section, key))
        self.faulty.add(section)

    def values(self, section: str, keys: Iterable[Key]) -> dict[str, Any]:
        """Return the value of each key in a section; a missing section counts as an empty one.

        Each text that is not as expected is noted as a mistake, and the key's value is None then.
        """
        given = self.sections.get(section, {})
        return {key.name: self._value(section, key, given) for key in keys}

    def _value(self, section: str, key: Key, given: Mapping[str, str]) -> Any:
        text = given.get(key.name)
        if text is None and key.required:
            other = near(key.name, tuple(given), 0.8)
            hint = f" (there is a key {_first_word(other)!r})" if other else ""
            self.mistake(f"missing, expected {key.expected}{hint}", section, key.name)
            return None
        hint = ""
        if text is None:
            text = key.default() if callable(key.default) else key.default
            hint = f"this is the default, so set {key.name}"
        if text is None:
            return None
        try:
            if "\n" in text and not key.lines:
                raise Unexpected("an indented line continues the value above it")
            return key.parse(text)
        except ValueError as error:
            # The library's own errors may show the value.
            hint = hint or (str(error) if isinstance(error, Unexpected) else "")
        # A URL or a host may hold a password too (user:password@host, ?token=...).
        got = "a value that is not shown" if key.secret or re.search("[@?]", text) else shown(text)
        hint = f" ({hint})" if hint else ""
        self.mistake(f"expected {key.expected}, got {got}{hint}", section, key.name)
        return None

    def refuse_unknown(self, section: str, keys: Iterable[Key], other_names: Mapping[str, str]) -> None:
        """Note a mistake for each key of a section that is not in `keys`.

        Arguments:
            other_names: names that people know a key by, and the key.
        """
        names = tuple(key.name for key in keys)
        for key in self.sections.get(section, {}):
            if key not in names:
                guess = other_names.get(key.lower()) or near(key, names)
                expected = f"did you mean {guess}?" if guess else f"expected one of {', '.join(names)}"
                self.mistake(f"unknown key, {expected}", section, key)


def read(path: str) -> Document:
    """Read an INI file: UTF-8 (with or without a byte order mark), without interpolation.

    Returns the document; repeated sections and keys and lines that are no INI are among its mistakes.
    Raises ConfigError when there is nothing to look at: no such file, unreadable, not UTF-8, not INI.
    """
    try:
        return _parse(path, io.StringIO(_text(path), newline=None).read().split("\n"))
    except ValueError as error:
        raise ConfigError([f"{printable(path)}: {error}"]) from error


def parser_of(sections: Mapping[str, Mapping[str, str]]) -> configparser.RawConfigParser:
    """Return a parser that holds these sections as they are, for ``logging.config.fileConfig``."""
    parser = _PlainParser()
    parser.read_dict(sections)
    return parser


def _text(path: str) -> str:
    """Return a file's text; raises ValueError that says in words why there is none."""
    data = files.read(path, SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise ValueError(f"expected an INI file, got more than {SIZE_LIMIT} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise ValueError(f"line {number}: expected UTF-8, got the byte 0x{byte:02x}") from error
    if _MARK in text:
        number = text.count("\n", 0, text.index(_MARK)) + 1
        raise ValueError(f"line {number}: expected text, got a NUL character")
    return text


def _parse(path: str, lines: list[str]) -> Document:
    """Parse lines; the parser stops at a repeated name, so that is renamed and all is parsed again."""
    document = Document(path)
    for _ in range(SHOWN_LINES):
        parser = _PlainParser()
        try:
            parser.read_file(line + "\n" for line in lines)
        except configparser.DuplicateSectionError as error:
            name = str(error.section).partition(_MARK)[0]
            document.mistake(f"expected each section once, got it again in line {error.lineno}", name)
            _replace(lines, error.lineno or 0, f"[{error.section}{_MARK}{error.lineno}]")
        except configparser.DuplicateOptionError as error:
            name = str(error.section).partition(_MARK)[0]
            text = f"expected each key once, got it again in line {error.lineno}"
            document.mistake(text, name, error.option)
            _replace(lines, error.lineno or 0, f"{_MARK}{error.lineno} = ")
        except configparser.MissingSectionHeaderError as error:
            # Without "from error": its text shows the line, and that may be a password.
            raise ValueError(f"line {error.lineno}: expected a [section] before anything else") from None
        except configparser.ParsingError as error:
            document.mistakes += _wrong_lines(path, [number for number, _ in error.errors])
            document.faulty.add("")
            break
        else:
            break
    else:
        raise ConfigError([*document.mistakes, f"{printable(path)}: not read any further"])
    for section in parser.sections():
        if _MARK not in section:
            items = parser.items(section)
            document.sections[section] = {key: text for key, text in items if key and _MARK not in key}
    return document


def _replace(lines: list[str], number: int, text: str) -> None:
    """Replace a line but its indentation, which decides whether it continues the line above."""
    line = lines[number - 1]
    lines[number - 1] = line[: len(line) - len(line.lstrip())] + text


def _wrong_lines(path: str, numbers: list[int]) -> list[str]:
    # The lines themselves are not shown: one may be a password whose "=" was forgotten.
    wrong = [f"{printable(path)}: line {number}: expected [section] or key = value" for number in numbers]
    more = len(wrong) - SHOWN_LINES
    return wrong if more <= 0 else [*wrong[:SHOWN_LINES], f"{printable(path)}: {more} more lines are no INI"]


@functools.lru_cache(maxsize=1000)
def near(word: str, names: tuple[str, ...], likeness: float = 0.6) -> str:
    """Return the name most like `word` (0 to 1, at least `likeness`; case does not count), or ''."""
    folded = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.strip().lower(), folded, 1, likeness)
    return folded[found[0]] if found else ""


def shown(text: str) -> str:
    """Return a text from the file as one quoted line of bearable length."""
    return repr(text) if len(text) <= 80 else repr(text[:80]) + "..."


def printable(name: str) -> str:
    """Return a name without quotes, with everything escaped that would disturb a terminal or a log."""
    return name if name.isprintable() else repr(name)[1:-1]


def _first_word(key: str) -> str:
    # "password secret=x", its first "=" forgotten, is a key "password secret".
    words = key.split(None, 1)
    return printable(words[0]) + (" ..." if len(words) > 1 else "")


def anything(text: str) -> str:
    """Return the text; for keys that take any."""
    return text


def matching(pattern: str) -> Callable[[str], str]:
    """Return a function that lets a text through which the pattern matches whole, else raises ValueError."""

    def match(text: str) -> str:
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise ValueError
        return text

    return match


def seconds(text: str) -> float:
    """Return a time in seconds; raises ValueError unless it is a plain number above 0, at most 2,000,000."""
    value = float(text) if _NUMBER.fullmatch(text) else 0.0
    if not 0 < value <= SECONDS_LIMIT:
        raise ValueError
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a function that reads a whole number from `low` to `high`, and raises ValueError otherwise."""

    def number(text: str) -> int:
        if not re.fullmatch("[0-9]{1,15}", text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return number


def switch(text: str) -> bool:
    """Return what yes, true, on, 1, no, false, off or 0 mean; raises ValueError for other words."""
    return _SWITCH.index(text.lower()) >= _SWITCH.index("yes")


def names(text: str) -> tuple[str, ...]:
    """Return the parts between commas or line breaks, blanks stripped, without the empty ones."""
    return tuple(part.strip() for part in re.split("[,\n]", text) if part.strip())
