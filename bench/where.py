"""``python -m bench.where``: the CPU that one job takes, of the processes of a side and of the broker.

CPU and not time: it says what a machine with more cores could do at once, and other load hardly changes it.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable

from bench import looks
from bench.place import Place, place
from bench.side import Side
from bench.sides import Celery, Dramatiq, Rbit
from tests.support.processes import descendants

BROKER = "RabbitMQ"


def spent(place: Place, side: Side) -> dict[str, float]:
    """Returns the seconds of CPU so far: of the process that was started, of those below it, and of the broker."""
    found: dict[str, float] = defaultdict(float)
    for pid in side.pids:
        found[looks.kind(pid) if pid != side.pid else "main"] += looks.cpu([pid])
    found[BROKER] = looks.cpu(pid for root in place.node.pids for pid in (root, *descendants(root)))
    return found


def main() -> int:
    """Prints a line for each side; returns 0."""
    made = argparse.ArgumentParser(prog="python -m bench.where", description=__doc__)
    made.add_argument("--jobs", type=int, default=5000, help="of each side (default: 5000)")
    jobs = made.parse_args().jobs
    with place(jobs) as where:
        sides: dict[str, Callable[[], Side]] = {
            "rbit, push": lambda: Rbit(where), "rbit, polling": lambda: Rbit(where, "poll"),
            "Celery": lambda: Celery(where), "Dramatiq, 1 thread": lambda: Dramatiq(where, 1),
            "Dramatiq, 8 threads": lambda: Dramatiq(where, 8),
        }
        for name, make in sides.items():
            with make() as side:
                side.fill(jobs)
                side.start()
                side.wait(jobs // 10)  # the start is no part of it
                done, before = side.done, spent(where, side)
                side.wait(jobs)
                after, done = spent(where, side), side.done - done
                parts = {part: 1e6 * (after[part] - before[part]) / done for part in after}
                whole = sum(parts.values()) - parts[BROKER]
                shown = ", ".join(f"{part} {value:.0f}" for part, value in sorted(parts.items()))
                print(f"{name}: {whole:.0f} microseconds of CPU a job without RabbitMQ; {shown}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
