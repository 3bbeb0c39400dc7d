"""What runs one job in a slot: a command, or the slot's worker.

Each is started below the slot's keeper, is read through non-blocking descriptors, and knows when its
part is over and with what outcome. Knows nothing of queues. Used by a slot's thread only.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import mmap
import os
import pickle
import selectors
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rbit import start
from rbit.errors import WorkerError
from rbit.message import BLOCKED, DONE, FAILED, FINAL, Message
from rbit.output import Lines, Tail, command_words, exit_words, forget, in_memory, pipe
from rbit.runners import Call, Command
from rbit.tree import Tree

PACKET = 1 << 18  # bytes; no answer of a worker is longer
INLINE = 1 << 16  # bytes; a larger body or packet travels as a file in memory
NUMBER = 8  # bytes of the number of a worker's job
TEMPORARY_FAILURE = 75  # sysexits(3): the job cannot be done now
AT_ONCE = 64  # packets of a worker that are read in one go: its statuses must not hold up its timeout
LAST_READS = 64  # times as many at its job's end; more than its socket can hold
STDOUT, STDERR = "stdout", "stderr"
STATUS_FD = 3  # of a command, after those of a program; one digit: in a redirection, dash takes no more

SetStatus = Callable[[str, str], None]
Sink = Callable[[str, str], None]  # gets a line of output after the name of its stream


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: a final status; Waiting when it was not done and its message is to be given back.
        why: in words; may be ''.
        traceback: of a Python job that raised; else ''.
        later: whether its message is tried again later, as the same attempt, instead of being given back.
        pause: whether its queue is to be left alone until the next poll.
        for_good: whether another run would end the same.
        skipped: whether it was not run, for PyBit knows better; then PyBit is not told of it.
        exit_status: of a command; negative for a signal; None when there is none.
    """

    status: str
    why: str = ""
    traceback: str = field(default="", repr=False)
    later: bool = False
    pause: bool = False
    for_good: bool = False
    skipped: bool = False
    exit_status: int | None = None


class CommandProcess:
    """A command that runs one job. It is started on construction.

    Errors:
        StartUnknown: it may run, or have run.
        WorkerError, OSError: it was not started, and this is no fault of the job.
        CommandRefused: it was not started, and never can be.
    """

    def __init__(
        self, tree: Tree, command: Command, message: Message, set_status: SetStatus, sink: Sink
    ) -> None:
        self._tail = Tail()
        self._set_status = set_status
        self._sink = sink
        self._status: int | None = None
        self._final: tuple[str, str] | None = None
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            pipes = [pipe(ours, theirs) for _ in range(3)]
            body = in_memory(message.body)
            theirs.callback(os.close, body)
            ends = [body, *(write for _, write in pipes)]
            environment = {**command.environment, "RBIT_STATUS_FD": str(STATUS_FD)}
            self.pid = tree.spawn(command.arguments, environment, ends)
            ours.pop_all()
        sinks = (self._on_line, self._on_error_line, self._on_status_line)
        # What was printed before a status comes before it in the log.
        befores = (lambda: None, lambda: None, self._read_output)
        self._lines = [
            Lines(read, into, before) for (read, _), into, before in zip(pipes, sinks, befores, strict=True)
        ]

    started = True  # from its construction on
    reusable = False

    def dismiss(self) -> None:
        """Lets the process end, whose job is over."""

    @property
    def over(self) -> bool:
        """Whether the process has ended."""
        return self._status is not None

    def register(self, selector: selectors.BaseSelector) -> None:
        """Has its descriptors watched; each is registered with the function to call."""
        for lines in self._lines:
            lines.register(selector)

    def exited(self, status: int) -> None:
        """Notes the wait status of the process."""
        self._status = status

    def has_children(self) -> bool:
        """Whether the process has children that are not the keeper's."""
        return False  # a process that has ended has none: they are the keeper's

    def finish(self, selector: selectors.BaseSelector) -> Outcome:
        """Reads what is left and closes the descriptors; returns the outcome."""
        for lines in self._lines:
            lines.drain()
        for lines in self._lines:
            lines.close(selector)
        code = os.waitstatus_to_exitcode(self._status or 0)
        if code == 0:
            return Outcome(*(self._final or (DONE, "")))
        words = command_words(code)
        tail = self._tail.text()
        status = BLOCKED if code == TEMPORARY_FAILURE else FAILED
        return Outcome(status, f"{words}: {tail}" if tail else words, exit_status=code)

    def _on_error_line(self, line: str) -> None:
        self._tail.add(line)
        self._sink(STDERR, line)

    def _on_line(self, line: str) -> None:
        self._sink(STDOUT, line)

    def _read_output(self) -> None:
        for lines in self._lines[:2]:
            lines.read()

    def _on_status_line(self, line: str) -> None:
        status, _, text = line.strip().partition(" ")
        if status:
            if status in FINAL:
                self._final = status, text
            self._set_status(status, text)


class WorkerProcess:
    """The Python worker of a slot; it runs jobs one after the other. Started on construction.

    Arguments:
        tree: where.
        jobs: how many it may run; 0: any number.

    Errors: WorkerError.
    """

    def __init__(self, tree: Tree, jobs: int = 0) -> None:
        self._left = jobs or math.inf
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                self.socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours.callback(self.socket.close)
                theirs.callback(far.close)
                outputs = [pipe(ours, theirs) for _ in range(2)]
                nothing = os.open(os.devnull, os.O_RDONLY)
                theirs.callback(os.close, nothing)
                self._begun = os.memfd_create("rbit-begun")
                ours.callback(os.close, self._begun)
                os.truncate(self._begun, NUMBER)
                ends = [nothing, *(write for _, write in outputs), far.fileno(), self._begun]
                self.pid = tree.spawn(start.worker(), {}, ends, blocked=[signal.SIGINT])  # see rbit.worker
            except (OSError, WorkerError) as error:
                raise WorkerError(f"no worker can be started: {error}") from error
            ours.pop_all()
        self._tail = Tail()
        self._lines = [Lines(outputs[0][0], self._on_line), Lines(outputs[1][0], self._on_error_line)]
        self._sink: Sink = lambda stream, line: None
        self._set_status: SetStatus = lambda status, message: None
        self._end: dict[str, Any] | None = None
        self.status: int | None = None
        self._packet = mmap.mmap(-1, PACKET)  # it takes more time to allocate so much for each than to read one
        self._numbers = itertools.count(1)
        self._number = b""  # of the job
        self.started = False  # whether the job was begun; known once it is over

    @property
    def over(self) -> bool:
        """Whether the job has ended, or the worker died."""
        return self._end is not None or self.status is not None

    @property
    def reusable(self) -> bool:
        """Whether the worker lives and can run a further job."""
        return self.status is None and not (self._end or {}).get("last", False)

    def send(
        self, call: Call, message: Message, settings: Mapping[str, str], report: tuple[SetStatus, Sink]
    ) -> None:
        """Hands over a job. ``report``: where its statuses and its lines go. Errors: WorkerError."""
        self._set_status, self._sink = report
        self._end = None
        self.started = False
        self._number = next(self._numbers).to_bytes(NUMBER, "big")
        self._tail = Tail()
        self._left -= 1
        large = len(message.body) > INLINE
        job = {
            "number": self._number,
            "target": call.target,
            "settings": dict(settings),
            "queue": message.queue,
            "properties": message.properties,
            "redelivered": message.redelivered,
            "last": self._left == 0,
            "body": b"" if large else message.body,
        }
        packet = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
        try:
            if large or len(packet) > INLINE:  # headers may be large too
                file = in_memory(message.body if large else b"", before=packet)
                try:
                    socket.send_fds(self.socket, [str(len(packet)).encode()], [file])
                finally:
                    os.close(file)
            else:
                self.socket.send(packet)
        except OSError as error:
            raise WorkerError(f"the worker does not take the job: {error}") from error

    def dismiss(self) -> None:
        """Lets the worker end, whose job is over."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Has its descriptors watched; each is registered with the function to call."""
        selector.register(self.socket, selectors.EVENT_READ, lambda: self._receive(selector))
        for lines in self._lines:
            lines.register(selector)

    def exited(self, status: int) -> None:
        """Notes the wait status of the worker."""
        self.status = status

    def has_children(self) -> bool:
        """Whether the worker said that its job left children."""
        return bool((self._end or {}).get("children", True))

    def finish(self, selector: selectors.BaseSelector) -> Outcome:
        """Reads what is left of the job's output; returns the outcome."""
        for _ in range(LAST_READS):
            if not self._receive(selector):
                break
        for lines in self._lines:
            lines.drain()
        self.started = self._end is not None or os.pread(self._begun, NUMBER, 0) == self._number
        if self._end is not None:
            return Outcome(self._end["ended"], self._end["message"], self._end["traceback"])
        words = f"the worker {exit_words(os.waitstatus_to_exitcode(self.status or 0))}"
        tail = self._tail.text()
        return Outcome(FAILED, f"{words}: {tail}" if tail else words)

    def close(self, selector: selectors.BaseSelector) -> None:
        """Closes the descriptors; the worker ends by itself when it is idle."""
        forget(selector, self.socket.fileno())
        self.socket.close()
        os.close(self._begun)
        for lines in self._lines:
            lines.close(selector)

    def _receive(self, selector: selectors.BaseSelector) -> bool:
        """Reads what the worker says, up to a limit or its job's end; returns whether there may be more."""
        statuses: list[tuple[str, str]] = []
        size, ended = 1, False
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while size and not ended and len(statuses) < AT_ONCE:
                size = self.socket.recv_into(self._packet, 0, socket.MSG_DONTWAIT)
                answer = json.loads(self._packet[:size].decode()) if size else {}
                if "status" in answer:
                    statuses.append((answer["status"], answer["message"]))
                elif ended := "ended" in answer:
                    self._end = answer
        for lines in self._lines if statuses else ():  # what was printed before comes before it in the log
            lines.read()
        for status, message in statuses:
            self._set_status(status, message)
        if not size:
            # The worker closed its end; the keeper says how it ended. A child may still hold a copy.
            forget(selector, self.socket.fileno())
        return ended or len(statuses) == AT_ONCE

    def _on_line(self, line: str) -> None:
        self._sink(STDOUT, line)

    def _on_error_line(self, line: str) -> None:
        self._tail.add(line)
        self._sink(STDERR, line)
