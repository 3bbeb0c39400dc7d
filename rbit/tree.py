"""The processes of one slot, seen from the client: a keeper and all that it starts.

Knows how to start a program below the keeper and how to end everything there; knows nothing of jobs.
Used by a slot's thread only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rbit import inherited, keeper, start
from rbit.errors import CommandRefused, StartUnknown, WorkerError

Ladder = Sequence[tuple[int, float]]  # signals, each with the seconds that are waited after it; then SIGKILL
TERMINATE: Ladder = ((signal.SIGTERM, 10.0),)
INTERRUPT_FIRST: Ladder = ((signal.SIGINT, 10.0), *TERMINATE)
MARGIN = 5.0  # seconds more than a keeper has given itself, until it is held to be stuck
STRAY_PATIENCE = 5.0  # seconds for the end of what was killed after its keeper; slots may wait for that
AT_ONCE = 64  # messages of the keeper that are read in one go
SEVERAL = 64  # bytes of a list of processes; more than one fits, and more than one is all that matters
LONGEST_REQUEST = 200_000  # bytes; a packet must fit the socket's default send buffer (212,992)


class Tree:
    """A keeper and everything below it. It is started on construction.

    Errors:
        WorkerError: the keeper could not be started.
    """

    def __init__(self) -> None:
        self.socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ending = False
        self._answer_due = 0.0  # time.monotonic() at which ``ending`` has lasted too long
        self._events: deque[dict[str, Any]] = deque()
        try:
            self._keeper = subprocess.Popen(
                start.keeper(str(far.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                env=inherited.environment(),
                # Ctrl+C in the terminal reaches the whole foreground group: jobs must not get it.
                start_new_session=True,
            )
        except OSError as error:
            self.socket.close()
            raise WorkerError(f"no process can be started: {error}") from error
        finally:
            far.close()
        # The file with the keeper's children is kept open, as each job looks at it; not every kernel has it.
        self._children: int | None = None
        with contextlib.suppress(OSError):
            self._children = os.open(f"/proc/{self.pid}/task/{self.pid}/children", os.O_RDONLY)

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._keeper.pid

    @property
    def alive(self) -> bool:
        """Whether the keeper runs."""
        return self._keeper.poll() is None

    def fileno(self) -> int:
        """Returns the descriptor that is readable when ``events`` has something."""
        return self.socket.fileno()

    def spawn(
        self, arguments: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int],
        blocked: Sequence[int] = (),
    ) -> int:
        """Starts a program below the keeper, in a session of its own.

        Arguments:
            arguments: the program's path and its arguments.
            environment: variables added to those of ``rbit.inherited``.
            descriptors: become 0, 1, 2, ... of the program; the caller keeps and closes its own.
            blocked: signals that wait until the program lets them in.

        Returns the process id. Errors: CommandRefused when arguments and environment are too long;
        WorkerError when it cannot be started for another reason; StartUnknown when the keeper ended, or
        was stopped, before it said whether it had started it.
        """
        request = {"spawn": list(arguments), "environment": dict(environment), "blocked": list(blocked)}
        packet = json.dumps(request).encode()
        if len(packet) > LONGEST_REQUEST:
            raise CommandRefused(
                f"the command, its values and settings have {len(packet)} bytes; at most {LONGEST_REQUEST} fit"
            )
        self._send(packet, descriptors)
        until = time.monotonic() + keeper.PATIENCE
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while poll.poll(max(0.0, until - time.monotonic()) * 1000):
            try:
                event = self._receive()
            except WorkerError as error:
                raise StartUnknown(str(error)) from error
            if "spawned" in event:
                return int(event["spawned"])
            if "failed" in event:
                raise (CommandRefused if event["too long"] else WorkerError)(event["failed"])
            self._events.append(event)
        self._keeper.kill()
        raise StartUnknown("the keeper of the slot does not answer")

    def end(self, spare: int | None = None, ladder: Ladder = TERMINATE) -> None:
        """Asks for the end of every process below the keeper; ``ending`` is True until it has come.

        Arguments:
            spare: the id of a process that goes on, or None.
            ladder: signals, each with the seconds that are waited after it; SIGKILL follows.
        """
        self._send(json.dumps({"end": ladder, "spare": spare}).encode(), ())
        waits = sum(wait for _, wait in ladder)
        self._answer_due = time.monotonic() + waits + keeper.PATIENCE + MARGIN
        self.ending = True

    def check(self) -> float:
        """Returns time.monotonic() until which ``ending`` may last.

        Errors: WorkerError when it is past; the keeper has been killed then.
        """
        if time.monotonic() >= self._answer_due:
            self._keeper.kill()
            raise WorkerError("the keeper of the slot does not answer")
        return self._answer_due

    def events(self) -> list[dict[str, Any]]:
        """Returns messages of the keeper that have come, without waiting; see ``rbit.keeper``.

        Errors: WorkerError when the keeper is gone.
        """
        with contextlib.suppress(BlockingIOError):
            for _ in range(AT_ONCE):
                self._events.append(self._receive(socket.MSG_DONTWAIT))
        events = list(self._events)
        self._events.clear()
        if any("ended" in event for event in events):
            self.ending = False
        return events

    def only(self, pid: int | None) -> bool:
        """Whether the keeper has no children but ``pid``."""
        if not self.alive:
            return False
        if self._children is None:
            return keeper.children(self.pid) == ({pid} - {None})
        return os.pread(self._children, SEVERAL, 0).split() == ([] if pid is None else [b"%d" % pid])

    def close(self) -> bool:
        """Ends everything at once (SIGKILL), the keeper included, and waits for that.

        Returns whether nothing is left; False also when the keeper was killed before.
        """
        self.socket.close()
        if self._children is not None:
            os.close(self._children)
        self._wake()
        try:
            return self._keeper.wait(timeout=keeper.PATIENCE + MARGIN) == 0
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
            return False

    def _wake(self) -> None:
        self._keeper.send_signal(signal.SIGCONT)  # a job may have stopped it

    def _send(self, packet: bytes, descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self.socket, [packet], list(descriptors))
        except OSError as error:
            raise WorkerError(f"the keeper of the slot is gone: {error}") from error
        self._wake()

    def _receive(self, flags: int = 0) -> dict[str, Any]:
        try:
            packet = self.socket.recv(keeper.ANSWER, flags)
        except ConnectionError:
            packet = b""
        if not packet:
            raise WorkerError("the keeper of the slot was killed")
        event: dict[str, Any] = json.loads(packet.decode())
        return event


class Forest:
    """All slots' trees. It makes this process the last parent of what a killed keeper leaves behind."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        libc.prctl(keeper.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._lock = threading.Lock()  # no keeper may start while strays are told from keepers
        self._trees: list[Tree] = []
        self._others: set[int] = set()
        self._note_others()

    def plant(self) -> Tree:
        """Starts a tree. Errors: WorkerError."""
        with self._lock:
            self._note_others()
            tree = Tree()
            self._trees.append(tree)
            return tree

    def fell(self, tree: Tree) -> list[str]:
        """Ends a tree at once and returns the names of strays: what outlived its keeper, killed too."""
        ended = tree.close()
        with self._lock:
            self._trees.remove(tree)
            return [] if ended else self._end_strays()

    def _note_others(self) -> None:
        """Notes children that are none of rbit's: of a program that became rbit by exec, orphans given to init.

        Nobody but this process collects them, so their ids do not come again while it runs.
        """
        found = keeper.children(os.getpid())
        # Asked after the look: while all keepers live, none of these is a stray.
        if all(tree.alive for tree in self._trees):
            self._others = found - {tree.pid for tree in self._trees}

    def _end_strays(self) -> list[str]:
        names: dict[int, str] = {}
        until = time.monotonic() + STRAY_PATIENCE
        without = self._others | {tree.pid for tree in self._trees}
        while (strays := keeper.descendants(os.getpid(), without)) and time.monotonic() < until:
            for pid, process in strays.items():
                if not process.dead:
                    names.setdefault(pid, keeper.shown(pid, process))
                keeper.kill(pid, process, {os.getpgrp()})
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(keeper.HASTE)
        return keeper.some(list(names.values()))
