"""Finds what matters in a large text that may be JSON, without parsing it.

It is searched and not taken apart, so time and memory stay small. For JSON the answers are exact; another
text that begins and ends like JSON may be taken for it. Knows nothing of messages. Runs in the client, in
a slot's thread, and in workers.
"""

from __future__ import annotations

import functools
import json
import re

BLANKS = b" \t\n\r"
# A quotation mark with the backslashes before it: it begins or ends a string when they are even in number.
MARK = re.compile(rb'(?<!\\)\\*"')
ESCAPES = re.compile(rb'(?<!\\)\\+"')
COLON = re.compile(rb"[ \t\n\r]*:")
DIGITS = re.compile(rb"[0-9]+")
INTEGER = re.compile(rb"-?[0-9]+")
BEFORE_FRACTION = re.compile(rb"(?:\.|[eE][+-]?)\Z")
FRACTION = re.compile(rb"[.eE]")


def json_text(body: bytes) -> bytes | None:
    """Returns a body as UTF-8 without blanks around; None when it is no JSON with a key or an integer."""
    encoding = json.detect_encoding(body)
    if encoding not in {"utf-8", "utf-8-sig"}:
        try:
            body = body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None
    text = body.removeprefix(b"\xef\xbb\xbf").strip(BLANKS)
    if text[:1] + text[-1:] in {b"{}", b"[]"} or INTEGER.fullmatch(text):
        return text
    return None


def has_key(text: bytes, *starts: str) -> bool:
    """Tells whether an object of a JSON text has a key that begins with one of ``starts``, however spelled."""
    for found in _keys(starts).finditer(text):
        if not found[0].endswith(b"\\"):
            return True
        end = _end_of_string(text, found.end() - 1)
        if end and COLON.match(text, end):
            return True
    return False


@functools.lru_cache
def _keys(starts: tuple[str, ...]) -> re.Pattern[bytes]:
    """Returns a pattern that matches a key up to its colon, or a string up to its first backslash."""
    # A key is spelled by a quotation mark and then one spelling of each of its characters.
    spelled = ("".join(rf"(?:\\?{letter}|(?i:\\u{ord(letter):04x}))" for letter in start) for start in starts)
    pattern = rf'"(?<!\\")(?:{"|".join(spelled)})[^"\\]*(?:"[ \t\n\r]*:|\\)'
    return re.compile(pattern.encode("ascii"))


def _end_of_string(text: bytes, at: int) -> int:
    """Returns where the string around ``at`` ends; 0 when it does not end."""
    return next((mark.end() for mark in MARK.finditer(text, at) if len(mark[0]) % 2), 0)


def long_integer(text: bytes, digits: int) -> int:
    """Returns the number of digits of the first integer in a JSON text with more than ``digits``, or 0."""
    step = digits + 1
    number = re.compile(rb"(?<![0-9])[0-9]{%d}" % step)
    inside, end = False, 0
    # A run that is too long covers a multiple of its length: only there its surroundings are looked at.
    for at in (match.start() * step for match in re.finditer(rb"[0-9]", text[::step])):
        run = number.search(text, max(end, at - step), at + step) if at >= end else None
        if run is None:
            continue
        start = run.start()
        inside ^= _marks(text, end, start) % 2 == 1
        end = start + len(DIGITS.match(text, start)[0])  # type: ignore[index] # it matches where a number does
        fraction = FRACTION.match(text, end) or BEFORE_FRACTION.search(text[max(0, start - 2) : start])
        if not inside and not fraction:
            return end - start
    return 0


def _marks(text: bytes, start: int, end: int) -> int:
    """Returns how many quotation marks begin or end a string there."""
    escaped = sum(len(found[0]) % 2 == 0 for found in ESCAPES.finditer(text, start, end))
    return text.count(b'"', start, end) - escaped
