"""The rights in docs/rights.rst: everything works for users who have them, and none of them is one too many.

It runs in the testing process; rbit is the real command.
"""

from __future__ import annotations

import json
import re
import shlex
import unittest

from tests.support.pybit_web import PybitWeb
from tests.support.rbit_process import RbitProcess, submit_command
from tests.support.readme import commands, example
from tests.support.rights_case import RightsCase
from tests.test_default_queue import request

QUEUE, NAME = "cnx_any_latex_pdf", "bob-villa"
FAST = """
polling_time = 0.2
lease_after = 0.2
lease_ttl = 60
lease_renew = 0.2
retry_delay = 1
"""
JOBS = '''
import os, time
import rbit

def first(what):
    if os.path.exists(what):
        return False
    open(what, "w").close()
    return True

def work(message, set_status, settings):
    package = message.build_request().job.packageinstance.package.name
    if package == "fails" and first(package):
        raise rbit.Failed("no good")
    if package == "blocked" and first(package):
        raise rbit.Blocked("not yet")
    if package == "long":
        while not os.path.exists("go"):
            time.sleep(0.02)
'''


class FlowCase(RightsCase):
    """Everything that rbit does with RabbitMQ."""

    def setUp(self) -> None:
        """Start PyBit. No queue is there."""
        super().setUp()
        self.remove_all()
        self.web = PybitWeb(broker=self.node)
        self.addCleanup(self.web.die)

    def configured(self, text: str, user: str, **amqp: object) -> str:
        """Return the configuration of the docs for this test: it works fast, with the stand-in and the node."""
        keys = {"host": "127.0.0.1", "port": self.node.port, "user": user, "heartbeat": 10, **amqp}
        text = text.replace("[rbit]", f"[rbit]\n{FAST}")
        text = text.replace("http://localhost:8080", self.web.url)
        return re.sub(r"(?m)^user = bob$", "\n".join(f"{key} = {value}" for key, value in keys.items()), text)

    def start(self, text: str, *arguments: str, submit: bool = False) -> RbitProcess:
        """Start rbit, or rbit-submit."""
        user = re.search(r"(?m)^user = (\w+)$", text)
        assert user is not None
        written = {"amqp_password": user[1], "guest_password": "guest", "pybit_password": "pass", "jobs.py": JOBS}
        process = self.rbit(text, *arguments, files=written, command=tuple(submit_command()) if submit else ())
        for name in ("pybit_password", "guest_password"):
            (process.folder / name).chmod(0o600)
        return process

    def complete(self, text: str, *arguments: str, submit: bool = False) -> str:
        """Run a command to its end, and return what it wrote."""
        process = self.start(text, *arguments, submit=submit)
        self.assertEqual(process.wait(120), 0, process.output)
        self.assertNotIn("REFUSED", process.output)
        return process.output

    def submit(self, text: str, *arguments: str) -> str:
        """Run rbit-submit, as ``complete`` does."""
        return self.complete(text, *arguments, submit=True)

    def end(self, client: RbitProcess) -> None:
        """Stop a client to which nothing was refused."""
        self.assertEqual(client.stop(), 0, client.output)
        self.assertNotRegex(client.output, "REFUSED|Traceback|no job can be cancelled")

    def wait_for(self, job: int, *expected: str) -> None:
        """Wait until PyBit has these statuses of a job, oldest first."""
        self.wait_until(
            lambda: [status for status, _ in self.web.history(job)] == list(expected), 90,
            lambda: f"{expected}, not {self.web.history(job)}; rbit wrote:\n{self.client.output}",
        )

    def follow_docs(self, *blocks: str) -> dict[str, tuple[str, str, str]]:
        """Add the users of some commands, with these rights; return their patterns."""
        patterns = {}
        for line in [line for block in blocks for line in commands(block)]:
            arguments = shlex.split(line)
            self.assertEqual(arguments[:2], ["rabbitmqctl", "set_permissions"])
            name, configure, write, read = arguments[2:]
            self.add_user(name)
            self.node.ctl(*arguments[1:])
            patterns[name] = configure, write, read
        return patterns

    def make_and_remove(self, follower: str) -> None:
        """Have a queue that is missing made for a message; then it is missing again."""
        self.submit(follower, QUEUE)
        self.assertEqual(self.depth(QUEUE), 1)
        self.channel.queue_delete(QUEUE)
        self.channel.exchange_delete("pybit")

    def work(self, text: str, sender: str, follower: str, ready: str) -> None:
        """Have a client do all that it can.

        Arguments:
            text, sender, follower: the INI files of the client and of those who send to it.
            ready: a line of the client's log after which PyBit may use the queues, a regular expression.
        """
        self.client = client = self.start(text, "--debug")
        client.wait_for_line(ready)
        done = self.web.submit(QUEUE, package="done")
        self.wait_for(done, "Waiting", "Building", "Done")
        fails = self.web.submit(QUEUE, package="fails")
        self.wait_for(fails, "Waiting", "Building", "Failed")
        self.wait_until(lambda: self.depth(f"{QUEUE}.failed") == 1, what="the failed message")
        self.assertIn("no good", self.complete(text, "--list-failed", QUEUE))
        self.assertIn("1 put back", self.complete(text, "--retry-failed", QUEUE))
        self.wait_for(fails, "Waiting", "Building", "Failed", "Building", "Done")
        blocked = self.web.submit(QUEUE, package="blocked")
        self.wait_for(blocked, "Waiting", "Building", "Blocked", "Building", "Done")
        cancelled = self.web.submit(QUEUE, package="long")
        client.wait_for_line(f"job {cancelled}.*: holds lease 2")
        self.submit(follower, "--cancel", str(cancelled), "--client", NAME)
        self.wait_for(cancelled, "Waiting", "Building", "Cancelled")
        self.submit(sender, QUEUE)
        self.assertIn("Done", self.submit(follower, QUEUE, "--wait"))
        self.end(client)
        self.channel.basic_publish("unclaimed", "x", request(QUEUE, done), mandatory=True)
        self.client = client = self.start(text)
        client.wait_for_line("1 message of unclaimed belongs to queues of this client and is moved, 0 stay")
        client.wait_for_line(f"job {done}: Done: .* is not run")
        self.end(client)

    def remove_all(self) -> None:
        """Remove the queues and exchanges that ``work`` leaves."""
        connection = self.node.connect()  # the test may have lost its own
        channel = connection.channel()
        for name in (
            QUEUE, f"{QUEUE}.retry", f"{QUEUE}.failed", f"rbit.lease.{NAME}.{QUEUE}", f"rbit.status.{NAME}",
            "unclaimed", NAME, f"rbit.pump.{NAME}", "rbit.pass.unclaimed",
        ):
            channel.queue_delete(name)
        for exchange in ("pybit", "rbit.status", "unclaimed"):
            channel.exchange_delete(exchange)
        connection.close()


class RightsTest(FlowCase):
    @example("rights rbit.ini", "rights client", "rights sender", "rights follower")
    def test_all_of_it_works_with_these_rights_and_takes_each_of_them(self, ini: str, *blocks: str) -> None:
        patterns = self.follow_docs(*blocks)
        client, sender, follower = (self.configured(ini, user) for user in patterns)
        shown = json.loads(self.complete(client, "--definitions"))
        names = ("configure", "write", "read")
        self.assertEqual(shown, {"permissions": [
            {"user": "bob", "vhost": "/", **dict(zip(names, patterns["bob"], strict=True))}
        ]})
        self.make_and_remove(follower)
        self.work(client, sender, follower, "exchange unclaimed is created")
        for user, given in patterns.items():
            self.assert_least(user, given)

    def test_rights_of_the_user_that_may_do_all_are_shown_with_a_warning(self) -> None:
        client = self.start(self.ini({"jobs": {"runner": "shell!true"}}), "--definitions")
        self.assertEqual(client.wait(), 0, client.output)
        self.assertEqual(json.loads("\n".join(client.stdout_lines))["permissions"][0]["user"], "guest")
        self.assertIn("rbit: these would take the place of all rights of guest", client.output)

    def test_client_without_pybit_needs_what_its_definitions_have(self) -> None:
        queue = self.queue_name("a+b.c")
        runner = {"runner": "shell!exit $(cat)", "retry_delay": 1, "max_attempts": 2}
        text = self.ini({queue: runner}, amqp={"user": "tim", "password": "tim"}, rbit={"lease_after": 0})
        self.add_user("tim")
        client = self.start(text, "--definitions")
        self.assertEqual(client.wait(), 0, client.output)
        assert self.node.folder is not None
        file = self.node.folder / "definitions.json"
        file.write_text("\n".join(client.stdout_lines))
        self.node.ctl("import_definitions", str(file))
        shown = json.loads(file.read_text())["permissions"][0]
        client = self.start(text)
        client.wait_for_line("was missing and is created")
        for body in ("0", "1", "75"):
            self.publish(queue, body)
        self.wait_until(lambda: self.depth(f"{queue}.failed") == 2, what="two failed messages")
        self.complete(text, "--list-failed", queue)
        self.end(client)
        self.assert_least("tim", (shown["configure"], shown["write"], shown["read"]))


if __name__ == "__main__":
    unittest.main()
