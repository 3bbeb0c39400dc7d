"""What the programs that publish have in common: the message, and the conversation with whoever started them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


def url() -> str:
    """Returns the broker's URL."""
    return os.environ["BENCH_URL"]


def queue() -> str:
    """Returns the name of the queue; of several, the first."""
    return os.environ["BENCH_QUEUE"]


def body() -> bytes:
    """Returns the body of each message."""
    return Path(os.environ["BENCH_BODY"]).read_bytes()


def serve(publish: Callable[[], int]) -> None:
    """Publishes as many messages as each line of standard input says, and answers with when the last one began.

    Arguments:
        publish: publishes one; returns the monotonic clock's nanoseconds just before.
    """
    for line in sys.stdin:
        began = 0
        for _ in range(int(line)):
            began = publish()
        print(began, flush=True)
