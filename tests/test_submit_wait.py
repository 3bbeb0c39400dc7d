"""``rbit-submit --wait``: how jobs are shown until the last one has ended."""

from __future__ import annotations

import re
import signal
import unittest

from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess, submit_command
from tests.support.submit_case import SubmitCase
from tests.support.terminal import REWRITTEN, Terminal

JOBS = '''
import os, time
import rbit

def reports(message, set_status, settings):
    set_status("Failed", "for now")
    set_status("Done", "after all")

def later(message, set_status, settings):
    if not os.path.exists("seen"):
        open("seen", "w").close()
        raise rbit.Blocked("not yet")

def evil(message, set_status, settings):
    set_status("Building", "\\033[2J" + "x" * 500 + "\\r\\nINFO forged")

def gate(message, set_status, settings):
    set_status("Building", "waiting")
    while not os.path.exists("go"):
        time.sleep(0.02)
'''


class WaitTest(SubmitCase):
    def client(self, runner: str, **rbit: object) -> RbitProcess:
        """Start a client for the queue, which has one more setting."""
        self.text = self.ini({self.queue: {"runner": runner, "retry_delay": 1}}, rbit=rbit)
        return self.rbit(self.text, files={"jobs.py": JOBS})

    def waited(self, status: int = 0, *arguments: str) -> list[str]:
        """Submit job 1, or what the arguments say, wait for its end; return the lines without the queue's name."""
        process = self.submit(self.queue, "--wait", *(arguments or ("--job", "1")), status=status)
        return [line.removeprefix(f"{self.queue} ") for line in process.lines]

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
        rbit = self.client("python!jobs:gate")
        for number in (signal.SIGINT, signal.SIGTERM):
            waiting = self.start_submit(self.queue, "--wait")
            waiting.wait_for_line("published")
            waiting.signal(number)
            self.assertEqual(waiting.wait(), 130, waiting.output)
            self.assertEqual(waiting.stderr_lines, ["rbit-submit: not waiting any more; the jobs go on"])
        (rbit.folder / "go").touch()
        self.wait_until(lambda: rbit.output.count(": Done") == 2, what=lambda: rbit.output)

    def test_lost_connection_exits_69_and_says_that_the_job_goes_on(self) -> None:
        with Proxy(self.node.port) as proxy:
            text = self.ini({self.queue: {"runner": "shell!true"}}, amqp={"port": proxy.port})
            waiting = self.start_submit(self.queue, "--wait", text=text)
            waiting.wait_for_line("published")
            proxy.cut("rbit-submit")
            self.assertEqual(waiting.wait(), 69)
        self.assertRegex(waiting.stderr_lines[-1], r"^rbit-submit: connection to RabbitMQ lost \(.*\); the jobs")
        self.assertEqual(self.depth(self.queue), 1)

    def test_output_that_cannot_be_written_exits_74(self) -> None:
        self.client("shell!true")
        process = self.shell('"$0" "$@" >/dev/full', self.queue, "--wait", status=74)
        self.assertEqual(
            process.stderr_lines[0], "rbit-submit: standard output cannot be written: No space left on device"
        )

    def test_alarm_ends_it_with_69_and_nothing_is_sent_later(self) -> None:
        self.declare(self.queue)
        self.node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            process = self.submit(self.queue, "--count", "2", status=69)
        finally:
            self.node.ctl("set_vm_memory_high_watermark", "0.4")
        self.assertRegex(process.stderr_lines[-1], "^rbit-submit: 0 of 2 published; ")
        self.submit(self.queue, "--job", "7")  # what an abandoned connection held would be there before it
        self.assertEqual(self.depth(self.queue), 1)

    def test_on_a_terminal_one_line_is_rewritten_and_the_last_statuses_stay(self) -> None:
        self.client("python!jobs:evil")
        text = self.on_a_terminal(60, "--count", "2", "--job", "70")
        kept = [line for line in text.replace(REWRITTEN, "\n").splitlines() if line]
        lasting = [line for line in text.split("\r\n") if line]
        self.assertEqual(sum(line.endswith(": Done") for line in lasting), 2, text)
        self.assertRegex(text, re.escape(REWRITTEN) + r"\[0 of 2 ended, \d+ s\] job 70: Building")
        self.assertRegex(text, re.escape(REWRITTEN) + r"\[1 of 2 ended, \d+ s\] ")
        live = [line for line in kept if line.startswith("[")]
        self.assertLess(max(map(len, live)), 60, live)
        self.assertNotIn("\x1b", text.replace(REWRITTEN, ""))
        self.assertNotIn("\nINFO", text)

    def on_a_terminal(self, columns: int, *arguments: str) -> str:
        """Run rbit-submit --wait on a terminal of so many columns; return all that it wrote."""
        folder = self.rbit(self.text, command=("true",)).folder
        terminal = Terminal([*submit_command(), "rbit.ini", self.queue, "--wait", *arguments], folder, columns)
        self.addCleanup(terminal.close)
        self.assertEqual(terminal.wait(), 0, terminal.text)
        return terminal.text


if __name__ == "__main__":
    unittest.main()
