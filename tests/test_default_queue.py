"""The default queue: what belongs to a client is moved to its queues, all else stays where it was."""

from __future__ import annotations

import json
import re
import shlex
import signal
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pika.exceptions
import psutil

from rbit import config
from rbit.broker import Delivery
from rbit.default_queue import DefaultQueue
from rbit.errors import DeliveryLost
from rbit.steps import VARIABLE
from tests.support.case import BrokerCase
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess
from tests.support.readme import example
from tests.test_loop import CAPTURE

STEPS = ("collected message published", "collected message acknowledged")
# Notes the number of the job.
NOTE = "shell!echo %JOB >>ran"
REFUSED = b'{"py/object": "os.system", "job": 1}'


def request(queue: str, job: int = 1) -> bytes:
    """Return a real build request for a queue whose name has four parts."""
    body = json.loads(CAPTURE)
    body["job"]["id"] = job
    instance = body["job"]["packageinstance"]
    names = ("distribution", "arch", "suite", "format")
    for kind, name in zip(names, queue.split("_"), strict=True):
        instance[kind]["name"] = name
    return json.dumps(body).encode()


def job_of(body: bytes) -> int:
    """Return the number of the job in a build request."""
    return int(json.loads(body)["job"]["id"])


def ran(*processes: RbitProcess) -> list[int]:
    """Return the numbers of the jobs that were run, in order for each process."""
    files = [process.folder / "ran" for process in processes]
    return [int(line) for path in files if path.exists() for line in path.read_text().split()]


class DefaultQueueCase(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.queue = self.queue_name("any_latex_pdf")
        self.unknown = self.queue_name("any_web_html")
        self.default = self.queue_name("unclaimed")
        self.addCleanup(self.delete_exchange)

    def delete_exchange(self) -> None:
        connection = self.node.connect()
        connection.channel().exchange_delete(self.default)
        connection.close()

    def text(self, runner: str = NOTE, queue: str = "", amqp: dict[str, object] | None = None,
             **keys: object) -> str:
        rbit = {"default_queue": self.default, **keys}
        return self.ini({queue or self.queue: {"runner": runner}}, rbit=rbit, amqp=amqp)

    def start(self, text: str, *arguments: str, kill_at: str = "") -> RbitProcess:
        return self.rbit(text, *arguments, environment={VARIABLE: kill_at})

    def once(self, text: str, status: int = 0, kill_at: str = "") -> RbitProcess:
        rbit = self.start(text, "--once", kill_at=kill_at)
        self.assertEqual(rbit.wait(120), status, rbit.output)
        self.assertNotIn("Traceback", rbit.output)
        return rbit

    def fill(self, count: int, body: Callable[[int], bytes], queue: str = "") -> None:
        """Publish many messages to a queue, the default one if nothing else is said."""
        connection = self.node.connect()
        channel = connection.channel()
        channel.queue_declare(queue or self.default, durable=True)
        for number in range(count):
            properties = pika.BasicProperties(delivery_mode=2)
            channel.basic_publish("", queue or self.default, body(number), properties)
        connection.close()
        self.wait_until(lambda: self.depth(queue or self.default) == count, what="the messages")


class MoveTest(DefaultQueueCase):
    def test_what_belongs_to_the_client_is_run_and_the_rest_stays_in_order(self) -> None:
        others = [b"raw", REFUSED, request(self.unknown, 90), b"", b"\xff\xfe", b"raw", request(self.unknown, 91)]
        expected = f"3 messages of {self.default} belong to queues of this client and are moved, 21 stay"
        for kind in ("classic", "quorum"):
            with self.subTest(kind):
                arguments = {"x-queue-type": "quorum", "x-delivery-limit": 100} if kind == "quorum" else {}
                self.channel.queue_declare(self.default, durable=True, arguments=arguments)
                for number in range(3):
                    for body in (*others, request(self.queue, number)):
                        self.publish(self.default, body)
                rbit = self.once(self.text())
                self.assertIn(expected, rbit.output)
                self.assertEqual(ran(rbit), [0, 1, 2])
                self.wait_until(lambda: self.depth(self.default) == 21, what="the rest")
                self.assertNotIn("moved", self.once(self.text()).output)
                self.wait_until(lambda: self.depth(self.default) == 21, what="the rest")
                self.assertEqual(self.bodies(self.default), others * 3)
                self.channel.queue_delete(self.default)

    def test_queue_and_exchange_are_made_if_they_are_missing_and_else_used_as_they_are(self) -> None:
        for arguments in ({}, {"x-max-length": 5}):
            with self.subTest(arguments):
                if arguments:
                    self.channel.queue_delete(self.default)
                    self.channel.exchange_delete(self.default)
                    self.channel.queue_declare(self.default, durable=True, arguments=arguments)
                    self.channel.exchange_declare(self.default, "topic", durable=False)
                    self.channel.queue_bind(self.default, self.default, "#")
                self.assertNotIn("WARNING", self.once(self.text()).output)
                self.channel.basic_publish(self.default, "any.thing", request(self.queue), mandatory=True)
                self.assertEqual(ran(self.once(self.text())), [1])
                self.channel.queue_declare(self.default, durable=True, arguments=arguments)
                if not arguments:
                    self.channel.exchange_declare(self.default, "fanout", durable=True)

    def test_queue_whose_name_has_more_parts_gets_its_messages_too(self) -> None:
        body = json.loads(request(self.queue))
        body["job"]["packageinstance"]["suite"]["name"] = "la_tex"
        self.publish(self.default, json.dumps(body))
        self.assertEqual(ran(self.once(self.text(queue=self.queue_name("any_la_tex_pdf")))), [1])

    def test_moved_message_keeps_its_properties(self) -> None:
        self.publish(
            self.default, request(self.queue), message_id="m", content_type="text/x", priority=3,
            expiration="10000000", correlation_id="c", timestamp=1_700_000_000, type="t", reply_to="r", app_id="a",
            headers={"mine": 1, "x-rbit-local": True, "x-rbit-attempt": 4},
        )
        rbit = self.start(self.text("shell!touch begun; sleep 1000"))
        self.wait_until((rbit.folder / "begun").exists, what="the job")
        rbit.signal(signal.SIGKILL)
        rbit.wait()
        self.wait_until(lambda: self.depth(self.queue) == 1, what="the message")
        _, properties, body = self.channel.basic_get(self.queue, auto_ack=True)
        self.assertEqual(body, request(self.queue))
        self.assertEqual((properties.message_id, properties.content_type, properties.priority), ("m", "text/x", 3))
        self.assertEqual((properties.correlation_id, properties.timestamp), ("c", 1_700_000_000))
        self.assertEqual((properties.type, properties.reply_to, properties.app_id), ("t", "r", "a"))
        self.assertEqual(properties.expiration, "10000000", "it still waits no longer than it was to wait")
        self.assertEqual(properties.headers.pop("x-rbit-kept"), {"expiration": "10000000"})
        self.assertRegex(properties.headers.pop("x-rbit-copy"), "^[0-9a-f]{16}$")
        self.assertEqual(properties.headers, {"mine": 1, "x-rbit-local": True, "x-rbit-attempt": 4})

    def test_equal_requests_are_all_run_however_they_came(self) -> None:
        for _ in range(3):
            self.publish(self.default, request(self.queue))
        rbit = self.start(self.text())
        self.wait_until(lambda: len(ran(rbit)) == 3, what="the jobs")
        for total in (4, 5):
            self.publish(self.default, request(self.queue))
            rbit.signal(signal.SIGUSR1)
            self.wait_until(lambda total=total: len(ran(rbit)) == total, what="the same once more")
        self.assertEqual(rbit.stop(), 0)

    def test_killed_between_any_two_steps_nothing_is_lost_and_one_message_is_twice_there(self) -> None:
        for step, most in zip(STEPS, (1, 0), strict=True):
            for number in (1, 3):
                with self.subTest(step, number=number):
                    bodies = [body for job in range(4) for body in (b"raw%d" % job, request(self.queue, job))]
                    for body in bodies:
                        self.publish(self.default, body)
                    first = self.once(self.text(), -signal.SIGKILL, f"{step}:{number}")
                    self.assertEqual(ran(first), [], "jobs come after the pass")
                    # The broker may learn of the end a little later.
                    left = 8 - number + most
                    self.wait_until(lambda left=left: self.depth(self.default) == left, what="the rest")
                    second = self.once(self.text())
                    twice = [number - 1] if most else []
                    self.assertEqual(sorted(ran(second)), sorted([0, 1, 2, 3, *twice]))
                    self.wait_until(lambda: self.depth(self.default) == 4, what="the rest")
                    self.assertEqual(self.bodies(self.default), bodies[::2])

    @example("default-queue rbit.ini", "default-queue policy")
    def test_policy_collects_what_has_no_queue_until_a_client_with_that_section_starts(
        self, ini: str, line: str
    ) -> None:
        self.assertIn("\ndefault_queue = unclaimed\n", ini)
        self.once(self.text(queue=self.queue_name("any_other_zip")))  # makes the queue and the exchange
        command, *arguments = shlex.split(line.removeprefix("$ ").replace("unclaimed", self.default))
        self.assertEqual(command, "rabbitmqctl")
        self.node.ctl(*arguments)
        self.addCleanup(self.node.ctl, "clear_policy", "rbit-default")
        # As PyBit does it.
        self.channel.exchange_declare("pybit", "direct", durable=True)
        for queue, job in ((self.unknown, 1), (self.queue, 2), (self.unknown, 3)):
            properties = pika.BasicProperties(delivery_mode=2, content_type="application/json")
            self.wait_until(lambda n=job: self.collects(queue, n, properties), what="the policy")  # noqa: B023
        rbit = self.start(self.text())
        self.wait_until(lambda: ran(rbit) == [2], what="the job")
        self.channel.basic_publish("pybit", self.queue.replace("_", "."), request(self.queue, 4), mandatory=True)
        self.wait_until(lambda: ran(rbit) == [2, 4], what="the job that comes by its route now")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual([job_of(body) for body in self.bodies(self.default)], [1, 3])

    def collects(self, queue: str, job: int, properties: pika.BasicProperties) -> bool:
        try:
            route = queue.replace("_", ".")
            self.channel.basic_publish("pybit", route, request(queue, job), properties, mandatory=True)
        except pika.exceptions.UnroutableError:  # the policy is on its way
            return False
        return True

    def test_twenty_thousand_messages_are_moved_and_left_quickly(self) -> None:
        self.fill(20_000, lambda n: request(self.queue, n) if n % 20 == 0 else b"%d" % n)
        began = time.monotonic()
        rbit = self.start(self.text("shell!exit 75"))
        rbit.wait_for_line("1000 messages of .* are moved, 19000 stay", 120)
        self.assertLess(time.monotonic() - began, 60)
        self.wait_until(lambda: self.depth(self.default) == 19_000, what="the rest")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(self.bodies(self.default), [b"%d" % n for n in range(20_000) if n % 20])

    def test_bodies_are_not_kept_in_memory(self) -> None:
        for _ in range(50):
            self.publish(self.default, b"x" * (8 << 20))
        self.publish(self.default, request(self.queue))
        rbit = self.start(self.text())
        self.wait_until(lambda: ran(rbit) == [1], 60, "the job")
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{rbit.pid}/status").read_text())
        assert peak is not None
        self.assertLess(int(peak[1]), 200_000)
        self.wait_until(lambda: self.depth(self.default) == 50, what="the rest")

    def test_several_clients_at_once_each_get_theirs(self) -> None:
        queues = [self.queue, self.queue_name("any_latex_epub"), self.queue_name("any_latex_zip")]
        numbers = range(600)
        self.fill(600, lambda n: request(queues[n % 4], n) if n % 4 < 3 else b"%d" % n)
        names = ("bob-villa", "tim-allen", "al-borland")
        texts = [self.text(queue=queue, name=name) for queue, name in zip(queues, names, strict=True)]
        rbits = [self.start(text, "--once") for text in texts]
        for place, rbit in enumerate(rbits):
            self.assertEqual(rbit.wait(120), 0, rbit.output)
            self.assertEqual(ran(rbit), [n for n in numbers if n % 4 == place])
        self.assertEqual(self.bodies(self.default), [b"%d" % n for n in numbers if n % 4 == 3])

    def test_check_shows_it_like_other_queues_and_makes_nothing(self) -> None:
        for state in ("missing, will be created if its user may do that", "messages waiting: 1"):
            rbit = self.rbit(self.text(), "--check")
            self.assertEqual(rbit.wait(), 0, rbit.output)
            self.assertEqual(rbit.stdout_lines[1:], [f"{self.default}: default queue ({state})"])
            self.assertEqual(self.depth(self.default), -1 if "missing" in state else 1)
            self.publish(self.default, "x")


class SignalTest(DefaultQueueCase):
    def test_sigusr1_has_the_queue_gone_through_once_more(self) -> None:
        rbit = self.start(self.text(polling_time=3600))
        self.wait_until(lambda: self.depth(self.default) == 0, what="the default queue")
        for number in range(3):
            self.publish(self.default, request(self.queue, number))
            rbit.signal(signal.SIGUSR1)
            self.wait_until(lambda n=number: ran(rbit) == [*range(n + 1)], what="the job")
        none = f"no message of {self.default} belongs to a queue of this client, "
        for stay in range(2):
            rbit.signal(signal.SIGUSR1)
            rbit.wait_for_line(f"INFO {none}{stay} stay$")
            self.publish(self.default, "x")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(rbit.output.count(f"1 message of {self.default} belongs to queues of this client"), 3)

    def test_sigusr1_during_a_pass_has_one_more_made_after_it(self) -> None:
        self.fill(10_000, lambda n: b"x")
        rbit = self.start(self.text(polling_time=3600))
        self.wait_until(lambda: self.depth(self.default) < 10_000, what="the pass")
        self.publish(self.default, request(self.queue, 7))
        rbit.signal(signal.SIGUSR1)
        rbit.wait_for_line("SIGUSR1: the default queue")
        self.wait_until(lambda: ran(rbit) == [7], 60, what="the job")
        self.assertEqual(rbit.stop(), 0)

    def test_sigusr1_without_a_default_queue_is_logged_and_jobs_go_on(self) -> None:
        rbit = self.start(self.text("shell!touch begun; while ! test -e end; do sleep 0.1; done",
                                    default_queue=None))
        self.publish(self.queue, request(self.queue))
        self.wait_until((rbit.folder / "begun").exists, what="the job")
        rbit.signal(signal.SIGUSR1)
        rbit.wait_for_line("INFO SIGUSR1: there is no default_queue in ")
        (rbit.folder / "end").touch()
        rbit.wait_for_line("job 1: Done")
        self.assertEqual(rbit.stop(), 0)

    def test_sigusr1_at_the_very_start_and_at_the_end_kills_nothing(self) -> None:
        rbit = self.start(self.text())
        status = Path(f"/proc/{rbit.pid}/status")
        bit = 1 << (signal.SIGTERM - 1)

        def caught() -> bool:
            mask = re.search(r"SigCgt:\s+([0-9a-f]+)", status.read_text())
            return mask is not None and int(mask[1], 16) & bit != 0

        self.wait_until(caught, what="the first handlers")
        self.wait_until(
            lambda: rbit.signal(signal.SIGUSR1) or "connected to RabbitMQ" in rbit.output, what="the connection"
        )
        rbit.signal(signal.SIGTERM)
        over = threading.Event()
        bombard = threading.Thread(target=lambda: [rbit.signal(signal.SIGUSR1) for _ in iter(over.is_set, True)])
        bombard.start()
        try:
            self.assertEqual(rbit.wait(), 0, rbit.output)
        finally:
            over.set()
            bombard.join()

    def test_jobs_end_at_sigusr1_as_anywhere(self) -> None:
        rbit = self.start(self.text("shell!kill -USR1 $$; true"), "--once")
        self.publish(self.queue, request(self.queue))
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertIn("SIGUSR1", rbit.output)

    def test_stop_during_a_pass_ends_it_soon_and_all_stays(self) -> None:
        self.fill(20_000, lambda n: b"%d" % n)

        def in_a_pass() -> RbitProcess:
            self.wait_until(lambda: self.depth(self.default) == 20_000, what="the messages")
            rbit = self.start(self.text())
            self.wait_until(lambda: self.depth(self.default) < 18_000, what="the pass")
            return rbit

        self.assert_stops_within(2.0, in_a_pass)
        self.wait_until(lambda: self.depth(self.default) == 20_000, what="the messages")
        self.assertEqual(self.bodies(self.default), [b"%d" % n for n in range(20_000)])

    def test_first_stop_signal_ends_the_pass_though_a_job_goes_on(self) -> None:
        self.fill(20_000, lambda n: b"x")
        self.publish(self.queue, request(self.queue))
        rbit = self.start(self.text("shell!touch begun; while ! test -e end; do sleep 0.1; done"))
        self.wait_until((rbit.folder / "begun").exists, what="the job")
        self.wait_until(lambda: self.depth(self.default) < 20_000, what="the pass")
        rbit.signal(signal.SIGTERM)
        self.wait_until(lambda: self.depth(self.default) == 20_000, what="what was taken")
        self.assertTrue(psutil.pid_exists(rbit.pid))
        (rbit.folder / "end").touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)


class FailureTest(DefaultQueueCase):
    def test_queue_that_takes_nothing_holds_up_no_other_and_gets_its_own_later(self) -> None:
        full, free = self.queue, self.queue_name("any_latex_epub")
        self.declare(full, x_max_length=1, x_overflow="reject-publish")
        for number, queue in enumerate((full, full, free, full, free)):
            self.publish(self.default, request(queue, number))
        gate = "shell!echo %JOB >>ran; while ! test -e end; do sleep 0.1; done"
        runners = {full: {"runner": gate, "concurrency": 1}, free: {"runner": NOTE}}
        rbit = self.start(self.ini(runners, rbit={"default_queue": self.default, "concurrency": 2}))
        warning = f"the default queue {self.default} cannot be gone through, it is tried again: "
        rbit.wait_for_line(f"{warning}.* {full}: it is full")
        self.wait_until(lambda: {2, 4} <= set(ran(rbit)), what="the other jobs")
        (rbit.folder / "end").touch()
        self.wait_until(lambda: sorted(ran(rbit)) == [0, 1, 2, 3, 4], 60, what="all jobs")
        rbit.wait_for_line(f"the default queue {self.default} can be gone through again", 60)
        self.assertEqual(rbit.stop(), 0)

    def test_refused_pass_stops_no_jobs_and_with_once_counts_as_a_queue_that_cannot_be_read(self) -> None:
        turn = self.declare(f"rbit.pass.{self.default}")
        self.addCleanup(self.channel.queue_delete, turn)
        self.publish(self.queue, request(self.queue))
        rbit = self.once(self.text(), 1)
        self.assertEqual(ran(rbit), [1])
        self.assertIn(f"it is left as it is: there is a queue named {turn}, which only rbit may have", rbit.output)

    def test_pass_that_loses_its_connection_is_made_again(self) -> None:
        self.fill(10_000, lambda n: request(self.queue, n) if n == 9_999 else b"%d" % n)
        proxy = Proxy(self.node.port)
        self.addCleanup(proxy.close)
        rbit = self.start(self.text(amqp={"port": proxy.port}))
        # It has most of them still before it, whatever the speed: a look takes as long as a few of its steps.
        self.wait_until(lambda: self.depth(self.default) < 9_900, what="the pass")
        proxy.cut("rbit bob-villa (default queue)")
        rbit.wait_for_line("cannot be gone through, it is tried again: ")
        self.wait_until(lambda: ran(rbit) == [9_999], 60, what="the job")
        self.wait_until(lambda: self.depth(self.default) == 9_999, what="the rest")
        self.assertEqual(rbit.stop(), 0)
        self.assertEqual(self.bodies(self.default), [b"%d" % n for n in range(9_999)])

    def test_copy_of_a_message_that_came_again_has_the_same_name(self) -> None:
        for number in range(3):
            self.publish(self.default, request(self.queue, number))
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "rbit.ini"
        path.write_text(self.text())
        moved = threading.Event()
        default = DefaultQueue(config.read(str(path)), moved.set, once=False)
        self.addCleanup(default.close)
        real, lost = Delivery.ack, iter((False, True, False, False, False))

        def ack(delivery: Delivery, note: object = None) -> None:
            if next(lost):
                raise DeliveryLost("as with a connection that broke before the acknowledgement")
            real(delivery, note)  # type: ignore[arg-type]

        with mock.patch.object(Delivery, "ack", ack), self.assertLogs("rbit.client", "WARNING"):
            default.begin()
            self.wait_until(lambda: not default.busy, what="the second pass")
        self.assertTrue(moved.is_set())
        found = []
        while (got := self.channel.basic_get(self.queue, auto_ack=True))[0] is not None:
            found.append((job_of(got[2]), got[1].headers["x-rbit-copy"]))
        self.assertEqual([job for job, _ in found], [0, 1, 1, 2])
        self.assertEqual(len({name for _, name in found}), 3)
        self.assertEqual(found[1], found[2])


if __name__ == "__main__":
    unittest.main()
