"""What each job does, whoever runs it: it appends the time to a file of its process, at once or after a while."""

from __future__ import annotations

import os
import time

_file: int | None = None


def stamp() -> None:
    """Sleeps ``$BENCH_SLEEP`` seconds, if that is set; then appends the nanoseconds of the monotonic clock.

    They are 8 bytes, in a file of the process in the folder ``$BENCH_STAMPS``.
    """
    global _file  # noqa: PLW0603 - opened in the process that runs the jobs, which may be a fork
    if _file is None:
        path = os.path.join(os.environ["BENCH_STAMPS"], str(os.getpid()))
        _file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    if seconds := os.environ.get("BENCH_SLEEP"):
        time.sleep(float(seconds))
    os.write(_file, time.monotonic_ns().to_bytes(8, "little"))
