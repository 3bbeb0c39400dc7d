"""Properties of messages, as bytes on the wire: tables with every type of field, and fields that are none."""

from __future__ import annotations

import pickle
import struct
from dataclasses import replace
from typing import Any

import pika
from hypothesis import strategies as st
from pika import spec

from rbit import envelope, failed
from rbit.broker import Delivery
from rbit.broker.properties import plain
from rbit.message import Properties
from tests.fuzz.target import Target

OWN = "job lease attempt copy kept left-out local why status exit-status failed-at unknown".split()
NAMES = [name.encode() for name in (
    "CC", "BCC", *sorted(envelope.DEATHS | envelope.COUNTED), *(envelope.PREFIX + name for name in OWN),
)]
TOKEN, COPY_NAME = "0" * 32, "1" * 16


def _long(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _short(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def _packed(kind: str, form: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return values.map(lambda value: kind.encode() + struct.pack(f">{form}", value))


def _whole(bits: int, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


texts = st.one_of(
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=40),
    st.sampled_from([TOKEN.encode(), COPY_NAME.encode(), b"\x1b[2J", b"\xff", b"a" * 3000]),
)
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=12).map(str.encode), st.binary(max_size=12))
plain_fields = st.one_of(
    _packed("t", "B", st.integers(0, 1)), _packed("b", "b", _whole(8)), _packed("B", "B", _whole(8, False)),
    _packed("s", "h", _whole(16)), _packed("u", "H", _whole(16, False)), _packed("U", "h", _whole(16)),
    _packed("I", "i", _whole(32)), _packed("i", "I", _whole(32, False)), _packed("l", "q", _whole(64)),
    _packed("L", "Q", _whole(64, False)), _packed("f", "f", st.floats(width=32)), _packed("d", "d", st.floats()),
    st.tuples(st.integers(0, 255), _whole(32)).map(lambda pair: b"D" + struct.pack(">Bi", *pair)),
    texts.map(lambda text: b"S" + _long(text)), texts.map(lambda text: b"x" + _long(text)),
    _packed("T", "q", st.one_of(_whole(64), st.integers(0, 1 << 33))), st.just(b"V"),
    st.binary(min_size=1, max_size=3),  # no field at all
)


def _table(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return _long(b"".join(_short(name) + field for name, field in pairs))


fields = st.recursive(plain_fields, lambda inner: st.one_of(
    st.lists(inner, max_size=3).map(lambda some: b"A" + _long(b"".join(some))),
    st.lists(st.tuples(names, inner), max_size=3).map(lambda pairs: b"F" + _table(pairs)),
), max_leaves=6)
deep = st.sampled_from([1, 30, 150, 300, 600]).map(
    lambda depth: [(b"deep", b"F" + _nested(depth))]
)


def _nested(depth: int) -> bytes:
    value = b"V"
    for _ in range(depth):
        value = b"F" + _table([(b"k", value)])
    return value[1:]


tables = st.one_of(st.lists(st.tuples(names, fields), max_size=6), deep).map(_table)
short_texts = texts.map(lambda text: _short(text[:255]))
digits = st.integers(0, 1 << 32).map(lambda number: _short(str(number).encode()))  # RabbitMQ takes nothing else
# The properties in the order of their flags, from bit 15 on.
PROPERTIES = [
    ("content_type", short_texts), ("content_encoding", short_texts), ("headers", tables),
    ("delivery_mode", _packed("", "B", _whole(8, False))), ("priority", _packed("", "B", _whole(8, False))),
    ("correlation_id", short_texts), ("reply_to", short_texts), ("expiration", digits),
    ("message_id", short_texts), ("timestamp", _packed("", "Q", _whole(64, False))), ("type", short_texts),
    ("user_id", short_texts), ("app_id", short_texts), ("cluster_id", short_texts),
]


@st.composite
def on_the_wire(draw: st.DrawFn) -> bytes:
    """Bytes of properties."""
    flags, pieces = 0, []
    chosen = draw(st.sets(st.sampled_from([name for name, _ in PROPERTIES]), max_size=5)) | {"headers"}
    for bit, (name, values) in enumerate(PROPERTIES):
        if name in chosen:
            flags |= 1 << (15 - bit)
            pieces.append(draw(values))
    return struct.pack(">H", flags) + b"".join(pieces)


def _decode(encoded: bytes) -> Properties:
    # The class that pika takes for each delivery, once rbit.broker is loaded.
    return plain(spec.props[spec.Basic.INDEX]().decode(encoded))


def _encode(properties: Properties) -> bytes:
    return b"".join(pika.BasicProperties(**vars(properties)).encode())


def _ordered(properties: Properties) -> str:
    headers = None if properties.headers is None else dict(sorted(properties.headers.items(), key=repr))
    return repr(replace(properties, headers=headers))


def check(encoded: bytes) -> None:
    """Whatever comes is read; a copy of it can be published, and is known as the same message."""
    properties = _decode(encoded)
    tag = envelope.tag_of(properties)
    assert type(tag.attempt) is int and 1 <= tag.attempt < envelope.LARGEST, tag
    assert type(tag.lease) is int and 0 <= tag.lease < 2 * envelope.LARGEST, tag
    assert (tag.job is None) == (tag.lease == 0), tag
    count = envelope.given_back(properties)
    assert type(count) is int and count >= 0, count
    job = pickle.loads(pickle.dumps(envelope.original(properties)))  # as a worker gets it
    assert not any(envelope.is_own(name) for name in job.headers or {}), job.headers
    own = {name for name in properties.headers or {} if envelope.is_own(name)}
    known = envelope.Identity.of("q", properties, b"body")
    lease = envelope.copy(properties, job=TOKEN, lease=1)
    for copied in (lease, envelope.copy(lease, job=TOKEN, lease=2)):
        came = _decode(_encode(copied))
        assert envelope.tag_of(came).job == TOKEN
        if own <= {envelope.LOCAL}:
            sent = replace(envelope.original(properties), user_id=None)
            assert _ordered(envelope.original(came)) == _ordered(sent)
            assert envelope.Identity.of("q", came, b"body") == known
    again = _decode(_encode(envelope.anew(properties, 2, 1.5)))
    assert (envelope.tag_of(again).attempt, again.expiration, again.user_id) == (2, "1500", None)
    assert not {"CC", "BCC", "x-death"} & set(again.headers or {})
    _encode(envelope.put_anew(properties))
    fit, left_out = envelope.fitted(lease, lambda some: 200 - len(repr(some.headers)))
    assert isinstance(left_out, str) and isinstance((fit.headers or {}).get(envelope.LEFT_OUT, ""), str)
    unused: Any = None
    for line in failed.lines([failed.row(Delivery("q", 1, b"body", again, False, unused, unused))]):
        assert line.isprintable(), line


TARGETS = [Target("properties and headers", on_the_wire(), check, 100)]
