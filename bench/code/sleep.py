"""A job that takes a second and next to no CPU, as one that waits for others."""

from __future__ import annotations

import time

from bench.code.stamp import stamp


def sleep(message: object, set_status: object, settings: object) -> None:
    """Stamps its start, and waits."""
    stamp()
    time.sleep(1.0)
