"""What runs one job in a slot: a command, or the slot's worker.

Each is started below the slot's keeper, is read through non-blocking descriptors, and knows when its
part is over and with what outcome. Knows nothing of queues. Used by a slot's thread only.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rbit.errors import CommandRefused, WorkerError
from rbit.message import BLOCKED, DONE, FAILED, FINAL, Message
from rbit.output import Lines, Tail
from rbit.runners import Call, Command
from rbit.tree import Tree

PACKET = 1 << 18  # bytes; no answer of a worker is longer
INLINE = 1 << 16  # bytes; a larger body travels as a file in memory
TEMPORARY_FAILURE = 75  # sysexits(3): the job cannot be done now
SHELL_WORDS = {126: "not executable", 127: "command not found"}

SetStatus = Callable[[str, str], None]
Sink = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: a final status; Waiting when it was not done and its message is to be given back.
        why: in words; may be ''.
        traceback: of a Python job that raised; else ''.
        pause: whether its queue is to be left alone until the next poll.
    """

    status: str
    why: str = ""
    traceback: str = field(default="", repr=False)
    pause: bool = False


def in_memory(body: bytes, before: bytes = b"") -> int:
    """Returns the descriptor of a file in memory that holds ``before`` and ``body``, at its start."""
    fd = os.memfd_create("rbit-body")
    try:
        for part in (before, body):
            view = memoryview(part)
            while view:
                view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError:
        os.close(fd)
        raise
    return fd


class CommandProcess:
    """A command that runs one job. It is started on construction. Errors: WorkerError."""

    def __init__(
        self, tree: Tree, command: Command, message: Message, set_status: SetStatus, sink: Sink
    ) -> None:
        self._tail = Tail()
        self._set_status = set_status
        self._sink = sink
        self._status: int | None = None
        self._final: tuple[str, str] | None = None
        pipes = [os.pipe() for _ in range(3)]
        try:
            body = in_memory(message.body)
            try:
                ends = [body, *(write for _, write in pipes)]
                self.pid = tree.spawn(command.arguments, command.environment, ends)
            finally:
                os.close(body)
        except (OSError, WorkerError, CommandRefused) as error:
            for read, _ in pipes:
                os.close(read)
            if isinstance(error, CommandRefused):
                raise
            raise WorkerError(f"the command cannot be started: {error}") from error
        finally:
            for _, write in pipes:
                os.close(write)
        sinks = (sink, self._on_error_line, self._on_status_line)
        self._lines = [Lines(read, into) for (read, _), into in zip(pipes, sinks, strict=True)]

    started = True  # from its construction on
    reusable = False

    @property
    def over(self) -> bool:
        """Whether the process has ended."""
        return self._status is not None

    def register(self, selector: selectors.BaseSelector) -> None:
        """Has its descriptors watched; each is registered with the function to call."""
        for lines in self._lines:
            register_lines(selector, lines)

    def exited(self, status: int) -> None:
        """Notes the wait status of the process."""
        self._status = status

    def has_children(self) -> bool:
        return False  # a process that has ended has none: they are the keeper's

    def finish(self, selector: selectors.BaseSelector) -> Outcome:
        """Reads what is left and closes the descriptors; returns the outcome."""
        for lines in self._lines:
            lines.drain()
        for lines in self._lines:
            forget(selector, lines.fd)
            lines.close()
        code = os.waitstatus_to_exitcode(self._status or 0)
        if code == 0:
            return Outcome(*(self._final or (DONE, "")))
        words = command_words(code)
        tail = self._tail.text()
        status = BLOCKED if code == TEMPORARY_FAILURE else FAILED
        return Outcome(status, f"{words}: {tail}" if tail else words)

    def _on_error_line(self, line: str) -> None:
        self._tail.add(line)
        self._sink(line)

    def _on_status_line(self, line: str) -> None:
        status, _, text = line.strip().partition(" ")
        if status:
            for lines in self._lines[:2]:  # what was printed before it comes before it in the log
                lines.read()
            if status in FINAL:
                self._final = status, text
            self._set_status(status, text)


class WorkerProcess:
    """The Python worker of a slot; it runs jobs one after the other. Started on construction.

    Errors: WorkerError.
    """

    def __init__(self, tree: Tree) -> None:
        self.socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        outputs = [os.pipe() for _ in range(2)]
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            ends = [nothing, outputs[0][1], outputs[1][1], far.fileno()]
            self.pid = tree.spawn([sys.executable, "-m", "rbit.worker"], {}, ends)
        except WorkerError as error:
            self.socket.close()
            for read, _ in outputs:
                os.close(read)
            raise WorkerError(f"no worker can be started: {error}") from error
        finally:
            far.close()
            os.close(nothing)
            for _, write in outputs:
                os.close(write)
        self._tail = Tail()
        self._lines = [Lines(outputs[0][0], self._on_line), Lines(outputs[1][0], self._on_error_line)]
        self._sink: Sink = lambda line: None
        self._set_status: SetStatus = lambda status, message: None
        self._end: dict[str, Any] | None = None
        self.status: int | None = None
        self.started = False

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
        self._tail = Tail()
        large = len(message.body) > INLINE
        job = {
            "target": call.target,
            "settings": dict(settings),
            "queue": message.queue,
            "properties": message.properties,
            "redelivered": message.redelivered,
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

    def register(self, selector: selectors.BaseSelector) -> None:
        """Has its descriptors watched; each is registered with the function to call."""
        selector.register(self.socket, selectors.EVENT_READ, lambda: self._receive(selector))
        for lines in self._lines:
            register_lines(selector, lines)

    def exited(self, status: int) -> None:
        """Notes the wait status of the worker."""
        self.status = status

    def has_children(self) -> bool:
        """Whether the worker said that its job left children."""
        return bool((self._end or {}).get("children", True))

    def finish(self, selector: selectors.BaseSelector) -> Outcome:
        """Reads what is left of the job's output; returns the outcome."""
        self._receive(selector)
        for lines in self._lines:
            lines.drain()
        if self._end is not None:
            return Outcome(self._end["ended"], self._end["message"], self._end["traceback"])
        words = f"the worker {exit_words(os.waitstatus_to_exitcode(self.status or 0))}"
        tail = self._tail.text()
        return Outcome(FAILED, f"{words}: {tail}" if tail else words)

    def close(self, selector: selectors.BaseSelector) -> None:
        """Closes the descriptors; the worker ends by itself when it is idle."""
        forget(selector, self.socket.fileno())
        self.socket.close()
        for lines in self._lines:
            forget(selector, lines.fd)
            lines.close()

    def _receive(self, selector: selectors.BaseSelector) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while packet := self.socket.recv(PACKET, socket.MSG_DONTWAIT):
                answer = json.loads(packet)
                if "status" in answer:
                    for lines in self._lines:  # what was printed before it comes before it in the log
                        lines.read()
                    self._set_status(answer["status"], answer["message"])
                elif "ended" in answer:
                    self._end = answer
                else:
                    self.started = True
            # The worker closed its end; the keeper says how it ended. A child of it may still hold a copy.
            forget(selector, self.socket.fileno())

    def _on_line(self, line: str) -> None:
        self._sink(line)

    def _on_error_line(self, line: str) -> None:
        self._tail.add(line)
        self._sink(line)


def register_lines(selector: selectors.BaseSelector, lines: Lines) -> None:
    """Has a pipe read as it fills, until its end."""

    def read() -> None:
        if not lines.read() and not lines.open:
            forget(selector, lines.fd)

    selector.register(lines.fd, selectors.EVENT_READ, read)


def forget(selector: selectors.BaseSelector, fd: int) -> None:
    """Has a descriptor watched no more; it may have been forgotten before, at its end of file."""
    if fd in selector.get_map():
        selector.unregister(fd)


def exit_words(code: int) -> str:
    """Returns how a process ended, in words. Arguments: its exit status, or minus the signal's number."""
    if code >= 0:
        return f"exited with status {code} in the middle of the job"
    return f"was {signal_words(-code)}"


def signal_words(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = "a real-time signal"
    guess = ", perhaps out of memory" if number == signal.SIGKILL else ""
    return f"killed by signal {number} ({name}{guess})"


def command_words(code: int) -> str:
    """Returns the end of a shell command in words; see sh(1), "EXIT STATUS"."""
    if code < 0:
        return signal_words(-code)
    if code in SHELL_WORDS:
        return f"exit status {code} ({SHELL_WORDS[code]})"
    if code > 128 and code - 128 < signal.NSIG:
        return f"exit status {code} ({signal_words(code - 128)})"
    return f"exit status {code}"
