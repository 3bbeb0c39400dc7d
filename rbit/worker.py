"""Runs ``python!`` jobs, one after the other: the program of a worker process.

Started by exec (see ``rbit.start``) below the keeper of its slot, never forked from the client.
It imports job code and knows nothing of the broker. It talks over the seqpacket socket on descriptor 3:
the client sends a job (a pickle; a large one as a file in memory), the worker answers with
JSON objects: ``{"status": ..., "message": ...}`` any number of times, and
``{"ended": STATUS, "message": ..., "traceback": ..., "children": BOOL}``. Before a job's code runs it puts
the job's number into a file in memory, descriptor 4 at its start: there the client looks when the worker has died.

It is started with SIGINT blocked and lets it in when it is ready. While a job runs, SIGINT is a KeyboardInterrupt
in its code, as at Ctrl+C; at any other moment it is only noted, and the worker ends when it can.

With the arguments ``--check TARGET`` it imports a job's callable and says on standard error, in one
line, why it cannot be used, or called.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from rbit import finder
from rbit.errors import JobEnded, RbitError
from rbit.message import DONE, FAILED, FINAL, Message
from rbit.surroundings import Surroundings, get_handler, set_handler

# Of code objects, see "inspect": CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR.
LAZY = 0x20 | 0x80 | 0x200
CHANNEL = 3  # the descriptor of the socket to the client
BEGUN = 4  # that of the file with the number of the job that was begun last
NUMBER = 8  # bytes of a job's number
PACKET = 1 << 16  # bytes; no job's packet is longer
# An answer must fit the socket's send buffer (212,992 bytes), and JSON may spell a byte with six.
LONGEST_MESSAGE = 1 << 14  # bytes of a status message; the rest is cut
LONGEST_TRACEBACK = 1 << 14  # bytes, counted from the end

to_json = json.JSONEncoder(ensure_ascii=False).encode


class TargetError(RbitError):
    """Raised when a job's callable cannot be loaded; the message says why."""


def load(target: str) -> Callable[..., Any]:
    """Returns the callable that ``package.module:name`` names. Errors: TargetError."""
    module_name, _, name = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except BaseException as error:  # the module is job code: it may raise or exit as it likes
        missing = isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]
        where = f" in {os.getcwd()} or among what is installed" if missing else ""
        if isinstance(error, SyntaxError) and error.filename:
            where = f" ({error.filename}, line {error.lineno})"
        raise TargetError(f"cannot import {target}: {last_line(error)}{where}") from error
    if not callable(found):
        raise TargetError(f"{target} is not callable, it is of type {type(found).__name__}")
    if getattr(getattr(found, "__code__", None), "co_flags", 0) & LAZY:
        raise TargetError(f"{target} is async or has a yield: its call would run nothing; name a plain function")
    return found  # type: ignore[no-any-return]


def check(target: str) -> None:
    """Loads a job's callable and asks whether it takes what a job gives it. Errors: TargetError."""
    found = load(target)
    try:
        from inspect import signature  # noqa: PLC0415 - a worker that runs jobs is smaller without it

        taken = signature(found, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - not everything has one, and an object of job code may raise anything
        return
    try:
        taken.bind(None, None, None)
    except TypeError as error:
        raise TargetError(f"{target} is called with message, set_status, settings: {error}") from error


def last_line(error: BaseException) -> str:
    """Returns an exception as the last line of its traceback would show it."""
    return traceback.format_exception_only(type(error), error)[-1].strip()


def shown(value: object) -> str:
    """Returns ``str(value)``, cut to what a status message may hold; never raises."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - a job's own object, which may raise anything
        text = f"<{type(value).__name__}: {type(error).__name__} in its __str__>"
    cut = text.encode("utf-8", "backslashreplace")[:LONGEST_MESSAGE]
    return cut.decode("utf-8", "ignore")


class Reports:
    """What one job says of itself. ``set_status`` is what the job gets; any thread of it may call it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self.open = True
        self.final: str | None = None
        self.final_message = ""

    def set_status(self, status: object, message: object = "") -> None:
        """Reports a status.

        Arguments:
            status: one of Waiting, Building, Done, Uploaded, Failed, Blocked, Cancelled; another name is
                passed on with a warning.
            message: any object, shown by ``str()``.

        Errors: ValueError for an empty status. It never raises because a front-end is down.
        """
        name = shown(status).strip()
        if not name:
            raise ValueError("set_status needs the name of a status, got an empty one")
        text = shown(message)
        with self._lock:
            if not self.open:
                print(f"set_status({name!r}) after the end of its job: ignored", file=sys.stderr)
                return
            if name in FINAL:
                self.final, self.final_message = name, text
            self.send({"status": name, "message": text})

    def send(self, answer: dict[str, Any]) -> None:
        # The client may be gone; then the keeper ends this process in a moment.
        with contextlib.suppress(OSError):
            self._channel.send(to_json(answer).encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """From here on the job is over and its statuses do not count."""
        with self._lock:
            self.open = False


class Worker:
    """The loop of a worker process. Arguments: the socket to the client; where the number of a job goes."""

    def __init__(self, channel: socket.socket, begun: mmap.mmap) -> None:
        self.channel = channel
        self.begun = begun
        self.pid = os.getpid()
        self.interrupted = False  # whether a SIGINT came while no job's code ran
        self.on_interrupt: Any = signal.default_int_handler  # while a job runs; its module may have set another
        signal.signal(signal.SIGINT, self.note_interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        self.surroundings = Surroundings()  # with SIGINT unblocked

    def note_interrupt(self, *_: object) -> None:
        """Is called for a SIGINT while no job's code runs: there is nothing that it could interrupt."""
        self.interrupted = True

    def run(self) -> None:
        """Runs jobs until the client closes the socket; ends the process when a job has spoilt it for others."""
        while (job := receive(self.channel)) and not self.interrupted:
            reports = Reports(self.channel)
            self.begun[:NUMBER] = job["number"]
            end = self.work(job, reports)
            if os.getpid() != self.pid:
                os._exit(0)  # a fork of the job came back here; only the worker itself may go on
            clean = self.tidy()
            reports.close()
            end["children"] = has_children()
            # Children will be ended, and what a module knows of them (a pool, a server) is no use any more.
            if not clean or end["children"] or job["last"] or self.interrupted:
                end["last"] = True
            reports.send(end)
            if "last" in end:
                os._exit(0)  # threads that the job has left would hold up an orderly end
            del job  # or its body, which may be large, would stay until the next job

    def work(self, job: dict[str, Any], reports: Reports) -> dict[str, Any]:
        """Runs a job with SIGINT let through to its code; returns the answer for the client."""
        end = {"ended": FAILED, "message": "interrupted", "traceback": ""}
        try:
            set_handler(signal.SIGINT, self.on_interrupt)
            if not self.interrupted:  # asked here: from now on a SIGINT is raised and not noted
                end = self.call(job, reports)
            set_handler(signal.SIGINT, self.note_interrupt)
        except BaseException:  # noqa: BLE001 - a SIGINT just before or after the job's own code; it comes once
            set_handler(signal.SIGINT, self.note_interrupt)
            self.interrupted = True
        return end

    def call(self, job: dict[str, Any], reports: Reports) -> dict[str, Any]:
        """Calls the job's function; returns the answer for the client."""
        trace = ""
        try:
            modules = len(sys.modules)
            call = load(job["target"])
            if len(sys.modules) != modules:  # what a module sets on its import stays, like its globals
                self.on_interrupt = get_handler(signal.SIGINT) or signal.default_int_handler
                self.surroundings = Surroundings()
            self.surroundings.begin()
            call(job["message"], reports.set_status, job["settings"])
            status, why = reports.final or DONE, reports.final_message
        except JobEnded as end:
            status, why = end.status, shown(end)
        except TargetError as error:
            status, why, trace = FAILED, str(error), self.trace(error.__cause__ or error)
        except BaseException as error:  # noqa: BLE001 - job code: it ends that job, not the worker
            status, why, trace = FAILED, last_line(error), self.trace(error)
        return {"ended": status, "message": shown(why), "traceback": trace}

    @staticmethod
    def trace(error: BaseException) -> str:
        """Returns the traceback of an exception; of a long one the end."""
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return text.encode("utf-8", "backslashreplace")[-LONGEST_TRACEBACK:].decode("utf-8", "ignore")

    def tidy(self) -> bool:
        """Undoes what a job may leave behind in this process; returns False when that is not possible."""
        try:
            return self.surroundings.restore()
        except BaseException:  # noqa: BLE001 - a signal handler of the job may still run here
            return False


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """Waits for the next job; returns None when the client has closed the socket."""
    try:
        packet, descriptors, _, _ = socket.recv_fds(channel, PACKET, 1)
    except ConnectionError:
        return None
    if not packet:
        return None
    # What comes from the client is trusted. Large: a file with the pickle, of so many bytes, and the body.
    if descriptors:
        with open(descriptors[0], "rb") as file:
            job: dict[str, Any] = pickle.loads(file.read(int(packet)))
            job["body"] = job["body"] or file.read()
    else:
        job = pickle.loads(packet)
    job["message"] = Message(
        body=job.pop("body"),
        queue=job["queue"],
        properties=job["properties"],
        redelivered=job["redelivered"],
    )
    return job


def has_children() -> bool:
    """Whether this process has children, dead or alive."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def main() -> int:
    """Runs the worker, or the check of one target."""
    finder.provide_pybit_models()  # loads what a module of the user's may have the name of
    try:
        sys.path.insert(0, os.getcwd())
    except OSError as error:
        print(f"the folder in which rbit was started cannot be used: {error.strerror}", file=sys.stderr)
        return 1
    if sys.argv[1:2] == ["--check"]:
        try:
            check(sys.argv[2])
        except TargetError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    os.set_inheritable(CHANNEL, False)
    begun = mmap.mmap(BEGUN, NUMBER)
    os.close(BEGUN)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    Worker(socket.socket(fileno=CHANNEL), begun).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
