"""``rbit-submit --wait``: how jobs are shown until the last one has ended."""

from __future__ import annotations

import json
import re
import signal
import unittest

import pika

from tests.support.submit_case import WaitCase, only


class WaitTest(WaitCase):
    def test_job_that_ends_done_is_shown_and_exits_0(self) -> None:
        self.client("shell!echo Building half >&$RBIT_STATUS_FD")
        self.assertEqual(
            self.waited(), ["job 1: published", "job 1: Building", "job 1: Building: half", "job 1: Done"]
        )

    def test_job_that_fails_exits_1_with_its_reason(self) -> None:
        self.client("shell!echo no paper >&2; exit 4")
        self.assertEqual(self.waited(1)[-1], "job 1: Failed: exit status 4: no paper")

    def test_only_the_last_status_counts_and_stands_there_once(self) -> None:
        self.client("python!jobs:reports")
        self.assertEqual(self.waited()[2:], ["job 1: Failed: for now", "job 1: Done: after all"])

    def test_uploaded_is_good_too(self) -> None:
        self.client("shell!echo Uploaded there >&$RBIT_STATUS_FD")
        self.assertEqual(self.waited()[-1], "job 1: Uploaded: there")

    def test_blocked_job_is_waited_for_until_it_is_done(self) -> None:
        self.client("python!jobs:later")
        shown = self.waited()
        self.assertIn("job 1: Blocked: not yet", shown)
        self.assertEqual(shown[-1], "job 1 (attempt 2): Done")

    def test_of_several_jobs_the_last_is_waited_for_and_one_failure_exits_1(self) -> None:
        self.client('shell!test "$RBIT_JOB" != 71', concurrency=2)
        shown = self.waited(1, "--count", "3", "--job", "70")
        ends = sorted(line for line in shown if re.search("Done|Failed", line))
        self.assertEqual(ends, ["job 70: Done", "job 71: Failed: exit status 1", "job 72: Done"])

    def test_raw_message_is_known_by_its_id_among_others(self) -> None:
        self.client("shell!cat")
        self.publish(self.queue, "another's", message_id="another")
        process = self.submit(self.queue, "--file", "body", "--wait", files={"body": "mine"})
        self.assertEqual([re.sub("[0-9a-f]{32}", "ID", line) for line in process.lines], [
            f"{self.queue} message ID: {word}" for word in ("published", "Building", "Done")])

    def test_cancelled_job_exits_1(self) -> None:
        rbit = self.client("python!jobs:gate")
        waiting = self.start_submit(self.queue, "--wait", "--job", "7")
        waiting.wait_for_line("Building: waiting")
        self.submit("--cancel", "7", "--client", "bob-villa")
        self.assertEqual(waiting.wait(), 1)
        self.assertTrue(waiting.lines[-1].endswith("job 7: Cancelled: cancelled by request"), waiting.output)
        self.assertEqual(rbit.stop(), 0)

    def test_without_a_client_a_hint_is_given_once(self) -> None:
        waiting = self.start_submit(self.queue, "--wait")
        waiting.wait_for_line(r"no client has taken it yet; is rbit running with a section \[runner:")
        self.client("shell!true")
        self.assertEqual(waiting.wait(), 0, waiting.output)
        self.assertEqual(len(waiting.stderr_lines), 1)

    def test_signal_ends_the_waiting_with_130_and_one_line_and_not_the_job(self) -> None:
        rbit = self.client("python!jobs:gate", concurrency=2)
        for number in (signal.SIGINT, signal.SIGTERM):
            waiting = self.start_submit(self.queue, "--wait")
            waiting.wait_for_line("Building: waiting")
            waiting.signal(number)
            self.assertEqual(waiting.wait(), 130, waiting.output)
            self.assertEqual(waiting.stderr_lines, ["rbit-submit: not waiting any more; the jobs go on"])
        (rbit.folder / "go").touch()
        self.wait_until(lambda: rbit.output.count(": Done") == 2, what=lambda: rbit.output)

    def test_job_that_a_client_moves_into_a_queue_of_its_own_is_followed_there(self) -> None:
        self.submit(self.queue, "--job", "70")
        body = only(self.bodies(self.queue)).decode()
        collected = self.declare(self.queue_name("unclaimed"))
        self.addCleanup(self.channel.exchange_delete, collected)  # the client makes it
        waiting = self.start_submit(collected, "--file", "body", "--wait", files={"body": body})
        waiting.wait_for_line("job 70: published")
        self.client("shell!true", default_queue=collected)
        self.assertEqual(waiting.wait(), 0, waiting.output)
        self.assertEqual(waiting.lines[-1], f"{collected} job 70: Done")

    def test_statuses_of_other_jobs_and_what_is_no_status_are_passed_over(self) -> None:
        self.declare(self.queue)
        waiting = self.start_submit(self.queue, "--wait", "--job", "1")
        waiting.wait_for_line("published")
        mine = only(self.taken(self.queue))[1].message_id
        done = {
            "job": 1, "queue": self.queue, "client": "another", "status": "Done", "message": "", "time": 0.0,
            "attempt": 1, "final": True,
        }
        half = {**done, "status": "Building", "message": "half", "final": False}
        for answers, said in (
            (None, done), ("another", done), (b"\xff", done), (mine, None), (mine, [done]),
            (mine, {"final": True}), (mine, {**done, "status": 5}), (mine, half), (mine, done),
        ):
            basic = pika.BasicProperties(correlation_id=answers)
            self.channel.basic_publish("rbit.status", "any.key", json.dumps(said), basic, mandatory=True)
        self.assertEqual(waiting.wait(), 0, waiting.output)
        self.assertEqual([line.removeprefix(f"{self.queue} ") for line in waiting.lines], [
            "job 1: published", "job 1: Building: half", "job 1: Done"])

    def test_each_of_many_jobs_is_seen_to_end(self) -> None:
        self.client("shell!true", concurrency=2)
        shown = self.waited(0, "--count", "100", "--job", "1000")
        self.assertEqual(sorted(line for line in shown if line.endswith(": Done")),
                         [f"job {job}: Done" for job in range(1000, 1100)])


if __name__ == "__main__":
    unittest.main()
