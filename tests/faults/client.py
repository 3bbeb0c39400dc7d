"""A client under test: the real command in a folder of its own, with a network of its own to the broker.

Its log goes on over its restarts. What is done to it is written down.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.faults import jobs
from tests.faults.record import Record
from tests.support.case import rbit_command, write_ini
from tests.support.processes import end_all, is_alive
from tests.support.proxy import Proxy
from tests.support.rbit_process import MARK
from tests.support.waiting import wait_until

# Seconds. It takes pika up to twice the heartbeat and five seconds to find a dead connection, 14 s here, and rbit
# up to 15 s more to connect while a network is silent: a shorter lease would promise what cannot be kept.
LEASE_TTL = 40.0
KEYS = {"polling_time": 0.5, "concurrency": 2, "lease_after": 0.5, "lease_ttl": LEASE_TTL, "lease_renew": 2}
STOP_BOUND = 60.0  # seconds from the first stop signal to the end of a client


class Client:
    """A client. Its methods may be called by any thread, but who does something to it holds ``lock``.

    Arguments:
        name: its name.
        record: where its runs and its faults are written down; it gets a folder below the record's.
        ports: of the broker's nodes.
        web: the URL of the stand-in for PyBit.
        quorum: whether its own queues are quorum queues.
        delivery: ``push`` or ``poll``.
    """

    def __init__(
        self, name: str, record: Record, ports: Sequence[int], web: str, quorum: bool, *, delivery: str
    ) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.folder = record.folder / name
        self.log_path = self.folder / "log"
        self.proxies = [Proxy(port) for port in ports]
        self._record = record
        self._mark = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self._sections: dict[str, Mapping[str, object]] = {}
        self._write(web, record.runs_path, quorum, delivery)

    def start(self) -> None:
        """Start it."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", MARK: self._mark}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*rbit_command(), "rbit.ini", "--debug"], cwd=self.folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        self._record.note("client started", client=self.name, pid=self._process.pid)

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process is not None
        self._record.note("client killed", client=self.name, pid=self._process.pid)
        self._process.kill()
        self._process.wait()

    def stop(self, twice: bool = False) -> int:
        """End it with SIGTERM, ``twice`` if its jobs are to be ended too; return its exit status.

        One that does not end within 60 s is killed, which the record says.
        """
        assert self._process is not None
        self._record.note("client stopped", client=self.name, twice=twice)
        self._process.send_signal(signal.SIGTERM)
        if twice:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_BOUND)
        except subprocess.TimeoutExpired:
            self._record.note("client did not stop", client=self.name)
            self.kill()
        self._record.note("client ended", client=self.name, status=self._process.returncode)
        return self._process.returncode

    def reload(self, whole: bool) -> None:
        """Have it read its configuration anew: the ``whole`` one, or one with one slot only and without a queue.

        One that has just been started is given time for that, as a service manager does.
        """
        assert self._process is not None
        less = {**self._sections, "rbit": {**self._sections["rbit"], "concurrency": 1}}
        del less[f"runner:{jobs.QUEUES[0]}"]
        new = self.folder / "rbit.ini.new"
        new.write_text(write_ini(self._sections if whole else less), encoding="utf-8")
        new.rename(self.folder / "rbit.ini")
        pid = self._process.pid
        wait_until(lambda: catches(pid, signal.SIGHUP), STOP_BOUND, f"{self.name} to be there")
        self._record.note("client reloads", client=self.name, whole=whole)
        self._process.send_signal(signal.SIGHUP)

    def revive(self) -> None:
        """Start it again when it ended by itself, which the record says."""
        if self._process is not None and self._process.poll() is not None:
            self._record.note("client ended by itself", client=self.name, status=self._process.returncode)
            self.start()

    def kill_worker(self, pid: int) -> bool:
        """Kill a process of one of its jobs with SIGKILL; False when it is none of its processes any more."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if self._process is not None and self._process.pid in [above.pid for above in process.parents()]:
                self._record.note("worker killed", client=self.name, pid=pid)
                process.kill()
                return True
        return False

    def close(self) -> list[int]:
        """End it if it runs, and its network; end its processes that are left, and return their ids."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        left = self._left_over()
        end_all([psutil.Process(pid) for pid in left if psutil.pid_exists(pid)])
        for proxy in self.proxies:
            proxy.close()
        return left

    def is_clean(self) -> bool:
        """Whether none of its processes is left."""
        return not self._left_over()

    def _left_over(self) -> list[int]:
        wanted = f"{MARK}={self._mark}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (process / "environ").read_bytes().split(b"\0") and is_alive(int(process.name)):
                    found.append(int(process.name))
        return found

    def _write(self, web: str, runs: Path, quorum: bool, delivery: str) -> None:
        self.folder.mkdir()
        hosts = ", ".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)
        amqp = {"host": hosts, "heartbeat": 2, "connect_timeout": 600}
        self._sections = {
            "rbit": {"name": self.name, "delivery": delivery, **KEYS},
            "amqp": {**amqp, "queue_type": "quorum" if quorum else "classic"},
            "pybit": {"url": web, "user": "admin", "password": "pass", "timeout": 2},
            **jobs.sections(self.name, runs),
        }
        for name, content in {"rbit.ini": write_ini(self._sections), **jobs.files(self.name, runs)}.items():
            (self.folder / name).write_text(content, encoding="utf-8")


def catches(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal."""
    with contextlib.suppress(OSError):
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text("utf-8"))
        return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)
    return False
