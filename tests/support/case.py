"""Test cases on a real broker with the real command.

One private node serves the whole test process, for a start takes seconds. Tests do not meet on it because
each uses queue names of its own (a virtual host for each test would cost a rabbitmqctl, about a second).
It runs in the process that tests.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
import unittest
from collections.abc import Callable, Iterator, Mapping

import pika
import pika.exceptions

from tests.support.node import NodeError, PrivateNode, missing_reason
from tests.support.processes import descendants, is_alive
from tests.support.rbit_process import RbitProcess, rbit_command
from tests.support.waiting import wait_until

__all__ = [
    "BrokerCase", "OwnNodeCase", "RbitProcess", "descendants", "ini", "is_alive", "rbit_command", "shared_node",
    "wait_until", "write_ini",
]

Section = Mapping[str, object]
_shared: list[PrivateNode | NodeError] = []


def shared_node() -> PrivateNode:
    """Return the node of this test process, started on first use and ended when the process exits.

    Errors:
        NodeError: it could not be started; a start that failed once is not tried again.
    """
    if not _shared:
        node = PrivateNode()
        try:
            node.start()
            _shared.append(node)
        except NodeError as error:
            _shared.append(error)
    if isinstance(_shared[0], NodeError):
        raise _shared[0]
    return _shared[0]


def require_broker(test: unittest.TestCase) -> None:
    """Skip a test with the reason when no node can be started here; with CI=true fail it instead."""
    reason = missing_reason()
    if reason and os.environ.get("CI") == "true":
        test.fail(reason)
    if reason:
        test.skipTest(reason)


def write_ini(sections: Mapping[str, Section]) -> str:
    """Return the text of an INI file; a key whose value is None is left out."""
    lines = []
    for name, keys in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {value}" for key, value in keys.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def ini(
    node: PrivateNode,
    runners: Mapping[str, Section],
    rbit: Section | None = None,
    amqp: Section | None = None,
    pybit: Section | None = None,
) -> str:
    """Return a configuration for a node: named bob-villa, polling every 0.2 s.

    Arguments:
        node: the broker.
        runners: the keys of each runner section, by queue.
        rbit, amqp, pybit: keys that are added or replaced; None as a value leaves a key out. Without
            ``pybit`` there is no such section.
    """
    broker = {
        "host": "127.0.0.1", "port": node.port, "user": node.user, "password": node.password,
        "virtual_host": node.virtual_host,
    }
    sections: dict[str, Section] = {
        "rbit": {"name": "bob-villa", "polling_time": 0.2, **(rbit or {})},
        "amqp": {**broker, **(amqp or {})},
    }
    if pybit is not None:
        sections["pybit"] = pybit
    sections |= {f"runner:{queue}": keys for queue, keys in runners.items()}
    return write_ini(sections)


class BrokerCase(unittest.TestCase):
    """A test with a broker: ``self.node``, and ``self.channel`` on a connection of the test.

    Skipped with the reason where there is no RabbitMQ; with CI=true in the environment it fails there.
    A test of which a process of rbit is left alive fails.
    """

    delivery: str | None = None  # how messages come to rbit, if not as it is without a word
    left_over_bound = 15.0  # seconds that processes of rbit may take to end after it
    node: PrivateNode
    channel: pika.adapters.blocking_connection.BlockingChannel

    @classmethod
    def make_node(cls) -> PrivateNode:
        """Return the node to use; the one of this test process."""
        return shared_node()

    def setUp(self) -> None:
        """Connect to the node."""
        super().setUp()
        require_broker(self)
        self.node = self.make_node()
        self._queues: list[str] = []
        self._token = f"t{secrets.token_hex(5)}"
        self.addCleanup(self._delete_queues)
        connection = self.node.connect()
        self.addCleanup(_close, connection)
        self.channel = connection.channel()
        self.channel.confirm_delivery()

    def queue_name(self, suffix: str = "jobs") -> str:
        """Return a queue name of this test: a token without ``_``, then ``_`` and the suffix.

        So the suffix ``any_latex_pdf`` gives a name of four parts. The same suffix gives the same name. The
        queue is not made here; it is deleted after the test.
        """
        name = f"{self._token}_{suffix}"
        if name not in self._queues:
            self._queues.append(name)
        return name

    def declare(self, queue: str, **arguments: object) -> str:
        """Declare a durable queue, with x-arguments if wanted (``x_message_ttl=1000``); return its name."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.channel.queue_declare(queue, durable=True, arguments=named)
        return queue

    def publish(self, queue: str, body: bytes | str, **properties: object) -> None:
        """Publish a persistent message, confirmed, to a queue; a missing queue is declared (durable).

        Arguments:
            queue: its name.
            body: str is sent as UTF-8.
            properties: of pika.BasicProperties.
        """
        basic = pika.BasicProperties(**{"delivery_mode": 2, **properties})
        try:
            self.channel.basic_publish("", queue, body, basic, mandatory=True)
        except pika.exceptions.UnroutableError:
            self.declare(queue)
            self.channel.basic_publish("", queue, body, basic, mandatory=True)

    def depth(self, queue: str) -> int:
        """Return how many messages are ready in a queue; -1 when there is no such queue."""
        with self._passing_channel() as channel:
            try:
                return int(channel.queue_declare(queue, passive=True).method.message_count)
            except pika.exceptions.ChannelClosedByBroker:
                return -1

    def unacked(self, queue: str) -> int:
        """Return how many messages of a queue are delivered and not settled; takes about half a second.

        Only rabbitmqctl tells. -1 when there is no such queue.
        """
        table = self.node.ctl("list_queues", "--no-table-headers", "name", "messages_unacknowledged")
        counts = dict(line.split("\t") for line in table.splitlines() if "\t" in line)
        return int(counts.get(queue, -1))

    def bodies(self, queue: str) -> list[bytes]:
        """Take all ready messages out of a queue and return their bodies, in order."""
        found = []
        while (got := self.channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(got[2])
        return found

    def ini(
        self,
        runners: Mapping[str, Section],
        rbit: Section | None = None,
        amqp: Section | None = None,
        pybit: Section | None = None,
    ) -> str:
        """Return a configuration for this test's node; see the function of the same name."""
        return ini(self.node, runners, {"delivery": self.delivery, **(rbit or {})}, amqp, pybit)

    def rbit(
        self, text: str | None, *arguments: str, files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None, command: tuple[str, ...] = (),
    ) -> RbitProcess:
        """Start rbit (see RbitProcess); it is ended after the test, which fails if processes are left."""
        process = RbitProcess(text, *arguments, files=files, environment=environment, command=command)
        self.addCleanup(self._close_rbit, process)
        return process

    def wait_until(
        self, condition: Callable[[], object], bound: float = 30.0,
        what: str | Callable[[], str] = "the condition",
    ) -> None:
        """Wait for a condition; see the function of the same name."""
        wait_until(condition, bound, what)

    def assert_stops_within(self, seconds: float, start: Callable[[], RbitProcess], tries: int = 5) -> None:
        """Fail when rbit takes longer from SIGTERM to its end in each of several tries.

        A busy machine makes a try longer, never shorter; what takes longer by itself does so each time.

        Arguments:
            seconds: the bound.
            start: returns a client that is ready to be stopped.
            tries: how many.
        """
        taken: list[float] = []
        while not taken or (min(taken) >= seconds and len(taken) < tries):
            rbit = start()
            began = time.monotonic()
            rbit.signal(signal.SIGTERM)
            self.assertEqual(rbit.wait(), 0, rbit.output)
            taken.append(time.monotonic() - began)
        self.assertLess(min(taken), seconds, taken)

    def _close_rbit(self, process: RbitProcess) -> None:
        remains = process.close(self.left_over_bound)
        if remains:
            self.fail("processes of rbit outlived it:\n" + "\n".join(remains))

    @contextlib.contextmanager
    def _passing_channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        # What the broker refuses closes the channel, and that must not be the test's own.
        channel = self.channel.connection.channel()
        try:
            yield channel
        finally:
            if channel.is_open:
                channel.close()

    def _delete_queues(self) -> None:
        # On a connection of its own: the test may have lost or closed its own, or killed the node for good.
        if not self._queues:
            return
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            connection = self.node.connect()
            for queue in self._queues:
                # With those that rbit makes for it; deleting what is not there is no error.
                for name in (queue, f"{queue}.retry", f"{queue}.failed", f"rbit.lease.bob-villa.{queue}"):
                    connection.channel().queue_delete(name)
            connection.close()


class OwnNodeCase(BrokerCase):
    """A test with a broker of its class alone, which it may stop, or which has other settings.

    Attributes:
        advanced: text of the node's advanced.config; empty for none.
    """

    advanced = ""
    _own: PrivateNode | None = None

    @classmethod
    def tls(cls) -> Mapping[str, object] | None:
        """Return the node's options of TLS; None for none."""
        return None

    @classmethod
    def make_node(cls) -> PrivateNode:
        if cls._own is None:
            cls._own = PrivateNode(advanced=cls.advanced, tls=cls.tls())
            cls.addClassCleanup(cls._own.stop)
            cls._own.start()
        return cls._own


def _close(connection: pika.BlockingConnection) -> None:
    with contextlib.suppress(pika.exceptions.AMQPError, OSError):
        connection.close()
