"""A client that declares nothing: what an administrator has made for it is used, and what is missing is said.

It runs in the testing process; rbit is the real command.
"""

from __future__ import annotations

import json
import re
import unittest

from rbit.broker import Connection, is_connected
from tests.support.rbit_process import RbitProcess
from tests.support.readme import BLOCKS, example
from tests.support.settings import amqp_settings
from tests.test_rights import NAME, QUEUE, FlowCase

OWN = (
    f"{QUEUE}.retry", f"{QUEUE}.failed", f"rbit.lease.{NAME}.{QUEUE}", f"rbit.status.{NAME}", f"rbit.pump.{NAME}",
)
ADVICE = "with declare = no in .* rbit CONFIG --definitions shows how to make it"


class DeclareCase(FlowCase):
    def setUp(self) -> None:
        """Add a user who may make nothing."""
        super().setUp()
        self.addCleanup(self.remove_all)
        self.add_user("bob")
        self.text = self.configured(BLOCKS["rights rbit.ini"], "bob", declare="no")

    def definitions(self, text: str) -> str:
        """Return what ``--definitions`` shows."""
        process = self.start(text, "--definitions")
        self.assertEqual((process.wait(120), process.stderr_lines), (0, []))
        return "\n".join(process.stdout_lines)

    def import_(self, definitions: str) -> None:
        """Do what an administrator does with them."""
        assert self.node.folder is not None
        file = self.node.folder / "definitions.json"
        file.write_text(definitions)
        self.node.ctl("import_definitions", str(file))

    def allow(self) -> None:
        """Give the user its rights, and make nothing."""
        made = json.loads(self.definitions(self.text))
        self.import_(json.dumps({"permissions": made["permissions"]}))

    def asks(self, name: str) -> bool:
        """Ask RabbitMQ whether a client is connected, as other clients do."""
        connection = Connection(amqp_settings(self.node.port), "test")
        try:
            return is_connected(connection, name)
        finally:
            connection.close()

    def assert_nothing_declared(self) -> None:
        """Fail if the user was ever asked for the right to configure something."""
        self.assertEqual(self.asked["bob", "configure"], set())


class DeclaredTest(DeclareCase):
    @example("rights declare", "rights import")
    def test_all_of_it_works_with_what_the_definitions_hold(self, declare: str, lines: str) -> None:
        self.assertEqual(declare, "[amqp]\ndeclare = no\n")
        self.assertEqual(lines, "$ rbit rbit.ini --definitions > definitions.json\n"
                                "$ rabbitmqctl import_definitions definitions.json\n")
        made = self.definitions(self.text)
        self.import_(made)
        (rights,) = json.loads(made)["permissions"]
        self.assertEqual(rights["configure"], "^$")
        (client,) = self.follow_docs(BLOCKS["rights follower"])
        follower = self.configured(BLOCKS["rights rbit.ini"], client)
        # One who takes every status, so that RabbitMQ never says of one that nobody takes it.
        taker = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(taker, "rbit.status", "#")
        self.work(self.text, self.text, follower, "connected to RabbitMQ")
        self.assertIn("Done", [json.loads(body)["status"] for body in self.bodies(taker)])
        self.assert_nothing_declared()
        self.assert_least("bob", (rights["configure"], rights["write"], rights["read"]))

    def test_definitions_are_what_a_client_makes_itself_but_for_what_would_go_by_itself(self) -> None:
        self.import_(self.definitions(self.text))
        free = self.configured(BLOCKS["rights rbit.ini"], "guest").replace("= amqp_password", "= guest_password")
        for name in (NAME, f"rbit.pump.{NAME}", "rbit.pass.unclaimed", f"rbit.lease.{NAME}.{QUEUE}"):
            self.channel.queue_delete(name)  # exclusive, or made to go
        self.client = client = self.start(free)
        client.wait_for_line("connected")
        for package, last in (("done", "Done"), ("fails", "Failed"), ("blocked", "Done")):
            job = self.web.submit(QUEUE, package=package)
            self.wait_until(lambda: self.web.history(job)[-1][0] == last, what=last)  # noqa: B023
        self.wait_until(lambda: self.depth(f"{QUEUE}.failed") == 1, what="the failed message")
        self.end(client)
        self.assertNotRegex(client.output, "other settings|made by somebody else")

    def test_second_client_of_a_name_ends_with_69(self) -> None:
        self.import_(self.definitions(self.text))
        first = self.start(self.text)
        first.wait_for_line("connected to RabbitMQ")
        self.wait_until(lambda: self.asks(NAME), what="the first client")
        second = self.start(self.text.replace("heartbeat = 10", "heartbeat = 1"))  # it waits for 3.5 of them
        self.assertEqual(second.wait(90), 69, second.output)
        self.assertRegex(second.output, f"another client named {NAME} is connected to RabbitMQ; give each its own")
        self.assertEqual(first.stop(), 0, first.output)
        # It does not wait for RabbitMQ's answer for long.
        self.wait_until(lambda: not self.asks(NAME), what="the end of the first client")

    def test_client_that_declares_its_name_keeps_it_from_one_that_does_not(self) -> None:
        self.allow()
        free = self.configured(BLOCKS["rights rbit.ini"], "guest").replace("= amqp_password", "= guest_password")
        self.client = first = self.start(free)
        first.wait_for_line("connected to RabbitMQ")
        self.wait_until(lambda: self.asks(NAME), what="the first client")
        second = self.start(self.text.replace("heartbeat = 10", "heartbeat = 1"))
        self.assertEqual(second.wait(90), 69, second.output)
        self.assertRegex(second.output, f"another client named {NAME} is connected to RabbitMQ; give each its own")
        self.assertEqual(first.stop(), 0, first.output)

    def test_name_is_taken_again_after_a_lost_connection(self) -> None:
        self.import_(self.definitions(self.text))
        self.client = client = self.start(self.text)
        client.wait_for_line("connected to RabbitMQ")
        self.wait_until(lambda: self.asks(NAME), what="the client")
        self.node.ctl("close_all_connections", "for a test")
        client.wait_for_line("connected again to RabbitMQ")
        self.wait_until(lambda: self.asks(NAME), what="the client again")
        self.wait_for(self.web.submit(QUEUE, package="done"), "Waiting", "Building", "Done")
        self.assertEqual(client.stop(), 0, client.output)
        self.assert_nothing_declared()


class MissingTest(DeclareCase):
    def begin(self, text: str) -> RbitProcess:
        """Start a client for which there is nothing but its queue."""
        self.allow()
        self.declare(QUEUE)
        self.client = client = self.start(text)
        for name in (*OWN, NAME, "unclaimed", "rbit.pass.unclaimed"):
            client.wait_for_line(f"ERROR there is no queue {re.escape(name)}; {ADVICE}")
        return client

    def test_job_that_cannot_be_leased_runs_and_one_that_cannot_be_kept_waits_for_the_queue(self) -> None:
        client = self.begin(self.text.replace("lease_after = 0.2", "lease_after = 0"))
        job = self.web.submit(QUEUE, package="fails")
        label = f"(message #1|job {job})"  # it may not be known yet which job it is
        client.wait_for_line(f"ERROR {QUEUE} {label}: there is no queue for its lease, so it runs without one")
        tried = f"is tried again, .*: there is no queue .*{ADVICE}"
        client.wait_for_line(f"a copy for the queue rbit.status.{NAME} {tried}")
        self.assertEqual(self.unacked(QUEUE), 1)
        self.declare(f"rbit.status.{NAME}")
        self.wait_for(job, "Waiting", "Building", "Failed")
        client.wait_for_line(f"a copy for the queue {QUEUE}.failed {tried}")
        self.assertEqual(self.unacked(QUEUE), 1)
        self.import_(self.definitions(self.text))
        # It is tried again within 30 seconds.
        self.wait_until(lambda: self.depth(f"{QUEUE}.failed") == 1, 90, "the failed message")
        self.wait_until(lambda: self.unacked(QUEUE) == 0, what="the acknowledgement")
        self.assertEqual(client.stop(), 0, client.output)
        self.assert_nothing_declared()

    def test_missing_queue_of_a_runner_is_worked_off_once_it_is_there(self) -> None:
        self.allow()
        self.client = client = self.start(self.text)
        client.wait_for_line(f"ERROR there is no queue {QUEUE}; {ADVICE}")
        client.wait_for_line(f"ERROR the broker refuses the queue {QUEUE}: .*; it is tried again at each poll")
        self.import_(self.definitions(self.text))
        self.wait_for(self.web.submit(QUEUE, package="done"), "Waiting", "Building", "Done")
        self.assertEqual(client.stop(), 0, client.output)
        self.assert_nothing_declared()

    def test_name_is_taken_once_its_queue_is_there(self) -> None:
        client = self.begin(self.text)
        client.wait_for_line(f"WARNING the broker refuses the queue {NAME}: .*no other client is kept from")
        self.import_(self.definitions(self.text))
        client.wait_for_line(f"INFO the queue {NAME} is there now")
        self.assertTrue(self.asks(NAME))
        job = self.web.submit(QUEUE, package="long")
        self.wait_for(job, "Waiting", "Building")
        self.web.cancel(job)
        client.wait_for_line(f"job {job}: Cancelled")
        self.assertEqual(client.stop(), 0, client.output)
        self.assertEqual(client.output.count("no other client is kept from this name"), 1)

    def test_check_says_what_is_missing(self) -> None:
        self.allow()
        check = self.start(self.text, "--check")
        self.assertEqual(check.wait(120), 0, check.output)
        self.assertIn(f"{QUEUE}: python!jobs:work (missing, and rbit may not create it)", check.stdout_lines)
        for name in (*OWN, NAME, QUEUE, "unclaimed", "rbit.pass.unclaimed"):
            self.assertRegex(check.output, f"warning: there is no queue {re.escape(name)}; {ADVICE}")
        self.import_(self.definitions(self.text))
        check = self.start(self.text, "--check")
        self.assertEqual((check.wait(120), check.stderr_lines), (0, []))

    def test_submit_makes_nothing(self) -> None:
        self.allow()
        for arguments, status, said in (
            ((QUEUE,), 69, f"rbit-submit: there is no queue {QUEUE} on RabbitMQ; {ADVICE}"),
            ((QUEUE, "--wait"), 64, "rbit-submit: --wait makes a queue .*, which declare = no in .* forbids"),
            (("--cancel", "1", "--client", NAME), 69, f"rbit-submit: no client named {NAME} is connected"),
        ):
            process = self.start(self.text, *arguments, submit=True)
            self.assertEqual(process.wait(120), status, process.output)
            self.assertRegex(process.output, said)
        self.assertEqual(self.depth(QUEUE), -1)
        self.assert_nothing_declared()


if __name__ == "__main__":
    unittest.main()
