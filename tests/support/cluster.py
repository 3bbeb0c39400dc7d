"""Private RabbitMQ nodes that are one cluster: on 127.0.0.1, with one epmd and one cookie.

It knows nothing of rbit. It runs in the process that tests; see ``tests.support.node`` for who ends what.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from tests.support.node import NodeError, PrivateNode


class _Member(PrivateNode):
    """A node that joins another one's cluster."""

    def __init__(self, first: PrivateNode, advanced: str) -> None:
        super().__init__(advanced=advanced)
        self._first = first

    def _choose_ports(self) -> tuple[int, int, int]:
        port, distribution, _ = super()._choose_ports()
        return port, distribution, self._first.epmd_port

    def _prepare(self) -> None:
        super()._prepare()
        assert self.folder is not None and self._first.folder is not None
        cookie = self.folder / ".erlang.cookie"
        cookie.chmod(0o600)
        cookie.write_bytes((self._first.folder / cookie.name).read_bytes())
        cookie.chmod(0o400)

    def _start_epmd(self) -> None:
        # The first node's serves all. What makes the log is the start of it.
        assert self.folder is not None
        (self.folder / "node.log").touch()

    def join(self) -> None:
        """Join the cluster. Errors: NodeError."""
        self.ctl("stop_app")
        self.ctl("join_cluster", self._first.name)
        self.ctl("start_app")


class Cluster:
    """So many nodes; also a context manager that starts and stops them. One node is no cluster, but will do.

    Arguments:
        size: the number of nodes.
        advanced: text of the advanced.config of each; empty for none.
    """

    def __init__(self, size: int, advanced: str = "") -> None:
        self.nodes: list[PrivateNode] = [PrivateNode(advanced=advanced)]
        self.nodes += [_Member(self.nodes[0], advanced) for _ in range(size - 1)]

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def up(self) -> list[PrivateNode]:
        """The nodes that run."""
        return [node for node in self.nodes if node.runs]

    def start(self) -> None:
        """Start all nodes and join them. Errors: NodeError, after which nothing is left."""
        try:
            self.nodes[0].start()
            _at_once([node.start for node in self.nodes[1:]])
            for node in self.nodes[1:]:
                assert isinstance(node, _Member)
                node.join()  # one after the other: two at once may refuse each other
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all nodes and what belongs to them; harmless when nothing is there."""
        for node in reversed(self.nodes):
            node.stop()

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against the first node that can be asked. Errors: NodeError."""
        failure = NodeError("no node runs")
        for node in self.up:
            try:
                return node.ctl(*arguments)
            except NodeError as error:
                failure = error
        raise failure

    def leader(self, queue: str) -> PrivateNode | None:
        """Return the node that leads a quorum queue; None when nobody says so."""
        with contextlib.suppress(NodeError):
            lines = self.ctl("--silent", "list_queues", "--no-table-headers", "name", "leader").splitlines()
            leaders = dict(line.split("\t") for line in lines if "\t" in line)
            return next((node for node in self.up if node.name == leaders.get(queue)), None)
        return None


def _at_once(calls: list[Callable[[], None]]) -> None:
    """Make calls in a thread each, and raise the first of their errors."""
    errors: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
