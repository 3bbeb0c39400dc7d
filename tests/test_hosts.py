"""A list of hosts: tried in turn, at the start and whenever a connection is lost."""

from __future__ import annotations

import unittest

from tests.support.case import BrokerCase
from tests.support.node import PrivateNode
from tests.test_loop import JOBS, ran

CLOSED = "127.0.0.1:9"


class HostsTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.second = self.node

    def text(self, queue: str, *nodes: PrivateNode | str) -> str:
        hosts = [node if isinstance(node, str) else f"127.0.0.1:{node.port}" for node in nodes]
        return self.ini({queue: {"runner": "python!jobs:record"}}, amqp={"host": ", ".join(hosts), "port": None})

    def test_host_that_does_not_answer_is_passed_over(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a")
        rbit = self.rbit(self.text(queue, CLOSED, self.second), "--once", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(), 0, rbit.output)
        rbit.wait_for_line(f"INFO connected to RabbitMQ at 127.0.0.1:{self.second.port}$")
        self.assertEqual(len(ran(rbit)), 1)

    def test_next_host_is_taken_when_the_first_goes_away(self) -> None:
        first = PrivateNode()  # no cluster: it is the order that is shown
        self.addCleanup(first.stop)
        first.start()
        queue = self.queue_name()
        self.publish(queue, "b")
        rbit = self.rbit(self.text(queue, first, self.second), files={"jobs.py": JOBS})
        rbit.wait_for_line(f"INFO connected to RabbitMQ at 127.0.0.1:{first.port}$")
        self.assertEqual(ran(rbit), [])
        first.kill()
        rbit.wait_for_line(f"INFO connected again to RabbitMQ at 127.0.0.1:{self.second.port}$")
        rbit.wait_for_line("message #1: Done")
        self.assertEqual(rbit.stop(), 0)

    def test_check_names_the_host_that_answered(self) -> None:
        queue = self.queue_name()
        rbit = self.rbit(self.text(queue, CLOSED, self.second), "--check", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(rbit.stdout_lines, [
            f"RabbitMQ answers at 127.0.0.1:{self.second.port}",
            f"{queue}: python!jobs:record (missing, will be created if its user may do that)",
        ])

    def test_check_names_all_hosts_when_none_answered(self) -> None:
        rbit = self.rbit(self.text(self.queue_name(), CLOSED, "127.0.0.1:13"), "--check", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertRegex(rbit.stderr_lines[-1], "no answer .* at 127.0.0.1:9: .*no answer .* at 127.0.0.1:13: ")


if __name__ == "__main__":
    unittest.main()
