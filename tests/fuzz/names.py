"""Names of files that strangers choose, in real folders with links that lead out of them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rbit import folders
from rbit.joblog import ENDING, FIRST, JobLogs
from tests.fuzz.target import Target
from tests.fuzz.texts import texts

DAY = "2020-01-01"  # long ago
names = st.one_of(texts, st.sampled_from(["outside", DAY, "q", "message-1.log", "_..", "job-1"]))
KINDS = (
    "nothing", "folder", "file", "link to outside", "link to a file", "link to nothing", "link to itself", "fifo",
)


def check_component(pair: tuple[str, str]) -> None:
    """A name becomes that of one file, always the same, and two names hardly ever become one."""
    made = [folders.component(name) for name in pair]
    for name, part in zip(pair, made, strict=True):
        assert part and not set(part) & set("/\0") and part not in (".", ".."), part
        assert part[0] not in ".-" and part.isprintable() and len(part.encode()) <= folders.LONGEST, part
        assert folders.component(name) == part
        assert folders.component(part) == part
    assert (made[0] == made[1]) == (pair[0] == pair[1]), made


def _put(path: Path, kind: str, outside: Path) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is there, or cannot be called so
        if kind == "folder":
            path.mkdir()
        elif kind == "file":
            path.write_bytes(FIRST + b"old")
            os.utime(path, (0, 0))
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind.startswith("link"):
            ends = {"link to outside": outside, "link to a file": outside / "file.log", "link to itself": path}
            path.symlink_to(ends.get(kind, outside / "not there"))


def _all(folder: Path) -> dict[str, Any]:
    """Return what is in a folder: all paths below it, with their contents."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        mode = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[str(path.relative_to(folder))] = (mode.st_mode, mode.st_nlink, mode.st_mtime_ns, content)
    return found


def check_folders(case: tuple[str, str, list[tuple[str, str, str, str]]]) -> None:
    """Logs go below the root or nowhere; of what was there only old logs of rbit's are removed."""
    queue, name, others = case
    with tempfile.TemporaryDirectory(prefix="rbit-fuzz-") as made:
        root, outside = Path(made) / "root", Path(made) / "outside"
        (outside / DAY).mkdir(parents=True)
        root.mkdir()
        for path in (outside / "file.log", outside / DAY / "old.log"):
            path.write_bytes(FIRST + b"not ours")
            os.utime(path, (0, 0))
        today = time.strftime("%Y-%m-%d")
        for folder, at, kind, file in others:
            part = root / folders.component(folder)
            _put(part, at, outside)
            for day in (DAY, today):
                _put(part / day, kind, outside)
                # Not as rbit names them: what else is there, or what another program has put there.
                _put(part / day / f"{folders.component(file)}.log", KINDS[len(file) % len(KINDS)], outside)
        before, around = _all(root), _all(outside)
        log = JobLogs(str(root), 1, 1).open(queue, lambda: (name, "head"))
        log.note("stdout", "a line")
        log.close()
        assert _all(outside) == around, "written outside"
        after = _all(root)
        changed = [path for path in before if before[path][3] != after.get(path, (0, 0, 0, None))[3]]
        assert not changed, changed
        new = [path for path in after if path not in before and after[path][3] is not None]
        assert len(new) <= 1 and all(path.split("/")[0] == folders.component(queue) for path in new), new
        if not others:
            assert len(new) == 1
        with contextlib.suppress(OSError):
            folders.remove_old(str(root), 1, ENDING, FIRST)
        assert _all(outside) == around, "removed outside"
        gone = [path for path in after if path not in _all(root)]
        assert all(f"/{DAY}" in path for path in gone), gone


places = st.tuples(names, st.sampled_from(KINDS), st.sampled_from(KINDS), names)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[str, str, list[tuple[str, str, str, str]]]:
    queue, name = draw(names), draw(names)
    others = draw(st.lists(places, max_size=3))
    if draw(st.booleans()):  # what is in the way
        others.append((queue, draw(st.sampled_from(KINDS)), draw(st.sampled_from(KINDS)), name))
    return queue, name, others


TARGETS = [
    Target("names of files", st.tuples(texts, texts), check_component, 180),
    Target("folders of job logs", _cases(), check_folders, 40),
]
