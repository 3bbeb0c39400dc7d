"""Publishes with pika: persistent messages for rbit, amqp-consume and the bare loop, into a durable queue."""

from __future__ import annotations

import time

import pika

from bench.code import feeding


def main() -> None:
    """Publishes what standard input asks for."""
    connection = pika.BlockingConnection(pika.URLParameters(feeding.url()))
    channel = connection.channel()
    queue, body = feeding.queue(), feeding.body()
    channel.queue_declare(queue, durable=True)
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)

    def publish() -> int:
        began = time.monotonic_ns()
        channel.basic_publish("", queue, body, properties)
        return began

    feeding.serve(publish)
    connection.close()


if __name__ == "__main__":
    main()
