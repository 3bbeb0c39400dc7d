"""``python -m bench.steps``: the CPU that each step of one no-op job takes, as a table in reStructuredText.

Each step is a function, timed with the clock of its thread, which costs about 1.5 microseconds a call.
So the sum is more than what ``bench.where`` finds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict

from bench.code.steps import STEP
from bench.place import JOBS, Place, place
from bench.sides import Rbit
from bench.table import framed

HEAD = ("where", "step", "calls, push", "push", "calls, polling", "polling")
NAMES = {"MainThread": "main thread", "slot": "slots' threads", "publisher": "publisher's thread"}
LEAST = 0.5  # microseconds of a step that is shown

Step = tuple[str, str]  # where it is taken, and what it is called


class Timed(Rbit):
    """rbit with its steps timed, and a job that times those of its worker. Arguments: how messages come."""

    def __init__(self, where: Place, delivery: str) -> None:
        super().__init__(where, delivery, runner="python!bench.code.steps:noop")

    @property
    def command(self) -> list[str]:
        """The real command, with functions of rbit's replaced."""
        return [sys.executable, "-m", "bench.code.steps", str(self.ini)]

    def looked(self) -> dict[Step, tuple[float, float]]:
        """Returns the microseconds and the calls of each step so far."""
        time.sleep(3 * STEP)
        found: dict[Step, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for path in self.folder.glob("steps*"):
            for thread, steps in json.loads(path.read_text("ascii")).items():
                where = NAMES.get(thread, thread) if path.name == "steps" else "workers"
                for step, (nanoseconds, calls) in steps.items():
                    spent, called = found[where, step]
                    found[where, step] = spent + nanoseconds / 1000, called + calls
        return found


def measured(where: Place, delivery: str, jobs: int) -> dict[Step, tuple[float, float]]:
    """Returns the microseconds and the calls of each step of one job."""
    with Timed(where, delivery) as side:
        side.fill(jobs)
        side.start()
        side.wait(jobs // 10)  # the start is no part of it
        before, done = side.looked(), side.done
        side.wait(jobs)
        after, count = side.looked(), side.done - done
    found: dict[Step, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for step, (spent, calls) in after.items():
        found[step] = (spent - before[step][0]) / count, (calls - before[step][1]) / count
    return found


def main() -> int:
    """Prints the table; returns 0."""
    made = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__)
    made.add_argument("--jobs", type=int, default=JOBS, help=f"of each run (default: {JOBS})")
    jobs = made.parse_args().jobs
    with place(jobs) as where:
        push, poll = (measured(where, delivery, jobs) for delivery in ("push", "poll"))
    lines = []
    for thread in ("main thread", "slots' threads", "workers", "publisher's thread"):
        steps = sorted((step for step in {*push, *poll} if step[0] == thread), key=lambda step: -push[step][0])
        for step in steps:
            (spent, calls), (polling, asked) = push[step], poll[step]
            if max(spent, polling) >= LEAST:
                lines.append((*step, f"{calls:.2f}", f"{spent:.0f}", f"{asked:.2f}", f"{polling:.0f}"))
        sums = [sum(of[step][0] for step in steps) for of in (push, poll)]
        lines.append((thread, "all of these", "", f"{sums[0]:.0f}", "", f"{sums[1]:.0f}"))
    print(framed(HEAD, lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
