"""Test cases that run the real ``rbit-submit`` command on a real broker. It runs in the process that tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.case import BrokerCase
from tests.support.rbit_process import RbitProcess, submit_command

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

def wide(message, set_status, settings):
    set_status("Building", "\\u4e2d" * 100)
    set_status("Building", "e\\u0301" * 100)

def gate(message, set_status, settings):
    set_status("Building", "waiting")
    while not os.path.exists("go"):
        time.sleep(0.02)
'''


class SubmitCase(BrokerCase):
    """A test with a queue of its own, ``self.queue``, whose name has four parts; it is not made.

    Attributes:
        text: the INI file, with a section for that queue.
    """

    def setUp(self) -> None:
        """Name the queue."""
        super().setUp()
        self.queue = self.queue_name("any_latex_pdf")
        self.text = self.ini({self.queue: {"runner": "shell!true"}})

    def start_submit(self, *arguments: str, text: str | None = None, **keys: Any) -> RbitProcess:
        """Start rbit-submit.

        Arguments:
            arguments: those after the INI file.
            text: the INI file; None: ``self.text``.
            keys: of ``BrokerCase.rbit``.
        """
        keys.setdefault("command", tuple(submit_command()))
        return self.rbit(self.text if text is None else text, *arguments, **keys)

    def submit(self, *arguments: str, status: int = 0, **keys: Any) -> RbitProcess:
        """Run rbit-submit to its end; fail unless it ends with this exit status and without a traceback."""
        process = self.start_submit(*arguments, **keys)
        self.assertEqual(process.wait(90), status, process.output)
        self.assertNotIn("Traceback", process.output)
        return process

    def shell(self, line: str, *arguments: str, status: int = 0, **keys: Any) -> RbitProcess:
        """Run rbit-submit in a line for sh, in which ``"$@"`` is the command with its arguments."""
        files = {"rbit.ini": self.text, **keys.pop("files", {})}
        process = self.rbit(
            None, line, *submit_command(), "rbit.ini", *arguments, command=("sh", "-c"), files=files, **keys
        )
        self.assertEqual(process.wait(90), status, process.output)
        self.assertNotIn("Traceback", process.output)
        return process

    def refused(self, reason: str, status: int, *arguments: str, **keys: Any) -> None:
        """Fail unless rbit-submit ends with this exit status, and the last line of several says why.

        Arguments:
            reason: a regular expression for that line from its beginning, which is the command's name.
            status: the exit status.
            arguments, keys: as of ``start_submit``.
        """
        with self.subTest(arguments=arguments):
            process = self.submit(*arguments, status=status, **keys)
            self.assertEqual(process.stdout_lines, [])
            self.assertRegex(process.stderr_lines[-1], f"^rbit-submit: {reason}$")

    def text_of_user(self, configure: str, write: str, read: str) -> str:
        """Return the INI file with a user of the test's own, who has these rights only (regular expressions)."""
        user = self._token
        self.node.ctl("add_user", user, "secret")
        self.addCleanup(self.node.ctl, "delete_user", user)
        self.node.ctl("set_permissions", user, configure, write, read)
        return self.ini({self.queue: {"runner": "shell!true"}}, amqp={"user": user, "password": "secret"})

    def taken(self, queue: str) -> list[tuple[Any, Any, bytes]]:
        """Take all ready messages out of a queue and return them: deliveries, properties, bodies."""
        found = []
        while (got := self.channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(got)
        return found


class WaitCase(SubmitCase):
    """A test with a client, too."""

    def client(self, runner: str, **rbit: object) -> RbitProcess:
        """Start a client for the queue, which has one more setting."""
        self.text = self.ini({self.queue: {"runner": runner, "retry_delay": 1}}, rbit=rbit)
        return self.rbit(self.text, files={"jobs.py": JOBS})

    def waited(self, status: int = 0, *arguments: str) -> list[str]:
        """Submit job 1, or what the arguments say, wait for its end; return the lines without the queue's name."""
        process = self.submit(self.queue, "--wait", *(arguments or ("--job", "1")), status=status)
        return [line.removeprefix(f"{self.queue} ") for line in process.lines]


def only(lines: Sequence[str]) -> str:
    """Return the only line of some. Errors: AssertionError when there is not exactly one."""
    assert len(lines) == 1, lines
    return lines[0]
