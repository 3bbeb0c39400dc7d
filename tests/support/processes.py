"""Processes and ports on this machine: who is alive, who descends from whom, and how they are ended.

It knows nothing of RabbitMQ and nothing of rbit. Imported, it runs in the process that tests; run as a
program it is the guard: it reads process ids from standard input, and when that ends, because the process
at the other end did, it ends what is left of them and removes the folder that it was given.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

PORTS = range(10240, 32768)  # below the ports that Linux gives to outgoing connections


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on now.

    Another process may take it before it is used: whoever uses it must be ready to ask again.
    """
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def descendants(pid: int) -> list[int]:
    """Return the ids of all living descendants of a process; none when it is gone itself."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child.pid for child in children if is_alive(child.pid)]


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill a child with all its descendants, and reap it; harmless when it has ended."""
    if child.poll() is None:
        end_all([psutil.Process(child.pid)])
    child.wait()


def end_all(roots: list[psutil.Process]) -> None:
    """Kill processes with all their descendants, and wait at most 10 s until they are gone."""
    family = list(roots)
    for process in roots:
        # Noted before the kill: an orphan has another parent.
        with contextlib.suppress(psutil.NoSuchProcess):
            family += process.children(recursive=True)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    # Zombies count as gone: orphans wait for init to reap them, and that may take it seconds.
    deadline = time.monotonic() + 10.0
    while any(is_alive(process.pid) for process in family) and time.monotonic() < deadline:
        time.sleep(0.01)


def start_guard(folder: Path) -> subprocess.Popen[bytes]:
    """Start the guard: it reads ids from its standard input, one a line, and cleans up when that is closed.

    Arguments:
        folder: what it removes in the end.
    """
    # It finds psutil where this process did; its current folder is none that may have to be removed.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    command = [sys.executable, __file__, str(folder)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, bufsize=0, start_new_session=True, cwd="/"
    )


def _keep_guard(folder: str) -> None:
    watched = []
    for line in sys.stdin:
        with contextlib.suppress(psutil.NoSuchProcess):
            watched.append(psutil.Process(int(line)))
    end_all(watched)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _keep_guard(sys.argv[1])
