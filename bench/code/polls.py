"""How long one poll of many empty queues takes: ``python -m bench.code.polls rbit INI`` or ``... bare QUEUE...``.

Says on standard error the seconds from before the first basic_get of a poll to the answer to its last one. Of
rbit it is the second poll of its real loop, the whole client from an INI file, with a clock around the one call
that asks a queue for a message.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

import pika

from bench.code import feeding
from rbit import cli
from rbit.broker import Delivery
from rbit.sources import Sources

ASK = Sources.get


def rbit(ini: str, polls: int = 2) -> None:
    """Runs rbit for so many polls, and says how long the last one took."""
    times: list[tuple[float, float]] = []

    def timed(self: Sources, name: str, *more: int) -> Delivery | None:
        count = len(self._names)
        began = time.monotonic()
        try:
            return ASK(self, name, *more)
        finally:
            times.append((began, time.monotonic()))
            if len(times) == polls * count:
                print(times[-1][1] - times[-count][0], file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)

    Sources.get = timed  # type: ignore[method-assign, assignment]
    sys.exit(cli.main([ini]))


def bare(queues: Sequence[str], polls: int = 2) -> None:
    """Asks queues one after the other, on one channel; says how long the last poll took."""
    connection = pika.BlockingConnection(pika.URLParameters(feeding.url()))
    channel = connection.channel()
    taken = 0.0
    for _ in range(polls):
        began = time.monotonic()
        for queue in queues:
            channel.basic_get(queue)
        taken = time.monotonic() - began
    print(taken, file=sys.stderr)
    connection.close()


if __name__ == "__main__":
    if sys.argv[1] == "rbit":
        rbit(sys.argv[2])
    else:
        bare(sys.argv[2:])
