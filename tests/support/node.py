"""A private RabbitMQ node for tests and the demo: its own ports, its own folder, on 127.0.0.1 only.

It knows nothing of rbit and nothing of unittest. It runs in the process that tests; the node and its epmd
are children of that process. A third child, the guard, ends the other two and removes the folder when the
process that started them was killed.
"""

from __future__ import annotations

import atexit
import contextlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pika

from tests.support import erlang, processes
from tests.support.erlang import missing_reason
from tests.support.processes import end

__all__ = ["NodeError", "PrivateNode", "missing_reason"]

START_BOUND = 120.0  # seconds from the start of the node to its first answer
STOP_BOUND = 60.0  # seconds for an orderly shutdown
ATTEMPTS = 5  # with other ports each time
LOG_TAIL = 4000  # characters of the log that an error shows
PORT_TAKEN = re.compile(r"eaddrinuse|address already in use|in use by", re.IGNORECASE)


class NodeError(Exception):
    """Raised when the private node does not start, or a command against it fails."""


class _PortTakenError(NodeError):
    """Raised when another process took one of the chosen ports first."""


class PrivateNode:
    """A RabbitMQ node of our own; also a context manager that starts and stops it.

    Arguments:
        config: text of its rabbitmq.conf.
        advanced: text of its advanced.config, an Erlang term; empty for none.
        tls: values of ``ssl_options`` for a listener at ``tls_port``; None for no such listener.
        plugins: names of RabbitMQ's plugins that it has.
    """

    def __init__(
        self, config: str = "", advanced: str = "", tls: Mapping[str, object] | None = None,
        plugins: Sequence[str] = (),
    ) -> None:
        self.port = self.tls_port = 0
        self.user = self.password = "guest"
        self.virtual_host = "/"
        self._config = config
        self._tls = tls
        self._plugins = tuple(plugins)
        self._advanced = advanced or "[]."
        self._name = f"rbit-{secrets.token_hex(6)}"
        self.folder: Path | None = None  # holds all files of the node while it exists
        self._environment: dict[str, str] = {}
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateNode:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The node's AMQP URL; its virtual host is ``/``."""
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/%2F"

    @property
    def pids(self) -> list[int]:
        """The ids of the node, its epmd and its guard, as far as they were started."""
        return [child.pid for child in (self._node, self._epmd, self._guard) if child is not None]

    @property
    def name(self) -> str:
        """The node's name in a cluster."""
        return f"{self._name}@localhost"

    @property
    def epmd_port(self) -> int:
        """Where its epmd listens, once it is started."""
        return int(self._environment["ERL_EPMD_PORT"])

    @property
    def runs(self) -> bool:
        """Whether the node's process is there."""
        return self._node is not None and self._node.poll() is None

    def start(self) -> None:
        """Start the node and wait until it speaks AMQP; after ``kill`` or ``shut_down`` with the same data.

        Errors:
            NodeError: it cannot be started, or ended, or did not answer within 120 s; nothing is left then.
        """
        reason = missing_reason()
        if reason:
            raise NodeError(reason)
        if self.runs:
            return
        try:
            if self.folder is not None:
                self._start_node()
                return
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    self._prepare()
                    self._start_epmd()
                    self._start_node()
                    return
                except _PortTakenError:
                    self.stop()
                    if attempt == ATTEMPTS:
                        raise
        except BaseException:  # an interrupt, too, must leave no broker behind
            self.stop()
            raise

    def stop(self) -> None:
        """End the node and its epmd at once and remove their folder; harmless when nothing is there."""
        self.kill()
        if self._epmd is not None:
            end(self._epmd)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._guard is not None:
            if self._guard.stdin is not None:
                with contextlib.suppress(OSError):
                    self._guard.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(10.0)
            end(self._guard)
        self._epmd = self._guard = self.folder = None
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """Kill the node (SIGKILL); its data, its ports and its epmd stay for the next ``start``."""
        if self._node is not None:
            end(self._node)
        self._node = None

    def shut_down(self) -> None:
        """Shut the node down in order, as an administrator would; its data stay for the next ``start``."""
        if self._node is not None:
            self._node.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._node.wait(STOP_BOUND)
        self.kill()

    def restart(self) -> None:
        """Shut the node down, if it runs, and start it with the same ports and data.

        Errors:
            NodeError: as with ``start``.
        """
        self.shut_down()
        self.start()

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against the node (about a second) and return what it printed.

        Errors:
            NodeError: it failed, or took more than a minute; holds what it wrote to standard error.
        """
        script = erlang.server_script()
        if script is None or self.folder is None:
            raise NodeError("rabbitmqctl: the node is not there")
        command = [str(script.with_name("rabbitmqctl")), "-q", *arguments]
        try:
            done = subprocess.run(
                command, env=self._environment, cwd=self.folder, capture_output=True, text=True,
                timeout=60.0, check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NodeError(f"rabbitmqctl {' '.join(arguments)}: {error}") from error
        if done.returncode:
            raise NodeError(f"rabbitmqctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def parameters(self) -> pika.ConnectionParameters:
        """Return pika's parameters for the node, without heartbeat: a test may be busy elsewhere."""
        credentials = pika.PlainCredentials(self.user, self.password)
        return pika.ConnectionParameters("127.0.0.1", self.port, self.virtual_host, credentials, heartbeat=0)

    def connect(self) -> pika.BlockingConnection:
        """Return a new connection to the node; raises pika's errors."""
        return pika.BlockingConnection(self.parameters())

    def _choose_ports(self) -> tuple[int, int, int]:
        return processes.free_port(), processes.free_port(), processes.free_port()

    def _prepare(self) -> None:
        self.folder = folder = Path(tempfile.mkdtemp(prefix="rbit-node-"))
        atexit.register(self.stop)
        self._guard = processes.start_guard(folder)
        (folder / "rabbitmq.conf").write_text(self._config + self._tls_config() + "\n", encoding="utf-8")
        (folder / "advanced.config").write_text(self._advanced + "\n", encoding="utf-8")
        libraries = erlang.link_libraries(folder / "home", self._plugins)
        (folder / "rabbitmq-env.conf").write_text(libraries, encoding="utf-8")
        (folder / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n", encoding="utf-8")
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16), encoding="ascii")
        cookie.chmod(0o400)
        ports = self._choose_ports()
        self.port = ports[0]
        self._environment = erlang.environment(folder, self._name, *ports)

    def _tls_config(self) -> str:
        if self._tls is None:
            return ""
        self.tls_port = processes.free_port()
        options = "".join(f"\nssl_options.{key} = {value}" for key, value in self._tls.items())
        return f"\nlisteners.ssl.1 = 127.0.0.1:{self.tls_port}{options}"

    def _start_epmd(self) -> None:
        # The node would start one as a daemon that outlives it; a child of ours has an id that we know.
        self._epmd = self._spawn([str(erlang.epmd_program())])
        port = int(self._environment["ERL_EPMD_PORT"])
        deadline = time.monotonic() + 10.0
        while not _answers(port, b"\0\1n", b""):
            if self._epmd.poll() is not None or time.monotonic() > deadline:
                raise _PortTakenError(f"epmd does not run on port {port}\n{self._log()}")
            time.sleep(0.02)

    def _start_node(self) -> None:
        before = len(self._log())
        self._node = self._spawn([str(erlang.server_script())])
        deadline = time.monotonic() + START_BOUND
        # The node says its name when it greets: no other broker is ever mistaken for it.
        while not _answers(self.port, b"AMQP\0\0\x09\1", self._name.encode()):
            ended = self._node.poll()
            log = self._log()[before:]
            if PORT_TAKEN.search(log):  # a node without its port takes its time to end
                raise _PortTakenError(log[-LOG_TAIL:])
            if ended is not None or time.monotonic() > deadline:
                how = "did not answer" if ended is None else f"ended with {ended}"
                raise NodeError(f"the RabbitMQ node {how}; the end of its log:\n{log[-LOG_TAIL:]}")
            time.sleep(0.05)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        assert self.folder is not None and self._guard is not None and self._guard.stdin is not None
        with (self.folder / "node.log").open("ab") as log:
            child = subprocess.Popen(
                command, env=self._environment, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )
        try:
            self._guard.stdin.write(b"%d\n" % child.pid)
        except BaseException:
            end(child)
            raise
        return child

    def _log(self) -> str:
        assert self.folder is not None
        return (self.folder / "node.log").read_text("utf-8", errors="replace")


def _answers(port: int, question: bytes, expected: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as peer:
            peer.sendall(question)
            return expected in peer.recv(4096)
    except OSError:
        return False
