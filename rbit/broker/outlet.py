"""Publishing, with confirms, on a connection of its own."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

import pika
from pika.exceptions import AMQPChannelError, AMQPError, NackError, UnroutableError

from rbit.broker.connection import BLOCKED, open_connection, reason
from rbit.config import AmqpSettings
from rbit.errors import BrokerUnreachable, ConnectionLost, PublishFailed
from rbit.message import Properties


class Outlet:
    """A connection of its own for publishing, with confirms.

    Arguments: as of ``open_connection``. Errors: those of ``open_connection``.
    """

    def __init__(self, amqp: AmqpSettings, name: str) -> None:
        self._connection = open_connection(amqp, name, BLOCKED)
        try:
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
        except (AMQPError, OSError) as error:
            self.close()
            raise BrokerUnreachable(reason(error)) from error

    def publish(self, queue: str, body: bytes, properties: Properties) -> None:
        """Publishes to a queue and waits until the broker has it.

        Errors: PublishFailed when the broker refuses it or did not confirm; ConnectionLost when the
        connection broke, and then the broker may or may not have it.
        """
        try:
            self._channel.basic_publish(
                "", queue, body, pika.BasicProperties(**asdict(properties)), mandatory=True
            )
        except (UnroutableError, NackError, AMQPChannelError) as error:
            raise PublishFailed(f"the broker took no copy for {queue}: {reason(error)}") from error
        except (AMQPError, OSError) as error:
            raise ConnectionLost(reason(error)) from error

    def serve(self) -> None:
        """Serves heartbeats. Errors: ConnectionLost."""
        try:
            self._connection.process_data_events(time_limit=0)
        except (AMQPError, OSError) as error:
            raise ConnectionLost(reason(error)) from error

    def close(self) -> None:
        with contextlib.suppress(AMQPError, OSError):
            self._connection.close()
