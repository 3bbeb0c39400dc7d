"""What the client wants of PyBit's web front-end; ``rbit.web`` is it."""

from __future__ import annotations

from typing import Protocol

from rbit.message import Answer, Entry


class Front(Protocol):
    """PyBit, for one thread. It may take its time, and does not raise."""

    def put(self, job: int, status: str) -> Answer: ...
    def last(self, job: int, timeout: float | None = None) -> tuple[Answer, Entry | None]: ...
    def register(self) -> bool: ...
