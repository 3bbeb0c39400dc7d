"""The least that a client in Python can do: gets and acknowledges one message after the other, and does no work.

``python -m bench.code.bare N`` ends after N messages; stamps the first and the last.
"""

from __future__ import annotations

import sys

import pika

from bench.code import feeding
from bench.code.stamp import stamp


def main(count: int) -> None:
    """Takes so many messages. Errors: RuntimeError when there are fewer."""
    connection = pika.BlockingConnection(pika.URLParameters(feeding.url()))
    channel = connection.channel()
    queue = feeding.queue()
    for number in range(1, count + 1):
        method, _, _ = channel.basic_get(queue)
        if method is None:
            raise RuntimeError(f"{queue} is empty after {number - 1} messages")
        channel.basic_ack(method.delivery_tag)
        if number in (1, count):
            stamp()
    connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
