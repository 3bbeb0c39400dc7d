"""What becomes of messages: parked, tried again, discarded, put back; with the headers that say why."""

from __future__ import annotations

import signal
import time
import unittest
from typing import Any

from tests.support.case import BrokerCase
from tests.support.rbit_process import RbitProcess
from tests.test_loop import CAPTURE, JOBS, ran

MORE = '''
import rbit
from jobs import note

def blocked(message, set_status, settings):
    note(f"run {message.body.decode()} {message.headers} {message.properties.expiration}")
    raise rbit.Blocked("missing dependency")

def fails_twice(message, set_status, settings):
    note("run")
    if len(open("ran").readlines()) < 3:
        raise ValueError("no good")
'''


class FateTest(BrokerCase):
    def start(self, runner: str, queue: str, *arguments: str, **keys: object) -> RbitProcess:
        return self.rbit(
            self.ini({queue: {"runner": runner, **keys}}, rbit={"polling_time": 0.2}), *arguments,
            files={"jobs.py": JOBS, "more.py": MORE},
        )

    def take(self, queue: str) -> tuple[bytes, Any]:
        """Take one message; return its body and properties."""
        method, properties, body = self.channel.basic_get(queue, auto_ack=True)
        self.assertIsNotNone(method, f"no message in {queue}")
        return body, properties

    def test_failed_message_is_parked_with_what_happened(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a", content_type="text/plain", headers={"x": 1}, message_id="m1")
        before = int(time.time())
        rbit = self.start("shell!echo oops >&2; exit 3", queue, "--once")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertEqual(self.depth(queue), 0)
        body, properties = self.take(f"{queue}.failed")
        headers = properties.headers
        self.assertEqual((body, properties.content_type, properties.message_id), (b"a", "text/plain", "m1"))
        self.assertEqual(properties.delivery_mode, 2)
        self.assertEqual(headers["x"], 1)
        self.assertRegex(headers["x-rbit-why"], "exit status 3.*oops")
        self.assertTrue(before <= headers["x-rbit-failed-at"] <= time.time())
        wanted = {"status": "Failed", "client": "bob-villa", "attempt": 1, "exit-status": 3, "queue": queue}
        self.assertEqual({key: headers[f"x-rbit-{key}"] for key in wanted}, wanted)

    def test_refused_body_is_parked(self) -> None:
        queue = self.queue_name()
        self.publish(queue, '{"py/reduce": [{"py/function": "os.system"}, ["true"]]}')
        rbit = self.start("python!jobs:record", queue, "--once")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        _, properties = self.take(f"{queue}.failed")
        self.assertRegex(properties.headers["x-rbit-why"], "is not allowed")
        self.assertEqual(ran(rbit), [])

    def test_failed_message_is_discarded_if_the_section_says_so(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a")
        rbit = self.start("shell!false", queue, "--once", on_failure="discard")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertEqual((self.depth(queue), self.depth(f"{queue}.failed")), (0, -1))

    def test_failed_message_is_tried_again_after_its_delay(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a")
        rbit = self.start("python!more:fails_twice", queue, on_failure="requeue", retry_delay=1)
        rbit.wait_for_line("Waiting: attempt 1 failed, tried again in 1 s: ValueError: no good")
        rbit.wait_for_line("message #3: Done")
        self.wait_until(lambda: self.unacked(queue) == 0, what="the ack")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["run"] * 3)
        self.assertEqual((self.depth(queue), self.depth(f"{queue}.retry")), (0, 0))

    def test_message_that_fails_too_often_is_parked(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a")
        rbit = self.start(
            "python!jobs:fails", queue, on_failure="requeue", retry_delay=1, max_attempts=2
        )
        self.wait_until(lambda: self.depth(f"{queue}.failed") == 1, what="the parked message")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(self.take(f"{queue}.failed")[1].headers["x-rbit-attempt"], 2)
        self.assertEqual((self.depth(queue), self.depth(f"{queue}.retry")), (0, 0))

    def test_blocked_message_waits_in_the_retry_queue_and_comes_again(self) -> None:
        queue = self.queue_name()
        for name in ("a", "b"):
            self.publish(queue, name, content_type="text/plain", headers={"x": 1})
        rbit = self.start("python!jobs:blocked_once", queue, retry_delay=1)
        self.wait_until(lambda: len(ran(rbit)) == 4, what="the second runs")
        rbit.wait_for_line("message #4: Done")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["run a", "run b", "run a", "run b"])
        self.assertEqual((self.depth(queue), self.depth(f"{queue}.retry")), (0, 0))

    def test_waiting_message_has_its_properties_and_the_number_of_the_next_attempt(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a", content_type="text/plain", headers={"x": 1})
        rbit = self.start("python!more:blocked", queue, "--once", retry_delay=3600)
        self.assertEqual(rbit.wait(), 1, rbit.output)
        body, properties = self.take(f"{queue}.retry")
        self.assertEqual((body, properties.content_type, properties.delivery_mode), (b"a", "text/plain", 2))
        self.assertEqual((properties.headers["x"], properties.headers["x-rbit-attempt"]), (1, 2))
        self.assertEqual(properties.expiration, "3600000")

    def test_message_that_is_blocked_too_often_is_failed(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a", expiration="3600000", headers={"x": 1})
        rbit = self.start("python!more:blocked", queue, retry_delay=1, max_attempts=2)
        rbit.wait_for_line("message #2: Failed: Blocked in each of 2 attempts: missing dependency")
        self.wait_until(lambda: self.depth(f"{queue}.failed") == 1, what="the parked message")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["run a {'x': 1} 3600000"] * 2, "the job must see what the publisher sent")
        self.assertIsNone(self.take(f"{queue}.failed")[1].expiration)

    def test_copies_for_another_user_with_cc_and_expiration_are_made_once_each(self) -> None:
        queue, other = self.declare(self.queue_name()), self.declare(self.queue_name("cc"))
        self.publish(
            queue, "a", headers={"CC": [other], "keep": True}, user_id=self.node.user, expiration="60000"
        )
        self.assertEqual(self.bodies(other), [b"a"])
        self.node.ctl("add_user", "another", "secret")
        self.addCleanup(self.node.ctl, "delete_user", "another")
        self.node.ctl("set_permissions", "another", ".*", ".*", ".*")
        rbit = self.rbit(
            self.ini({queue: {"runner": "shell!false"}}, amqp={"user": "another", "password": "secret"}), "--once"
        )
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertEqual((self.depth(f"{queue}.failed"), self.depth(queue), self.depth(other)), (1, 0, 0))
        _, properties = self.take(f"{queue}.failed")
        self.assertEqual((properties.user_id, properties.expiration), (None, None))
        self.assertEqual(
            properties.headers["x-rbit-kept"],
            {"CC": [other], "user_id": self.node.user, "expiration": "60000"},
        )

    def test_queue_of_failed_messages_drops_the_oldest(self) -> None:
        queue = self.queue_name()
        for name in "abc":
            self.publish(queue, name)
        rbit = self.start("shell!false", queue, "--once", failed_max=2)
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertEqual(self.bodies(f"{queue}.failed"), [b"b", b"c"])

    def test_queue_of_failed_messages_with_another_limit_is_a_warning_and_used(self) -> None:
        queue = self.queue_name()
        self.declare(f"{queue}.failed", x_max_length=5)
        self.publish(queue, "a")
        rbit = self.start("shell!false", queue, "--once")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertRegex(rbit.output, rf"WARNING queue {queue}.failed has other settings .*x-max-length")
        self.assertEqual(self.bodies(f"{queue}.failed"), [b"a"])

    def test_foreign_retry_queue_from_which_nothing_returns_gets_no_message(self) -> None:
        queue = self.queue_name()
        self.declare(f"{queue}.retry")
        self.publish(queue, "a")
        rbit = self.start("python!jobs:blocked_once", queue, retry_delay=1)
        rbit.wait_for_line(f"its messages would not come back to {queue}; please delete it")
        self.assertEqual(self.depth(f"{queue}.retry"), 0)
        self.channel.queue_delete(f"{queue}.retry")
        rbit.wait_for_line("message #2: Done", 60)
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual((self.depth(queue), self.depth(f"{queue}.retry")), (0, 0))

    def test_retry_queue_of_the_other_type_is_used_with_a_warning(self) -> None:
        queue = self.queue_name()
        self.declare(
            f"{queue}.retry", x_queue_type="quorum", x_delivery_limit=1_000_000, x_dead_letter_exchange="",
            x_dead_letter_routing_key=queue, x_dead_letter_strategy="at-least-once", x_overflow="reject-publish",
        )
        self.publish(queue, "a")
        rbit = self.start("python!jobs:blocked_once", queue, retry_delay=1)
        rbit.wait_for_line(f"WARNING queue {queue}.retry has other settings and stays as it is: .*x-")
        rbit.wait_for_line("message #2: Done", 60)
        self.assertEqual(rbit.stop(), 0)

    def test_message_stays_where_it_is_while_the_broker_refuses_its_copy(self) -> None:
        queue, other = self.queue_name(), self.queue_name("other")
        # A queue that takes nothing: what is published to it is refused.
        self.declare(f"{queue}.failed", x_max_length=0, x_overflow="reject-publish")
        for name in ("a", "b"):
            self.publish(queue, name)
        self.publish(other, "c")
        rbit = self.rbit(self.ini({queue: {"runner": "shell!false"}, other: {"runner": "shell!true"}}))
        rbit.wait_for_line(f"a copy for the queue {queue}.failed is tried again, as RabbitMQ did not take it")
        rbit.wait_for_line(f"{other} message #[0-9]: Done")
        self.assertEqual(self.depth(queue), 1, "no more of its messages may be taken")
        rbit.signal(signal.SIGTERM)
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertEqual(self.bodies(queue), [b"a", b"b"])

    def test_job_of_pybit_is_reported_in_each_attempt(self) -> None:
        queue = self.queue_name()
        self.publish(queue, CAPTURE)
        rbit = self.start("shell!exit 75", queue, retry_delay=1, max_attempts=2)
        rbit.wait_for_line("job 1: Failed: Blocked in each of 2 attempts")
        self.assertEqual(sum("job 1: Building" in line for line in rbit.lines), 2)
        self.assertEqual(rbit.stop(), 0)


if __name__ == "__main__":
    unittest.main()
