"""``python -m bench.where``: the CPU that one no-op job takes, by process, and of rbit's first one by thread.

CPU and not time: it says what a machine with more cores could do at once, and other load hardly changes it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable

from bench import looks, machine, table
from bench.place import JOBS, Place, place
from bench.side import Side
from bench.sides import Celery, Dramatiq, Rbit
from tests.support.node import missing_reason
from tests.support.processes import descendants

BROKER = "RabbitMQ"
NAMES = {
    "MainThread": "main thread", "publisher": "publisher's thread", "slot": "slots' threads",
    "log": "log's thread", "keeper": "keepers", "worker": "workers", "others": "other processes",
}


class Threads(Rbit):
    """rbit, with a look at its threads."""

    @property
    def command(self) -> list[str]:
        """The real command, with one thread more."""
        return [sys.executable, "-m", "bench.code.threads", str(self.ini)]


def spent(place: Place, side: Side) -> dict[str, float]:
    """Returns the seconds of CPU so far: of a side's processes, of rbit's own by thread, and of the broker."""
    found: dict[str, float] = defaultdict(float)
    for pid in side.pids:
        if pid != side.pid or not isinstance(side, Threads):
            found[NAMES[looks.kind(pid)] if pid != side.pid else "first process"] += looks.cpu([pid])
    if isinstance(side, Threads):
        threads = json.loads((side.folder / "threads").read_text("ascii"))
        for name, nanoseconds in threads.items():
            kind = re.sub("[-0-9]+$", "", name)
            found[NAMES.get(kind, f"thread {kind}")] += nanoseconds / 1e9
    roots = [pid for node in place.cluster.nodes for pid in node.pids]
    found[BROKER] = looks.cpu(pid for root in roots for pid in (root, *descendants(root)))
    return found


def spent_on_a_job(place: Place, side: Side, jobs: int) -> dict[str, float]:
    """Returns the microseconds of CPU that one job takes; the start of a side is no part of it."""
    with side:
        if place.queue_type == "classic":
            side.fill(jobs)
        else:
            place.declare(side.queues)
            place.send(side.queues[0], jobs)
        side.start()
        side.wait(jobs // 10)
        done, before = side.done, spent(place, side)
        side.wait(jobs)
        after, done = spent(place, side), side.done - done
        parts = {part: 1e6 * (after[part] - before[part]) / done for part in after}
    return {"all, but RabbitMQ": sum(parts.values()) - parts[BROKER], **parts}


def main() -> int:
    """Prints the table; returns 0, or 1 if nothing can be measured."""
    made = argparse.ArgumentParser(prog="python -m bench.where", description=__doc__)
    made.add_argument("--jobs", type=int, default=JOBS, help=f"of each side (default: {JOBS})")
    made.add_argument("--nodes", type=int, default=1, help="with several, rbit alone and quorum queues")
    given = made.parse_args()
    if reason := missing_reason() or machine.missing(() if given.nodes > 1 else (Celery.name, "Dramatiq")):
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    with place(given.jobs, given.nodes) as where:
        sides: dict[str, Callable[[], Side]] = {
            "push": lambda: Threads(where), "polling": lambda: Threads(where, "poll"),
            "Celery": lambda: Celery(where), "Dramatiq, 1": lambda: Dramatiq(where, 1),
            "Dramatiq, 8": lambda: Dramatiq(where, 8),
        }
        found = {name: spent_on_a_job(where, make(), given.jobs)
                 for name, make in list(sides.items())[: None if given.nodes == 1 else 2]}
    parts = dict.fromkeys([part for column in found.values() for part in column if part != BROKER])
    lines = [(part, *(f"{column[part]:.0f}" if part in column else "" for column in found.values()))
             for part in (*parts, BROKER)]
    print(table.framed(("microseconds a job", *found), lines), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
