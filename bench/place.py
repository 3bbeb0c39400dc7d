"""Where everything runs: a private RabbitMQ, one folder, and how much is to be done."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pika

from bench.installed import installed
from tests.support import processes
from tests.support.cluster import Cluster
from tests.support.node import PrivateNode

ROOT = Path(__file__).resolve().parent.parent
BODY = ROOT / "tests" / "captures" / "build_request.json"
JOBS = 5000  # of a run, unless told otherwise


class BenchError(Exception):
    """Raised when a side does not do what it was started for; holds the end of what it wrote."""


class Place:
    """The place.

    Arguments:
        cluster: the broker.
        folder: for everything else.
        guard: ends processes if this one is killed.
        jobs: of a run.

    Attributes:
        python: of an environment in which rbit is installed as its users have it; all sides run with it.
    """

    def __init__(self, cluster: Cluster, folder: Path, guard: subprocess.Popen[bytes], jobs: int) -> None:
        self.python = installed(ROOT, folder / "installed")
        self.cluster = cluster
        self.node: PrivateNode = cluster.nodes[0]
        self.jobs = jobs
        self.queue_type = "quorum" if len(cluster.nodes) > 1 else "classic"
        self._folder = folder
        self._guard = guard
        self._connection = self.node.connect()
        self._count = 0

    @property
    def version(self) -> str:
        """RabbitMQ's version."""
        return self.node.ctl("version").strip()

    def part(self, whole: int, least: int = 1) -> int:
        """Returns a number that is for the usual number of jobs, scaled to that of this run."""
        return max(least, whole * self.jobs // JOBS)

    def new_folder(self) -> Path:
        """Returns a new empty folder."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        return folder

    def new_queue(self) -> str:
        """Returns a name that no queue has yet."""
        self._count += 1
        return f"bench-{self._count}"

    def start(
        self, command: list[str], environment: dict[str, str], stdin: int, stdout: int, stderr: int
    ) -> subprocess.Popen[bytes]:
        """Starts a process in a group of its own, in the folder of the checkout."""
        assert self._guard.stdin is not None
        child = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdin=stdin, stdout=stdout, stderr=stderr,
            start_new_session=True,
        )
        self._guard.stdin.write(b"%d\n" % child.pid)
        return child

    def send(self, queue: str, count: int) -> None:
        """Publishes so many messages, persistent ones, without waiting for what the broker says."""
        body = BODY.read_bytes()
        with self._channel() as channel:
            for _ in range(count):
                channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))

    def declare(self, queues: Iterable[str]) -> None:
        """Makes durable queues."""
        with self._channel() as channel:
            for queue in queues:
                channel.queue_declare(queue, durable=True, arguments={"x-queue-type": self.queue_type})

    def depth(self, queue: str) -> int:
        """Returns how many messages a queue has that are not delivered."""
        with self._channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def delete(self, queues: Iterable[str]) -> None:
        """Removes queues, with what is in them; harmless for those that are not there."""
        with self._channel() as channel:
            for queue in queues:
                channel.queue_delete(queue)

    @contextlib.contextmanager
    def _channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        channel = self._connection.channel()
        try:
            yield channel
        finally:
            if channel.is_open:
                channel.close()


@contextlib.contextmanager
def place(jobs: int, nodes: int = 1) -> Iterator[Place]:
    """Makes a place, and removes it with all that still runs there.

    Arguments:
        jobs: of a run.
        nodes: of RabbitMQ; with several, queues are quorum queues.

    Errors: NodeError.
    """
    folder = Path(tempfile.mkdtemp(prefix="rbit-bench-"))
    guard = processes.start_guard(folder)
    try:
        with Cluster(nodes) as cluster:
            yield Place(cluster, folder, guard, jobs)
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(30.0)
        shutil.rmtree(folder, ignore_errors=True)
