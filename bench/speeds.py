"""How many jobs a second, and how soon one begins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from bench.measure import Measure, Pair, Row, speed
from bench.place import Place
from bench.side import Side
from bench.sides import AmqpConsume, Bare, Celery, Dramatiq, Rbit, RbitShell

SHELL_JOBS = 500
SLEEP, SLEEPERS = 0.1, (200, 10)  # seconds that a job sleeps, and how many do
LATENCY_JOBS = 200, 10  # and the least
WARM_UP = 20  # messages before those that count
PAUSE = 0.05  # seconds from the start of a job, which does nothing, to the next message
LOOK = 0.001  # seconds between two looks for the start of a job
BACKLOG, SHORT = (200_000, 20), (2_000, 20)  # messages

Made = Callable[[Place], Side]


def _versus(rbit: Made, peer: Made, jobs: int) -> Callable[[Place], list[Pair]]:
    def once(place: Place) -> list[Pair]:
        count = place.part(jobs, 20)
        return [(speed(rbit(place), count), speed(peer(place), count))]

    return once


def _polling(place: Place) -> list[Pair]:
    return [(speed(Rbit(place, "poll"), place.jobs), speed(Bare(place, place.jobs), place.jobs))]


def _latency(side: Side, jobs: int) -> tuple[float, float]:
    """Returns the 50th and the 99th percentile of the milliseconds from publishing to the start of the job."""
    taken = []
    with side:
        side.fill(1)
        side.start()
        side.wait(1)
        for number in range(1, WARM_UP + jobs):
            sent = side.publish(1) / 1e9
            deadline = time.monotonic() + 60.0
            while side.done <= number and time.monotonic() < deadline:
                time.sleep(LOOK)
            side.wait(number + 1)
            if number >= WARM_UP:
                taken.append(1000 * (side.stamps()[-1] - sent))
            time.sleep(PAUSE)
    taken.sort()
    return taken[math.ceil(0.5 * jobs) - 1], taken[math.ceil(0.99 * jobs) - 1]


def _soon(place: Place) -> list[Pair]:
    jobs = place.part(*LATENCY_JOBS)
    ours, theirs = _latency(Rbit(place), jobs), _latency(Dramatiq(place, 8), jobs)
    return list(zip(ours, theirs, strict=True))


def _backlog(place: Place) -> list[Pair]:
    jobs = place.part(*SHORT)

    def first(backlog: int) -> float:
        with Rbit(place) as side:
            side.fill(backlog)
            side.start()
            side.wait(jobs)
            return side.rate(jobs)

    return [(first(place.part(*BACKLOG)), first(jobs))]


def _push(name: str, peer: Made, other: str, goal: float) -> Measure:
    row = Row("python! jobs, push", "jobs/s", other, goal, True)
    return Measure(name, (row,), _versus(Rbit, peer, 5000))


def _sleeping(place: Place) -> list[Pair]:
    sides: tuple[Side, Side] = (Rbit(place), Celery(place))
    for side in sides:
        side.environment["BENCH_SLEEP"] = str(SLEEP)
    ours, theirs = (speed(side, place.part(*SLEEPERS)) for side in sides)
    return [(ours, theirs)]


def _shell(slots: int, goal: float) -> Measure:
    row = Row(f"shell! jobs, push, {slots} slot{'s' if slots > 1 else ''}", "jobs/s", "amqp-consume", goal, True)
    once = _versus(lambda place: RbitShell(place, slots), AmqpConsume, SHELL_JOBS)
    return Measure(f"shell-{slots}", (row,), once)


MEASURES = (
    Measure("poll", (Row("python! jobs, polling", "jobs/s", "bare pika loop, no work", 0.7, True),), _polling),
    _push("push-celery", Celery, "Celery", 3.0),
    _push("push-dramatiq-1", lambda place: Dramatiq(place, 1), "Dramatiq, 1 thread", 1.0),
    _push("push-dramatiq-8", lambda place: Dramatiq(place, 8), "Dramatiq, 8 threads", 1.0),
    Measure("sleep", (Row(f"python! jobs of {SLEEP} s, push", "jobs/s", "Celery", 0.95, True),), _sleeping),
    _shell(1, 0.9),
    _shell(2, 1.4),
    Measure(
        "latency", (
            Row("publish to start, push, p50", "ms", "Dramatiq, 8 threads", 1.0),
            Row("publish to start, push, p99", "ms", "Dramatiq, 8 threads", 1.0),
        ), _soon,
    ),
    Measure(
        "backlog", (
            Row("python! jobs, push, {0:,} wait", "jobs/s", "itself, {1:,} wait", 0.9, True, (BACKLOG, SHORT)),
        ), _backlog,
    ),
)
