"""Properties that a stranger made: none of them may stop the client, and copies keep them."""

from __future__ import annotations

import struct
import unittest
from dataclasses import replace

import pika

from rbit import envelope
from rbit.broker import properties as ours  # importing it is what makes pika keep fractions
from rbit.message import Properties
from tests.support.case import BrokerCase
from tests.test_loop import JOBS, ran


class RawProperties(pika.BasicProperties):
    """Properties whose encoded form is given."""

    def __init__(self, flags: int, encoded: bytes) -> None:
        super().__init__()
        self.raw = struct.pack(">H", flags) + encoded

    def encode(self) -> list[bytes]:
        return [self.raw]


CONTENT_TYPE, HEADERS, MESSAGE_ID = 1 << 15, 1 << 13, 1 << 7


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(*pairs: tuple[bytes, bytes]) -> bytes:
    whole = b"".join(short(key) + value for key, value in pairs)
    return struct.pack(">I", len(whole)) + whole


def nested(depth: int) -> bytes:
    value = b"V"
    for _ in range(depth):
        value = b"F" + table((b"k", value))
    return table((b"k", value))


HOSTILE = {
    "time after 9999": RawProperties(HEADERS, table((b"t", b"T" + struct.pack(">Q", 1 << 62)))),
    "nested 5000 deep": RawProperties(HEADERS, nested(5000)),
    "no text": RawProperties(CONTENT_TYPE | HEADERS | MESSAGE_ID, short(b"caf\xe9") + table(
        (b"\xff\xfe", b"S" + struct.pack(">I", 2) + b"\xff\xff")) + short(b"\xe9\n\x1b[31m")),
}


class HostilePropertiesTest(BrokerCase):
    def test_message_with_hostile_properties_is_worked_off_like_any_other(self) -> None:
        queue = self.declare(self.queue_name())
        for name, properties in HOSTILE.items():
            self.channel.basic_publish("", queue, name.encode(), properties)
        rbit = self.rbit(
            self.ini({queue: {"runner": "python!jobs:record"}}), "--once", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertEqual(ran(rbit), [f"{queue} {name}" for name in HOSTILE])
        self.assertNotIn("\x1b", rbit.output)
        self.assertNotIn("lost", rbit.output)
        self.assertRegex(rbit.output, "properties of a message cannot be read")

    def test_blocked_message_with_hostile_properties_is_copied(self) -> None:
        queue = self.declare(self.queue_name())
        for name, properties in HOSTILE.items():
            self.channel.basic_publish("", queue, name.encode(), properties)
        rbit = self.rbit(
            self.ini({queue: {"runner": "python!jobs:blocked_once", "retry_delay": 1}}),
            files={"jobs.py": JOBS})
        self.wait_until(lambda: len(ran(rbit)) == 2 * len(HOSTILE), 60, "two runs of each")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(self.depth(queue), 0)

    def test_copy_keeps_every_kind_of_header(self) -> None:
        queue = self.declare(self.queue_name())
        headers = {
            "number": 1.5, "whole": -7, "large": 1 << 40, "text": "caf\u00e9", "bytes": b"\x00\xff", "yes": True,
            "nothing": None, "list": [1, "two", [3.25]], "table": {"deep": {"er": 2.5}},
        }
        self.publish(queue, "a", headers=headers, message_id="m", priority=3, app_id="app", correlation_id="c",
                     reply_to="r", timestamp=1_700_000_000, type="t", content_encoding="utf-8")
        rbit = self.rbit(
            self.ini({queue: {"runner": "python!jobs:blocked_once"}}), "--once", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(), 1, rbit.output)
        _, properties, _ = self.channel.basic_get(f"{queue}.retry", auto_ack=True)
        self.assertIsInstance(properties, ours.TolerantProperties)
        self.assertEqual(len(properties.headers.pop("x-rbit-copy")), 16)
        self.assertEqual(properties.headers, {**headers, "x-rbit-attempt": 2})
        self.assertEqual(
            (properties.message_id, properties.priority, properties.app_id, properties.correlation_id,
             properties.reply_to, properties.timestamp, properties.type, properties.content_encoding),
            ("m", 3, "app", "c", "r", 1_700_000_000, "t", "utf-8"))

    def test_job_gets_long_numbers_as_such_and_loads_no_pika_for_them(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a", headers={"large": 1 << 40, "list": [1 << 41]})
        shown = "message.headers, type(message.headers['large']), 'pika' in sys.modules"
        job = f"import sys\n\ndef job(message, set_status, settings):\n    print({shown})\n"
        rbit = self.rbit(self.ini({queue: {"runner": "python!jobs:job"}}), "--once", files={"jobs.py": job})
        self.assertEqual(rbit.wait(), 0, rbit.output)
        expected = {"large": 1 << 40, "list": [1 << 41]}
        self.assertIn(f"{expected} <class 'int'> False", rbit.output)


class CopiesTest(unittest.TestCase):
    """Found by fuzzing."""

    def test_numbers_are_the_same_in_a_copy(self) -> None:
        for field in (b"D\x01\0\0\0\0", b"D\x02\0\0\0\x96", b"D\xff\xff\xff\xff\xff", b"i\xff\xff\xff\xff",
                      b"l" + bytes(7) + b"\x05", b"T" + b"\xff" * 4 + b"\x7f" + b"\xff" * 3):
            with self.subTest(field):
                value, size = ours.decode_value(field, 0)
                self.assertEqual(size, len(field))
                pieces: list[bytes] = []
                ours.encode_value(pieces, value)
                self.assertEqual(repr(ours.decode_value(b"".join(pieces), 0)[0]), repr(value))

    def test_message_that_only_says_that_pybit_does_not_know_it_is_no_copy(self) -> None:
        sent = Properties(headers={envelope.LOCAL: True, "a": 1}, expiration="5000", delivery_mode=1)
        shown = replace(sent, headers={"a": 1})
        self.assertEqual(envelope.original(sent), shown)
        lease = envelope.copy(sent, job="0" * 32, lease=1)
        self.assertEqual(envelope.original(lease), shown)
        self.assertEqual(envelope.Identity.of("q", lease, b""), envelope.Identity.of("q", sent, b""))

    def test_numbers_in_headers_that_are_none_do_not_count(self) -> None:
        for count in (True, -1, 1.5, "2", None):
            self.assertIs(type(envelope.given_back(Properties(headers={"x-delivery-count": count}))), int)
            self.assertEqual(envelope.given_back(Properties(headers={"x-delivery-count": count})), 0)
        lease = Properties(headers={envelope.JOB: "0" * 32, envelope.LEASE: True})
        self.assertIsNone(envelope.tag_of(lease).job)

    def test_name_of_a_header_that_is_left_out_is_a_text(self) -> None:
        properties = Properties(headers={b"\xff": "x" * 100, "b": "x"})  # type: ignore[dict-item]
        fit, left_out = envelope.fitted(properties, lambda some: 90 - len(repr(some.headers)))
        self.assertEqual((left_out, fit.headers), ("\ufffd", {"b": "x", envelope.LEFT_OUT: "\ufffd"}))
        odd = envelope.copy(Properties(headers={envelope.LEFT_OUT: [1]}), job="0" * 32, lease=1)
        self.assertNotIn(envelope.LEFT_OUT, odd.headers or {})


if __name__ == "__main__":
    unittest.main()
