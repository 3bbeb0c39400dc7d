"""PyBit is asked before a build request is run: what its answer, or none, makes of the message."""

from __future__ import annotations

import signal
import time
import unittest
from collections.abc import Mapping
from typing import Any

from tests.support.client_case import NAME, ClientCase, notes
from tests.support.rbit_process import RbitProcess

LOCAL = {"x-rbit-local": True}
OTHER = "other-client"


class GateCase(ClientCase):
    def assert_run(self, rbit: RbitProcess, *jobs: int) -> None:
        """Fail unless these jobs, and no others, are run, each once, and nothing is left in the queue."""
        self.wait_until(
            lambda: len(notes(rbit)) >= len(jobs), what=lambda: f"the jobs; rbit wrote:\n{rbit.output}"
        )
        self.wait_for_ack()
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual(sorted(notes(rbit)), sorted(f"run {job}" for job in jobs), rbit.output)

    def headers(self, queue: str) -> Mapping[str, Any]:
        """Wait for a message in a queue and return its headers; it stays there."""
        found: list[Any] = []

        def there() -> bool:
            method, properties, _ = self.channel.basic_get(queue)
            if method is not None:
                self.channel.basic_nack(method.delivery_tag, requeue=True)
                found.append(properties.headers or {})
            return bool(found)

        self.wait_until(lambda: self.depth(queue) > 0, what=f"a message in {queue}")
        self.wait_until(there, what=f"a message in {queue}")
        return found[0]  # type: ignore[no-any-return]


class AnswerTest(GateCase):
    """What PyBit says."""

    def put(self, job: int, status: str, client: str) -> None:
        """Have PyBit store a status."""
        self.web._database.put_status(self.web._database.job(job), status, client)

    def test_job_that_waits_is_blocked_or_has_failed_is_run_and_one_without_a_status_too(self) -> None:
        jobs = [self.submit(number) for number in range(4)]
        self.put(jobs[1], "Blocked", OTHER)
        self.put(jobs[2], "Failed", OTHER)
        self.call("DELETE", f"/job/{jobs[3]}")
        rbit = self.start("record")
        self.assert_run(rbit, *jobs)
        self.assertEqual([self.asked(job) for job in jobs], [1] * 4)

    def test_only_the_last_status_counts(self) -> None:
        again, done = self.submit(), self.submit(1)
        self.put(again, "Done", OTHER)
        self.put(again, "Waiting", OTHER)
        self.put(done, "Done", OTHER)
        self.assert_run(self.start("record"), again)

    def test_job_that_is_over_at_pybit_is_not_run_and_said_on_the_exchange_but_not_to_pybit(self) -> None:
        self.follow()
        expected = {}
        for number, status in enumerate(("Cancelled", "Done", "Uploaded")):
            expected[self.submit(number)] = status
        for job, status in expected.items():
            self.put(job, status, OTHER)
        rbit = self.start("record")
        for job, status in expected.items():
            update = self.last_update(job)
            self.assertEqual((update["status"], update["queue"]), (status, self.queue))
            rbit.wait_for_line(f"job {job}: {status}: so it is at PyBit, and is not run")
        self.assert_run(rbit)
        self.assertEqual([sent.path for sent in self.web.requests if sent.method == "PUT"], ["/buildd"])
        self.assertEqual(self.depth(f"{self.queue}.failed"), -1)

    def test_superseded_job_whose_message_stays_is_not_run(self) -> None:
        old, new = self.submit(), self.submit()
        self.assertEqual(self.statuses(old), ["Waiting", "Cancelled"])
        self.assert_run(self.start("record"), new)
        self.assertEqual(self.statuses(old), ["Waiting", "Cancelled"])
        self.assertEqual(self.statuses(new), ["Waiting", "Building", "Done"])

    def test_job_that_pybit_does_not_know_is_parked_whatever_becomes_of_failures(self) -> None:
        why = "PyBit knows no job 99; is the url in [pybit] right?"
        for what in ("requeue", "discard"):
            self.follow()
            self.request(99)
            rbit = self.start("record", fates={"on_failure": what})
            self.assertEqual(self.headers(f"{self.queue}.failed")["x-rbit-why"], why)
            update = self.last_update(99)
            self.assertEqual((update["status"], update["message"]), ("Failed", why))
            self.assert_run(rbit)
            self.assertNotIn("/job/99", [request.path for request in self.web.requests])

    def test_job_that_an_earlier_life_of_this_client_has_begun_is_run(self) -> None:
        job = self.submit()
        self.put(job, "Building", NAME)
        self.assert_run(self.start("record"), job)

    def test_job_that_a_client_without_a_queue_is_said_to_build_is_run(self) -> None:
        names = (OTHER, "x" * 300, "\ud800", "name with spaces", "amq.direct")
        jobs = [self.submit(number) for number in range(len(names))]
        for job, name in zip(jobs, names, strict=True):
            self.put(job, "Building", name)
        rbit = self.start("record")
        self.assert_run(rbit, *jobs)
        self.assertNotIn("connection to RabbitMQ lost", rbit.output)

    def test_queue_that_is_no_clients_own_does_not_count_as_a_client(self) -> None:
        name = self.declare(self.queue_name("ordinary"))
        job = self.submit()
        self.put(job, "Building", name)
        self.assert_run(self.start("record"), job)

    def test_job_that_another_living_client_has_begun_waits_in_the_retry_queue_and_runs_when_that_is_gone(
        self,
    ) -> None:
        job = self.submit()
        first = self.start("hold", name=OTHER)
        self.wait_for_note(first, f"start {job}")
        self.wait_until(lambda: self.web.history(job)[-1] == ("Building", OTHER), what="Building")
        self.follow()
        self.request(job)  # as after a lost connection of the other one
        second = self.start("record", fates={"retry_delay": 2})
        second.wait_for_line(f"job {job}: not run: PyBit says that {OTHER} is at it")
        headers = self.headers(f"{self.queue}.retry")
        self.assertNotIn("x-rbit-attempt", headers)
        self.assertEqual(self.statuses(job), ["Waiting", "Building"])
        first.signal(signal.SIGKILL)
        first.wait()
        self.wait_for_note(second, f"run {job}")
        self.assertEqual(self.last_update(job)["attempt"], 1)
        self.assertNotIn("connection to RabbitMQ lost", second.output)
        self.wait_for_statuses(job, "Waiting", "Building", "Building", "Done")
        self.assertEqual(second.stop(), 0, second.output)
        self.channel.queue_delete(f"rbit.status.{OTHER}")


class NoAnswerTest(GateCase):
    """PyBit does not say it, or not in time."""

    def test_job_is_run_when_pybit_fails(self) -> None:
        jobs = [self.submit(number) for number in range(4)]
        for code in (500, 503, 401, 302):
            self.web.fail_next(1, code, path="/job/.*/status")
        self.assert_run(self.start("record"), *jobs)

    def test_job_is_run_when_pybit_is_dead(self) -> None:
        job = self.submit()
        self.web.die()
        rbit = self.start("record")
        self.wait_for_note(rbit, f"run {job}")
        rbit.wait_for_line("PyBit does not say what it knows of it .*; it is run")
        self.wait_for_ack()
        self.web.come_back()
        self.wait_for_statuses(job, "Waiting", "Building", "Done")
        self.assertEqual(rbit.stop(), 0, rbit.output)

    def test_job_is_run_when_the_answer_takes_longer_than_gate_timeout(self) -> None:
        for make in (
            lambda: self.web.slow(60, path="/job/.*/status"), lambda: self.web.drip(0.5), self.web.hang,
        ):
            job = self.submit()
            self.web.cancel(job)  # the answer would be to leave it alone
            make()
            rbit = self.start("record", pybit={"gate_timeout": 0.5})
            self.wait_for_note(rbit, f"run {job}", 10)
            rbit.signal(signal.SIGKILL)
            rbit.wait()
            self.channel.queue_delete(self.queue)
            self.web.slow(0)
            self.web.drip(0)

    def test_job_that_is_asked_about_holds_up_neither_heartbeats_nor_other_jobs(self) -> None:
        local = self.queue_name("local")
        job = self.submit()
        self.web.hang()
        rbit = self.start(
            "record", queues={local: {"runner": "python!jobs:record"}}, concurrency=2, amqp={"heartbeat": 1},
            pybit={"gate_timeout": 6, "timeout": 6},
        )
        self.wait_until(lambda: self.asked(job), what="the gate")
        began = time.monotonic()
        count = 0
        while time.monotonic() < began + 5:  # a broker notices after 3 heartbeats at the latest
            count += 1
            self.request(1000 + count, local, headers=LOCAL)
            self.wait_until(lambda: len(notes(rbit)) == count, 4, "a job beside it")  # noqa: B023
        self.assertNotIn(f"run {job}", notes(rbit))
        self.wait_for_note(rbit, f"run {job}")
        self.web.go_on()
        self.wait_for_ack()
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertNotIn("connection to RabbitMQ lost", rbit.output)


class LocalTest(GateCase):
    """Build requests that did not come from PyBit."""

    def test_local_request_is_run_without_pybit(self) -> None:
        self.follow()
        self.request(99, headers=LOCAL)
        rbit = self.start("record")
        self.assertEqual(self.last_update(99)["status"], "Done")
        self.assert_run(rbit, 99)
        self.assertEqual([sent.path for sent in self.web.requests if "/job" in sent.path], [])

    def test_header_of_another_value_does_not_count(self) -> None:
        for value in ("true", 1, False):
            self.request(99, headers={"x-rbit-local": value})
        rbit = self.start("record")
        self.wait_until(lambda: self.depth(f"{self.queue}.failed") == 3, what="the parked messages")
        self.assert_run(rbit)

    def test_mark_is_kept_by_leases_retries_and_what_is_parked_and_put_back(self) -> None:
        self.request(99, headers=LOCAL)
        fates = {"on_failure": "requeue", "max_attempts": 2, "retry_delay": 2}
        first = self.start("fails", fates=fates, lease_after=0, lease_ttl=3, kill_at="about to be settled")
        first.wait()
        lease = f"rbit.lease.{NAME}.{self.queue}"
        self.assertIs(self.headers(lease)["x-rbit-local"], True)
        second = self.start("fails", fates=fates)
        headers = self.headers(f"{self.queue}.retry")
        self.assertEqual((headers["x-rbit-local"], headers["x-rbit-attempt"]), (True, 2))
        self.assertIs(self.headers(f"{self.queue}.failed")["x-rbit-local"], True)
        self.assertEqual(second.stop(), 0, second.output)
        self.channel.queue_purge(self.queue)
        text = (second.folder / "rbit.ini").read_text()
        retried = self.rbit(text, "--retry-failed", self.queue)
        self.assertEqual(retried.wait(), 0, retried.output)
        self.assertIs(self.headers(self.queue)["x-rbit-local"], True)
        third = self.start("record", "--once")
        self.assertEqual(third.wait(), 0, third.output)
        self.assertEqual(set(notes(third)), {"run 99"}, third.output)
        self.assertEqual([sent.path for sent in self.web.requests if "/job" in sent.path], [])


if __name__ == "__main__":
    unittest.main()
