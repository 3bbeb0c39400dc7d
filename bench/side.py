"""What is measured: something that takes messages from queues and runs a job for each, as processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.place import BODY, BenchError, Place
from tests.support import processes

if TYPE_CHECKING:
    from typing_extensions import Self

PUBLISH_BOUND = 600.0  # seconds
STOP_BOUND = 20.0  # seconds from SIGTERM to SIGKILL
STEP = 0.02  # seconds between two looks at the files of the jobs
LOG_TAIL = 3000  # characters


class Side:
    """One of those that are measured; also a context manager, which ends it and removes its queues.

    Arguments:
        place: where it runs.
        queues: how many queues it works off, or which; those are not removed.
        body: the file that is the body of its messages.
    """

    name = ""
    publisher = "bench.code.publish"  # the module that publishes for it

    def __init__(self, place: Place, queues: int | Sequence[str] = 1, body: Path = BODY) -> None:
        self.place = place
        self.folder = place.new_folder()
        self.stamps_folder = self.folder / "stamps"
        self.stamps_folder.mkdir()
        self._own = [place.new_queue() for _ in range(queues)] if isinstance(queues, int) else []
        self.queues = self._own if isinstance(queues, int) else list(queues)
        self.environment = {
            "BENCH_URL": place.node.url, "BENCH_QUEUE": self.queues[0], "BENCH_BODY": str(body),
            "BENCH_STAMPS": str(self.stamps_folder),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._feeder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def command(self) -> list[str]:
        """What starts it, in the folder of the checkout."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The id of the process that was started."""
        assert self._process is not None
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The ids of all its processes."""
        return [self.pid, *processes.descendants(self.pid)]

    def publish(self, count: int) -> int:
        """Publishes so many messages; returns the monotonic clock's nanoseconds just before the last."""
        if self._feeder is None:
            self._feeder = self._start([sys.executable, "-m", self.publisher], "feeder.log", subprocess.PIPE)
        assert self._feeder.stdin is not None and self._feeder.stdout is not None
        self._feeder.stdin.write(b"%d\n" % count)
        self._feeder.stdin.flush()
        answer = self._feeder.stdout.readline()
        if not answer:
            raise BenchError(f"{self.name}: its publisher has ended:\n{self._tail('feeder.log')}")
        return int(answer)

    def fill(self, count: int) -> None:
        """Publishes so many messages before the start, and waits until all are in the queue."""
        self.publish(count)
        self._until(lambda: self.place.depth(self.queues[0]) >= count, PUBLISH_BOUND, f"{count} messages")

    def start(self) -> None:
        """Starts it; it works off what is there."""
        self._process = self._start(self.command, "log")

    def wait(self, count: int) -> None:
        """Waits until so many jobs have run, without a word to the broker. Errors: BenchError."""
        self._until(lambda: self.done >= count, 120.0 + 0.1 * count, f"{count} jobs")

    @property
    def done(self) -> int:
        """How many jobs have run."""
        return sum(path.stat().st_size for path in self.stamps_folder.iterdir()) // 8

    def stamps(self) -> list[float]:
        """Returns the monotonic clock's seconds of each job so far, in order."""
        found: list[float] = []
        for path in self.stamps_folder.iterdir():
            data = path.read_bytes()
            found += [int.from_bytes(data[at : at + 8], "little") / 1e9 for at in range(0, len(data), 8)]
        return sorted(found)

    def rate(self, count: int) -> float:
        """Returns jobs per second, from the first to the last of so many."""
        stamps = self.stamps()[:count]
        return (len(stamps) - 1) / (stamps[-1] - stamps[0])

    def stop(self) -> None:
        """Sends SIGTERM, if it runs, and waits for its end for at most 20 s."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_BOUND)
            except subprocess.TimeoutExpired:
                print(f"bench: {self.name} did not end within {STOP_BOUND:g} s: killed", file=sys.stderr)

    def close(self) -> None:
        """Ends all its processes, and removes its queues."""
        if self._feeder is not None:
            processes.end(self._feeder)
            for pipe in (self._feeder.stdin, self._feeder.stdout):
                if pipe is not None:
                    pipe.close()
        if self._process is not None:
            self.stop()
            processes.end(self._process)
        self._feeder = self._process = None
        self.place.delete(self._own)

    def _start(self, command: list[str], log: str, pipe: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as file:
            stdout = file.fileno() if pipe == subprocess.DEVNULL else pipe
            return self.place.start(command, self.environment, pipe, stdout, file.fileno())

    def _until(self, condition: Callable[[], bool], bound: float, what: str) -> None:
        deadline = time.monotonic() + bound
        while not condition():
            if self._process is not None and self._process.poll() and not condition():
                raise BenchError(f"{self.name} ended with {self._process.returncode}:\n{self._tail('log')}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name}: no {what} within {bound:.0f} s:\n{self._tail('log')}")
            time.sleep(STEP)

    def _tail(self, log: str) -> str:
        path = self.folder / log
        return path.read_text("utf-8", "replace")[-LOG_TAIL:] if os.path.exists(path) else ""
