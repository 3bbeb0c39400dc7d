"""What the stand-in for PyBit does in RabbitMQ: queues declared, requests published, build clients looked for.

It knows nothing of HTTP and of when all this is done. It runs in threads of the process that tests.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pika
import pika.exceptions

from tests.support.pybit_model import Job, Model, PybitError, Transport, model

EXCHANGE = "pybit"
LOCKED = 405  # the queue is another connection's own

Channel = pika.adapters.blocking_connection.BlockingChannel
Connect = Callable[[], pika.BlockingConnection]


class Broker:
    """Where PyBit publishes.

    Each use is a connection of its own. The real one leaves its connections open; here each is closed at
    once, so RabbitMQ has what was published when the answer comes.

    Arguments:
        connect: returns a new connection; None for a RabbitMQ that is away.
    """

    def __init__(self, connect: Connect | None) -> None:
        self._connect = connect

    @contextlib.contextmanager
    def channel(self) -> Iterator[Channel]:
        """Return a channel on a new connection, its exchange declared.

        Errors:
            PybitError: what RabbitMQ refuses, or that it is away; also from what is done with the channel.
        """
        if self._connect is None:
            raise PybitError("there is no RabbitMQ")
        try:
            with self._connect() as connection:
                channel = connection.channel()
                # PyBit overlooks this refusal, and meets the closed channel with its next call.
                with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
                    channel.exchange_declare(EXCHANGE, "direct", durable=True)
                yield channel
        except (pika.exceptions.AMQPError, OSError) as error:
            raise PybitError(f"RabbitMQ: {error!r}") from error

    def is_active(self, client: str) -> bool:
        """Return whether the queue of a build client is held by another connection.

        False for a queue that others may use, for none, and when RabbitMQ is away.
        """
        try:
            with self.channel() as channel:
                channel.queue_declare(client, passive=True)
        except PybitError as error:
            refusal = error.__cause__
            return isinstance(refusal, pika.exceptions.ChannelClosedByBroker) and refusal.reply_code == LOCKED
        return False


def publish_build(channel: Channel, job: Job, job_json: Model, transport: Transport, web_host: str) -> None:
    """Declare the build queue of a job with its binding and publish the build request to it."""
    names = [str(job.package[key]["name"]) for key in ("distribution", "arch", "suite", "format")]
    queue, key = "_".join(names), ".".join(names)
    body = model(
        "BuildRequest", job=job_json, transport=model("Transport", id=None, **transport), web_host=web_host,
        timestamp=None,
    )
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, EXCHANGE, key)
    _publish(channel, key, body, mandatory=True)


def publish_cancel(channel: Channel, client: str, job_json: Model, web_host: str) -> None:
    """Publish the cancel request of a job to the queue of its build client, if there is one."""
    _publish(channel, client, model("CancelRequest", job=job_json, web_host=web_host), mandatory=False)


def _publish(channel: Channel, key: str, body: Model, mandatory: bool) -> None:
    properties = pika.BasicProperties(delivery_mode=2, content_encoding="UTF-8")
    channel.basic_publish(EXCHANGE, key, json.dumps(body).encode("ascii"), properties, mandatory)
