"""Keeps hold of every process that one slot's jobs start, and ends them all when rbit is gone.

A program of its own, started by ``rbit.tree`` as ``python -I -S keeper.py FD``. It knows nothing of
rbit and imports little: it must be small, and it must outlive whatever goes wrong around it. As a
"child subreaper" (prctl(2)) it becomes the parent of every process that a job orphans, also of those in
sessions of their own, so all that a job started stays below it.

It talks over the seqpacket socket FD, one JSON object a packet:

* ``{"spawn": [ARGUMENT, ...], "environment": {NAME: VALUE}}`` with file descriptors beside it, which
  become 0, 1, 2, ... of the new process: answers ``{"spawned": PID}`` or ``{"failed": WHY, "too long":
  BOOL}``, and later ``{"exited": PID, "status": WAIT STATUS}``.
* ``{"end": SECONDS, "spare": PID or null}``: SIGTERM to all below it but PID, SIGKILL after SECONDS to
  what is left; answers ``{"ended": [WHAT], "stuck": [WHAT]}`` when nothing is left.

When the socket closes, everything below it is killed and it exits.
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
from collections.abc import Mapping

PR_SET_CHILD_SUBREAPER = 36  # prctl(2), <linux/prctl.h>
PACKET = 1 << 18  # bytes; no request is longer
DESCRIPTORS = 8  # most descriptors with one request
STEP = 0.05  # seconds between two looks at processes that are being ended
PATIENCE = 20.0  # seconds after SIGKILL; what is left then hangs in the kernel

# Ignored here, so that only rbit decides when a job ends; jobs start with the defaults.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
RESET = (*IGNORED, signal.SIGPIPE, signal.SIGXFSZ)


def descendants(root: int) -> dict[int, str]:
    """Returns the processes below ``root`` that still run: their ids and command names."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                # The name stands in brackets and may itself hold any character: see proc(5).
                head, _, tail = file.read().decode("utf-8", "replace").rpartition(") ")
                state, parent = tail.split()[:2]
                parents[int(entry)] = int(parent)
                if state not in "ZX":
                    names[int(entry)] = head.partition("(")[2]
    below: set[int] = {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        below |= more
        grown = bool(more)
    return {pid: names[pid] for pid in below - {root} if pid in names}


class Ending:
    """The end of a slot's processes, under way."""

    def __init__(self, grace: float, spare: int | None) -> None:
        self.spare = spare
        self.kill_at = time.monotonic() + grace
        self.names: dict[int, str] = {}

    def step(self) -> dict[str, list[str]] | None:
        """Signals what is left; returns the answer for rbit when there is no more to do."""
        left = descendants(os.getpid())
        left.pop(self.spare or 0, None)
        now = time.monotonic()
        stuck = now > self.kill_at + PATIENCE
        if not left or stuck:
            return {"ended": list(self.names.values()), "stuck": [shown(item) for item in left.items()]}
        for pid, name in left.items():
            if now >= self.kill_at:
                send(pid, signal.SIGKILL)
            elif pid not in self.names:
                send(pid, signal.SIGTERM)
            self.names.setdefault(pid, shown((pid, name)))
        return None


class Keeper:
    """The main loop of the program. Arguments: the socket to rbit."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.ending: Ending | None = None
        self.bell, far = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(far, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def run(self) -> None:
        """Serves rbit until its end of the socket closes, then ends everything below."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.bell, select.POLLIN)
        with contextlib.suppress(ConnectionError):
            while True:
                ready = dict(poll.poll(STEP * 1000 if self.ending else None))
                if self.bell in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.bell, 4096)
                self.reap()
                if self.control.fileno() in ready and not self.serve():
                    break
                if self.ending and (answer := self.ending.step()):
                    self.ending = None
                    self.reap()  # "exited" of what has just died comes before "ended"
                    self.answer(answer)
        self.kill_all()

    def serve(self) -> bool:
        """Reads one request and does it; returns False when rbit is gone."""
        packet, descriptors, _, _ = socket.recv_fds(self.control, PACKET, DESCRIPTORS)
        if not packet:
            return False
        for fd in descriptors:  # recv_fds does not pass its flags on (seen in CPython 3.10 to 3.13)
            os.set_inheritable(fd, False)
        request = json.loads(packet)
        if "end" in request:
            self.ending = Ending(request["end"], request["spare"])
        else:
            self.answer(spawn(request["spawn"], request["environment"], descriptors))
        return True

    def reap(self) -> None:
        """Collects every child that has ended, adopted ones too, and tells rbit."""
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                self.answer({"exited": child[0], "status": child[1]})

    def answer(self, answer: Mapping[str, object]) -> None:
        self.control.send(json.dumps(answer).encode())

    def kill_all(self) -> None:
        """Kills all that is below, again and again, for it may be forking."""
        until = time.monotonic() + PATIENCE
        while (left := descendants(os.getpid())) and time.monotonic() < until:
            for pid in left:
                send(pid, signal.SIGKILL)
            time.sleep(STEP / 5)


def spawn(arguments: list[str], environment: dict[str, str], descriptors: list[int]) -> dict[str, object]:
    """Starts a program in a session of its own; returns the answer for rbit."""
    try:
        pid = os.posix_spawn(
            arguments[0],
            arguments,
            {**os.environ, **environment},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(descriptors)],
            setsid=True,
            setsigmask=(),
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


def shown(item: tuple[int, str]) -> str:
    """Returns ``(pid, name)`` as words for the log."""
    return f"{item[1]} (process {item[0]})"


def main() -> None:
    """Runs the keeper on the socket whose descriptor is the first argument."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    # A job that held a copy of the socket would hide from rbit that the keeper was killed.
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    Keeper(control).run()


if __name__ == "__main__":
    main()
