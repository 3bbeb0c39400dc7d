"""Runs ``python -m unittest discover`` in parts side by side: the tests wait more than they work.

Each part is a process with a RabbitMQ node of its own. What a part printed is shown when it has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

AT_ONCE = 8  # parts
# The longest first: one to two and a half minutes.
LETTERS = (
    "b", "rec", "pu[bm]", "pus", "p[!u]", "fa[!u]", "submit[._][!fr]", "submit_[fr]", "[ehk]", "me", "[jm]o",
    "su[!b]", "l[aei]", "lo", "s[ht]", "faults.py", "[ad]", "[cf][!ao]", "[stw][!htu]", "tu", "faults_",
    "r[ei][apg]", "rel", "c[ao]n", "[cg][ao][mt]",
)
PARTS = tuple(f"test_{letters}*" for letters in LETTERS)

Part = tuple[str, BinaryIO, "subprocess.Popen[bytes]"]


def start(part: str, folder: Path) -> Part:
    """Start the tests whose files have names like ``part``; return it with its output and its process."""
    output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the part
    command = [sys.executable, "-m", "unittest", "discover", "-v", "-c", "-p", part]
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )
    return part, output, process


def main() -> int:
    """Run all parts; return 0 if every test passed."""
    here = Path(__file__).parent
    files = {path.name for path in here.glob("test_*.py")}
    covered = [path.name for part in PARTS for path in here.glob(part)]
    if sorted(covered) != sorted(files):
        print(f"the parts do not cover each file once: {sorted(files ^ set(covered))}", file=sys.stderr)
        return 1
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # many hundred processes of rbit are about to start
    began = time.monotonic()
    waiting = list(PARTS)
    processes: list[Part] = []
    failed = []
    try:
        while waiting or processes:
            while waiting and len(processes) < AT_ONCE:
                processes.append(start(waiting.pop(0), here.parent))
            time.sleep(0.2)
            for part, output, process in [entry for entry in processes if entry[2].poll() is not None]:
                processes.remove((part, output, process))
                output.seek(0)
                sys.stdout.write(output.read().decode("utf-8", "replace"))
                taken = time.monotonic() - began
                print(f"{part}: ended with {process.returncode} after {taken:.0f} s", flush=True)
                failed += [part] if process.returncode else []
    finally:
        for _, _, process in processes:  # each ends the test that it is in, and what that has started
            process.send_signal(signal.SIGINT)
            process.wait()
    print(f"failed: {', '.join(failed)}" if failed else "all parts passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
