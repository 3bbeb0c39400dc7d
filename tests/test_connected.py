"""Whether another client is connected, and whether we are, asked on a real broker."""

from __future__ import annotations

import threading
import unittest

from rbit.broker import Connection, Queue, is_connected
from rbit.errors import ConnectionLost, DeliveryLost
from tests.support.case import BrokerCase
from tests.support.proxy import Proxy
from tests.support.settings import amqp_settings


class ConnectedTest(BrokerCase):
    def setUp(self) -> None:
        """Connect as a client does."""
        super().setUp()
        self.connection = self.connect(self.node.port)

    def connect(self, port: int) -> Connection:
        """Return a new connection by a port."""
        connection = Connection(amqp_settings(port, 2), "test")
        self.addCleanup(connection.close)
        return connection

    def asked(self, name: str) -> bool:
        """Return whether a client of this name is connected; fail when no answer comes."""
        answers: list[bool] = []
        thread = threading.Thread(target=lambda: answers.append(is_connected(self.connection, name)), daemon=True)
        thread.start()
        thread.join(30)
        self.assertEqual(len(answers), 1, f"no answer about {name!r}")
        return answers[0]

    def test_client_is_known_by_its_exclusive_queue(self) -> None:
        name = self.queue_name("client")
        self.assertFalse(self.asked(name))
        self.channel.queue_declare(name, exclusive=True)
        self.assertTrue(self.asked(name))
        self.assertFalse(self.asked(self.declare(self.queue_name("plain"))))

    def test_connection_that_broke_as_a_message_was_put_back_is_found_lost_in_the_next_wait(self) -> None:
        queue = self.declare(self.queue_name())
        self.publish(queue, "x")
        with Proxy(self.node.port) as proxy:
            connection = self.connect(proxy.port)
            delivery = Queue(connection, queue).get()
            assert delivery is not None
            proxy.cut()

            def fails() -> bool:
                try:
                    delivery.requeue()
                except DeliveryLost:
                    return True
                return False

            self.wait_until(fails, what="the return of the message to find it")
            for _ in range(2):
                with self.assertRaises(ConnectionLost):
                    connection.wait(0.0)

    def test_time_of_the_last_answer_is_that_of_a_heartbeat_too_and_stays_when_nothing_comes(self) -> None:
        with Proxy(self.node.port) as proxy:
            connection = Connection(amqp_settings(proxy.port, 1), "test")
            self.addCleanup(connection.close)
            connection.wait(0.0)
            first = connection.heard_at

            def has_heard() -> bool:
                connection.wait(0.1)
                return connection.heard_at > first

            self.wait_until(has_heard, what="a heartbeat")
            proxy.silence()
            connection.wait(0.1)  # what had passed before is read
            last = connection.heard_at

            def is_lost() -> bool:
                try:
                    connection.wait(0.1)
                except ConnectionLost:
                    return True
                self.assertEqual(connection.heard_at, last)
                return False

            self.wait_until(is_lost, what="the end of a silent connection")
            self.assertEqual(connection.heard_at, last)

    def test_name_with_a_line_break_is_no_clients(self) -> None:
        # RabbitMQ would take each as the name without the line break.
        name = self.queue_name("client")
        self.channel.queue_declare(name, exclusive=True)
        plain = self.declare(self.queue_name("plain"))
        for end in ("\n", "\r", "\r\n"):
            self.assertFalse(self.asked(name + end))
            self.assertFalse(self.asked(end + plain))


if __name__ == "__main__":
    unittest.main()
