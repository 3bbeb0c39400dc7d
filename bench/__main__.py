"""``python -m bench``: measures, and prints a table. ``make bench`` installs what it needs before."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from bench import costs, machine, speeds, table
from bench.measure import Measure, Pair
from bench.place import JOBS, BenchError, Place, place
from tests.support.node import missing_reason

MEASURES = {measure.name: measure for measure in (*speeds.MEASURES, *costs.MEASURES)}


def options() -> argparse.Namespace:
    """Returns what the command line says; ends as argparse does when it is wrong."""
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    made.add_argument("--repeat", type=int, default=5, help="pairs of runs for each row (default: 5)")
    made.add_argument(
        "--jobs", type=int, default=JOBS, help=f"of a run; all other numbers follow it (default: {JOBS})"
    )
    made.add_argument("--only", nargs="+", metavar="NAME", choices=MEASURES, default=list(MEASURES),
                      help=f"measure only these: {', '.join(MEASURES)}")
    made.add_argument("--rst", type=Path, metavar="FILE", help="put the table into FILE, in place of the last")
    given = made.parse_args()
    if given.repeat < 1 or given.jobs < 20:
        made.error("--repeat needs at least 1, --jobs at least 20")
    if given.rst and given.only != list(MEASURES):
        made.error("--rst puts a whole table in place of the last; it does not go with --only")
    return given


def repeated(measure: Measure, where: Place, repeat: int) -> list[list[Pair]]:
    """Returns the pairs of each row of a measure, and says each one. Errors: BenchError."""
    found: list[list[Pair]] = [[] for _ in measure.rows]
    rows = [row.at(where) for row in measure.rows]
    for number in range(1, repeat + 1):
        for pairs, row, pair in zip(found, rows, measure.once(where), strict=True):
            pairs.append(pair)
            ratio = pair[0] / pair[1]
            print(f"{measure.name} {number}/{repeat}: {row.what}: {pair[0]:.4g} {row.unit}, {row.peer}: "
                  f"{pair[1]:.4g} {row.unit}, ratio {ratio:.3g}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Measures what the command line says; returns 0, or 1 if something could not be measured."""
    given = options()
    peers = {row.peer for name in given.only for row in MEASURES[name].rows}
    if reason := missing_reason() or machine.missing(peers):
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all is ended that was started
    load = os.getloadavg()
    lines = []
    failed = []
    with place(given.jobs) as where:
        for name in given.only:
            measure = MEASURES[name]
            try:
                found = repeated(measure, where, given.repeat)
                lines += [table.line(row.at(where), pairs) for row, pairs in zip(measure.rows, found, strict=True)]
            except BenchError as error:
                failed.append(name)
                print(f"bench: {name}: {error}", file=sys.stderr)
        text = f"{machine.described(where, given.repeat, load)}\n{table.table(lines)}"
    print(f"\n{text}")
    if given.rst is not None:
        table.replace(given.rst, text)
    if failed:
        print(f"bench: not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
