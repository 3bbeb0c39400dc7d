"""What rbit needs of pika and pika does not show: this version has it, and it does what it is taken for."""

from __future__ import annotations

import pika

from rbit.broker import wire
from tests.support.case import BrokerCase


class WireTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.queue = self.declare(self.queue_name())
        self.pika = self.node.connect()
        self.addCleanup(lambda: self.pika.is_open and self.pika.close())
        self.near = self.pika.channel()

    def test_acknowledgement_waits_until_the_connection_is_served(self) -> None:
        self.publish(self.queue, "a")
        method, _, _ = self.near.basic_get(self.queue)
        self.assertEqual(wire.unsent(self.pika), 0)
        wire.ack(self.near, method.delivery_tag)
        self.assertGreater(wire.unsent(self.pika), 0)
        self.pika.process_data_events(0)
        self.assertEqual(wire.unsent(self.pika), 0)
        self.pika.close()
        self.assertEqual(self.depth(self.queue), 0)

    def test_frames_are_joined_and_none_is_lost(self) -> None:
        below = wire.below(self.near)
        bodies = [b"x" * size for size in (1, 1000, 300_000)]
        for body in bodies:
            below.basic_publish("", self.queue, body, pika.BasicProperties())
        waiting = wire.unsent(self.pika)
        wire.join(self.pika)
        self.assertEqual(wire.unsent(self.pika), waiting)
        self.near.queue_declare(self.queue, passive=True)
        self.assertEqual(self.bodies(self.queue), bodies)

    def test_what_has_come_is_seen_before_it_is_handed_out(self) -> None:
        come: list[bytes] = []
        self.near.basic_consume(self.queue, lambda *message: come.append(message[3]))
        before = wire.received(self.pika)
        self.publish(self.queue, "a")

        def is_there() -> bool:
            self.near.queue_declare(self.queue, passive=True)  # its answer comes after the message
            return wire.came(self.pika)

        self.wait_until(is_there, what="the message")
        self.assertEqual(come, [])
        self.assertGreater(wire.received(self.pika), before)
        self.pika.process_data_events(0)
        self.assertEqual((come, wire.came(self.pika)), ([b"a"], False))

    def test_connection_has_a_descriptor_and_a_largest_frame_and_is_cut(self) -> None:
        self.assertGreater(wire.descriptor(self.pika), 2)
        self.assertEqual(wire.frame_max(self.pika), 131_072)
        self.assertFalse(wire.holds(self.pika))
        wire.cut(self.pika)
        with self.assertRaises(pika.exceptions.AMQPConnectionError):
            self.pika.process_data_events(10)
