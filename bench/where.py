"""``python -m bench.where``: the CPU that one job takes, of the processes of a side and of the broker.

CPU and not time: it says what a machine with more cores could do at once, and other load hardly changes it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable

from bench import looks
from bench.place import Place, place
from bench.side import Side
from bench.sides import Celery, Dramatiq, Rbit
from tests.support.processes import descendants

BROKER = "RabbitMQ"


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
            found[looks.kind(pid) if pid != side.pid else "first process"] += looks.cpu([pid])
    if isinstance(side, Threads):
        threads = json.loads((side.folder / "threads").read_text("ascii"))
        for name, nanoseconds in threads.items():
            found[f"thread {re.sub('[-0-9]+$', '', name)}"] += nanoseconds / 1e9
    roots = [pid for node in place.cluster.nodes for pid in node.pids]
    found[BROKER] = looks.cpu(pid for root in roots for pid in (root, *descendants(root)))
    return found


def main() -> int:
    """Prints a line for each side; returns 0."""
    made = argparse.ArgumentParser(prog="python -m bench.where", description=__doc__)
    made.add_argument("--jobs", type=int, default=5000, help="of each side (default: 5000)")
    made.add_argument("--nodes", type=int, default=1, help="with several, rbit alone and quorum queues")
    given = made.parse_args()
    jobs, single = given.jobs, given.nodes == 1
    with place(jobs, given.nodes) as where:
        sides: dict[str, Callable[[], Side]] = {
            "rbit, push": lambda: Threads(where), "rbit, polling": lambda: Threads(where, "poll"),
            "Celery": lambda: Celery(where), "Dramatiq, 1 thread": lambda: Dramatiq(where, 1),
            "Dramatiq, 8 threads": lambda: Dramatiq(where, 8),
        }
        for name, make in list(sides.items())[: None if single else 2]:
            with make() as side:
                if single:
                    side.fill(jobs)
                else:
                    where.declare(side.queues)
                    where.send(side.queues[0], jobs)
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
