"""What rbit's logs say of each job, and why a job was run to its end once more: decided from facts only.

An exception holds when a line of the record and the times of the job prove it; what nothing proves is
unexplained. Reads files, writes none.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.record import Event, Run

FORGETS = 1.0  # seconds before its SIGKILL in which a broker may forget an ack that it has taken
ON_ITS_WAY = 0.3  # seconds that the broker may take to get an ack which was sent
BREAKS = {"cut", "forget", "unreachable"}  # what ends a connection with all that is on its way
LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \w+ (\S+ (?:message|job) \S+): (.*)")
SAID = {
    "published": re.compile(r"lease \d+ is published$"),
    "held": re.compile(r"holds lease \d+$"),
    "again": re.compile(r"its message came again; it is not run twice$"),
    "acked": re.compile(r"its message is acknowledged$"),
    "told": re.compile(r"PyBit took the status Done$"),
}


@dataclass
class Log:
    """When a client's log says of a job what; seconds since 1970."""

    published: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    acked: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """Why a job was run to its end once more: the name of an exception, or ``unexplained``; and what shows it."""

    why: str
    shown_by: str


def read_log(path: Path) -> dict[str, Log]:
    """Return what a client's log says of each job."""
    found: dict[str, Log] = defaultdict(Log)
    jobs: dict[str, str] = {}  # by the name that the log has for them; an unnamed message's number comes again
    for line in path.read_text("utf-8", "replace").splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        when, label, text = match.groups()
        if text.startswith("run "):
            jobs[label] = text.removeprefix("run ")
        for name, pattern in SAID.items():
            if label in jobs and pattern.match(text):
                at = datetime.datetime.strptime(when, "%Y-%m-%d %H:%M:%S,%f").timestamp()
                getattr(found[jobs[label]], name).append(at)
    return found


class Evidence:
    """All that is known.

    Arguments:
        events: of the harness.
        logs: by client and job.
        ttl: seconds that a lease lasts.
    """

    def __init__(self, events: Iterable[Event], logs: dict[str, dict[str, Log]], ttl: float) -> None:
        self.events = list(events)
        self.logs = logs
        self._ttl = ttl

    def log(self, run: Run) -> Log:
        """Return what the log of its client says of a run's job."""
        return self.logs.get(run.client, {}).get(run.job, Log())

    def explain(self, runs: list[Run]) -> list[tuple[Run, Verdict]]:
        """Return the complete runs of a job beyond the first, each with why there was one.

        Each run is followed by one more at the most: its message was not acknowledged, or a copy was made for
        another attempt. So no run that failed excuses more than the one after it.

        Arguments:
            runs: all runs of the job, in the order of their starts.
        """
        verdicts: dict[int, Verdict | None] = {}  # by the run's place; None: the job had no complete run before it
        followed: set[int] = set()
        found = []
        for place, run in enumerate(runs[1:], 1):
            nothing = Verdict("unexplained", f"nothing led to the run of {run.client} from {run.start:.3f} on")
            verdicts[place] = nothing
            for before in reversed(range(place)):
                if before in followed:
                    continue
                verdict = self._led_to(runs[before], run) if runs[before].complete else verdicts.get(before)
                if verdict is None and runs[before].complete:
                    continue
                followed.add(before)
                verdicts[place] = verdict
                break
            verdict = verdicts[place]
            if run.complete and any(earlier.complete for earlier in runs[:place]):
                # No verdict after a chain of runs that all failed: then another one was complete beside it.
                found.append((run, verdict or nothing))
        return found

    def _led_to(self, run: Run, extra: Run) -> Verdict | None:
        """Return why a complete run was followed by another one; None when nothing shows that."""
        for find in (self._killed, self._out_of_reach, self._ack_forgotten, self._young, self._handover):
            if shown_by := find(run, extra):
                return Verdict(find.__name__.strip("_").replace("_", " "), shown_by)
        return None

    def _young(self, run: Run, extra: Run) -> str:
        held = [at for at in self.log(run).held if run.start <= at <= extra.start]
        return "" if held else f"no lease of {run.job} is held before {extra.start:.3f}"

    def _handover(self, run: Run, extra: Run) -> str:
        held = [at for at in self.log(run).held if run.start <= at <= extra.start]
        again = [at for at in self.log(run).again if run.start <= at <= held[0]]
        # Its connection broke when the broker had no acknowledgement of the original, which anybody may get then.
        if again:
            return f"first lease fetched only after a lost connection, at {held[0]:.3f}"
        for event in self.events:
            of_client = event.what in BREAKS and event.facts.get("client") in {run.client, "*"}
            if of_client and held[0] <= event.at <= held[0] + ON_ITS_WAY:
                return f"{event.what} at {event.at:.3f}, its original acknowledged at {held[0]:.3f}"
        return ""

    def _until(self, run: Run, extra: Run) -> float:
        """Returns until when a run's client had its message: the ack, or the next run."""
        acked = [at for at in self.log(run).acked if run.start <= at]
        return min([*acked, extra.start])

    def _killed(self, run: Run, extra: Run) -> str:
        until = self._until(run, extra)
        for event in self._events("client killed", run.client):
            if run.start <= event.at <= until:
                return f"{run.client} killed at {event.at:.3f}, its run began at {run.start:.3f}"
        for event in self._events("worker killed", run.client):
            if event.facts["pid"] == run.pid and run.start <= event.at <= until:
                return f"worker {run.pid} killed at {event.at:.3f}, its run began at {run.start:.3f}"
        return ""

    def _out_of_reach(self, run: Run, extra: Run) -> str:
        for begin, end in self.outages(run.client):
            leases = [at for at in self.log(run).published if run.start <= at <= begin]
            settled = any(run.start <= at < begin for at in self.log(run).acked)
            if not leases or settled:
                continue
            over = leases[-1] + self._ttl
            if begin <= over <= end and over <= extra.start:
                return f"{run.client} out of reach {begin:.3f} to {end:.3f}, its lease was over at {over:.3f}"
        return ""

    def _ack_forgotten(self, run: Run, extra: Run) -> str:
        log = self.log(run)
        acks = [at for at in log.held + log.acked if run.start <= at <= extra.start]
        for event in self.events:
            for at in acks if event.what == "broker killed" else ():
                if event.facts["before"] - FORGETS <= at <= event.at:
                    return f"acknowledged at {at:.3f}, broker killed at {event.facts['before']:.3f}"
        return ""

    def outages(self, client: str) -> list[tuple[float, float]]:
        """Return when a client could not reach the broker: from and to, as the harness made it so."""
        found: list[tuple[float, float]] = []
        reasons: dict[str, float] = {}
        for event in self.events:
            who = event.facts.get("client")
            if event.what == "unreachable" and who in {client, "*"}:
                reasons[str(who)] = event.at
            elif event.what == "reachable" and who in reasons:
                begin = reasons.pop(str(who))
                if reasons:  # the other reason goes on
                    reasons = dict.fromkeys(reasons, min(begin, *reasons.values()))
                else:
                    found.append((begin, event.at))
        return found

    def _events(self, what: str, client: str) -> list[Event]:
        return [event for event in self.events if event.what == what and event.facts["client"] == client]

    def status_given_up(self, run: Run) -> str:
        """Return what ended the client of a complete run before PyBit had its last status; '' for nothing."""
        told = min([at for at in self.log(run).told if run.end and at >= run.end], default=float("inf"))
        for what in ("client killed", "client ended"):
            for event in self._events(what, run.client):
                if (run.end or run.start) <= event.at <= told:
                    return f"{what} at {event.at:.3f}"
        return ""
