"""The real ``rbit`` command as a child of a test: started, watched, signalled and always ended.

It knows nothing of the broker. It runs in the process that tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar

import psutil

from tests.support.processes import end_all, is_alive
from tests.support.waiting import wait_until

MARK = "TEST_RBIT_MARK"  # in the environment of rbit, and so of everything that it starts


def rbit_command(name: str = "rbit") -> list[str]:
    """Return the ``rbit`` command of the running Python's environment.

    Arguments:
        name: of the command.

    Errors:
        FileNotFoundError: rbit is not installed there.
    """
    command = Path(sys.executable).with_name(name)
    if not command.exists():
        raise FileNotFoundError(f"{command} is missing; {sys.executable} -m pip install -e . installs it")
    return [str(command)]


def submit_command() -> list[str]:
    """Return the ``rbit-submit`` command, as ``rbit_command`` does."""
    return rbit_command("rbit-submit")


class RbitProcess:
    """One run of the command, in a temporary folder of its own; it starts at once.

    Arguments:
        ini: the text of ``rbit.ini`` in the folder, which is then the first argument; None for no such file.
        arguments: further arguments.
        files: other files to put into the folder beforehand, their text by name.
        environment: variables added to the test's own.
        command: what to run instead of the installed ``rbit``.
    """

    patience: ClassVar[tuple[float, float]] = (5.0, 20.0)  # seconds after the first and the second SIGTERM

    def __init__(
        self,
        ini: str | None,
        *arguments: str,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        whole = list(command) or rbit_command()
        self.folder = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        written = dict(files or {})
        if ini is not None:
            written["rbit.ini"] = ini
            whole.append("rbit.ini")
        for name, text in written.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text, encoding="utf-8")
            if name in ("rbit.ini", "amqp_password"):  # or it would warn of passwords
                (self.folder / name).chmod(0o600)
        self._mark = secrets.token_hex(8)
        self.lines: list[str] = []  # of both streams, as they came
        self.stdout_lines: list[str] = []
        self.stderr_lines: list[str] = []
        self._process = subprocess.Popen(
            [*whole, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8", errors="replace", start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), MARK: self._mark},
        )
        self._readers = [
            self._read(self._process.stdout, self.stdout_lines),
            self._read(self._process.stderr, self.stderr_lines),
        ]

    @property
    def pid(self) -> int:
        """The id of the rbit process."""
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything that it wrote so far, as one text."""
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, bound: float = 30.0) -> str:
        """Wait for a line of either stream in which a regular expression is found, and return it.

        Lines that came before the call count too.

        Arguments:
            pattern: for ``re.search``.
            bound: seconds.

        Errors:
            AssertionError: no such line within the bound, or rbit ended without one.
        """
        found: list[str] = []

        def seen() -> bool:
            # Asked before the look at the lines: what an ended rbit wrote has all been read.
            over = self._process.poll() is not None and not any(reader.is_alive() for reader in self._readers)
            found.extend(line for line in list(self.lines) if re.search(pattern, line))
            return bool(found) or over

        wait_until(seen, bound, self._telling(f"a line like {pattern!r}"))
        if not found:
            how = f"rbit ended with {self._process.returncode} without a line like {pattern!r}"
            raise AssertionError(f"{how}:\n{self.output}")
        return found[0]

    def signal(self, number: int) -> None:
        """Send a signal to rbit alone; harmless when it has ended."""
        self._process.send_signal(number)

    def wait(self, bound: float = 30.0) -> int:
        """Wait for the end of rbit and its output, and return the exit status; -N for a signal N.

        Errors:
            AssertionError: it still runs after so many seconds.
        """
        wait_until(lambda: self._process.poll() is not None, bound, self._telling("the end of rbit"))
        self._join_readers()
        return self._process.returncode

    def stop(self) -> int:
        """Stop rbit: SIGTERM, again after 5 s, SIGKILL after 20 s more; return the exit status."""
        self._end()
        return self.wait()

    def _end(self) -> None:
        for bound in self.patience:
            if self._process.poll() is None:
                self.signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(bound)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def left_over(self) -> list[int]:
        """Return the ids of living processes that this rbit started, directly or not, also orphans."""
        wanted = f"{MARK}={self._mark}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return [pid for pid in found if pid != self.pid and is_alive(pid)]

    def close(self, bound: float = 15.0) -> list[str]:
        """Stop rbit, end what it left behind, remove the folder; return what was left, in words.

        Arguments:
            bound: seconds that its processes may take to end by themselves after it.
        """
        self._end()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.left_over(), bound)
        remains = []
        for pid in self.left_over():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                remains.append(f"{pid} {' '.join(process.cmdline())}")
                end_all([process])
        self._join_readers()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return remains

    def _join_readers(self) -> None:
        # Not for ever: something that outlives rbit may hold the pipes.
        deadline = time.monotonic() + 2.0
        for reader in self._readers:
            reader.join(max(0.0, deadline - time.monotonic()))

    def _telling(self, what: str) -> Callable[[], str]:
        return lambda: f"{what}; rbit wrote:\n{self.output}"

    def _read(self, stream: IO[str] | None, lines: list[str]) -> threading.Thread:
        def collect() -> None:
            for line in stream or ():
                lines.append(line.rstrip("\n"))
                self.lines.append(lines[-1])

        reader = threading.Thread(target=collect, daemon=True)
        reader.start()
        return reader
