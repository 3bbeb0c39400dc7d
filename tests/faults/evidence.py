"""What rbit's logs say of each job, and why a job was run to its end once more: decided from facts only.

An exception holds when a line of the record and the times of the job prove it; what nothing proves is
unexplained. Reads files, writes none.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.record import Event, Run

FORGETS = 1.0  # seconds before its SIGKILL in which a broker may forget an ack that it has taken
ON_ITS_WAY = 0.3  # seconds that an ack may take to the broker, or a message from there
DOWN = {"broker killed", "broker shut down"}
BREAKS = {"cut", "forget", "unreachable"}  # what ends connections of one client
LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \w+ (\S+ (?:message|job) \S+): (.*)")
SAID = {
    "published": re.compile(r"lease \d+ is published$"),
    "held": re.compile(r"holds lease \d+$"),
    "again": re.compile(r"its message came again; it is not run twice$"),
    "acked": re.compile(r"its message is acknowledged$"),
}
TAKEN = re.compile(r"taken( once more)?$")
CONNECTED = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \w+ connected (again )?to RabbitMQ")
LOST = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \w+ connection to RabbitMQ lost: (INTERNAL_ERROR)?")
FOUND = 15.0  # seconds, at the most, until a client finds that its connection is dead


@dataclass
class Log:
    """When a client's log says of a job what; seconds since 1970."""

    published: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    acked: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)


@dataclass
class ClientLog:
    """What a client's log says: of each job, and when it had or lost connections.

    Attributes:
        closed: when it lost one because a broker in trouble had closed it.
    """

    jobs: dict[str, Log] = field(default_factory=lambda: defaultdict(Log))
    connected: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """Why a job was run to its end once more: the name of an exception, or ``unexplained``; and what shows it."""

    why: str
    shown_by: str


def read_log(path: Path) -> ClientLog:
    """Return what a client's log says."""
    found = ClientLog()
    jobs: dict[str, str] = {}  # by the name that the log has for them; an unnamed message's number comes again
    taken: dict[str, deque[float]] = defaultdict(deque)  # by queue: the messages that are not begun
    begun: dict[str, float] = {}  # by the name in the log: when its message was taken
    for line in path.read_text("utf-8", "replace").splitlines():
        if made := CONNECTED.match(line):
            found.connected.append(seconds(made[1]))
            if not made[2]:  # a new process
                for known in (jobs, taken, begun):
                    known.clear()
        if lost := LOST.match(line):
            found.lost.append(seconds(lost[1]))
            found.closed += found.lost[-1:] if lost[2] else []
        match = LINE.match(line)
        if match is None:
            continue
        when, label, text = match.groups()
        waiting = taken[label.split()[0]]
        if TAKEN.match(text):
            waiting.append(seconds(when))
        elif text == "Building" and waiting:
            begun[label] = waiting.popleft()
        elif text.startswith("run "):
            jobs[label] = text.removeprefix("run ")
            if label in begun:
                found.jobs[jobs[label]].taken.append(begun.pop(label))
        for name, pattern in SAID.items():
            if label in jobs and pattern.match(text):
                getattr(found.jobs[jobs[label]], name).append(seconds(when))
    return found


def seconds(moment: str) -> float:
    """Return the time of a line of a log in seconds since 1970."""
    return datetime.datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f").timestamp()


def begin_of(event: Event) -> float:
    """Return when an event began: a broker takes its time to end, and connections break at any moment of it."""
    return float(event.facts.get("before", event.at))


class Evidence:
    """All that is known.

    Arguments:
        events: of the harness.
        logs: by client.
        ttl: seconds that a lease lasts.
    """

    def __init__(self, events: Iterable[Event], logs: dict[str, ClientLog], ttl: float) -> None:
        self.events = list(events)
        self.logs = logs
        self._ttl = ttl

    def log(self, run: Run) -> Log:
        """Return what the log of its client says of a run's job."""
        return self.logs.get(run.client, ClientLog()).jobs.get(run.job, Log())

    def explain(self, runs: list[Run]) -> list[tuple[Run, Verdict]]:
        """Return the complete runs of a job beyond the first, each with why there was one.

        A run may be followed by one more because of its own message, which was not acknowledged or of which a copy
        was made for another attempt, and by one because its original, not acknowledged when its connection broke,
        went to somebody else. So no failure excuses more than the one run after it.

        Arguments:
            runs: all runs of the job, in the order of their starts.
        """
        verdicts: dict[int, Verdict | None] = {}  # by the run's place; None: the job had no complete run before it
        used: set[tuple[int, str]] = set()
        found = []
        for place, run in enumerate(runs[1:], 1):
            nothing = Verdict("unexplained", f"nothing led to the run of {run.client} from {run.start:.3f} on")
            verdicts[place] = nothing
            for way, before in [(way, before) for way in ("own", "away") for before in reversed(range(place))]:
                if (before, way) in used:
                    continue
                if way == "own" and not runs[before].complete:
                    verdict = verdicts.get(before)
                else:
                    verdict = self._led_to(runs[before], run) if way == "own" else self._away(runs[before], run)
                    if verdict is None:
                        continue
                used.add((before, way))
                verdicts[place] = verdict
                break
            if run.complete and any(earlier.complete for earlier in runs[:place]):
                # No verdict after a chain of runs that all failed: then another one was complete beside it.
                found.append((run, verdicts[place] or nothing))
        return found

    def _led_to(self, run: Run, extra: Run) -> Verdict | None:
        """Return why the message of a complete run was run once more; None when nothing shows that."""
        for find in (self._killed, self._out_of_reach, self._ack_forgotten, self._not_taken):
            if shown_by := find(run, extra):
                return Verdict(find.__name__.strip("_").replace("_", " "), shown_by)
        return None

    def _away(self, run: Run, extra: Run) -> Verdict | None:
        """Return what shows that the original of a run went to somebody else, lease or no lease."""
        held = [at for at in self.log(run).held if run.start <= at <= extra.start]
        again = [at for at in self.log(run).again if held and run.start <= at <= held[0]]
        taken = max([at for at in self.log(run).taken if at <= run.start], default=run.start)
        # A message or an ack may be on its way when a connection breaks.
        settled = [at + ON_ITS_WAY for at in self._acked(run)]
        until = held[0] + (ON_ITS_WAY if not again else 0.0) if held else min([*settled, extra.start])
        for event in [*self._events("client killed", run.client), *self._breaks(run.client)]:
            if begin_of(event) <= until and taken - ON_ITS_WAY <= event.at:
                why = "killed" if event.what == "client killed" else "handover" if held else "young"
                first = f", its first lease held at {held[0]:.3f}" if held else ""
                shown_by = f"{run.client}: {event.what} at {event.at:.3f}, its message taken at {taken:.3f}{first}"
                return Verdict(why, shown_by)
        return None

    def _breaks(self, client: str) -> list[Event]:
        """Return what ended connections of a client, with all that was on its way."""
        mine = [event for event in self.events if event.what in BREAKS and event.facts["client"] in {client, "*"}]
        # A node that is asked for a queue of one that is down says so and closes the connection.
        closed = [
            Event(at, "closed by what is left of the cluster", {"client": client})
            for at in self.logs.get(client, ClientLog()).closed
            if any(begin <= at <= end for begin, end in self._without_a_node())
        ]
        return mine + [event for event in self.events if event.what in DOWN and self._felt(event, client)] + closed

    def _felt(self, event: Event, client: str) -> bool:
        """Return whether a client lost its connection when a broker went down, or ended and could not say so."""
        ends = [end.at for what in ("client killed", "client ended") for end in self._events(what, client)]
        lost = self.logs.get(client, ClientLog()).lost
        return any(begin_of(event) <= at <= event.at + FOUND for at in lost + ends)

    def _without_a_node(self) -> list[tuple[float, float]]:
        """Return when a node of the broker was down: from and to."""
        found = []
        for down in [event for event in self.events if event.what in DOWN]:
            up = [event.at for event in self.events if event.what == "broker started" and event.at >= down.at
                  and event.facts["node"] == down.facts.get("node")]
            found.append((down.facts["before"], min(up, default=down.at)))
        return found

    def _acked(self, run: Run) -> list[float]:
        """Returns when a run's client acknowledged its message on a connection that was there."""
        connected = self.logs.get(run.client, ClientLog()).connected
        return [
            at for at in self.log(run).acked
            if run.start <= at and not any(
                begin_of(event) <= at + ON_ITS_WAY and not any(event.at < made <= at for made in connected)
                for event in self._breaks(run.client)
            )
        ]

    def _until(self, run: Run, extra: Run) -> float:
        """Returns until when a run's client had its message: the ack, or the next run."""
        return min([*self._acked(run), extra.start])

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
            settled = any(run.start <= at < begin for at in self._acked(run))
            if not leases or settled:
                continue
            # The ack of the lease before, which comes as the last one is held, may have been on its way.
            late = [at for at in self.log(run).held if abs(at - begin) <= ON_ITS_WAY]
            for published in leases[-2:] if late else leases[-1:]:
                over = published + self._ttl
                if begin <= over <= end and over <= extra.start:
                    return f"{run.client} out of reach {begin:.3f} to {end:.3f}, its lease was over at {over:.3f}"
        return ""

    def _not_taken(self, run: Run, extra: Run) -> str:
        """Return what shows that a client was stopped while RabbitMQ could not be given the last status."""
        if not any(event.facts.get("request") for event in self._of("submitted") if event.facts["job"] == run.job):
            return ""  # nobody waits for its last status
        for stopped in self._events("client stopped", run.client):
            ends = [end.at for end in self._events("client ended", run.client) if end.at >= stopped.at]
            ended = min(ends, default=0.0)
            if not (run.end or run.start) <= ended <= extra.start or any(at <= ended for at in self._acked(run)):
                continue
            for what, begin, end in [
                *(("an alarm", *alarm) for alarm in self._alarms()),
                *(("out of reach", *outage) for outage in self.outages(run.client)),
            ]:
                if begin <= ended <= end:
                    return f"{run.client} stopped at {stopped.at:.3f}, {what} {begin:.3f} to {end:.3f}"
        return ""

    def _alarms(self) -> list[tuple[float, float]]:
        """Return when RabbitMQ had an alarm: from and to."""
        ends = [event.at for event in self._of("alarm over")]
        return [(event.at, min([end for end in ends if end >= event.at], default=event.at))
                for event in self._of("alarm")]

    def _of(self, what: str) -> list[Event]:
        return [event for event in self.events if event.what == what]

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
