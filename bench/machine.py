"""The machine and the versions: figures without them say nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path

import rbit
from bench.place import JOBS, Place

PACKAGES = ("pika", "celery", "dramatiq")


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
    versions = [f"rbit {rbit.__version__}", f"Python {platform.python_version()}", f"RabbitMQ {place.version}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _there(name)]
    versions += [f"amqp-tools {found}" for found in [_debian("amqp-tools")] if found]
    scaled = f" All numbers in the names of the rows are to be taken times {place.jobs / JOBS:g}, but that of MB."
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}; {processor[1] if processor else platform.machine()}, "
        f"{os.cpu_count()} cores, {int(memory[1]) / 2**20:.0f} GB; Linux {platform.release()}.\n"
        f"{', '.join(versions)}.\n"
        f"{repeat} pairs a row, {place.jobs} jobs a run; load average {load[0]:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after it.{scaled if place.jobs != JOBS else ''}\n"
    )


def _there(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def _debian(package: str) -> str:
    try:
        command = ["dpkg-query", "--show", "--showformat=${Version}", package]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
