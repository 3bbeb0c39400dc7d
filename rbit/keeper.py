"""Keeps hold of every process that one slot's jobs start, and ends them all when rbit is gone.

A program of its own, started by ``rbit.tree`` with a socket (see ``rbit.start``). It knows nothing of
rbit and imports little: it must be small, and it must outlive whatever goes wrong around it. As a
"child subreaper" (prctl(2)) it becomes the parent of every process that a job orphans, also of those in
sessions of their own, so all that a job started stays below it. Nothing is left when it has no children.

It talks over that seqpacket socket, one JSON object a packet:

* ``{"spawn": [ARGUMENT, ...], "environment": {NAME: VALUE}, "blocked": [SIGNAL, ...]}`` with file
  descriptors beside it, which become 0, 1, 2, ... of the new process: answers ``{"spawned": PID}`` or
  ``{"failed": WHY, "too long": BOOL}``, and later ``{"exited": PID, "status": WAIT STATUS}``.
* ``{"end": [[SIGNAL, SECONDS], ...], "spare": PID or null}``: each signal in turn to all below it but PID (and
  what is started after the first, to clean up), SECONDS after each; then SIGKILL to what is left. Answers
  ``{"ended": [WHAT], "stuck": [WHAT]}`` when nothing is left. PID is not spared when what is left forks so fast
  that only the end of its whole group helps.

When the socket closes, everything below it is killed and it exits: with 0 when nothing is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence

TYPE_CHECKING = False  # of typing, which takes half a megabyte
if TYPE_CHECKING:
    from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2), <linux/prctl.h>
PR_SET_CHILD_SUBREAPER = 36
ANSWER = 1 << 16  # bytes; no answer is longer
DESCRIPTORS = 8  # most descriptors with one request
INT = 4  # bytes of a descriptor, as it comes
LENGTH_ONLY = int(socket.MSG_PEEK | socket.MSG_TRUNC)
STEP = 0.05  # seconds between two looks at processes that were asked to end
HASTE = 0.001  # seconds between two looks at processes that are killed: they may be forking
STUBBORN = 1.0  # seconds after the first SIGKILL for which the spared process is spared
PATIENCE = 20.0  # seconds after SIGKILL; what is left then hangs in the kernel
TICKS = os.sysconf("SC_CLK_TCK")  # a second
NAMED = 50  # most processes that an answer names: it must fit a packet

# Ignored here, so that only rbit decides when a job ends; jobs start with the defaults.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
RESET = (*IGNORED, signal.SIGPIPE, signal.SIGXFSZ)

CHILDREN_FILE = os.path.exists("/proc/thread-self/children")  # a kernel with CONFIG_PROC_CHILDREN


class Process:
    """What the kernel says of a process: its command name, its state's letter, its parent, its group.

    ``started`` is its start in ticks since the machine's boot.
    """

    def __init__(self, name: str, state: str, parent: int, group: int, started: int) -> None:
        self.name = name
        self.state = state
        self.parent = parent
        self.group = group
        self.started = started

    @property
    def dead(self) -> bool:
        """Whether it has ended, and only its parent has not noticed."""
        return self.state in "ZX"


def look(pid: int) -> Process | None:
    """Returns what is to be known of a process; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name stands in brackets and may itself hold any character: see proc(5).
            head, _, tail = file.read().decode("utf-8", "replace").rpartition(") ")
    except OSError:
        return None
    state, parent, group, *more = tail.split()
    return Process(head.partition("(")[2], state, int(parent), int(group), int(more[16]))


def children(pid: int) -> set[int]:
    """Returns the ids of a process's children, dead ones too; none when it is gone."""
    found: set[int] = set()
    if not CHILDREN_FILE:
        everybody = {int(entry): look(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
        return {child for child, process in everybody.items() if process and process.parent == pid}
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file,
            ):
                found.update(map(int, file.read().split()))
    return found


def descendants(root: int, without: Collection[int | None] = ()) -> dict[int, Process]:
    """Returns the processes below ``root``, dead ones too; ``without`` some and what is below those."""
    below: dict[int, Process] = {}
    seen = {root, *without}
    front = [root]
    while front:
        for child in children(front.pop()) - seen:
            seen.add(child)
            front.append(child)
            if process := look(child):
                below[child] = process
    return below


class Ending:
    """The end of a slot's processes, under way.

    Arguments:
        ladder: signals, each with the seconds that are waited after it; then comes SIGKILL.
        spare: the id of a child that goes on, or None.
        reap: collects the children that have ended.
    """

    def __init__(self, ladder: Sequence[tuple[int, float]], spare: int | None, reap: Callable[[], None]) -> None:
        self.spare = spare
        self.reap = reap
        self.kill_at = time.monotonic()
        self.rungs: list[tuple[float, int]] = []  # time.monotonic() from which a signal is sent, and which
        for number, wait in ladder:
            self.rungs.append((self.kill_at, number))
            self.kill_at += wait
        self.asked_at: int | None = None  # ticks since the machine's boot, when the first signal was sent
        self.asked: dict[tuple[int, int], int] = {}  # by id and start: the last rung that a process was sent
        self.names: dict[int, str] = {}

    @property
    def pace(self) -> float:
        """Seconds until the next step."""
        return HASTE if time.monotonic() >= self.kill_at else STEP

    def step(self) -> dict[str, list[str]] | None:
        """Signals what is left; returns the answer for rbit when there is no more to do."""
        now = time.monotonic()
        if now >= self.kill_at + STUBBORN:
            self.spare = None
        left = self.look()
        if not left or now > self.kill_at + PATIENCE:
            stuck = [shown(pid, process) for pid, process in left.items() if not process.dead]
            return {"ended": some(list(self.names.values())), "stuck": some(stuck)}
        spared = look(self.spare) if self.spare else None
        groups = {os.getpgrp(), spared.group if spared else 0}
        rung = sum(at <= now for at, _ in self.rungs) - 1
        first = self.asked_at is None
        if self.asked_at is None:
            self.asked_at = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
        for pid, process in left.items():
            if first or process.started < self.asked_at:  # or one that the first look missed
                self.asked.setdefault((pid, process.started), -1)
            if now >= self.kill_at:
                kill(pid, process, groups)
            else:
                self.ask(pid, process, rung)
            if not process.dead:
                self.names.setdefault(pid, shown(pid, process))
        return None

    def ask(self, pid: int, process: Process, rung: int) -> None:
        """Sends a rung's signal, once, to a process that was there at the first one."""
        # Of what was started later nobody can tell whether it cleans up after the first signal, as the command
        # in a shell's trap does, or whether a program that ignored it goes on. A clean-up must not be cut off in
        # the middle, so these get no further signal either; SIGKILL gets them all.
        if self.asked.get((pid, process.started), rung) < rung:
            self.asked[pid, process.started] = rung
            send(pid, self.rungs[rung][1])

    def look(self) -> dict[int, Process]:
        """Returns what is left; when that is nothing, there is nothing, however fast it forks and dies."""
        below = descendants(self.spare) if self.spare else {}
        # In this order: what loses its parent after the first look is a child of this process in the last.
        left = {pid: process for pid, process in below.items() if not process.dead}
        self.reap()
        return left | descendants(os.getpid(), {self.spare})


class Keeper:
    """The main loop of the program. Arguments: the socket to rbit."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.rbit_gone = False
        self.environment = dict(os.environ)
        self.spawned: set[int] = set()
        self.ending: Ending | None = None
        self.bell, far = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(far, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def run(self) -> bool:
        """Serves rbit until its end of the socket closes, then ends everything below; returns whether it has."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.bell, select.POLLIN)
        try:
            while not self.rbit_gone:
                ready = dict(poll.poll(self.ending.pace * 1000 if self.ending else None))
                if self.bell in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.bell, 4096)
                self.reap()
                if self.control.fileno() in ready:
                    self.serve()
                # What was collected in the last look is told before "ended".
                if self.ending and (answer := self.ending.step()):
                    self.ending = None
                    self.answer(answer)
        finally:  # whatever happens here, nothing is left to itself
            self.rbit_gone = True
            last = Ending((), None, self.reap)
            while not (end := last.step()):
                time.sleep(HASTE)
        return not end["stuck"]

    def serve(self) -> None:
        """Reads one request and does it, or notes that rbit is gone."""
        packet, descriptors = self.receive()
        if not packet:
            self.rbit_gone = True
            return
        request = json.loads(packet.decode())
        if "end" in request:
            self.ending = Ending(request["end"], request["spare"], self.reap)
            return
        answer = spawn(request, descriptors, self.environment)
        if isinstance(pid := answer.get("spawned"), int):
            self.spawned.add(pid)
        self.answer(answer)

    def receive(self) -> tuple[bytes, Sequence[int]]:
        """Returns a request, b"" if rbit is gone, and the descriptors beside it."""
        try:
            # Its length first: for the longest that there may be, memory would be mapped and given back each time.
            length = self.control.recv_into(bytearray(1), 1, LENGTH_ONLY)
            packet, beside, _, _ = self.control.recvmsg(
                length, socket.CMSG_LEN(DESCRIPTORS * INT), socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return b"", []
        data = b"".join(data for _, _, data in beside)
        return packet, [int.from_bytes(data[at : at + INT], sys.byteorder) for at in range(0, len(data), INT)]

    def reap(self) -> None:
        """Collects every child that has ended, adopted ones too; tells rbit of those that it asked for."""
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                if child[0] in self.spawned:
                    self.spawned.remove(child[0])
                    self.answer({"exited": child[0], "status": child[1]})

    def answer(self, answer: Mapping[str, object]) -> None:
        """Tells rbit something. It would wait for ever for what cannot be sent: that counts as its end."""
        if not self.rbit_gone:
            try:
                self.control.send(json.dumps(answer).encode())
            except OSError:
                self.rbit_gone = True


def spawn(request: Mapping[str, Any], descriptors: Sequence[int], given: Mapping[str, str]) -> dict[str, object]:
    """Starts a program in a session of its own; returns the answer for rbit. ``given``: to its environment."""
    arguments = request["spawn"]
    try:
        pid = os.posix_spawn(
            arguments[0],
            arguments,
            {**given, **request["environment"]},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(descriptors)],
            setsid=True,
            setsigmask=request["blocked"],
            setsigdef=RESET,
        )
    except OSError as error:
        return {"failed": f"{arguments[0]}: {error.strerror}", "too long": error.errno == errno.E2BIG}
    finally:
        for fd in descriptors:
            os.close(fd)
    return {"spawned": pid}


def send(pid: int, number: int) -> None:
    """Sends a signal to a process that may be gone, or be another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill(pid: int, process: Process, spared: Collection[int]) -> None:
    """Kills a process and its process group, unless that is one of the ``spared``.

    The kernel does not let a process fork while it signals a group: this ends also what has gone on in a
    child before the signal came.
    """
    if process.group > 1 and process.group not in spared:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.group, signal.SIGKILL)
    send(pid, signal.SIGKILL)


def shown(pid: int, process: Process) -> str:
    """Returns a process as words for the log; a name may hold any character."""
    return f"{''.join(char if char.isprintable() else '?' for char in process.name)} (process {pid})"


def some(names: list[str]) -> list[str]:
    """Returns the first names, and the number of the rest."""
    return [*names[:NAMED], *([f"{len(names) - NAMED} more"] if len(names) > NAMED else [])]


def main() -> None:
    """Runs the keeper on the socket whose descriptor is the first argument."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    # A job may have stopped this process: then rbit's end must wake it. The slot's end does no harm.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
    # A job that held a copy of the socket would hide from rbit that the keeper was killed.
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    sys.exit(0 if Keeper(control).run() else 1)


if __name__ == "__main__":
    main()
