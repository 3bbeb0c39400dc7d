"""What rbit costs: memory, CPU, and the time of a start or of a poll that finds nothing."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from bench import looks
from bench.measure import Measure, Pair, Row, run
from bench.place import BenchError, Place
from bench.side import Side
from bench.sides import Celery, Rbit

SETTLE = 3.0  # seconds from the last job to a look at the memory
QUIET = 5.0  # seconds from the last job to the time in which the CPU is looked at
IDLE = 60.0  # seconds of that time: with this poll time just one poll is in it
FEW, MANY = (1_000, 20), (100_000, 40)  # jobs
STARTS = 5  # of which the median counts as one figure
QUEUES = 500, 10
LARGE = 64 << 20  # bytes
POLL_TIME = 0.5  # seconds


def _memory(place: Place) -> list[Pair]:
    jobs = place.part(*FEW)

    def resident(side: Side) -> float:
        with side:
            run(side, jobs)
            time.sleep(SETTLE)
            return looks.pss(side.pids)

    return [(resident(Rbit(place)), resident(Celery(place)))]


def _idle(place: Place) -> list[Pair]:
    seconds = min(IDLE, max(2.0, IDLE * place.part(1000) / 1000))
    with (
        Rbit(place, "poll", queues=4, poll_time=seconds) as rbit,
        Celery(place, queues=4, chatty=True) as celery,
        Celery(place, queues=4) as alone,
    ):
        # All at once, for this is no time on a clock, and what each does is next to nothing.
        sides = [run(side, 1) for side in (rbit, celery, alone)]
        time.sleep(QUIET)
        before = [looks.cpu(side.pids) for side in sides]
        time.sleep(seconds)
        ours, *theirs = (looks.cpu(side.pids) - was for side, was in zip(sides, before, strict=True))
    return [(60_000 * ours / seconds, 60_000 * other / seconds) for other in theirs]


def _growth(place: Place) -> list[Pair]:
    few, many = place.part(*FEW), place.part(*MANY)
    with Rbit(place) as side:
        found = []
        run(side, few)
        for jobs in (few, many):
            side.publish(jobs - side.done)
            side.wait(jobs)
            time.sleep(SETTLE)
            found.append(looks.pss([side.pid]))
    return [(found[1], found[0])]


def _starts(place: Place) -> list[Pair]:
    side = Rbit(place)
    place.declare(side.queues)
    pika = [str(place.python), "-c", "import pika"]
    commands = ([side.command[0], "--version"], [*side.command, "--check"], pika)
    times: list[list[float]] = [[], [], []]
    for _ in range(STARTS):
        for taken, command in zip(times, commands, strict=True):
            began = time.monotonic()
            _said(place, command, side)
            taken.append(1000 * (time.monotonic() - began))
    side.close()
    version, check, other = map(statistics.median, times)
    return [(version, other), (check, other)]


def _empty(place: Place) -> list[Pair]:
    count = place.part(*QUEUES)
    with Rbit(place, "poll", queues=count, poll_time=POLL_TIME) as side:
        place.declare(side.queues)
        program = [sys.executable, "-m", "bench.code.polls"]
        ours = _said(place, [*program, "rbit", str(side.ini)], side)
        theirs = _said(place, [*program, "bare", *side.queues], side)
    return [(1000 * float(ours), 1000 * float(theirs))]


def _large(place: Place) -> list[Pair]:
    found = []
    for body in (b"x" * LARGE, json.dumps({"text": "x" * LARGE}).encode()):
        path = place.new_folder() / "body"
        path.write_bytes(body)
        with Rbit(place, body=path) as side:
            run(side, 1)
            found.append((looks.peak(side.pid), len(body) / 2**20))
        path.unlink()
    return found


def _said(place: Place, command: Sequence[str], side: Side) -> str:
    """Returns the last line that a command wrote to standard error. Errors: BenchError."""
    child = place.start(list(command), side.environment, subprocess.DEVNULL, subprocess.DEVNULL, subprocess.PIPE)
    error = child.communicate(timeout=120.0)[1].decode("utf-8", "replace")
    if child.returncode:
        raise BenchError(f"{' '.join(command[:5])} ended with {child.returncode}:\n{error}")
    return error.rpartition("\n")[0].rpartition("\n")[2]


MEASURES = (
    Measure(
        "memory",
        (Row("memory of all processes, idle after {0:,} jobs", "MB", "Celery", 0.7, numbers=(FEW,)),),
        _memory,
    ),
    Measure(
        "idle", (
            Row("CPU of all processes, idle, 4 queues", "ms/min", "Celery", 0.2),
            Row("CPU of all processes, idle, 4 queues", "ms/min", "Celery, silent", 0.2),
        ), _idle,
    ),
    Measure(
        "start", (
            Row("rbit --version", "ms", 'python -c "import pika"', 0.6),
            Row("rbit --check", "ms", 'python -c "import pika"', 3.0),
        ), _starts,
    ),
    Measure(
        "growth",
        (Row("memory of the client after {1:,} jobs", "MB", "itself, after {0:,}", 1.05, numbers=(FEW, MANY)),),
        _growth,
    ),
    Measure(
        "empty",
        (Row("a poll of {0:,} empty queues", "ms", "{0:,} bare basic_get", 1.2, numbers=(QUEUES,)),),
        _empty,
    ),
    Measure(
        "large", (
            Row("peak memory of the client, body of 64 MB", "MB", "the body", 3.0),
            Row("the same, and the body is JSON", "MB", "the body", 3.0),
        ), _large,
    ),
)
