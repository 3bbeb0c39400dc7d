"""What a node says to a new connection before AMQP begins, for pika keeps that to itself."""

from __future__ import annotations

import contextlib
import socket
import ssl

from rbit import tls
from rbit.errors import BrokerUnreachable, NodeRefused

GREETING = b"AMQP\x00\x00\x09\x01"
ALERT = b"\x15"  # the first byte of what a TLS server says to the greeting


def translate(error: ssl.SSLError, where: str) -> NodeRefused | BrokerUnreachable:
    """Returns what a failure of TLS means for a connection. Arguments: the failure; the node in words."""
    words, for_good = tls.words(error)
    return (NodeRefused if for_good else BrokerUnreachable)(f"RabbitMQ at {where}: {words}")


def refusal(
    host: str, port: int, context: ssl.SSLContext | None, seconds: float
) -> NodeRefused | BrokerUnreachable | None:
    """Greets a node that has just broken a connection off, and returns what it says to that; None for nothing.

    With TLS 1.3 a node looks at our certificate when TLS is made for us, and pika would write then and not read.

    Arguments:
        context: of TLS, None for none.
        seconds: to wait for each answer.
    """
    where = f"{host}:{port}"
    try:
        with contextlib.ExitStack() as stack:
            peer = stack.enter_context(socket.create_connection((host, port), seconds))
            if context:
                peer = stack.enter_context(context.wrap_socket(peer, server_hostname=host))
            else:
                peer.sendall(GREETING)
            # With TLS nothing is sent: what a peer that has closed is sent can take its last words away.
            if peer.recv(1) == ALERT and not context:
                return NodeRefused(f"what answers at {where} speaks TLS; is ssl = yes missing in [amqp]?")
    except ssl.SSLError as error:
        return translate(error, where)
    except OSError:
        return None
    return None
