"""Dramatiq's job and settings; as a program, what publishes for it."""

from __future__ import annotations

import logging
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench.code import feeding
from bench.code.stamp import stamp

logging.basicConfig(level=logging.ERROR)
broker = RabbitmqBroker(url=feeding.url())
dramatiq.set_broker(broker)


def noop(body: str) -> None:
    """Does what each job does."""
    stamp()


actor = dramatiq.actor(queue_name=feeding.queue())(noop)


def main() -> None:
    """Publishes what standard input asks for."""
    body = feeding.body().decode()

    def publish() -> int:
        message = actor.message(body)
        began = time.monotonic_ns()
        broker.enqueue(message)
        return began

    feeding.serve(publish)
    broker.close()


if __name__ == "__main__":
    main()
