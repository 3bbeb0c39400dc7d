"""The job logs: a file for each run of a job, below the folder ``log_dir``.

A slot's thread writes them, so that a slow disk holds up its own job only; one thread more removes the old ones.
Nothing that goes wrong here reaches a job. Knows nothing of jobs but what it is told.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from rbit import folders
from rbit.clipped import Clipped
from rbit.output import indented, printable

FIRST = b"rbit job log\n"  # the first line of each; what does not begin with it is not rbit's, and is not removed
ENDING = ".log"
BATCH = 1 << 16  # bytes that wait to be written together
LONGEST_TEXT = 1 << 15  # characters of one entry; of a longer one the end is kept
LONGEST_HEAD = 1 << 16  # bytes
RETRY = 5.0  # seconds until a file that could not be written is tried again
SWEEP = 3600.0  # seconds
LONGEST_WHY = 200  # characters of a failure that is no OSError

log = logging.getLogger("rbit.joblog")


class JobLogs:
    """The job logs of a client.

    Arguments:
        root: the folder, which must be there; None: there are no such logs.
        megabytes: how long one may become, in millions of bytes.
        days: how old one may become; 0: as old as it likes.
    """

    def __init__(self, root: str | None, megabytes: int, days: int) -> None:
        self.root = root
        self.limit = megabytes * 1_000_000
        self._days = days
        self._lock = threading.Lock()
        self._troubles: set[str] = set()  # the folders of which was said that they cannot be written
        self._over = threading.Event()

    def start(self) -> None:
        """Has old logs removed, now and then."""
        if self.root is not None and self._days:
            threading.Thread(target=self._sweep, args=(self.root,), name="job logs", daemon=True).start()

    def stop(self) -> None:
        """Has old logs removed no more."""
        self._over.set()

    def open(self, queue: str, describe: Callable[[], tuple[str, str]]) -> JobLog:
        """Returns the log of a new run of a job; its file is made, if that can be.

        Arguments:
            queue: of the job, whatever is in its name.
            describe: returns the job's name, whatever is in it, and the text at the beginning.
        """
        return JobLog(self, folders.component(queue), describe)

    def failed(self, folder: str, error: Exception) -> None:
        """Says, once, that nothing can be written in a folder of a queue."""
        with self._lock:
            known = folder in self._troubles
            self._troubles.add(folder)
        if not known:
            log.warning("the job logs in %s/%s cannot be written: %s; jobs run on", self.root, folder, _why(error))

    def works(self, folder: str) -> None:
        """Says that a folder of a queue can be written again, if it could not."""
        with self._lock:
            known = folder in self._troubles
            self._troubles.discard(folder)
        if known:
            log.info("the job logs in %s/%s can be written again", self.root, folder)

    def _sweep(self, root: str) -> None:
        said = False
        while not self._over.is_set():
            try:
                count = folders.remove_old(root, self._days, ENDING, FIRST)
                said = False
                if count:
                    log.info("%d job logs of more than %d days are removed", count, self._days)
            except Exception as error:  # noqa: BLE001 - the next time may be better
                if not said:
                    log.warning("no old job logs can be removed from %s: %s", root, _why(error))
                said = True
            self._over.wait(SWEEP)


class JobLog:
    """The log of one run of a job. Used by one thread; its methods raise nothing. Arguments: see JobLogs.open."""

    def __init__(self, logs: JobLogs, folder: str, describe: Callable[[], tuple[str, str]]) -> None:
        self._logs = logs
        self._folder = folder
        self._file: Clipped | None = None
        self._waiting: list[bytes] = []
        self._size = 0  # bytes that wait
        self._lost = 0  # lines that could not be written
        self._failing = False  # whether the last try to write failed
        self._gone = False  # whether a file was removed under our hands
        self._again_at = 0.0  # time.monotonic() before which nothing is tried
        self._second = 0
        self._time = ""
        self._open = logs.root is not None
        if self._open:
            try:
                name, head = describe()
                self._name = folders.component(name)
                self._head = FIRST + head.encode("utf-8", "backslashreplace")[:LONGEST_HEAD] + b"\n\n"
            except Exception as error:  # noqa: BLE001 - nothing of a log may reach its job, here and below
                self._open = False
                logs.failed(folder, error)
        self._work(b"")

    def note(self, kind: str, text: str) -> None:
        """Adds an entry with the time.

        Arguments: one word that says what it is; a text without control characters, of one line or more.
        """
        if not self._open:
            return
        entry = f"{self._now()} {kind:<6} {indented(text[-LONGEST_TEXT:])}\n".encode("utf-8", "backslashreplace")
        self._waiting.append(entry)
        self._size += len(entry)
        if self._size >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        if self._waiting:
            entries, self._waiting, self._size = self._waiting, [], 0
            self._work(b"".join(entries))

    def close(self) -> None:
        """Writes what waits, and ends the log; what is added later is ignored."""
        self._again_at = 0.0
        self.flush()
        self._open = False
        try:
            self._leave()
        except Exception as error:  # noqa: BLE001 - some file systems say only now that the disk is full
            self._logs.failed(self._folder, error)

    def _work(self, data: bytes) -> None:
        """Writes entries, if that can be tried now; the lines of what is not written are counted."""
        if not self._open:
            return
        before = self._lost
        self._lost += data.count(b"\n")
        if time.monotonic() < self._again_at:
            return
        file = self._file
        try:
            self._write(data, before)
        except Exception as error:  # noqa: BLE001 - see above
            self._again_at = time.monotonic() + RETRY
            self._failing = True
            self._logs.failed(self._folder, error)
        else:
            # A file that was open all the time says nothing of whether another one can be made.
            if self._failing or self._file is not file:
                self._logs.works(self._folder)
            self._failing = False

    def _write(self, data: bytes, lost: int) -> None:
        if self._file is not None and not os.fstat(self._file.fd).st_nlink:
            self._leave()
            self._gone = True
        if self._file is None:
            assert self._logs.root is not None
            places = [self._folder, time.strftime("%Y-%m-%d")]
            fd = folders.create(self._logs.root, places, self._name, ENDING, self._head)
            self._file = Clipped(fd, len(self._head), self._logs.limit)
        if self._gone:
            self._file.write(f"{self._now()} rbit   what was written before was removed\n".encode())
            self._gone = False
        if lost:
            self._file.write(f"{self._now()} rbit   {lost} lines could not be written here\n".encode())
            self._lost -= lost
        try:
            self._file.write(data)
        finally:
            self._lost -= data.count(b"\n", 0, self._file.kept)

    def _leave(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._time}.{int((now - second) * 1000):03d}"


def _why(error: Exception) -> str:
    """Returns a failure in words; those of the system, if it has some."""
    said = error.strerror if isinstance(error, OSError) else None
    return said or printable(f"{type(error).__name__}: {error}", LONGEST_WHY)
