"""The table: ratios first, then what they were made of. It is reStructuredText, and readable as it is."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Pair, Row

BEGIN, END = ".. The table begins.\n", ".. The table ends.\n"
HEAD = ("measure", "beside", "ratio", "least", "most", "goal", "met", "rbit", "other", "unit")


def line(row: Row, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Returns the cells of a row. Arguments: at least one pair."""
    ratios = [ours / theirs for ours, theirs in pairs]
    ratio = statistics.median(ratios)
    met = ratio >= row.goal if row.least else ratio <= row.goal
    ours, theirs = (statistics.median(pair[place] for pair in pairs) for place in (0, 1))
    goal = f"{'>=' if row.least else '<='} {row.goal:g}"
    numbers = (_short(ratio), _short(min(ratios)), _short(max(ratios)))
    return (row.what, row.peer, *numbers, goal, "yes" if met else "no", _short(ours), _short(theirs), row.unit)


def table(lines: Sequence[Sequence[str]]) -> str:
    """Returns the whole table. Arguments: the cells of each row."""
    return framed(HEAD, lines)


def framed(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a table. Arguments: the cells of its head; those of each row."""
    widths = [max(len(cells[column]) for cells in (head, *lines)) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
             for cells in (head, *lines)]
    return "\n".join((rule, texts[0], rule, *texts[1:], rule)) + "\n"


def replace(path: Path, text: str) -> None:
    """Puts a text between the two comments of a file that say where the table is. Errors: ValueError."""
    whole = path.read_text("utf-8")
    made, count = re.subn(
        f"(?s){re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{text}\n{END}", whole
    )
    if count != 1:
        raise ValueError(f"{path}: expected {BEGIN.strip()!r} and {END.strip()!r} once, found them {count} times")
    path.write_text(made, encoding="utf-8")


def _short(value: float) -> str:
    """Returns three digits that count, as in 0.0123, 1.23, 12.3 and 1234."""
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
