"""Connecting to RabbitMQ, and the connection that gets and acknowledges."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import (
    AMQPChannelError,
    AMQPError,
    AuthenticationError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    StreamLostError,
)

from rbit import tls
from rbit.bell import Bell
from rbit.broker import greeting, wire
from rbit.errors import (
    BrokerRefused,
    BrokerUnreachable,
    ConnectionLost,
    NodeRefused,
    QueueUnavailable,
    QueueUnusable,
)
from rbit.settings import AmqpSettings

ATTEMPT = 15.0  # seconds for one attempt to connect
ATTEMPT_OF_SEVERAL = 5.0  # seconds for one node of a cluster
# What RabbitMQ says behind a refused virtual host when it is so for now only: too many connections, not started.
FOR_NOW = re.compile(r"NOT_ALLOWED - (.* (?:is reached|is down))\b['\"]*$")
# Reply codes of AMQP 0-9-1.
ACCESS_REFUSED, NOT_ALLOWED, NOT_IMPLEMENTED = 403, 530, 540
Access = tuple[pika.PlainCredentials, ssl.SSLContext | None]
GATHERING = 0.002  # seconds that what is to be sent waits for more
# The part of a heartbeat for which pika may be left alone. It has one to send after half of it; RabbitMQ, whose
# own come as often, gives a connection up after twice as much.
SERVED = 0.6
RIGHTS = "; see rabbitmqctl set_permissions"


def open_connection(
    amqp: AmqpSettings, name: str, blocked: float | None = None
) -> tuple[pika.BlockingConnection, str]:
    """Connects to the broker; returns the connection, and to which node it is.

    Arguments:
        amqp: where, and as whom.
        name: shown in RabbitMQ's list of connections.
        blocked: seconds that a publish may be blocked by an alarm; None for a connection that does not publish.

    The nodes are tried in turn. Errors: BrokerRefused for a wrong user, password or virtual host, or if TLS can
    be made with none of the nodes; BrokerUnreachable for all else, which says it of each node.
    """
    failures: list[BrokerUnreachable | NodeRefused] = []
    access = access_of(amqp)
    for node in amqp.nodes:
        try:
            return open_node(amqp, node, access, name, blocked), "{}:{}".format(*node)
        except (BrokerUnreachable, NodeRefused) as error:
            failures.append(error)
    hopeless = all(isinstance(failure, NodeRefused) for failure in failures)
    raise (BrokerRefused if hopeless else BrokerUnreachable)("; ".join(map(str, failures))) from failures[-1]


def access_of(amqp: AmqpSettings) -> Access:
    """Returns the credentials and the context of TLS as they are now: secrets and files are read each time.

    Errors: BrokerUnreachable, for one may be being replaced.
    """
    try:
        context = tls.context(amqp.tls) if amqp.tls else None
        return pika.PlainCredentials(amqp.user, amqp.password.read()), context
    except ValueError as error:
        key = error.key if isinstance(error, tls.Unusable) else amqp.password.key
        raise BrokerUnreachable(f"[amqp] {key}: {error}") from error


def open_node(
    amqp: AmqpSettings, node: tuple[str, int], access: Access, name: str, blocked: float | None
) -> pika.BlockingConnection:
    """Connects to one node; arguments and errors are those of ``open_connection``."""
    host, port = node
    credentials, context = access
    attempt = ATTEMPT if len(amqp.host) == 1 else ATTEMPT_OF_SEVERAL
    parameters = pika.ConnectionParameters(
        host=host,
        port=port,
        virtual_host=amqp.virtual_host,
        credentials=credentials,
        ssl_options=pika.SSLOptions(context, host) if context else None,
        heartbeat=amqp.heartbeat,
        blocked_connection_timeout=blocked,
        socket_timeout=attempt,
        stack_timeout=attempt,
        client_properties={"connection_name": name},
    )
    where = f"{host}:{port}"
    refused_host = f"RabbitMQ at {where} refuses {amqp.user!r} the virtual host {amqp.virtual_host!r}"
    try:
        return pika.BlockingConnection(parameters)
    except (AuthenticationError, ProbableAuthenticationError, ProbableAccessDeniedError) as error:
        said = str(error.args[0] if error.args else error)  # pika has the broker's words only inside these
        if StreamLostError.__name__ in said:  # a broker that is shutting down; a refusal is said in words
            raise BrokerUnreachable(f"RabbitMQ at {where} broke the connection off") from error
        if for_now := FOR_NOW.search(said):
            raise BrokerUnreachable(f"RabbitMQ at {where}: {for_now[1]}") from error
        if isinstance(error, ProbableAccessDeniedError):
            raise BrokerRefused(refused_host) from error
        raise BrokerRefused(f"RabbitMQ at {where} refuses the user {amqp.user!r} or its password") from error
    except ConnectionClosedByBroker as error:
        if error.reply_code == ACCESS_REFUSED:
            raise BrokerRefused(f"RabbitMQ at {where}: {error.reply_text}") from error
        if error.reply_code == NOT_ALLOWED:
            raise BrokerRefused(refused_host) from error
        raise BrokerUnreachable(f"RabbitMQ at {where}: {error.reply_text}") from error
    except ssl.SSLError as error:
        raise greeting.translate(error, where) from error
    except (AMQPError, AMQPConnectorException, OSError) as error:
        if isinstance(error, IncompatibleProtocolError) and (
            found := greeting.refusal(host, port, context, attempt)
        ):
            raise found from error
        # A peer that says nothing raises the second, which is no AMQPError.
        # str() of a refused connection is empty.
        raise BrokerUnreachable(f"no answer from RabbitMQ at {where}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Returns a failure in words: the first cause that has any."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, (ConnectionClosedByBroker, ChannelClosedByBroker)):
        advice = RIGHTS if "refused for user" in str(error.reply_text) else ""
        return f"{error.reply_text} ({error.reply_code}){advice}"
    for cause in (*error.args, error):
        inner = getattr(cause, "exception", cause)
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
    return str(error) or repr(error)


class Connection:
    """The connection that gets and acknowledges. It never publishes.

    Arguments:
        amqp, name: as of ``open_connection``.
        bell: what ends a wait; None: one of its own.

    Errors: those of ``open_connection``.

    Attributes:
        bell: as given.
        where: the node that it is to.
        declares: whether queues and exchanges may be made, and bound.
        dropped: whether it was given up; nothing can be settled on it any more.
        heard_at: time.monotonic() when the broker's last answer, or heartbeat, was read.
    """

    def __init__(self, amqp: AmqpSettings, name: str, bell: Bell | None = None) -> None:
        self._connection, self.where = open_connection(amqp, name)
        self.bell = bell or Bell()
        self._serve_every = SERVED * amqp.heartbeat
        self._serve_at = 0.0  # time.monotonic()
        self.declares = amqp.declare
        self._asked_at: float | None = None  # time.monotonic(), while an answer is awaited
        self.dropped = False
        self.heard_at = time.monotonic()
        self._received = 0  # bytes, until then

    def wait(self, seconds: float) -> None:
        """Serves the connection for at most ``seconds``, less once its bell was rung or something has come.

        pika's own wait costs several times as much, and a signal does not end it. Errors: ConnectionLost.
        """
        if not self._connection.is_open:  # what found that out has said so in its own way; pika would not
            raise ConnectionLost("the connection is closed")
        until = time.monotonic() + seconds
        with self.translated():
            self._asked_at = None  # not an answer, but time is awaited
            received, came = wire.received(self._connection), wire.came(self._connection)
            if came or seconds <= 0:
                self._serve()
            elif wire.unsent(self._connection):
                self._serve_at = min(self._serve_at, time.monotonic() + GATHERING)
            while not came and received == wire.received(self._connection) and (now := time.monotonic()) < until:
                wait = min(until, self._serve_at) - now
                rung, readable = self.bell.wait(wait, wire.descriptor(self._connection))
                if readable or time.monotonic() >= self._serve_at:
                    self._serve()
                if rung:
                    break

    def _serve(self) -> None:
        """Has pika write, read, and send heartbeats."""
        self._serve_at = time.monotonic() + self._serve_every
        wire.join(self._connection)
        self._connection.process_data_events(0)
        while self._connection.is_open and wire.holds(self._connection):
            self._connection.process_data_events(0)

    def interrupt(self, patience: float) -> None:
        """Gives the connection up if it has waited so many seconds for an answer; for a handler of signals.

        pika waits for an answer until the heartbeat finds a silent broker, up to twice its interval. A
        handler runs in the middle of that wait, and what it raises ends it. Errors: ConnectionLost.
        """
        if self._asked_at is not None and time.monotonic() - self._asked_at >= patience:
            raise ConnectionLost("no answer from the broker, and rbit is stopping")

    def channel(self) -> BlockingChannel:
        """Opens a channel. Errors: ConnectionLost."""
        with self.translated():
            return self._connection.channel()

    def close(self) -> None:
        """Closes the connection; what is unsettled on it goes back to its queue."""
        if not self.dropped:
            with contextlib.suppress(ConnectionLost), self.translated():
                self._connection.close()
        if self.dropped:
            # pika, stopped in the middle of something, closes nothing any more, and the broker would keep what
            # belongs to this connection: deliveries, and the client's name.
            with contextlib.suppress(AttributeError, OSError):
                wire.cut(self._connection)
        self.dropped = True

    @contextlib.contextmanager
    def translated(self, queue: str | None = None) -> Iterator[None]:
        """Turns what pika raises inside into ConnectionLost, or QueueUnavailable when only a channel broke."""
        outer = self._asked_at
        try:
            self._asked_at = outer or time.monotonic()
            yield
        except ConnectionLost:  # of ``interrupt``: pika is in the middle of something, for good
            self.dropped = True
            raise
        except (AMQPError, OSError) as error:
            if queue is not None and isinstance(error, AMQPChannelError) and self._connection.is_open:
                raise QueueUnavailable(f"{queue}: {reason(error)}") from error
            code = error.reply_code if isinstance(error, ConnectionClosedByBroker) else None
            if queue is not None and code == NOT_IMPLEMENTED:
                raise QueueUnusable(queue, reason(error)) from error
            raise ConnectionLost(reason(error)) from error
        finally:
            self._asked_at = outer
            received = wire.received(self._connection)
            if received > self._received:  # pika sets it to 0 as it closes
                self._received, self.heard_at = received, time.monotonic()
