"""A broker that takes deliveries back which are not acknowledged in time, and jobs that take longer."""

from __future__ import annotations

import unittest

from tests.support.case import OwnNodeCase
from tests.test_loop import JOBS, ran


class AcknowledgementTimeoutTest(OwnNodeCase):
    advanced = "[{rabbit, [{channel_tick_interval, 1000}, {consumer_timeout, 4000}]}]."

    def test_long_job_runs_once_although_the_broker_takes_deliveries_back_after_4_seconds(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbits = [
            self.rbit(
                self.ini({queue: {"runner": "python!jobs:slow", "seconds": 40}},
                         rbit={"name": name, "lease_after": 0.5, "lease_ttl": 6, "lease_renew": 1}),
                "--debug", files={"jobs.py": JOBS},
            )
            for name in ("bob-villa", "tim-allen")
        ]
        self.wait_until(lambda: any("end one" in ran(rbit) for rbit in rbits), 90, "the end of the job")
        self.wait_until(
            lambda: any("its message is acknowledged" in rbit.output for rbit in rbits), what="the ack"
        )
        for rbit in rbits:
            self.assertEqual(rbit.stop(), 0)
            self.assertNotIn("it is not run twice", rbit.output)
            self.assertNotIn("lost", rbit.output)
        self.assertEqual(sorted(line for rbit in rbits for line in ran(rbit)), ["end one", "start one"])
        self.assertEqual(self.depth(queue), 0)

    def test_young_job_whose_channel_the_broker_closed_is_not_run_twice(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "one")
        rbit = self.rbit(
            self.ini({queue: {"runner": "python!jobs:gate"}}, rbit={"lease_after": 3600}),
            files={"jobs.py": JOBS},
        )
        rbit.wait_for_line("its message came again; it is not run twice", 60)
        (rbit.folder / "one").touch()
        rbit.wait_for_line("message #1: Done")
        self.wait_until(lambda: self.unacked(queue) == 0 and self.depth(queue) == 0, what="the ack")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(ran(rbit), ["start one", "end one"], rbit.output)


if __name__ == "__main__":
    unittest.main()
