"""The properties of messages, decoded so that nothing that a publisher put there can stop the client.

pika decodes them deep inside a call, and what it raises there (for a time after the year 9999, or a table
nested too deep) ends the connection; the message would come again and do the same, for ever. It also cuts
the fraction off a header's number, and cannot encode one, nor a decimal number as it came. So pika is given
functions of ours for these values, and properties that hold on to what could be read.
"""

from __future__ import annotations

import logging
import struct
from decimal import Decimal
from typing import Any

import pika
from pika import data, spec

from rbit.message import PERSISTENT, Properties

log = logging.getLogger("rbit.broker")

_pikas_decode_value = data.decode_value
_pikas_encode_value = data.encode_value


def decode_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    """Decodes one value of a table, as pika's function of that name, which it replaces.

    Source: the field types of RabbitMQ, https://www.rabbitmq.com/amqp-0-9-1-errata, section 3.
    """
    kind = encoded[offset : offset + 1]
    if kind == b"f":
        return struct.unpack_from(">f", encoded, offset + 1)[0], offset + 5
    if kind == b"d":
        return struct.unpack_from(">d", encoded, offset + 1)[0], offset + 9
    try:
        value, end = _pikas_decode_value(encoded, offset)
        if isinstance(value, int) and not isinstance(value, bool):
            value = int(value)  # pika has a type of its own for long ones, and a worker has no pika
        return value, end
    except (ValueError, OverflowError, OSError):
        if kind != b"T":
            raise
        # A time that datetime cannot hold: its seconds since 1970.
        return struct.unpack_from(">q", encoded, offset + 1)[0], offset + 9


def encode_value(pieces: list[bytes], value: Any) -> int:
    """Encodes one value of a table, as pika's function of that name, which it replaces."""
    if isinstance(value, float):
        pieces.append(struct.pack(">cd", b"d", value))
        return 9
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        number = int("".join(map(str, digits)))
        pieces.append(struct.pack(">cBi", b"D", -int(exponent), -number if sign else number))
        return 6
    length: int = _pikas_encode_value(pieces, value)
    return length


class TolerantProperties(spec.BasicProperties):  # type: ignore[misc]
    """Keeps what could be read when the rest cannot be."""

    def decode(self, encoded: bytes, offset: int = 0) -> TolerantProperties:
        try:
            super().decode(encoded, offset)
        except Exception as error:  # noqa: BLE001 - a stranger's bytes in pika's code may raise anything
            log.warning("properties of a message cannot be read and are left out: %s", type(error).__name__)
            self.delivery_mode = PERSISTENT  # unknown; a copy must not be less durable than the message
        return self


def plain(properties: pika.BasicProperties) -> Properties:
    """Returns pika's properties as rbit's."""
    return Properties(**{name: getattr(properties, name) for name in Properties.__dataclass_fields__})


def install() -> None:
    """Has pika use this module's decoders, in the whole process."""
    data.decode_value = decode_value
    data.encode_value = encode_value
    spec.props[spec.Basic.INDEX] = TolerantProperties


install()
