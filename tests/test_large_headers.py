"""Headers that fill a frame: a copy with more of them could never be published, and nothing is lost for it."""

from __future__ import annotations

import unittest

import pika

from tests.support.case import BrokerCase
from tests.support.rbit_process import RbitProcess
from tests.test_loop import JOBS, ran

FRAME = 131_072  # bytes, with the frame's own


class LargeHeadersTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.queue = self.queue_name()

    def fill(self, queue: str, body: str, **more: object) -> dict[str, object]:
        """Publish a message whose headers leave less than 8 bytes of their frame; return them."""
        headers = {"small": 1, **more, "large": "x" * 60_000, "larger": ""}
        properties = pika.BasicProperties(headers=headers, delivery_mode=2)
        used = len(pika.frame.Header(1, len(body), properties).marshal())
        headers["larger"] = "y" * (FRAME - used - 4)
        self.publish(queue, body, headers=headers)
        return headers

    def start(self, runner: str, *arguments: str, lease_after: float = 10, **keys: object) -> RbitProcess:
        lease = {"lease_after": lease_after, "lease_ttl": 3, "lease_renew": 0.5}
        text = self.ini({self.queue: {"runner": runner, **keys}}, rbit=lease)
        return self.rbit(text, *arguments, files={"jobs.py": JOBS})

    def test_failed_message_is_parked_without_its_largest_header_and_put_back(self) -> None:
        self.fill(self.queue, "a")
        rbit = self.start("shell!false", "--once")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        rbit.wait_for_line(f"WARNING a copy for the queue {self.queue}.failed goes without headers .*: larger$")
        self.assertEqual(self.depth(self.queue), 0)
        rbit = self.start("shell!true", "--retry-failed", self.queue)
        self.assertEqual(rbit.wait(), 0, rbit.output)
        _, properties, body = self.channel.basic_get(self.queue, auto_ack=True)
        self.assertEqual(body, b"a")
        self.assertEqual({name: len(str(value)) for name, value in properties.headers.items()},
                         {"small": 1, "large": 60_000, "x-rbit-copy": 16, "x-rbit-left-out": 6})

    def test_blocked_message_comes_again_and_what_it_lost_stays_named(self) -> None:
        self.fill(self.queue, "a")
        rbit = self.start("shell!exit 75", retry_delay=1, max_attempts=3)
        self.wait_until(lambda: self.depth(f"{self.queue}.failed") == 1, what="the parked message")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(rbit.output.count("goes without headers"), 1)
        _, properties, _ = self.channel.basic_get(f"{self.queue}.failed", auto_ack=True)
        self.assertEqual(properties.headers["x-rbit-left-out"], "larger")
        self.assertEqual(properties.headers["x-rbit-attempt"], 3)

    def test_many_small_headers_are_left_out_until_the_copy_fits(self) -> None:
        self.fill(self.queue, "a", **{f"{n:03}{'n' * 200}": True for n in range(300)})
        self.publish(self.queue, "b", headers={f"{n:03}{'n' * 200}": True for n in range(635)})
        rbit = self.start("shell!false", "--once")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertEqual(self.bodies(f"{self.queue}.failed"), [b"a", b"b"])

    def test_message_of_a_stranger_that_fills_its_frame_is_put_back(self) -> None:
        headers = self.fill(f"{self.queue}.failed", "a")
        rbit = self.start("shell!true", "--retry-failed", self.queue)
        self.assertEqual(rbit.wait(), 0, rbit.output)
        _, properties, _ = self.channel.basic_get(self.queue, auto_ack=True)
        self.assertEqual(properties.headers, headers)

    def test_job_without_room_for_a_lease_runs_without_one(self) -> None:
        for after in (0, 0.2):
            with self.subTest(after):
                self.fill(self.queue, f"gate{after}")
                rbit = self.start("python!jobs:gate", lease_after=after)
                rbit.wait_for_line("WARNING .*message #1: its headers leave no room for those of a lease")
                self.wait_until(lambda run=rbit, name=after: ran(run) == [f"start gate{name}"], what="the job")
                (rbit.folder / f"gate{after}").touch()
                rbit.wait_for_line("message #1: Done")
                self.wait_until(lambda: self.unacked(self.queue) == 0, what="the ack")
                self.assertEqual(rbit.stop(), 0)
                self.assertEqual(rbit.output.count("no room"), 1)
                self.assertNotIn("lost", rbit.output)
                self.assertEqual(self.depth(self.queue), 0)


if __name__ == "__main__":
    unittest.main()
