"""Connecting to RabbitMQ, and the connection that gets and acknowledges."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import (
    AMQPChannelError,
    AMQPError,
    AuthenticationError,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from rbit.config import AmqpSettings
from rbit.errors import BrokerRefused, BrokerUnreachable, ConnectionLost, QueueUnavailable

ATTEMPT = 15.0  # seconds for one attempt to connect
BLOCKED = 600.0  # seconds that a publish may hang under a broker alarm; only the publisher's thread hangs
ACCESS_REFUSED, NOT_ALLOWED = 403, 530  # reply codes of AMQP 0-9-1


def open_connection(amqp: AmqpSettings, name: str, blocked: float | None = None) -> pika.BlockingConnection:
    """Connects to the broker.

    Arguments:
        amqp: where, and as whom.
        name: shown in RabbitMQ's list of connections.
        blocked: seconds that a publish may be blocked by an alarm; None for a connection that does not publish.

    Errors: BrokerRefused for a wrong user, password or virtual host; BrokerUnreachable for all else.
    """
    parameters = pika.ConnectionParameters(
        host=amqp.host,
        port=amqp.port,
        virtual_host=amqp.virtual_host,
        credentials=pika.PlainCredentials(amqp.user, amqp.password),
        heartbeat=amqp.heartbeat,
        blocked_connection_timeout=blocked,
        socket_timeout=ATTEMPT,
        stack_timeout=ATTEMPT,
        client_properties={"connection_name": name},
    )
    where = f"{amqp.host}:{amqp.port}"
    try:
        return pika.BlockingConnection(parameters)
    except (AuthenticationError, ProbableAuthenticationError) as error:
        raise BrokerRefused(f"RabbitMQ at {where} refuses the user {amqp.user!r} or its password") from error
    except ProbableAccessDeniedError as error:
        raise BrokerRefused(refused_host(amqp)) from error
    except ConnectionClosedByBroker as error:
        if error.reply_code == ACCESS_REFUSED:
            raise BrokerRefused(f"RabbitMQ at {where}: {error.reply_text}") from error
        if error.reply_code == NOT_ALLOWED:
            raise BrokerRefused(refused_host(amqp)) from error
        raise BrokerUnreachable(f"RabbitMQ at {where}: {error.reply_text}") from error
    except (AMQPError, AMQPConnectorException, OSError) as error:
        # A peer that says nothing raises the second, which is no AMQPError.
        # str() of a refused connection is empty.
        raise BrokerUnreachable(f"no answer from RabbitMQ at {where}: {reason(error)}") from error


def refused_host(amqp: AmqpSettings) -> str:
    return f"RabbitMQ at {amqp.host}:{amqp.port} refuses {amqp.user!r} the virtual host {amqp.virtual_host!r}"


def reason(error: BaseException) -> str:
    """Returns a failure in words: the first cause that has any."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    for cause in (*error.args, error):
        inner = getattr(cause, "exception", cause)
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
    return str(error) or repr(error)


class Connection:
    """The connection that gets and acknowledges. It never publishes.

    Arguments: as of ``open_connection``. Errors: those of ``open_connection``.
    """

    def __init__(self, amqp: AmqpSettings, name: str) -> None:
        self._connection = open_connection(amqp, name)

    def wait(self, seconds: float) -> None:
        """Serves the connection for at most ``seconds``, less after ``wake``. Errors: ConnectionLost."""
        with self.translated():
            self._connection.process_data_events(time_limit=seconds)

    def wake(self) -> None:
        """Ends a ``wait`` early. The one method that any thread may call."""
        with contextlib.suppress(AMQPError):  # closed meanwhile: nobody waits
            self._connection.add_callback_threadsafe(lambda: None)

    def channel(self) -> BlockingChannel:
        """Opens a channel. Errors: ConnectionLost."""
        with self.translated():
            return self._connection.channel()

    def close(self) -> None:
        """Closes the connection; what is unsettled on it goes back to its queue."""
        with contextlib.suppress(AMQPError, OSError):
            self._connection.close()

    @contextlib.contextmanager
    def translated(self, queue: str | None = None) -> Iterator[None]:
        """Turns what pika raises inside into ConnectionLost, or QueueUnavailable when only a channel broke."""
        try:
            yield
        except (AMQPError, OSError) as error:
            if queue is not None and isinstance(error, AMQPChannelError) and self._connection.is_open:
                raise QueueUnavailable(f"{queue}: {reason(error)}") from error
            raise ConnectionLost(reason(error)) from error
