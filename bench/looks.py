"""What Linux says of processes: memory and CPU."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path


def pss(pids: Iterable[int]) -> float:
    """Returns the megabytes of memory of processes, each page shared among those that have it (PSS)."""
    return sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in pids) / 1024


def peak(pid: int) -> float:
    """Returns the most megabytes that a process has had in memory so far (VmHWM)."""
    return _kilobytes(pid, "status", "VmHWM") / 1024


def cpu(pids: Iterable[int]) -> float:
    """Returns the seconds that the threads of processes have run, as the scheduler counts them."""
    spent = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # it has ended
                spent += int(path.read_text("ascii").split()[0])
    return spent / 1e9


def kind(pid: int) -> str:
    """Returns what a process is: ``keeper`` or ``worker`` of rbit, else ``others``."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    found = re.search(r"from (?:rbit\.)?(keeper|worker) import", command)
    return found[1] if found else "others"


def _kilobytes(pid: int, file: str, key: str) -> int:
    found = re.search(rf"(?m)^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text("ascii"))
    assert found is not None
    return int(found[1])
