"""The loop on a real broker: taking messages, running jobs, settling them."""

from __future__ import annotations

import json
import time
import unittest
from collections.abc import Callable
from pathlib import Path

import pika.exceptions
import psutil

from tests.support.case import BrokerCase
from tests.support.processes import descendants
from tests.support.rbit_process import RbitProcess

CAPTURE = (Path(__file__).parent / "captures" / "build_request.json").read_bytes()

JOBS = '''
import json, os, sys, threading, time
import rbit

def note(line):
    with open("ran", "a") as file:
        file.write(line + "\\n")

def record(message, set_status, settings):
    note(f"{message.queue} {message.body.decode()}")

def where(message, set_status, settings):
    note(str(os.getpid()))

def slow(message, set_status, settings):
    note(f"start {message.body.decode()}")
    time.sleep(float(settings["seconds"]))
    note(f"end {message.body.decode()}")

def gate(message, set_status, settings):
    """Runs until the file named like the body exists."""
    note(f"start {message.body.decode()}")
    while not os.path.exists(message.body.decode()):
        time.sleep(0.02)
    note(f"end {message.body.decode()}")

def blocked_once(message, set_status, settings):
    name = f"seen-{message.body.decode()}"
    note(f"run {message.body.decode()}")
    if not os.path.exists(name):
        open(name, "w").close()
        raise rbit.Blocked("missing dependency")

def fails(message, set_status, settings):
    raise ValueError("no good")
'''


def ran(process: RbitProcess) -> list[str]:
    """Return what the jobs wrote to their common file."""
    path = process.folder / "ran"
    return path.read_text().splitlines() if path.exists() else []


class LoopTest(BrokerCase):
    def run_jobs(
        self, runners: dict[str, dict[str, object]], *arguments: str, **sections: object
    ) -> RbitProcess:
        text = self.ini(runners, **sections)  # type: ignore[arg-type]
        return self.rbit(text, *arguments, files={"jobs.py": JOBS})

    def test_messages_are_worked_off_in_order_and_acknowledged(self) -> None:
        queue = self.queue_name()
        for number in range(20):
            self.publish(queue, str(number))
        rbit = self.run_jobs({queue: {"runner": "python!jobs:record"}}, "--once")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit), [f"{queue} {number}" for number in range(20)])
        self.assertEqual(self.depth(queue), 0)

    def test_once_exits_1_when_a_job_failed_and_the_message_is_gone(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a")
        rbit = self.run_jobs({queue: {"runner": "python!jobs:fails"}}, "--once")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertEqual(self.depth(queue), 0)
        self.assertRegex(rbit.output, r"message #1: Failed: ValueError: no good")
        self.assertIn("Traceback (most recent call last)", rbit.output)

    def test_once_with_empty_queues_exits_0(self) -> None:
        rbit = self.run_jobs({self.queue_name(): {"runner": "python!jobs:record"}}, "--once")
        self.assertEqual(rbit.wait(), 0, rbit.output)

    def test_missing_queue_is_created_durable_as_pybit_does(self) -> None:
        queue = self.queue_name("any_latex_pdf")
        rbit = self.run_jobs({queue: {"runner": "python!jobs:record"}}, "--once")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.channel.queue_declare(queue, durable=True)  # as PyBit would: refused if it differed
        self.channel.exchange_declare("pybit", "direct", durable=True)
        self.channel.basic_publish("pybit", queue.replace("_", "."), b"by route", mandatory=True)
        self.assertEqual(self.bodies(queue), [b"by route"])

    def test_only_a_queue_whose_name_has_four_parts_is_bound_and_an_existing_one_too(self) -> None:
        bound, free = self.declare(self.queue_name("any_latex_pdf")), self.queue_name("latex_pdf")
        job = {"runner": "python!jobs:record"}
        rbit = self.run_jobs({bound: dict(job), free: dict(job)}, "--once")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.channel.basic_publish("pybit", bound.replace("_", "."), b"by route", mandatory=True)
        with self.assertRaises(pika.exceptions.UnroutableError):
            self.channel.basic_publish("pybit", free.replace("_", "."), b"by route", mandatory=True)

    def test_exchange_of_another_form_is_taken_as_it_is(self) -> None:
        self.channel.exchange_delete("pybit")
        self.channel.exchange_declare("pybit", "topic", durable=False)
        self.addCleanup(self.channel.exchange_delete, "pybit")
        rbit = self.run_jobs({self.queue_name("any_latex_pdf"): {"runner": "python!jobs:record"}}, "--once")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertNotIn("WARNING", rbit.output)

    def test_workers_start_on_first_need_one_for_each_slot_and_are_used_again(self) -> None:
        queue = self.queue_name()
        rbit = self.run_jobs({queue: {"runner": "python!jobs:gate"}}, rbit={"concurrency": 3})
        rbit.wait_for_line("connected to RabbitMQ")
        self.wait_until(lambda: self.depth(queue) == 0, what="the queue")
        self.assertEqual(descendants(rbit.pid), [])
        for names in (("a1", "a2"), ("b1", "b2")):
            for name in names:
                self.publish(queue, name)
            self.wait_until(lambda: {f"start {name}" for name in names} <= set(ran(rbit)), what="both jobs")  # noqa: B023
            self.assertEqual(len(descendants(rbit.pid)), 2 * 2, "a keeper and a worker each")
            for name in names:
                (rbit.folder / name).touch()
            self.wait_until(lambda: {f"end {name}" for name in names} <= set(ran(rbit)), what="both ends")  # noqa: B023
            ended = 2 if names[0] == "a1" else 4  # else a slot may not be free yet, and a third one begins
            self.wait_until(lambda: rbit.output.count(": Done") == ended, what="both slots")  # noqa: B023
        self.assertEqual(rbit.stop(), 0)

    def run_two(self, between: Callable[[RbitProcess], None], **rbit: object) -> list[str]:
        """Have two messages worked off one after the other; return the process ids of their workers."""
        queue = self.queue_name()
        process = self.run_jobs({queue: {"runner": "python!jobs:where"}}, rbit=rbit)
        for number in (1, 2):
            self.publish(queue, str(number))
            process.wait_for_line(f"message #{number}: Done")
            if number == 1:
                between(process)
        self.assertEqual(process.stop(), 0)
        return ran(process)

    def test_idle_processes_end_and_the_next_message_gets_a_new_worker(self) -> None:
        def gone(process: RbitProcess) -> None:
            self.wait_until(lambda: not descendants(process.pid), what="the end of the idle processes")

        self.assertEqual(len(set(self.run_two(gone, worker_idle=1))), 2)

    def test_worker_is_kept_for_the_next_message(self) -> None:
        def kept(process: RbitProcess) -> None:
            self.assertEqual(len(descendants(process.pid)), 2, "a keeper and a worker")

        self.assertEqual(len(set(self.run_two(kept))), 1)

    def test_existing_queue_of_another_form_is_taken_as_it_is(self) -> None:
        queue = self.declare(self.queue_name(), x_queue_type="quorum")
        self.publish(queue, "a")
        rbit = self.run_jobs({queue: {"runner": "python!jobs:record"}}, "--once")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit), [f"{queue} a"])

    def test_full_queue_does_not_starve_another(self) -> None:
        full, other = self.queue_name("full"), self.queue_name("other")
        for number in range(10):
            self.publish(full, str(number))
        self.publish(other, "x")
        self.publish(other, "y")
        job = {"runner": "python!jobs:record"}
        rbit = self.run_jobs({full: dict(job), other: dict(job)}, "--once")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit)[:4], [f"{full} 0", f"{other} x", f"{full} 1", f"{other} y"])

    def test_no_message_is_taken_that_cannot_start_now(self) -> None:
        queue = self.queue_name()
        for name in ("one", "two", "three"):
            self.publish(queue, name)
        rbit = self.run_jobs({queue: {"runner": "python!jobs:gate"}}, rbit={"concurrency": 2})
        self.wait_until(lambda: len(ran(rbit)) == 2, what="two jobs to start")
        self.assertEqual(self.depth(queue), 1)
        for name in ("one", "two", "three"):
            (rbit.folder / name).touch()
        self.wait_until(lambda: "end three" in ran(rbit), what="the third job")
        self.assertEqual(rbit.stop(), 0)

    def test_concurrency_of_a_queue_is_kept(self) -> None:
        limited, free = self.queue_name("limited"), self.queue_name("free")
        for name in ("a1", "a2"):
            self.publish(limited, name)
        self.publish(free, "b1")
        job = {"runner": "python!jobs:gate"}
        rbit = self.run_jobs(
            {limited: {**job, "concurrency": 1}, free: dict(job)}, rbit={"concurrency": 3}
        )
        self.wait_until(lambda: {"start a1", "start b1"} <= set(ran(rbit)), what="one job of each queue")
        self.assertEqual(self.depth(limited), 1)
        (rbit.folder / "a1").touch()
        self.wait_until(lambda: "start a2" in ran(rbit), what="the second job of the limited queue")
        for name in ("a2", "b1"):
            (rbit.folder / name).touch()
        self.wait_until(lambda: len(ran(rbit)) == 6, what="all ends")
        self.assertEqual(rbit.stop(), 0)

    def test_message_that_comes_while_a_job_runs_starts_when_it_ends_and_not_at_the_next_poll(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "first")
        rbit = self.run_jobs({queue: {"runner": "python!jobs:gate"}}, rbit={"polling_time": 3600})
        self.wait_until(lambda: ran(rbit) == ["start first"], what="the first job")
        self.publish(queue, "second")
        (rbit.folder / "second").touch()
        (rbit.folder / "first").touch()
        self.wait_until(lambda: "end second" in ran(rbit), what="the second job")
        self.assertEqual(rbit.stop(), 0)

    def test_poll_time_option_wins_over_the_file(self) -> None:
        queue = self.declare(self.queue_name())
        rbit = self.run_jobs(
            {queue: {"runner": "python!jobs:record"}}, "--poll-time", "0.1", rbit={"polling_time": 3600}
        )
        sent = "RabbitMQ sends messages, and is " if self.delivery == "push" else ""
        rbit.wait_for_line(f"jobs at once: 1; {sent}polled every 0.1 s")
        rbit.wait_for_line("connected to RabbitMQ")
        self.publish(queue, "late")
        self.wait_until(lambda: ran(rbit) == [f"{queue} late"], what="the late message")
        self.assertEqual(rbit.stop(), 0)

    def test_deleted_queue_is_reported_made_again_and_others_are_worked_on(self) -> None:
        queue, other = self.declare(self.queue_name()), self.declare(self.queue_name("other"))
        job = {"runner": "python!jobs:record"}
        rbit = self.run_jobs({queue: dict(job), other: dict(job)})
        rbit.wait_for_line("connected to RabbitMQ")
        self.publish(other, "before")
        self.wait_until(lambda: ran(rbit) == [f"{other} before"], what="the first message")
        self.channel.queue_delete(queue)
        rbit.wait_for_line(rf"the broker refuses the queue {queue}: .*no queue")
        rbit.wait_for_line(f"queue {queue} was missing and is created")
        self.publish(other, "after")
        self.publish(queue, "again")
        self.wait_until(lambda: len(ran(rbit)) == 3, what="messages on both queues")
        self.assertEqual(rbit.stop(), 0)

    def test_heartbeats_go_on_during_a_job_of_three_times_their_interval_and_it_is_acked_once(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "long")
        rbit = self.run_jobs(
            {queue: {"runner": "python!jobs:slow", "seconds": 6}}, "--once", "--debug", amqp={"heartbeat": 2}
        )
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit), ["start long", "end long"])
        self.assertNotIn("lost", rbit.output)
        self.assertEqual(rbit.output.count("its message is acknowledged"), 1)
        self.assertLess(rbit.output.index("message #1: Done"), rbit.output.index("its message is acknowledged"))
        self.assertEqual((self.depth(queue), self.unacked(queue)), (0, 0))

    def test_client_is_idle_while_all_slots_are_busy_and_polls_are_due(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "long")
        job = {"runner": "python!jobs:gate"}
        rbit = self.run_jobs({self.queue_name("empty"): dict(job), queue: dict(job)}, rbit={"polling_time": 0.05})
        self.wait_until(lambda: ran(rbit) == ["start long"], what="the job")
        client = psutil.Process(rbit.pid)
        before, began = client.cpu_times(), time.monotonic()
        self.wait_until(lambda: time.monotonic() - began > 3, what="a while")
        used = sum(client.cpu_times()[:2]) - sum(before[:2])
        # A loop that does not wait uses all of the time that the machine gives it.
        self.assertLess(used, 0.5)
        (rbit.folder / "long").touch()
        self.assertEqual(rbit.stop(), 0)

    def test_build_request_is_named_by_its_job(self) -> None:
        queue = self.queue_name()
        self.publish(queue, CAPTURE)
        rbit = self.run_jobs({queue: {"runner": "python!jobs:record"}}, "--once")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertRegex(rbit.output, rf"{queue} job {json.loads(CAPTURE)['job']['id']}: Building")
        self.assertRegex(rbit.output, rf"{queue} job 1: Done")
        said = "no [pybit] section: statuses go to this log and to the exchange rbit.status"
        self.assertIn(said, rbit.output)


if __name__ == "__main__":
    unittest.main()
