"""The command queue: the client's name on the broker, and what becomes of strange commands."""

from __future__ import annotations

import json
import time
import unittest

from rbit.presence import TRY_EVERY
from tests.support.client_case import CAPTURES, NAME, ClientCase, notes
from tests.support.rbit_process import RbitProcess

REQUEST = json.loads((CAPTURES / "cancel_request.json").read_bytes())
ALL_BUT = f"^(?!{NAME}$).*"  # a permission
MADE_UP = '{"py/object": "pybit.models.CancelRequest", "job": %s, "web_host": "h"}'


def changed(number: int, **names: object) -> str:
    """Return a cancel request of a job whose package instance has other names."""
    body = json.loads(json.dumps(REQUEST))
    body["job"]["id"] = number
    for part, name in names.items():
        body["job"]["packageinstance"][part]["name"] = name
    return json.dumps(body)


MALFORMED = {  # by what is wrong
    "empty": "", "no JSON": "cancel job 5", "binary": b"\xff\xfe\x00", "a number": "5", "null": "null",
    "a list": "[]", "no object of PyBit's": '{"job": {"id": 5}}',
    "not its class": '{"py/object": "os.system", "job": 5}',
    "code": '{"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["touch ran"]}]}',
    "no job": MADE_UP % "null", "empty job": MADE_UP % '{"py/object": "pybit.models.Job"}',
    "job without id": MADE_UP % '{"py/object": "pybit.models.Job", "id": null}',
    "id is a text": MADE_UP % '{"py/object": "pybit.models.Job", "id": "5"}',
    "id is a list": MADE_UP % '{"py/object": "pybit.models.Job", "id": [5]}',
    "id is a flag": MADE_UP % '{"py/object": "pybit.models.Job", "id": true}',
    "id is a fraction": MADE_UP % '{"py/object": "pybit.models.Job", "id": 1e3}',
    "id of many digits": MADE_UP % ('{"py/object": "pybit.models.Job", "id": 1%s}' % ("0" * 5000)),
    "deep": "[" * 100_000, "large": '{"py/object": "pybit.models.CancelRequest", "x": "%s"}' % ("x" * 2_000_000),
    "reference": MADE_UP % '{"py/id": 7}',
    "a key twice": '{"py/object": "pybit.models.CancelRequest", "job": 1, "job": 2}',
}
STRANGE = (  # each of a job of its own
    changed(11, distribution=None, arch=None, suite=None, format=None),
    changed(12, suite="\ud800"),  # half a character
    changed(13, format="x" * 100_000),
    changed(14, arch="a\nERROR b"),
    MADE_UP % '{"py/object": "pybit.models.Job", "id": 15}',
    MADE_UP % '{"py/object": "pybit.models.Job", "id": -16}',
    MADE_UP % ('{"py/object": "pybit.models.Job", "id": 1%s}' % ("0" * 4000)),
)


class CommandQueueTest(ClientCase):
    def start_holding(self, **arguments: object) -> tuple[RbitProcess, int]:
        """Start a client with a job that runs; return both."""
        job = self.submit()
        rbit = self.start("hold", **arguments)  # type: ignore[arg-type]
        self.wait_for_note(rbit, f"start {job}")
        return rbit, job

    def assert_cancels(self, rbit: RbitProcess, job: int) -> None:
        """Cancel the job at PyBit, and fail unless the client obeys with the connection that it has had."""
        self.web.cancel(job)
        self.wait_for_note(rbit, f"interrupted {job}")
        self.wait_for_statuses(job, "Waiting", "Building", "Cancelled")
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertNotIn("connection to RabbitMQ lost", rbit.output)
        self.assertNotIn("Traceback", rbit.output)

    def test_pybit_shows_the_client_as_active_while_it_runs_also_without_a_section_for_pybit(self) -> None:
        for to_pybit in (True, False):
            with self.subTest(to_pybit):
                self.assertFalse(self.has_name())
                rbit = self.start("record", to_pybit=to_pybit)
                self.wait_until(self.has_name, what="the name")
                self.assertEqual(rbit.stop(), 0, rbit.output)
                self.wait_until(lambda: not self.has_name(), what="the end of the name")

    def test_client_of_three_slots_has_one_queue_like_that_of_pybits_own_client(self) -> None:
        rbit = self.start("record", concurrency=3)
        rbit.wait_for_line("connected to RabbitMQ")
        self.wait_until(self.has_name, what="the name")
        self.wait_until(lambda: NAME in self.node.ctl("list_consumers", "queue_name"), what="the consumer")
        columns = ("name", "durable", "auto_delete", "exclusive", "consumers")
        table = self.node.ctl("list_queues", "--no-table-headers", *columns).splitlines()
        lines = [row for line in table if (row := line.split("\t"))[0] == NAME]
        self.assertEqual(lines, [[NAME, "false", "true", "true", "1"]])
        columns = ("source_name", "destination_name", "routing_key")
        table = self.node.ctl("list_bindings", "--no-table-headers", *columns).splitlines()
        bindings = [line.split("\t") for line in table if f"\t{NAME}\t" in line and line.startswith("pybit")]
        self.assertEqual(bindings, [["pybit", NAME, NAME]])
        self.assertEqual(rbit.stop(), 0, rbit.output)

    def test_queue_that_is_deleted_while_the_connection_lives_is_made_again(self) -> None:
        rbit, job = self.start_holding()
        for times in (1, 2):
            self.node.ctl("delete_queue", NAME)
            self.wait_until(lambda: rbit.output.count(f"the queue {NAME} is gone") == times, what="its loss")  # noqa: B023
            self.wait_until(self.has_name, what="the name")
        self.assert_cancels(rbit, job)
        self.assertEqual(rbit.output.count("is gone"), 2)

    def test_malformed_commands_are_logged_in_a_line_each_and_dropped(self) -> None:
        rbit, job = self.start_holding()
        for body in MALFORMED.values():
            self.command(body)
        said = f"a message in the queue {NAME} is no command and is dropped: "
        self.wait_until(lambda: rbit.output.count(said) == len(MALFORMED), what=lambda: rbit.output)
        self.assertTrue(all(len(line) < 400 for line in rbit.lines), rbit.output)
        self.assert_cancels(rbit, job)
        self.assertEqual([line.split()[0] for line in notes(rbit)], ["start", "interrupted"])

    def test_commands_with_strange_names_and_numbers_end_nothing(self) -> None:
        rbit, job = self.start_holding()
        for number, body in enumerate(STRANGE, start=1):
            self.command(body)
            self.wait_until(lambda: rbit.output.count("is not here") == number, what=lambda: rbit.output)  # noqa: B023
        self.assertTrue(all(len(line) < 9000 for line in rbit.lines), rbit.output)
        self.assert_cancels(rbit, job)
        self.assertEqual([line for line in rbit.lines if line.startswith("ERROR")], [])

    def test_commands_of_pybit_that_rbit_does_not_know_are_dropped(self) -> None:
        rbit, job = self.start_holding()
        for kind in ("CommandRequest", "StatusRequest", "BuildRequest"):
            self.command_of(kind, job=REQUEST["job"] | {"id": job}, web_host="127.0.0.1:1")
        self.command_of("Job", id=job)
        said = "is none that rbit knows, and is dropped"
        self.wait_until(lambda: rbit.output.count(said) == 4, what="the lines")
        self.assert_cancels(rbit, job)

    def test_flood_of_junk_holds_up_neither_jobs_nor_heartbeats_nor_commands(self) -> None:
        rbit, job = self.start_holding(amqp={"heartbeat": 1}, concurrency=2)
        other = self.submit(1)
        junk = [body for body in MALFORMED.values() if len(body) < 10_000]
        large = MALFORMED["large"]
        channel = self.node.connect().channel()  # without confirms
        for number in range(3000):
            channel.basic_publish("pybit", NAME, large if number % 300 == 0 else junk[number % len(junk)])
        channel.connection.close()
        self.wait_for_note(rbit, f"start {other}")
        (rbit.folder / f"go-{other}").touch()
        self.wait_for_statuses(other, "Waiting", "Building", "Done")
        self.assert_cancels(rbit, job)


class PermissionTest(ClientCase):
    """A user who may not do everything."""

    def work_as(self, configure: str, write: str, read: str) -> RbitProcess:
        """Run a client whose user has these permissions, with some jobs."""
        self.node.ctl("add_user", "limited", "secret")
        self.addCleanup(self.node.ctl, "delete_user", "limited")
        self.node.ctl("set_permissions", "limited", configure, write, read)
        rbit = self.start("hold", amqp={"user": "limited", "password": "secret"})
        began = time.monotonic()
        number = 0
        while number < 2 or time.monotonic() < began + 2 * TRY_EVERY:
            job, number = self.submit(number), number + 1
            self.wait_for_note(rbit, f"start {job}")
            (rbit.folder / f"go-{job}").touch()
            self.wait_for_note(rbit, f"end {job}")
        self.wait_for_ack()
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertNotIn("connection to RabbitMQ lost", rbit.output)
        return rbit

    def test_user_who_may_not_make_the_queue_has_jobs_run_and_is_told_once(self) -> None:
        rbit = self.work_as(ALL_BUT, ".*", ".*")
        said = f"WARNING the broker refuses the queue {NAME}: .*no other client is kept from this name, and no job"
        rbit.wait_for_line(said)
        self.assertEqual(sum("WARNING" in line for line in rbit.lines), 1, rbit.output)

    def assert_runs_without_commands(self, write: str, read: str) -> None:
        """Fail unless the jobs of a user with these permissions are run, and the log says once what is missing."""
        rbit = self.work_as(".*", write, read)
        rbit.wait_for_line(f"WARNING the broker refuses .*the queue {NAME}: .*no job can be cancelled")
        self.assertEqual(sum("WARNING" in line for line in rbit.lines), 1, rbit.output)

    def test_user_who_may_not_bind_the_queue_has_jobs_run_and_is_told_once(self) -> None:
        self.assert_runs_without_commands(ALL_BUT, ".*")

    def test_user_who_may_not_read_the_queue_has_jobs_run_and_is_told_once(self) -> None:
        self.assert_runs_without_commands(".*", ALL_BUT)


if __name__ == "__main__":
    unittest.main()
