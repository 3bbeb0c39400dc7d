"""Cancel requests: for jobs that run, that wait somewhere, that have ended, and that are still to come."""

from __future__ import annotations

import itertools
import signal
import time
import unittest

from tests.support.client_case import NAME, ClientCase, notes
from tests.support.processes import is_alive
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess

WITHOUT_END = "while :; do sleep 0.02; done"
SIGNALS = (
    "shell!trap 'date +%%s.%%N >got-int' INT; trap 'date +%%s.%%N >got-term' TERM; "
    f"echo start %JOB $$ >ran; {WITHOUT_END}"
)
SWIFT = 5.0  # seconds; what takes longer has waited for something, also on a busy machine


class RunningTest(ClientCase):
    def start_holding(self, *arguments: str, **more: object) -> tuple[RbitProcess, int, int]:
        """Start a client with a job that runs; return it, PyBit's id of the job, and a process of the job's."""
        job = self.submit()
        rbit = self.start("hold", *arguments, **more)  # type: ignore[arg-type]
        child = self.wait_for_note(rbit, rf"start {job} (\d+)")[1]
        self.wait_for_statuses(job, "Waiting", "Building")
        return rbit, job, int(child)

    def assert_cancelled(self, rbit: RbitProcess, job: int) -> None:
        """Fail unless a job is Cancelled at PyBit, its message is acknowledged, and nothing is parked."""
        self.wait_for_statuses(job, "Waiting", "Building", "Cancelled")
        self.wait_for_ack()
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual((self.depth(f"{self.queue}.failed"), self.depth(f"{self.queue}.retry")), (-1, -1))
        self.assertEqual(sum(line.startswith("start") for line in notes(rbit)), 1, "it must not be run again")

    def test_running_job_is_interrupted_with_all_its_processes_and_cancelled_at_pybit(self) -> None:
        self.follow()
        rbit, job, child = self.start_holding()
        self.web.cancel(job)
        self.wait_for_note(rbit, f"interrupted {job}", SWIFT)
        self.wait_until(lambda: not is_alive(child), what="the end of its child, in a session of its own")
        update = self.last_update(job)
        self.assertEqual((update["status"], update["message"]), ("Cancelled", "cancelled by request"))
        self.assert_cancelled(rbit, job)
        self.assertEqual(self.web.history(job)[-1], ("Cancelled", NAME))

    def test_job_that_ignores_interrupt_and_term_is_killed_after_10_seconds_of_each(self) -> None:
        job = self.submit()
        rbit = self.start(SIGNALS)
        shell = int(self.wait_for_note(rbit, rf"start {job} (\d+)")[1])
        self.wait_for_statuses(job, "Waiting", "Building")
        self.web.cancel(job)
        self.wait_until((rbit.folder / "got-int").exists, SWIFT, "SIGINT")
        self.wait_until(lambda: not is_alive(shell), 60, "SIGKILL")
        ended = time.time()
        interrupted, terminated = (float((rbit.folder / name).read_text()) for name in ("got-int", "got-term"))
        self.assertGreater(terminated - interrupted, 9.0)
        self.assertGreater(ended - terminated, 9.0)
        self.assert_cancelled(rbit, job)

    def test_second_request_changes_nothing(self) -> None:
        rbit, job, _ = self.start_holding()
        for _ in range(3):
            self.ask_to_cancel(job)
        rbit.wait_for_line(f"job {job}: Cancelled")
        self.ask_to_cancel(job)
        rbit.wait_for_line("has ended before it could be cancelled")
        self.assert_cancelled(rbit, job)
        self.assertEqual(sum("interrupted" in line for line in notes(rbit)), 1)

    def test_job_that_is_leased_is_cancelled_and_its_lease_gone(self) -> None:
        rbit, job, _ = self.start_holding("--debug", lease_after=0, lease_ttl=2, lease_renew=0.5)
        rbit.wait_for_line("holds lease 2")
        self.web.cancel(job)
        self.wait_for_note(rbit, f"interrupted {job}")
        self.wait_for_ack(self.queue, f"rbit.lease.{NAME}.{self.queue}")
        self.assert_cancelled(rbit, job)

    def test_cancelled_status_reaches_a_pybit_that_was_away(self) -> None:
        rbit, job, _ = self.start_holding()
        self.web.die()
        self.ask_to_cancel(job)
        self.wait_for_ack()  # the message is not kept for that
        rbit.wait_for_line("PyBit does not answer")
        self.web.come_back()
        self.assert_cancelled(rbit, job)

    def test_cancelled_status_that_the_client_did_not_live_to_tell_is_told_by_the_next(self) -> None:
        rbit, job, _ = self.start_holding()
        self.web.die()
        self.ask_to_cancel(job)
        self.wait_for_ack()
        rbit.signal(signal.SIGKILL)
        rbit.wait()
        self.web.come_back()
        second = self.start("hold")
        self.wait_for_statuses(job, "Waiting", "Building", "Cancelled")
        self.assertEqual(second.stop(), 0, second.output)
        self.assertEqual(notes(second), [])

    def test_job_whose_client_was_killed_before_the_acknowledgement_is_not_run_again(self) -> None:
        with Proxy(self.node.port) as proxy:
            # Else the connection would be given up for its silence, and the message settled on the next one.
            first, job, _ = self.start_holding(amqp={"port": proxy.port, "heartbeat": 60}, lease_after=600)
            proxy.hold(f"rbit {NAME}", answers=False)
            self.ask_to_cancel(job)
            self.wait_for_statuses(job, "Waiting", "Building", "Cancelled")
            self.wait_for_ack(f"rbit.status.{NAME}")
            first.signal(signal.SIGKILL)
            first.wait()
        self.wait_until(lambda: self.depth(self.queue) == 1, what="the message to be back")
        self.follow()
        second = self.start("hold")
        self.assertEqual(self.last_update(job)["status"], "Cancelled")
        self.wait_for_ack()
        self.assertEqual(second.stop(), 0, second.output)
        self.assertEqual((notes(second), self.statuses(job)), ([], ["Waiting", "Building", "Cancelled"]))

    def test_job_that_pybit_does_not_know_to_be_cancelled_when_its_client_is_killed_is_not_run_again(self) -> None:
        first, job, _ = self.start_holding(kill_at="about to be settled")
        self.web.slow(1.0, path=rf"/job/{job}$")
        self.ask_to_cancel(job)
        first.wait()
        second = self.start("hold")
        self.wait_for_ack()
        self.assertEqual(second.stop(), 0, second.output)
        self.assertEqual((notes(second), self.statuses(job)), ([], ["Waiting", "Building", "Cancelled"]))

    def test_job_that_has_just_ended_stays_done(self) -> None:
        job = self.submit()
        rbit = self.start("hold")
        self.wait_for_note(rbit, f"start {job}")
        (rbit.folder / f"go-{job}").touch()
        self.wait_for_statuses(job, "Waiting", "Building", "Done")
        self.ask_to_cancel(job)  # PyBit asked for it before it heard of the end
        rbit.wait_for_line("has ended before it could be cancelled")
        again = self.submit(1)
        self.wait_for_note(rbit, f"start {again}")
        self.wait_for_statuses(again, "Waiting", "Building")
        self.web.cancel(again)
        self.wait_for_statuses(again, "Waiting", "Building", "Cancelled")
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual(self.statuses(job), ["Waiting", "Building", "Done"])

    def test_request_at_any_moment_of_short_jobs_leaves_done_or_cancelled_as_the_last_status(self) -> None:
        rbit = self.start("brief", concurrency=2)
        self.wait_until(self.has_name, what="the name")
        for number in range(60):
            job = self.submit(number)
            if number % 3:
                self.wait_until(lambda: self.asked(job), what="the gate")  # noqa: B023
            if number % 3 == 2:
                self.wait_until(lambda: len(self.statuses(job)) > 1, what="its begin")  # noqa: B023
            self.ask_to_cancel(job)
        self.wait_for_ack()
        self.assertEqual(rbit.stop(), 0, rbit.output)
        possible = (
            ["Waiting", "Building", "Done"], ["Waiting", "Building", "Cancelled"], ["Waiting", "Cancelled"]
        )
        for job in range(1, 61):
            self.assertIn(self.statuses(job), possible, [line for line in rbit.lines if f"job {job}:" in line])

    def test_job_whose_time_is_up_is_cancelled_and_not_tried_again(self) -> None:
        job = self.submit()
        rbit = self.start("late", fates={"timeout": 1, "on_failure": "requeue", "retry_delay": 1})
        self.wait_for_note(rbit, f"terminated {job}")  # by the timeout
        self.ask_to_cancel(job)
        rbit.wait_for_line(f"job {job}: is to be cancelled")
        (rbit.folder / f"go-{job}").touch()
        self.assert_cancelled(rbit, job)

    def test_request_reaches_the_jobs_of_a_busy_client_within_a_second(self) -> None:
        stream = self.queue_name("any_stream_pdf")
        section = {stream: {"runner": "python!jobs:brief", "concurrency": 1}}
        rbit = self.start("hold", concurrency=4, queues=section, polling_time=0.05)
        jobs = [self.submit(number) for number in range(3)]
        for job in jobs:
            self.wait_for_note(rbit, f"start {job}")
        numbers = itertools.count(1000)
        taken = []
        for job in jobs:
            self.wait_for_statuses(job, "Waiting", "Building")
            while self.depth(stream) < 2000:  # more than it does in the time that a request may take
                for _ in range(200):
                    self.request(next(numbers), stream, headers={"x-rbit-local": True})
            self.wait_until(lambda: rbit.output.count(f"{stream} job") > 20, what="the stream")
            began = time.monotonic()
            self.web.cancel(job)
            note = self.wait_for_note(rbit, rf"interrupted {job} (\S+)")
            taken.append(float(note[1]) - began)
        self.assertGreater(self.depth(stream), 0, "the stream must not have ended")
        self.assertLess(min(taken), 1.0, taken)
        self.assertLess(max(taken), SWIFT, taken)
        for job in jobs:
            self.wait_for_statuses(job, "Waiting", "Building", "Cancelled")
        self.channel.queue_purge(stream)
        self.assertEqual(rbit.stop(), 0, rbit.output)


class WaitingTest(ClientCase):
    """Jobs that do not run yet, or not now."""

    def assert_not_run(self, rbit: RbitProcess, job: int, runs: int = 0) -> None:
        """Fail unless a message has gone from its queue without a run, and the last update of it is Cancelled."""
        self.wait_for_ack(self.queue, f"{self.queue}.retry")
        self.assertEqual(self.last_update(job)["status"], "Cancelled")
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual(len(notes(rbit)), runs, rbit.output)
        self.assertEqual(self.depth(f"{self.queue}.failed"), -1)

    def test_job_that_arrives_behind_its_cancel_is_not_run(self) -> None:
        for to_pybit in (False, True):
            with self.subTest(to_pybit):
                self.follow()
                rbit = self.start("record", to_pybit=to_pybit, polling_time=1)
                job = 5 + to_pybit
                self.web.add_job(job)
                self.wait_until(self.has_name, what="the name")
                self.ask_to_cancel(job)
                rbit.wait_for_line(f"job {job}: is not here; it is not run when its message comes")
                self.request(job)
                rbit.wait_for_line(f"job {job}: Cancelled: it was cancelled before it came here")
                self.assert_not_run(rbit, job)
                self.assertEqual(self.statuses(job), ["Waiting", "Cancelled"] if to_pybit else ["Waiting"])

    def test_cancel_counts_for_one_message_of_its_job(self) -> None:
        rbit = self.start("record", to_pybit=False)
        self.wait_until(self.has_name, what="the name")
        self.ask_to_cancel(5)
        rbit.wait_for_line("is not here")
        self.request(5)
        rbit.wait_for_line("job 5: Cancelled")
        self.request(5)  # somebody wants it all the same
        self.wait_for_note(rbit, "run 5")
        self.assertEqual(rbit.stop(), 0, rbit.output)

    def test_job_that_waits_for_its_first_lease_is_not_run(self) -> None:
        self.follow()
        lease = self.declare(f"rbit.lease.{NAME}.{self.queue}")  # not rbit's, so it is not published to
        job = self.submit()
        rbit = self.start("record", lease_after=0)
        rbit.wait_for_line("a copy for the queue rbit.lease.* is tried again")
        self.ask_to_cancel(job)
        self.wait_for_statuses(job, "Waiting", "Cancelled")
        self.channel.queue_delete(lease)
        self.wait_for_ack(self.queue, lease)
        self.assert_not_run(rbit, job)
        self.assertEqual(self.statuses(job), ["Waiting", "Cancelled"])

    def test_blocked_job_that_waits_for_its_next_attempt_is_not_run(self) -> None:
        for to_pybit in (True, False):  # then PyBit sends no request, but says so when it is asked
            with self.subTest(to_pybit):
                self.follow()
                job = self.submit(to_pybit)
                rbit = self.start("blocked", to_pybit=to_pybit, fates={"retry_delay": 2})
                self.wait_for_note(rbit, f"run {job}")
                self.wait_until(lambda: self.depth(f"{self.queue}.retry") == 1, what="the copy")
                if to_pybit:
                    self.wait_for_statuses(job, "Waiting", "Building", "Blocked")
                    self.web.cancel(job)
                else:
                    self.ask_to_cancel(job)
                self.assert_not_run(rbit, job, runs=1)

    def test_job_that_pybit_is_being_asked_about_is_not_run(self) -> None:
        self.follow()
        self.web.hang()
        job = self.submit()
        rbit = self.start("record", pybit={"gate_timeout": 60, "timeout": 60})
        self.wait_until(lambda: self.asked(job), what="the gate")
        self.ask_to_cancel(job)
        rbit.wait_for_line(f"job {job}: Cancelled", SWIFT)
        self.wait_for_ack()
        self.web.go_on()
        self.wait_for_statuses(job, "Waiting", "Cancelled")
        self.assert_not_run(rbit, job)

    def test_request_at_any_moment_of_a_messages_arrival_is_obeyed_or_too_late(self) -> None:
        rbit = self.start("brief", to_pybit=False, concurrency=3, polling_time=0.05)
        self.wait_until(self.has_name, what="the name")
        self.follow()
        for job in range(100, 200):
            self.request(job)
            self.ask_to_cancel(job)
        self.wait_for_ack()
        self.assertEqual(rbit.stop(), 0, rbit.output)
        for job in range(100, 200):
            said = "\n".join(line for line in rbit.lines if f"job {job}:" in line)
            self.assertEqual("is not here" in said and "Done" in said, False, said)
            self.assertRegex(said, "Cancelled|Done")


if __name__ == "__main__":
    unittest.main()
