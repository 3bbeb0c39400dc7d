"""What happened, in append-only files: the harness's own events, and the runs that the jobs write down.

One line is one write, so lines of many processes do not mix. It decides nothing.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"
RUNS = "runs"


@dataclass
class Run:
    """One run of a job.

    Attributes:
        job, client, pid: which, of which client, in which process.
        start, end: seconds since 1970; ``end`` is None when it never ended by itself.
        how: ``end``, or ``blocked`` for a run that asked to be tried again.
    """

    job: str
    client: str
    pid: int
    start: float
    end: float | None = None
    how: str = ""

    @property
    def complete(self) -> bool:
        """Whether the job did all that it has to do."""
        return self.how == "end"


@dataclass(frozen=True)
class Event:
    """Something that the harness did.

    Attributes:
        at: seconds since 1970 when it was written down.
        what: its name.
        facts: what else is known.
    """

    at: float
    what: str
    facts: dict[str, Any]


class Record:
    """The files in a folder. Any thread may use it.

    Arguments:
        folder: where; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs_path = folder / RUNS
        self._events = os.open(folder / EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.runs_path.touch()

    def note(self, what: str, **facts: Any) -> None:
        """Write an event down."""
        line = json.dumps({"at": time.time(), "what": what, **facts})
        os.write(self._events, f"{line}\n".encode())

    def events(self, *whats: str) -> list[Event]:
        """Return the events of these names, in order; all when none is named."""
        lines = (json.loads(line) for line in (self.folder / EVENTS).read_text("utf-8").splitlines())
        found = [Event(line.pop("at"), line.pop("what"), line) for line in lines]
        return [event for event in found if not whats or event.what in whats]

    def runs(self) -> list[Run]:
        """Return the runs so far, in the order in which they started."""
        found: list[Run] = []
        running: dict[tuple[str, str, int], Run] = {}
        for line in self.runs_path.read_text("utf-8").splitlines():
            what, job, client, pid, at = line.split(" ")
            key = job, client, int(pid)
            if what == "start":
                running[key] = Run(job, client, int(pid), float(at))
                found.append(running[key])
            else:
                running[key].end, running[key].how = float(at), what
        return found

    def close(self) -> None:
        """Close the files."""
        os.close(self._events)
