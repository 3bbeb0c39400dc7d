"""A client that is killed between any two steps of a message's life: nothing is lost."""

from __future__ import annotations

import signal
import unittest

from tests.support.case import BrokerCase
from tests.support.client_case import ClientCase
from tests.support.rbit_process import RbitProcess
from tests.test_loop import JOBS, ran

LEASE_STEPS = (
    "copy about to be published",
    "copy confirmed",
    "lease fetched",
    "lease held",
    "copy about to be published:2",
    "copy confirmed:2",
    "lease fetched:2",
    "lease held:2",
    "about to be settled",
    "settled",
)
PROVEN = "acknowledgements proven"
FAILURE_STEPS = ("copy about to be published", "copy confirmed", "about to be settled", "settled", PROVEN)


class CrashTest(BrokerCase):
    def start(self, text: str, *arguments: str, kill_at: str = "", **files: str) -> RbitProcess:
        rbit = self.rbit(
            text, "--debug", *arguments, files={"jobs.py": JOBS, **files},
            environment={"RBIT_TEST_KILL_AT": kill_at},
        )
        self.addCleanup(rbit.stop)
        return rbit

    def test_killed_at_any_step_of_a_lease_the_message_is_run_and_gone_in_the_end(self) -> None:
        for step in LEASE_STEPS:
            with self.subTest(step):
                queue = self.queue_name(step.replace(" ", "-").replace(":", "-"))
                self.publish(queue, "one", message_id="m")
                text = self.ini(
                    {queue: {"runner": "python!jobs:gate"}},
                    rbit={"lease_after": 0.2, "lease_ttl": 3, "lease_renew": 0.4},
                )
                first = self.start(text, kill_at=step)
                if "settled" in step:
                    (first.folder / "one").touch()
                self.assertEqual(first.wait(), -signal.SIGKILL, first.output)
                second = self.start(text, one="")
                second.wait_for_line("connected to RabbitMQ")
                if step != "settled":  # then the broker may have the ack
                    second.wait_for_line("its message is acknowledged")
                    self.assertEqual(ran(second).count("end one"), 1, second.output)
                lease = f"rbit.lease.bob-villa.{queue}"
                self.wait_until(
                    lambda: self.depth(queue) == 0 and self.depth(lease) <= 0, what="empty queues"  # noqa: B023
                )
                self.assertEqual(second.stop(), 0)
                self.assertLessEqual(self.depth(queue) + max(0, self.depth(lease)), 0, "no copy may be left")

    def test_killed_at_any_step_of_a_failure_the_message_is_parked_in_the_end(self) -> None:
        for step in FAILURE_STEPS:
            with self.subTest(step):
                queue = self.queue_name(step.replace(" ", "-"))
                self.publish(queue, "one")
                text = self.ini({queue: {"runner": "shell!false"}})
                first = self.start(text, "--once", kill_at=step)
                self.assertEqual(first.wait(), -signal.SIGKILL, first.output)
                second = self.start(text, "--once")
                self.assertIn(second.wait(), (0, 1), second.output)
                self.assertEqual(self.depth(queue), 0)
                parked = self.depth(f"{queue}.failed")
                self.assertTrue(parked == 1 if step == PROVEN else parked >= 1, second.output)
                self.assertEqual("Building" in second.output, step != PROVEN, second.output)

    def test_killed_at_any_step_of_a_second_stop_the_message_is_back_in_the_end(self) -> None:
        for step in ("copy about to be published:2", "copy confirmed:2", "about to be settled", "settled"):
            with self.subTest(step):
                queue = self.queue_name(step.replace(" ", "-").replace(":", "-"))
                self.publish(queue, "one")
                text = self.ini(
                    {queue: {"runner": "python!jobs:gate"}},
                    rbit={"lease_after": 0.2, "lease_ttl": 5, "lease_renew": 1.6},
                )
                rbit = self.start(text, kill_at=step)
                rbit.wait_for_line("holds lease 1")
                for _ in range(2):
                    rbit.signal(signal.SIGTERM)
                    rbit.wait_for_line("stopping after")
                self.assertEqual(rbit.wait(), -signal.SIGKILL, rbit.output)
                self.wait_until(lambda: self.depth(queue) >= 1, what="the message")  # noqa: B023


class CancelTest(ClientCase):
    def test_cancel_is_lost_with_the_client_that_was_ending_the_job_and_may_be_asked_for_again(self) -> None:
        job = self.submit()
        stubborn = "shell!trap '' INT TERM; echo start >>ran; while :; do sleep 0.02; done"
        first = self.start(stubborn)
        self.wait_for_note(first, "start")
        self.ask_to_cancel(job)
        first.wait_for_line("is to be cancelled")
        first.signal(signal.SIGKILL)
        first.wait()
        second = self.start("hold")
        self.wait_for_note(second, f"start {job}")
        self.ask_to_cancel(job)
        self.wait_for_note(second, f"interrupted {job}")
        self.wait_until(lambda: self.statuses(job)[-1] == "Cancelled", what=lambda: str(self.statuses(job)))
        self.wait_for_ack()
        self.assertEqual(second.stop(), 0, second.output)


if __name__ == "__main__":
    unittest.main()
