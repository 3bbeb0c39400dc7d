"""rbit's job."""

from __future__ import annotations

from bench.code.stamp import stamp


def noop(message: object, set_status: object, settings: object) -> None:
    """Does what each job does."""
    stamp()
