"""What a measure is: pairs of figures, rbit's and the other's, taken one right after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.place import Place
from bench.side import Side

Pair = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        what: is measured; ``{0:,}`` and so on stand for its numbers.
        unit: of both figures.
        peer: the other; as ``what``.
        goal: of the ratio of rbit's figure to the other's.
        least: whether the ratio is to be the goal at least, else at most.
        numbers: of messages or queues, each with the least that there may be in a smaller run.
    """

    what: str
    unit: str
    peer: str
    goal: float
    least: bool = False
    numbers: tuple[tuple[int, int], ...] = ()

    def at(self, place: Place) -> Row:
        """Returns it with the numbers that it has in a run."""
        numbers = [place.part(*number) for number in self.numbers]
        return replace(self, what=self.what.format(*numbers), peer=self.peer.format(*numbers))


@dataclass(frozen=True)
class Measure:
    """Something to be measured.

    Attributes:
        name: for the command line.
        rows: what comes of it.
        once: measures once; returns a pair for each row.
    """

    name: str
    rows: tuple[Row, ...]
    once: Callable[[Place], list[Pair]]


def run(side: Side, jobs: int) -> Side:
    """Has a side that is given that many messages beforehand work them off; returns it."""
    side.fill(jobs)
    side.start()
    side.wait(jobs)
    return side


def speed(side: Side, jobs: int) -> float:
    """Returns the jobs per second of a side, from the first to the last of so many, and ends it."""
    with side:
        return run(side, jobs).rate(jobs)
