"""What pika has and does not show: all of it that rbit needs, in one place.

A test (``tests/test_wire.py``) says when another version has none of it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel

JOINED = 1 << 20  # bytes that are copied for one system call


def came(connection: pika.BlockingConnection) -> bool:
    """Whether something has come that ``process_data_events`` is to hand out."""
    return bool(connection._channels_pending_dispatch or connection._ready_events)


def received(connection: pika.BlockingConnection) -> int:
    """Returns how many bytes have come; 0 again once it is closed."""
    return int(connection._impl.bytes_received)


def unsent(connection: pika.BlockingConnection) -> int:
    """Returns how many bytes wait to be sent."""
    return int(connection._impl._get_write_buffer_size())


def descriptor(connection: pika.BlockingConnection) -> int:
    """Returns that of the socket."""
    return int(connection._impl._transport._sock.fileno())


def holds(connection: pika.BlockingConnection) -> bool:
    """Whether the layer of TLS has read what pika has not: the socket is not readable for that."""
    sock = connection._impl._transport._sock
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


def cut(connection: pika.BlockingConnection) -> None:
    """Ends the connection below pika. Errors: OSError, AttributeError, when it has none any more."""
    connection._impl._transport._sock.shutdown(socket.SHUT_RDWR)


def join(connection: pika.BlockingConnection) -> None:
    """Has all frames that wait to be sent go out at once: a message has three, and pika sends each by itself."""
    waiting = connection._impl._transport._tx_buffers
    if len(waiting) > 1 and unsent(connection) <= JOINED:
        frames = b"".join(waiting)
        waiting.clear()
        waiting.append(frames)


def frame_max(connection: pika.BlockingConnection) -> int:
    """Returns how many bytes a frame may have."""
    return int(connection._impl.params.frame_max)


def on_blocked(connection: pika.BlockingConnection, call: Callable[[str], None]) -> None:
    """Has a function called, also in the middle of a call, with what the broker says as it blocks us."""
    connection._impl.add_on_connection_blocked_callback(lambda _, frame: call(str(frame.method.reason)))


def below(channel: BlockingChannel) -> Channel:
    """Returns the channel that does not block."""
    return channel._impl


def wait_for(channel: BlockingChannel, ready: Callable[[], bool]) -> None:
    """Serves the connection until that is so. Errors: those of pika, when the channel or the connection closes."""
    channel._flush_output(ready)


def ack(channel: BlockingChannel, tag: int) -> None:
    """Acknowledges a delivery when the connection is served next; the blocking channel does it at once."""
    below(channel).basic_ack(tag)
