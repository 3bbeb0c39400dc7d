"""A connection that publishes one message after the other. Used by ``rbit-submit``."""

from __future__ import annotations

from collections.abc import Callable

from rbit.broker import Outlet, Sending
from rbit.errors import ConnectionLost, PublishFailed
from rbit.message import Properties
from rbit.output import printable
from rbit.settings import AmqpSettings

ALARM = 20.0  # seconds that a publish may hang under an alarm


class Sender:
    """Publishes, and knows how many messages RabbitMQ has.

    Arguments:
        amqp: where, and as whom.
        name: shown in RabbitMQ's list of connections.
        tell: gets a line when an alarm of RabbitMQ's holds it up.

    Errors: BrokerRefused, BrokerUnreachable.
    """

    def __init__(self, amqp: AmqpSettings, name: str, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._sent = 0
        self._in_doubt = False  # whether RabbitMQ may have a message that it has not confirmed
        self._alarm = ""  # what RabbitMQ said of it, since the last message
        self._outlet = Outlet(amqp, name, ALARM, self._alarmed)

    def send(self, key: str, body: bytes, properties: Properties, exchange: str = "") -> None:
        """Publishes a message. Arguments: as of ``Sending``.

        Errors: Unroutable, PublishFailed; ConnectionLost, also when an alarm goes on for too long.
        """
        self._alarm = ""
        try:
            self._outlet.probe()
            self._in_doubt = True
            self._outlet.publish(Sending(key, body, properties, exchange))
        except ConnectionLost as error:
            alarm = f"RabbitMQ has an alarm ({self._alarm}): " if self._alarm else ""
            raise ConnectionLost(f"{alarm}{error}") from error
        except PublishFailed:
            self._in_doubt = False
            raise
        self._sent += 1
        self._in_doubt = False

    def progress(self, total: int) -> str:
        """Returns in words how many of so many messages are published."""
        return f"{self._sent} of {total} published{', perhaps one more' if self._in_doubt else ''}"

    def close(self) -> None:
        """Closes the connection."""
        self._outlet.close()

    def _alarmed(self, reason: str) -> None:
        self._alarm = printable(reason)
        self._tell(f"RabbitMQ has an alarm ({self._alarm}) and takes no messages; waiting for at most {ALARM:g} s")
