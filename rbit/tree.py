"""The processes of one slot, seen from the client: a keeper and all that it starts.

Knows how to start a program below the keeper and how to end everything there; knows nothing of jobs.
Used by a slot's thread only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from rbit import keeper
from rbit.errors import CommandRefused, WorkerError

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
LONGEST_REQUEST = 200_000  # bytes; a packet must fit the socket's default send buffer (212,992)
PREFIX = "RBIT_"  # variables that rbit sets for a job; a job must not inherit those of an outer one


class Tree:
    """A keeper and everything below it. It is started on construction.

    Errors:
        WorkerError: the keeper could not be started.
    """

    def __init__(self) -> None:
        self.socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ending = False
        self._events: deque[dict[str, Any]] = deque()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(keeper.__file__).resolve()), str(far.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                env=environment,
                # Ctrl+C in the terminal reaches the whole foreground group: jobs must not get it.
                start_new_session=True,
            )
        except OSError as error:
            self.socket.close()
            raise WorkerError(f"no process can be started: {error}") from error
        finally:
            far.close()

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._keeper.pid

    def fileno(self) -> int:
        """Returns the descriptor that is readable when ``events`` has something."""
        return self.socket.fileno()

    def spawn(
        self, arguments: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]
    ) -> int:
        """Starts a program below the keeper, in a session of its own.

        Arguments:
            arguments: the program's path and its arguments.
            environment: variables added to rbit's own.
            descriptors: become 0, 1, 2, ... of the program; the caller keeps and closes its own.

        Returns the process id. Errors: CommandRefused when arguments and environment are too long;
        WorkerError when it cannot be started for another reason.
        """
        request = {"spawn": list(arguments), "environment": dict(environment)}
        packet = json.dumps(request).encode()
        if len(packet) > LONGEST_REQUEST:
            raise CommandRefused(
                f"the command, its values and settings have {len(packet)} bytes; at most {LONGEST_REQUEST} fit"
            )
        self._send(packet, descriptors)
        while True:
            event = self._receive()
            if "spawned" in event:
                return int(event["spawned"])
            if "failed" in event:
                raise (CommandRefused if event["too long"] else WorkerError)(event["failed"])
            self._events.append(event)

    def end(self, spare: int | None = None, grace: float = GRACE) -> None:
        """Asks for the end of every process below the keeper; ``ending`` is True until it has come.

        Arguments:
            spare: the id of a process that goes on, or None.
            grace: seconds from SIGTERM to SIGKILL.
        """
        self._send(json.dumps({"end": grace, "spare": spare}).encode(), ())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._keeper.pid, signal.SIGCONT)  # a job may have stopped it
        self.ending = True

    def events(self) -> list[dict[str, Any]]:
        """Returns the keeper's messages that have come, without waiting; see ``rbit.keeper``.

        Errors: WorkerError when the keeper is gone.
        """
        with contextlib.suppress(BlockingIOError):
            while True:
                self._events.append(self._receive(socket.MSG_DONTWAIT))
        events = list(self._events)
        self._events.clear()
        if any("ended" in event for event in events):
            self.ending = False
        return events

    def only(self, pid: int | None) -> bool:
        """Whether nothing runs directly below the keeper but ``pid``; False also when it cannot be told."""
        try:
            path = f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children"
            with open(path, encoding="ascii") as file:
                return file.read().split() == ([] if pid is None else [str(pid)])
        except OSError:  # a kernel without CONFIG_PROC_CHILDREN
            return False

    def close(self) -> None:
        """Ends everything at once (SIGKILL), the keeper included, and waits for that."""
        self.socket.close()
        try:
            self._keeper.wait(timeout=keeper.PATIENCE + GRACE)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def _send(self, packet: bytes, descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self.socket, [packet], list(descriptors))
        except OSError as error:
            raise WorkerError(f"the keeper of the slot is gone: {error}") from error

    def _receive(self, flags: int = 0) -> dict[str, Any]:
        try:
            packet = self.socket.recv(keeper.PACKET, flags)
        except ConnectionError:
            packet = b""
        if not packet:
            raise WorkerError("the keeper of the slot was killed")
        event: dict[str, Any] = json.loads(packet)
        return event


class Forest:
    """All slots' trees. It makes this process the last parent of what a killed keeper leaves behind."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        libc.prctl(keeper.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._lock = threading.Lock()  # no keeper may start while strays are told from keepers
        self._trees: list[Tree] = []

    def plant(self) -> Tree:
        """Starts a tree. Errors: WorkerError."""
        with self._lock:
            tree = Tree()
            self._trees.append(tree)
            return tree

    def fell(self, tree: Tree) -> list[str]:
        """Ends a tree at once and returns the names of strays: what outlived its keeper, killed too."""
        with self._lock:
            tree.close()
            self._trees.remove(tree)
            return self._end_strays({tree.pid for tree in self._trees})

    def _end_strays(self, keepers: set[int]) -> list[str]:
        ended: dict[int, str] = {}
        until = time.monotonic() + keeper.PATIENCE
        while time.monotonic() < until:
            strays = [child for child in psutil.Process().children() if child.pid not in keepers]
            for child in list(strays):
                with contextlib.suppress(psutil.NoSuchProcess):
                    strays += child.children(recursive=True)
            if not strays:
                break
            for process in strays:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    if process.status() != psutil.STATUS_ZOMBIE:
                        ended[process.pid] = keeper.shown((process.pid, process.name()))
                    process.kill()
            psutil.wait_procs(strays, timeout=1.0)
        return list(ended.values())
