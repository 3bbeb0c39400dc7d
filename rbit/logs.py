"""The log on standard output, written in a thread of its own.

So nobody waits for a reader that has stopped: not the main thread, which has heartbeats to serve, nor for
long the jobs. Knows nothing of rbit.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import sys
import threading
import time
from collections import deque
from typing import Any, TextIO

LIMIT = 1 << 23  # bytes that wait at most; the half of them for other threads than the main one
GATHERING = 0.02  # seconds between two writes at least, for lines to be written together
BATCH = 1 << 16  # bytes written at once
PATIENCE = 5.0  # seconds without progress after which a reader counts as stopped
LAST_WAIT = 10.0  # seconds that an exit waits for the rest to be written


def with_fields() -> None:
    """Gives each record of the log, from now on, what its arguments have to say as attributes.

    Of an argument with ``log_fields``, a dictionary, each entry but None becomes an attribute of the record, so
    any formatter can show it. ``extra`` does the same for one call.
    """
    make = logging.getLogRecordFactory()

    def factory(*arguments: Any, **more: Any) -> logging.LogRecord:
        record = make(*arguments, **more)
        for argument in record.args if isinstance(record.args, tuple) else ():
            fields = getattr(argument, "log_fields", None)
            if fields is not None:
                record.__dict__.update((name, value) for name, value in fields.items() if value is not None)
                break
        return record

    logging.setLogRecordFactory(factory)


class Output(logging.Handler):
    """Writes the log to a stream's descriptor; jobs go on whatever becomes of it.

    Threads that log faster than the reader reads wait for it, but the main thread never does. Lines for
    which there is no room then are dropped and counted, and the log says so when it goes on. What cannot
    be written (a closed pipe, a full disk) is said once on standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._fd = stream.fileno()
        self._encoding = stream.encoding
        self._change = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._size = 0  # bytes in the lines, and in what is being written
        self._lost = 0
        self._moved = 0.0  # time.monotonic() when something was last begun or written
        self._said = False
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def handle(self, record: logging.LogRecord) -> bool:
        """Takes a record; without the lock of handlers, or the main thread would wait for one that waits."""
        passed = bool(self.filter(record))
        if passed:
            self.emit(record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Has a record written."""
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - what is logged may be anybody's; logging's own way to deal with it
            self.handleError(record)
            return
        main = threading.current_thread() is threading.main_thread()
        with self._change:
            limit = LIMIT if main else LIMIT // 2
            while not main and self._size >= limit and self._wait(self._moved + PATIENCE):
                pass
            if self._size >= limit:
                self._lost += 1
            else:
                self._put(line)

    def flush(self) -> None:
        """Waits until all is written, or the reader has stopped; not longer than ``LAST_WAIT``."""
        until = time.monotonic() + LAST_WAIT
        with self._change:
            while self._size and self._wait(min(until, self._moved + PATIENCE)):
                pass

    def _line(self, record: logging.LogRecord) -> bytes:
        # A locale may not be able to say all that a job prints.
        return f"{self.format(record)}\n".encode(self._encoding, "backslashreplace")

    def _put(self, line: bytes) -> None:
        self._moved = self._moved if self._size else time.monotonic()
        self._lines.append(line)
        self._size += len(line)
        self._change.notify_all()

    def _wait(self, until: float) -> bool:
        """Waits for a change; returns False when it is too late for that."""
        left = until - time.monotonic()
        return left > 0 and self._change.wait(left)

    def _run(self) -> None:
        written_at = -math.inf  # time.monotonic()
        while True:
            with self._change:
                while not self._lines:
                    self._change.wait()
            if len(self._lines) < BATCH // 1024 and time.monotonic() < written_at + GATHERING:  # more comes soon
                time.sleep(GATHERING)
            with self._change:
                batch = [self._lines.popleft()]
                while self._lines and len(batch) < BATCH // 1024:
                    batch.append(self._lines.popleft())
            data = b"".join(batch)
            try:
                self._write(data)
            except OSError as error:
                self._say(error)
            with self._change:
                self._size -= len(data)
                self._moved = written_at = time.monotonic()
                if self._lost:
                    text = f"{self._lost} lines of the log are lost: nobody read it"
                    self._lost = 0
                    self._put(self._line(logging.LogRecord("rbit", logging.WARNING, "", 0, text, None, None)))
                self._change.notify_all()

    def _write(self, data: bytes) -> None:
        """Writes past Python's buffer, whose lock a thread that is stuck would hold at the exit."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
                self._moved = time.monotonic()
            except BlockingIOError:  # somebody else has made the descriptor so
                select.select([], [self._fd], [])

    def _say(self, error: OSError) -> None:
        if not self._said:
            self._said = True
            with contextlib.suppress(OSError, ValueError):
                print(f"rbit: the log cannot be written: {error}", file=sys.stderr)
