"""rbit, with a look at what CPU each step of a job takes: ``python -m bench.code.steps INI``, and a job for it.

A step is a function of rbit's, less the steps in it. What each has taken goes into a file as JSON, by the name of
the thread: into ``steps`` beside the INI file, and of a worker, in which ``noop`` is the job, beside its stamps.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.code.stamp import stamp

STEP = 0.1  # seconds between two writes
EVERY = 50  # jobs of a worker between two writes

CLIENT = {
    "a message is asked for, or taken from those that were sent": "rbit.sources:Sources.get",
    "is it known here?": "rbit.settlement:Settlement.knows",
    "the job is made": "rbit.intake:Intake._begin",
    "a slot gets the job": "rbit.crew:Crew.begin",
    "the job's end: its slot is free, its fate is decided": "rbit.client:Client._end",
    "settling: may it be done now?": "rbit.settlement:Settlement.settle",
    "settling: the acknowledgement": "rbit.broker.queue:Delivery._settle",
    "waiting, and serving the connection": "rbit.link:Link.wait",
    "a look at all jobs": "rbit.client:Client._look_around",
    "the rest of a turn": "rbit.client:Client.turn",
    "waiting for a job": "rbit.slot:Slot._next",
    "checking the body": "rbit.job:Job.check",
    "asking whether it is cancelled": "rbit.slot:Slot._refusal",
    "beginning its report": "rbit.report:Report.__init__",
    "sending the job to the worker": "rbit.process:WorkerProcess.send",
    "waiting for the worker": "rbit.slot:Slot._turn",
    "reading what the worker says": "rbit.process:WorkerProcess._receive",
    "is a process of the job left?": "rbit.slot:Slot._clear",
    "telling the main thread of the end": "rbit.client:Client._post_end",
    "the rest": "rbit.slot:Slot._work",
    "lines of the log": "logging:Logger._log",
    "making a status": "rbit.status:Updates._put",
    "waiting for statuses": "rbit.publisher:Publisher._take",
    "asking RabbitMQ whether it takes any": "rbit.broker.outlet:Outlet.probe",
    "publishing them, and reading the confirms": "rbit.broker.burst:Burst.publish",
    "going on: with the next status, or the settlement": "rbit.publisher:Publisher._finish",
    "the rest of publishing": "rbit.publisher:Publisher._round",
}
WORKER = {
    "waiting for a job, and reading it": "rbit.worker:receive",
    "looking at what a job may change": "rbit.surroundings:look",
    "restoring that": "rbit.worker:Worker.tidy",
    "answering": "rbit.worker:Reports.send",
    "calling the function": "rbit.worker:Worker.work",
}

class Steps:
    """What was taken so far. Arguments: the steps, each a function by its module and name; where to write it."""

    def __init__(self, steps: dict[str, str], file: Path) -> None:
        self._file = file
        self._own = threading.local()
        self._totals: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        for label, target in steps.items():
            module, _, path = target.partition(":")
            *owners, name = path.split(".")
            owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
            setattr(owner, name, self._timed(label, getattr(owner, name)))

    def write(self) -> None:
        """Writes nanoseconds and calls of each step by thread."""
        threads = {thread: dict(steps) for thread, steps in list(self._totals.items())}
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(threads), "ascii")
        new.replace(self._file)

    def _timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        own = self._own

        @functools.wraps(function)
        def timed(*arguments: Any, **more: Any) -> Any:
            try:
                stack, totals = own.stack, own.totals
            except AttributeError:
                name = re.sub("[-0-9]+$", "", threading.current_thread().name)
                stack = own.stack = [0]
                totals = own.totals = self._totals[name]
            stack.append(0)
            began = time.thread_time_ns()
            try:
                return function(*arguments, **more)
            finally:
                spent = time.thread_time_ns() - began
                entry = totals[label]
                entry[0] += spent - stack.pop()
                entry[1] += 1
                stack[-1] += spent

        return timed


_worker: Steps | None = None
_count = 0


def noop(message: object, set_status: object, settings: object) -> None:
    """Does what each job does, and has the steps of its worker looked at."""
    global _worker, _count  # noqa: PLW0603 - one of each in a process
    if _worker is None:
        sys.modules["rbit.worker"] = sys.modules.get("rbit.worker", sys.modules["__main__"])
        _worker = Steps(WORKER, Path(os.environ["BENCH_STAMPS"]).parent / f"steps-{os.getpid()}")
    stamp()
    _count += 1
    if _count % EVERY == 0:
        _worker.write()


def _write(steps: Steps) -> None:
    while True:
        time.sleep(STEP)
        try:
            steps.write()
        except RuntimeError:  # a thread has its first step just now
            continue


if __name__ == "__main__":
    import rbit.broker.outlet
    import rbit.cli
    import rbit.client

    steps = Steps(CLIENT, Path(sys.argv[1]).with_name("steps"))
    threading.Thread(target=_write, args=[steps], daemon=True).start()
    sys.exit(rbit.cli.main(sys.argv[1:]))
