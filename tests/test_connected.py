"""Whether another client is connected, asked on a real broker."""

from __future__ import annotations

import threading
import unittest

from rbit.broker import Connection, is_connected
from tests.support.case import BrokerCase
from tests.support.settings import amqp_settings


class ConnectedTest(BrokerCase):
    def setUp(self) -> None:
        """Connect as a client does."""
        super().setUp()
        node = self.node
        self.connection = Connection(
            amqp_settings(node.port, 2),
            "test",
        )
        self.addCleanup(self.connection.close)

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
