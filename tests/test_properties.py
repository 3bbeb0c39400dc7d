"""Properties that a stranger made: none of them may stop the client, and copies keep them."""

from __future__ import annotations

import struct
import unittest

import pika

from rbit.broker import properties as ours  # importing it is what makes pika keep fractions
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


if __name__ == "__main__":
    unittest.main()
