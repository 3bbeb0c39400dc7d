"""How long one poll of many empty queues takes: ``python -m bench.code.polls rbit INI`` or ``... bare QUEUE...``.

Says on standard error the seconds from before the first basic_get of a poll to the answer to its last one: the
median of some polls after a first one, which does not count. Of rbit it is the real loop, the whole client from
an INI file, with a clock around the one call that asks a queue for a message.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import pika

from bench.code import feeding
from rbit import cli
from rbit.broker import Delivery
from rbit.sources import Sources

ASK = Sources.get
POLLS = 5  # after the first


def say(seconds: list[float]) -> None:
    """Says the median of what some polls took."""
    print(statistics.median(seconds), file=sys.stderr)


def rbit(ini: str) -> None:
    """Runs rbit for some polls."""
    times: list[tuple[float, float]] = []

    def timed(self: Sources, name: str, *more: Any) -> Delivery | None:
        count = len(self._names)
        began = time.monotonic()
        try:
            return ASK(self, name, *more)
        finally:
            times.append((began, time.monotonic()))
            if len(times) == (1 + POLLS) * count:
                say([times[at + count - 1][1] - times[at][0] for at in range(count, len(times), count)])
                os.kill(os.getpid(), signal.SIGTERM)

    Sources.get = timed  # type: ignore[method-assign, assignment]
    sys.exit(cli.main([ini]))


def bare(queues: Sequence[str]) -> None:
    """Asks queues one after the other, on one channel."""
    connection = pika.BlockingConnection(pika.URLParameters(feeding.url()))
    channel = connection.channel()
    taken = []
    for _ in range(1 + POLLS):
        began = time.monotonic()
        for queue in queues:
            channel.basic_get(queue)
        taken.append(time.monotonic() - began)
    say(taken[1:])
    connection.close()


if __name__ == "__main__":
    if sys.argv[1] == "rbit":
        rbit(sys.argv[2])
    else:
        bare(sys.argv[2:])
