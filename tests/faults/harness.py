"""A run of the harness: brokers, clients and load are started, faults happen, all is worked off and counted."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.actions import Actions
from tests.faults.client import LEASE_TTL, Client
from tests.faults.evidence import Evidence, read_log
from tests.faults.ledger import Ledger, make
from tests.faults.load import Load
from tests.faults.record import Record
from tests.faults.schedule import OF_CLIENTS, Fault
from tests.support.cluster import Cluster
from tests.support.node import NodeError
from tests.support.pybit_web import PybitWeb

CLIENTS = 3
BACKLOG = 10  # jobs submitted and not done; six run at once
DRAIN_BOUND = 240.0  # seconds from the last fault until no message is left
# A quorum queue sends on what has expired, and waits for a confirm of the queue that it goes to. When that one's
# leader is killed it tries again after this time, or twice this, in milliseconds. RabbitMQ's default is 3 minutes.
ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 10000}]}]."
LOOK = 2.0  # seconds between two looks at what is left; rabbitmqctl is slow, and its figures as old as 5 s
STRANDED_BOUND = 40.0  # seconds after which a message that has expired and was not sent on never will be
LOOKS_FOR_STRANDED = 5  # of so many looks one is also for what stands still


@dataclass(frozen=True)
class Setting:
    """What is run.

    Attributes:
        folder: where everything is written, which exists and is empty.
        faults: what happens.
        seconds: how long jobs are submitted.
        seed: decides on the jobs.
        nodes: of the broker; several are a cluster with quorum queues.
        clients: how many.
        own_quorum: whether the clients' own queues are quorum queues.
    """

    folder: Path
    faults: list[Fault]
    seconds: float
    seed: int
    nodes: int = 1
    clients: int = CLIENTS
    own_quorum: bool = True


@dataclass(frozen=True)
class _Stage:
    """What faults happen to."""

    record: Record
    cluster: Cluster
    web: PybitWeb
    clients: list[Client]
    stranded: dict[str, float] = field(default_factory=dict)  # queues, and since when, by time.monotonic()

    def submitted(self) -> dict[str, int | None]:
        """The jobs that the broker has confirmed, each with its id at PyBit if it is a build request."""
        return {event.facts["job"]: event.facts["request"] for event in self.record.events("submitted")}

    def left(self) -> dict[str, int]:
        """How many messages each queue holds, ready, delivered or on their way to another queue."""
        try:
            return {name: counts[0] for name, counts in self._counts("messages").items()}
        except NodeError as error:
            return {f"unknown: {error}": 1}

    def free(self) -> None:
        """Have another node lead a queue that has not sent on for long what has expired in it.

        RabbitMQ may lose track of such a message when the leader changes twice in short time, and finds it when
        it changes again: see "Messages that stand still" in docs/faults.rst.
        """
        now = time.monotonic()
        with contextlib.suppress(NodeError):
            counts = self._counts("messages", "messages_ready", "messages_unacknowledged")
            waiting = {name: total - ready - held for name, (total, ready, held) in counts.items()
                       if total > ready + held}
            for name in self.stranded.keys() - waiting:
                del self.stranded[name]
            for name, count in waiting.items():
                leader = self.cluster.leader(name)
                if now - self.stranded.setdefault(name, now) < STRANDED_BOUND or leader is None:
                    continue
                self.record.note("stranded", queue=name, count=count, leader=leader.name)
                leader.restart()
                self.stranded.clear()
                return

    def _counts(self, *what: str) -> dict[str, list[int]]:
        table = self.cluster.ctl("--silent", "list_queues", "--no-table-headers", "name", *what)
        lines = (line.split("\t") for line in table.splitlines() if "\t" in line)
        return {name: [int(count or 0) for count in counts] for name, *counts in lines}

    def is_done(self) -> bool:
        """Whether every job is done, no message left, and PyBit told."""
        done = {run.job for run in self.record.runs() if run.complete}
        submitted = self.submitted()
        if submitted.keys() - done:
            return False
        requests = [request for request in submitted.values() if request is not None]
        told = all(self.web.history(request)[-1][0] == "Done" for request in requests)
        return told and not sum(self.left().values())

    def attend(self, until: float) -> None:
        """Start clients again that ended by themselves, up to a time of time.monotonic()."""
        while True:
            for client in self.clients:
                if client.lock.acquire(blocking=False):
                    client.revive()
                    client.lock.release()
            if time.monotonic() >= until:
                return
            time.sleep(min(0.2, max(0.0, until - time.monotonic())))


def run(setting: Setting, say: Callable[[str], None] = lambda line: None) -> Ledger:
    """Run it; what it started is ended, whatever happens.

    Arguments:
        setting: what.
        say: is told in a line what happens.
    """
    with contextlib.ExitStack() as stack:
        record = stack.enter_context(contextlib.closing(Record(setting.folder)))
        cluster = stack.enter_context(Cluster(setting.nodes, ADVANCED))
        web = stack.enter_context(PybitWeb())
        clients = []
        for number in range(setting.clients):
            name, ports = f"faults-{number + 1}", [node.port for node in cluster.nodes]
            delivery = "push" if number % 2 else "poll"
            clients.append(Client(name, record, ports, web.url, setting.own_quorum, delivery=delivery))
            stack.callback(clients[-1].close)
        stage = _Stage(record, cluster, web, clients)
        say(f"{setting.nodes} nodes, {setting.clients} clients, {len(setting.faults)} faults to come")
        _work(setting, stage, say)
        left = stage.left()
        statuses = {request: [status for status, _ in web.history(request)]
                    for request in stage.submitted().values() if request is not None}
        logs = {client.name: read_log(client.log_path) for client in clients}
        return make(Evidence(record.events(), logs, LEASE_TTL), record.runs(), statuses, left)


def _work(setting: Setting, stage: _Stage, say: Callable[[str], None]) -> None:
    """Runs the load and the faults, waits until all is worked off, and stops the clients."""
    load = Load(stage.cluster, stage.web, stage.record, setting.seed, BACKLOG)
    load.declare(setting.nodes > 1)
    for client in stage.clients:
        client.start()
    load.start()
    actions = Actions(stage.clients, stage.cluster, stage.web, stage.record)
    began = time.monotonic()
    for fault in setting.faults:
        stage.attend(began + fault.at)
        whose = f" of client {fault.client + 1}" if fault.kind in OF_CLIENTS else ""
        say(f"{fault.at:6.1f} s: {fault.kind}{whose}")
        actions.begin(fault)
    stage.attend(began + setting.seconds)
    load.finish()
    actions.finish()
    stage.record.note("drain")
    say("no more jobs, no more faults; waiting until all is worked off")
    deadline = time.monotonic() + DRAIN_BOUND  # the ledger says what is left then
    for number in itertools.count(1):
        if stage.is_done() or time.monotonic() >= deadline:
            break
        stage.attend(time.monotonic() + LOOK)
        if number % LOOKS_FOR_STRANDED == 0:
            stage.free()
    for client in stage.clients:
        status = client.stop()
        if status or not client.is_clean():
            stage.record.note("client did not stop", client=client.name, status=status, clean=client.is_clean())
