"""How long one poll of many empty queues takes: ``python -m bench.code.polls rbit INI`` or ``... bare COUNT``.

Says on standard error the seconds from before the first basic_get of a poll to the answer to its last one. rbit's is the second poll
of its real loop, the whole client from an INI file, with a clock around the one call that asks a queue for a message.
The queues are those of the INI file, or $BENCH_QUEUE followed by a number.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import pika

from bench.code import feeding
from rbit import cli
from rbit.broker import Delivery
from rbit.sources import Sources

ASK = Sources.get


def rbit(ini: str, polls: int = 2) -> None:
    """Runs rbit for so many polls, and says how long the last one took."""
    times: list[tuple[float, float]] = []

    def timed(self: Sources, name: str, prefetch: int = 0) -> Delivery | None:
        count = len(self._names)
        began = time.monotonic()
        try:
            return ASK(self, name, prefetch)
        finally:
            times.append((began, time.monotonic()))
            if len(times) == polls * count:
                print(times[-1][1] - times[-count][0], file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)

    Sources.get = timed  # type: ignore[method-assign]
    sys.exit(cli.main([ini]))


def bare(count: int, polls: int = 2) -> None:
    """Asks so many queues one after the other, on one channel; says how long the last poll took."""
    connection = pika.BlockingConnection(pika.URLParameters(feeding.url()))
    channel = connection.channel()
    queues = [f"{feeding.queue()}{number}" for number in range(count)]
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
        bare(int(sys.argv[2]))
