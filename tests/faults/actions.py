"""The faults themselves: each is done, lasts, and is undone, in a thread of its own.

What is done to one client, to the broker or to PyBit's stand-in happens one after the other; all else at
the same time. Every step is written down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from tests.faults import jobs
from tests.faults.client import Client
from tests.faults.record import Record
from tests.faults.schedule import Fault
from tests.support.cluster import Cluster
from tests.support.node import PrivateNode
from tests.support.pybit_web import PybitWeb

SLOW = 1.5  # seconds that a slow PyBit takes for an answer; a client waits for 2
BUSY_BOUND = 10.0  # seconds to wait for a job that a worker can be killed at


class Actions:
    """Does faults.

    Arguments:
        clients, cluster, web: what they happen to.
        record: where they are written down.
    """

    def __init__(self, clients: Sequence[Client], cluster: Cluster, web: PybitWeb, record: Record) -> None:
        self.errors: list[BaseException] = []  # of the harness itself
        self._clients = clients
        self._cluster = cluster
        self._web = web
        self._record = record
        self._broker_lock = threading.Lock()
        self._web_lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def begin(self, fault: Fault) -> None:
        """Have a fault happen; returns at once."""
        thread = threading.Thread(target=self._run, args=(fault,), name=fault.kind, daemon=True)
        self._threads.append(thread)
        thread.start()

    def finish(self) -> None:
        """Wait until all are undone. Errors: the first one of the harness itself."""
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _run(self, fault: Fault) -> None:
        try:
            self._record.note("fault", kind=fault.kind, client=fault.client, seconds=fault.seconds)
            if fault.kind in {"restart broker", "kill broker", "alarm"}:
                with self._broker_lock:
                    self._alarm(fault.seconds) if fault.kind == "alarm" else self._broker(fault)
            elif fault.kind.startswith("pybit"):
                with self._web_lock:
                    self._pybit(fault)
            else:
                client = self._clients[fault.client]
                with client.lock:
                    self._client(client, fault)
            self._record.note("fault over", kind=fault.kind, client=fault.client)
        except BaseException as error:  # noqa: BLE001 - raised by finish()
            self.errors.append(error)

    def _client(self, client: Client, fault: Fault) -> None:
        if fault.kind == "kill worker":
            self._kill_worker(client)
        elif fault.kind in {"cut", "forget"}:
            self._record.note(fault.kind, client=client.name)
            for proxy in client.proxies:
                getattr(proxy, fault.kind)()
        elif fault.kind in {"silence", "long silence"}:
            self._record.note("unreachable", client=client.name)
            for proxy in client.proxies:
                proxy.silence()
            time.sleep(fault.seconds)
            for proxy in client.proxies:
                proxy.silence(False)
            self._record.note("reachable", client=client.name)
        elif fault.kind == "reload client":
            client.reload(whole=False)
            time.sleep(fault.seconds)
            client.reload(whole=True)
        else:
            if fault.kind == "kill client":
                client.kill()
            else:
                client.stop(twice=fault.kind.startswith("end jobs"))
            time.sleep(fault.seconds)
            client.start()

    def _kill_worker(self, client: Client) -> None:
        deadline = time.monotonic() + BUSY_BOUND
        while time.monotonic() < deadline:
            runs = self._record.runs()
            busy = [run.pid for run in runs if run.client == client.name and run.end is None]
            if any(client.kill_worker(pid) for pid in reversed(busy)):
                return
            time.sleep(0.05)

    def _broker(self, fault: Fault) -> None:
        alone = len(self._cluster.nodes) == 1
        # In a cluster the one that hurts most: the leader of a queue that is worked off.
        node = self._cluster.nodes[0] if alone else self._leader()
        if alone:
            self._record.note("unreachable", client="*")
        before = time.time()
        if fault.kind == "kill broker":
            node.kill()
            self._record.note("broker killed", node=node.name, before=before)
        else:
            node.shut_down()
            self._record.note("broker shut down", node=node.name, before=before)
        time.sleep(fault.seconds)
        node.start()
        self._record.note("broker started", node=node.name)
        if alone:
            self._record.note("reachable", client="*")

    def _leader(self) -> PrivateNode:
        leaders = [leader for queue in jobs.QUEUES if (leader := self._cluster.leader(queue))]
        node = leaders[0] if leaders else self._cluster.nodes[0]
        self._record.note("leader", node=node.name, known=bool(leaders))
        return node

    def _alarm(self, seconds: float) -> None:
        node = self._cluster.nodes[0]
        node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        self._record.note("alarm")
        time.sleep(seconds)
        node.ctl("set_vm_memory_high_watermark", "0.4")
        self._record.note("alarm over")

    def _pybit(self, fault: Fault) -> None:
        self._record.note(fault.kind)
        if fault.kind == "pybit down":
            self._web.die()
            time.sleep(fault.seconds)
            self._web.come_back()
        else:
            self._web.slow(SLOW)
            time.sleep(fault.seconds)
            self._web.slow(0)
        self._record.note(f"{fault.kind} over")
