"""The machine and the versions: figures without them say nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path

import rbit
from bench.place import ROOT, Place

PACKAGES = ("pika", "celery", "dramatiq")
PROGRAMS = {"amqp-consume"}


def described(place: Place, repeat: int, load: tuple[float, float, float]) -> str:
    """Returns a paragraph of reStructuredText.

    Arguments:
        place: where it was measured.
        repeat: how often.
        load: the load averages before it began.
    """
    processor = re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8", "replace"))
    memory = re.search(r"(?m)^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"))
    assert memory is not None
    commit = _said("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*")
    versions = [f"rbit {rbit.__version__}{f' of commit {commit}' if commit else ''}"]
    versions += [f"Python {platform.python_version()}", f"RabbitMQ {place.version}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _there(name)]
    versions += [f"amqp-tools {found}" for found in [_debian("amqp-tools")] if found]
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}; {processor[1] if processor else platform.machine()}, "
        f"{os.cpu_count()} cores, {int(memory[1]) / 2**20:.0f} GB; Linux {platform.release()}.\n"
        f"{textwrap.fill(', '.join(versions), 119)}.\n"
        f"{repeat} pairs a row, {place.jobs} jobs a run; load average {load[0]:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after it.\n"
    )


def missing(peers: Iterable[str]) -> str:
    """Returns which of these, by their names, are not installed, and what installs them; '' if all are."""
    names = {name.partition(",")[0].lower() for name in peers}
    absent = [name for name in PACKAGES if name in names and not _there(name)]
    absent += [name for name in sorted(names & PROGRAMS) if not shutil.which(name)]
    return f"not installed: {', '.join(absent)}; please run make peers first" if absent else ""


def _there(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def _debian(package: str) -> str:
    return _said("dpkg-query", "--show", "--showformat=${Version}", package)


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
