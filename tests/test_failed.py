"""``--list-failed`` and ``--retry-failed``: parked messages are shown without harm, and put back without loss."""

from __future__ import annotations

import signal
import time
import unittest

from rbit.steps import VARIABLE
from tests.support.case import BrokerCase
from tests.support.rbit_process import RbitProcess, rbit_command
from tests.test_loop import CAPTURE, JOBS, ran

STEPS = ("failed message published", "failed message acknowledged")
LIMITED = ("sh", "-c", 'ulimit -v "$0"; exec "$@"', "400000", *rbit_command())  # KiB

MORE = """
import rbit
from jobs import note

def job(message, set_status, settings):
    note(f"{message.body} {message.headers} {message.properties.expiration} {message.properties.content_type}")
    raise rbit.Failed("no good")
"""


class FailedTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.queue = self.queue_name()
        self.failed = f"{self.queue}.failed"

    def text(self, runner: str = "shell!false", **keys: object) -> str:
        return self.ini({self.queue: {"runner": runner, **keys}})

    def park(self, body: bytes | str, why: str = "no reason", **properties: object) -> None:
        headers = {"x-rbit-why": why, "x-rbit-attempt": 3, "x-rbit-status": "Failed", "mine": 1}
        self.publish(self.failed, body, **{"headers": headers, **properties})

    def run_rbit(self, *arguments: str, text: str = "", status: int = 0, **keys: object) -> RbitProcess:
        rbit = self.rbit(text or self.text(), *arguments, **keys)  # type: ignore[arg-type]
        self.assertEqual(rbit.wait(60), status, rbit.output)
        self.assertNotIn("Traceback", rbit.output)
        return rbit

    def list(self, *arguments: str, **keys: object) -> list[str]:
        return self.run_rbit("--list-failed", self.queue, *arguments, **keys).stdout_lines  # type: ignore[arg-type]

    def retry(self, *arguments: str, **keys: object) -> list[str]:
        return self.run_rbit("--retry-failed", self.queue, *arguments, **keys).stdout_lines  # type: ignore[arg-type]

    def sum(self, back: int, left: int) -> list[str]:
        """Return what a retry says."""
        return [f"{self.queue}: {back} put back, {left} left in {self.failed}"]

    def test_failed_jobs_are_shown_one_a_row_and_stay(self) -> None:
        before = int(time.time())
        for body, name in (("a", "first"), (CAPTURE, None), ("c", "third")):
            self.publish(self.queue, body, message_id=name)
        self.run_rbit("--once", text=self.text("shell!echo oops >&2; exit 3"), status=1)
        head, *rows = self.list(environment={"TZ": "UTC"})
        self.assertRegex(head, "^FAILED AT +ATTEMPTS +STATUS +JOB OR MESSAGE +WHY$")
        self.assertEqual(len(rows), 3, rows)
        for row, name in zip(rows, ("first", r"job 1 \S+ \S+", "third"), strict=True):
            moment = time.strftime("%Y-%m-%d %H:", time.gmtime(before))
            self.assertRegex(row, rf"^{moment}\d\d:\d\d  1 +Failed, exit 3  {name} +exit status 3: oops$")
        self.assertEqual(self.bodies(self.failed), [b"a", CAPTURE, b"c"])

    def test_nothing_parked_is_said_and_no_mistake(self) -> None:
        for _ in range(2):
            self.assertEqual(self.list(), [f"{self.queue}: nothing has failed"])
            self.assertEqual(self.retry(), [f"{self.queue}: nothing has failed"])
            self.declare(self.failed)
        self.assertEqual(self.depth(self.queue), -1)

    def test_messages_of_strangers_are_shown_in_one_harmless_line_each(self) -> None:
        self.park("plain", headers=None)
        odd = {"x-rbit-why": b"\xff\n\x1b[2J", "x-rbit-failed-at": 10**18, "x-rbit-attempt": []}
        self.park("\xff", headers=odd)
        self.park("x" * 500, "\u202e\x1b]0;title\x07" + "w" * 500, message_id="i" * 200)
        self.park('{"py/reduce": []}', headers={"x-rbit-exit-status": {"a": 1}, "x-rbit-failed-at": "soon"})
        _, *rows = self.list()
        self.assertEqual(len(rows), 4)
        self.assertRegex(rows[0], "^- +- +- +- +-$")
        for row in rows:
            self.assertTrue(row.isprintable(), row)
            self.assertLessEqual(len(row), 700)
        for columns in ("90", "20"):
            rows = self.list(environment={"COLUMNS": columns})
            self.assertTrue(all(len(row) <= int(columns) for row in rows), rows)
        self.assertEqual(self.depth(self.failed), 4)

    def test_reason_that_is_too_long_for_the_terminal_keeps_its_end(self) -> None:
        self.park("a", "exit status 1: File jobs " + "x" * 200 + " FileNotFoundError: it")
        self.assertIn("x" * 200, self.list()[1], "nothing is cut without a terminal")
        row = self.list(environment={"COLUMNS": "100"})[1]
        self.assertRegex(row, "exit status 1: File jobs ... x+ FileNotFoundError: it$")
        self.assertEqual(len(row), 100)
        row = self.list(environment={"COLUMNS": "80"})[1]
        self.assertRegex(row, r"  \.\.\. FileNotFoundError: it$|  \.\.\. .*x FileNotFoundError: it$")
        self.assertEqual(len(row), 80)

    def test_thousands_are_listed_and_keep_their_order_in_either_type_of_queue(self) -> None:
        for kind in ("classic", "quorum"):
            with self.subTest(kind):
                queue = self.queue_name(kind)
                failed = self.declare(f"{queue}.failed", x_queue_type=kind)
                channel = self.node.connect().channel()  # without confirms, which take a while
                bodies = [str(n).encode() for n in range(3_000)]
                for body in bodies:
                    channel.basic_publish("", failed, body)
                channel.connection.close()
                self.wait_until(lambda name=failed: self.depth(name) == 3_000, what="the messages")
                rbit = self.run_rbit("--list-failed", queue, text=self.ini({queue: {"runner": "shell!false"}}))
                self.assertEqual(len(rbit.stdout_lines), 3_001)
                self.assertEqual(self.bodies(failed), bodies)

    def test_listed_often_nothing_is_dropped_by_a_quorum_queue_that_counts_it(self) -> None:
        self.declare(self.failed, x_queue_type="quorum", x_delivery_limit=5)
        for body in ("a", "b", "c"):
            self.park(body, message_id=f"message-{body}")
        expected = self.list()
        for _ in range(8):
            self.wait_until(lambda: self.depth(self.failed) == 3, what="all of them")
            self.assertEqual(self.list(), expected)
        self.assertEqual(self.retry("--match", "message-b"), self.sum(1, 2))
        self.wait_until(lambda: self.depth(self.failed) == 2, what="the others")
        self.assertEqual(self.bodies(self.failed), [b"a", b"c"])

    def test_bodies_are_not_kept_in_memory(self) -> None:
        for _ in range(50):
            self.park(b"x" * (8 << 20))
        rbit = self.rbit(self.text(), "--list-failed", self.queue, command=LIMITED)
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertEqual(len(rbit.stdout_lines), 51)
        self.assertEqual(self.depth(self.failed), 50)

    def test_retried_messages_are_run_as_first_attempts_while_rbit_runs(self) -> None:
        for name in ("a", "b"):
            self.publish(self.queue, name, headers={"x": 1}, content_type="text/plain", expiration="3600000")
        text = self.text("python!more:job", on_failure="requeue", retry_delay=1, max_attempts=2)
        rbit = self.rbit(text, files={"jobs.py": JOBS, "more.py": MORE})
        self.wait_until(lambda: self.depth(self.failed) == 2, what="the parked messages")
        self.assertEqual(self.retry(text=text), self.sum(2, 0))
        self.wait_until(lambda: self.depth(self.failed) == 2, what="the parked messages again")
        self.assertEqual(rbit.stop(), 0)
        one = "{!r} {{'x': 1}} 3600000 text/plain"
        self.assertEqual(ran(rbit), [one.format(body) for body in (b"a", b"b")] * 4)
        self.assertEqual(self.depth(self.queue), 0)

    def test_only_what_matches_is_put_back_and_the_others_keep_their_order(self) -> None:
        self.park("a", "Disk FULL")
        self.park("b")
        self.park("the disk is full", "other")
        self.park("d", headers=None)
        self.park("e", message_id="Disk full 7")
        self.park(CAPTURE)
        self.assertEqual(len(self.list("--match", "disk full")), 3)
        self.assertEqual(self.retry("--match", "nothing like it"), self.sum(0, 6))
        self.assertEqual(self.retry("--match", "disk full"), self.sum(2, 4))
        self.assertEqual(self.bodies(self.queue), [b"a", b"e"])
        self.assertEqual(self.retry("--match", "COL11406"), self.sum(1, 3))
        self.assertEqual(self.bodies(self.queue), [CAPTURE])
        self.assertEqual(self.bodies(self.failed), [b"b", b"the disk is full", b"d"])

    def test_message_put_back_carries_none_of_the_headers_of_its_failure(self) -> None:
        self.park("a", message_id="m", content_type="text/plain")
        self.retry()
        _, properties, body = self.channel.basic_get(self.queue, auto_ack=True)
        self.assertEqual((body, properties.message_id, properties.content_type), (b"a", "m", "text/plain"))
        self.assertEqual((properties.headers["mine"], properties.delivery_mode), (1, 2))
        self.assertFalse({"x-rbit-why", "x-rbit-attempt", "x-rbit-status"} & set(properties.headers))

    def test_killed_between_any_two_steps_nothing_is_lost(self) -> None:
        for acked, step in enumerate(STEPS, 1):
            with self.subTest(step):
                for body in "abc":
                    self.park(body)
                at = {VARIABLE: f"{step}:2"}
                self.run_rbit("--retry-failed", self.queue, status=-signal.SIGKILL, environment=at)
                # The broker may learn of the end a little later.
                self.wait_until(lambda left=3 - acked: self.depth(self.failed) == left, what="the rest")
                self.retry()
                twice = [b"b"] * (2 - acked)
                self.assertEqual(self.bodies(self.queue), [b"a", b"b", *twice, b"c"])

    def test_broker_that_takes_nothing_back_exits_69_and_all_stays(self) -> None:
        self.declare(self.queue, x_max_length=1, x_overflow="reject-publish")
        for body in "abc":
            self.park(body)
        rbit = self.run_rbit("--retry-failed", self.queue, status=69)
        self.assertRegex(rbit.stderr_lines[-1], f"1 put back; the messages in {self.failed} cannot be put back: ")
        self.assertEqual(self.bodies(self.queue), [b"a"])
        self.wait_until(lambda: self.depth(self.failed) == 2, what="the rest")
        self.assertEqual(self.bodies(self.failed), [b"b", b"c"])

    def test_broker_away_exits_69_and_a_wrong_password_77(self) -> None:
        for option in ("--list-failed", "--retry-failed"):
            for status, amqp in ((69, {"port": 9}), (77, {"password": "wrong-secret"})):
                with self.subTest(option, status=status):
                    text = self.ini({self.queue: {"runner": "shell!true"}}, amqp=amqp)
                    rbit = self.run_rbit(option, self.queue, text=text, status=status)
                    self.assertEqual(len(rbit.lines), 1, rbit.output)
                    self.assertNotIn("wrong-secret", rbit.output)

    def test_wrong_command_line_exits_64_with_one_reason(self) -> None:
        for arguments, reason in (
            (("--list-failed", self.queue[:-1]), rf"no section \[runner:.*\]; did you mean {self.queue}\?"),
            (("--retry-failed", "other\n"), r"rbit.ini has no section \[runner:other\\n\]$"),
            (("--list-failed", ""), r"no section \[runner:\]"),
            (("--list-failed", "q", "--retry-failed", "q"), "--list-failed does not go with --retry-failed"),
            (("--list-failed", "q", "--once"), "--list-failed does not go with --once"),
            (("--retry-failed", "q", "--check"), "--retry-failed does not go with --check"),
            (("--retry-failed", "q", "--poll-time", "5"), "--retry-failed does not go with --poll-time"),
            (("--match", "x"), "--match needs --list-failed or --retry-failed"),
            (("--retry-failed", "q", "--match", ""), "--match needs a text"),
        ):
            with self.subTest(arguments):
                self.assertRegex(self.run_rbit(*arguments, status=64).stderr_lines[-1], reason)


if __name__ == "__main__":
    unittest.main()
