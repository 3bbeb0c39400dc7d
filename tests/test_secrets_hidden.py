"""No password is in what rbit prints, in the command lines of processes, or in what a job inherits."""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path

from tests.support.case import BrokerCase
from tests.support.pybit_web import PybitWeb
from tests.support.rbit_process import RbitProcess, rbit_command, submit_command

SECRET = "kJ7-very-secret"
JOBS = '''
import glob, json, os

def of(pid):
    links = {}
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            links[path.rpartition("/")[2]] = os.readlink(path)
        except OSError:
            pass
    return links

def look(message, set_status, settings):
    """Writes what this process and its keeper have: environments, command lines, open files."""
    found = {}
    for pid in ("self", os.getppid()):
        with open(f"/proc/{pid}/environ") as file:
            found[f"environ {pid}"] = file.read().split("\\0")
        with open(f"/proc/{pid}/cmdline") as file:
            found[f"cmdline {pid}"] = file.read()
        found[f"files {pid}"] = of(pid)
    with open("seen.json", "w") as file:
        json.dump(found, file)
'''
SHELL = """shell!for pid in $$ $PPID; do tr '\\0' '\\n' </proc/$pid/environ; cat /proc/$pid/cmdline; done >seen
    ls -l /proc/$$/fd /proc/$PPID/fd >>seen
"""
# Run in place of rbit: a fault, in the middle of everything, that shows all that it can.
FAULT = '''
import sys
from rbit import cli, client
def fault(self):
    raise RuntimeError(f"{vars(self)} {vars(self._link)} {self._link._amqp.password!r} {self._settlement!r}")
client.Client.turn = fault
sys.argv[0] = "rbit"
sys.exit(cli.main())
'''
OF_PIKA = '''
import sys, pika
from rbit import cli
def fault(parameters):
    raise RuntimeError(f"{parameters!r} {parameters.credentials!r}")
pika.BlockingConnection = fault
sys.argv[0] = "rbit"
sys.exit(cli.main())
'''

# What systemd.exec(5) has for the process of a service alone; the last line has those of later versions.
OF_SERVICE = """
INVOCATION_ID RUNTIME_DIRECTORY STATE_DIRECTORY CACHE_DIRECTORY LOGS_DIRECTORY CONFIGURATION_DIRECTORY
CREDENTIALS_DIRECTORY MAINPID MANAGERPID LISTEN_FDS LISTEN_PID LISTEN_FDNAMES NOTIFY_SOCKET WATCHDOG_PID
WATCHDOG_USEC SYSTEMD_EXEC_PID LOG_NAMESPACE JOURNAL_STREAM PIDFILE
FDSTORE MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE
""".split()


class HiddenTest(BrokerCase):
    """With a user of RabbitMQ's own, whose password is looked for in all that comes out."""

    def setUp(self) -> None:
        super().setUp()
        self.user = self._token
        self.node.ctl("add_user", self.user, SECRET)
        self.addCleanup(self.node.ctl, "delete_user", self.user)
        self.node.ctl("set_permissions", self.user, ".*", ".*", ".*")
        self.queue = self.queue_name()
        self.web = PybitWeb(password=SECRET, broker=self.node)
        self.addCleanup(self.web.die)

    def run_rbit(
        self, key: str, *arguments: str, status: int = 0, runner: str = "python!jobs:look", right: bool = True,
        command: tuple[str, ...] = (), pybit: str = "",
    ) -> RbitProcess:
        """Run rbit with its password in a key; fail if it shows in anything that rbit prints.

        Arguments:
            right: whether it is the user's.
            pybit: the URL of the stand-in; '' for none.
        """
        secret = SECRET if right else f"{SECRET}-not"
        given = {"password": secret, "password_file": "secret", "password_env": "AMQP_SECRET"}[key]
        web = {"url": pybit, "user": "admin", key: given} if pybit else None
        text = self.ini(
            {self.queue: {"runner": runner}}, amqp={"user": self.user, "password": None, key: given}, pybit=web,
        )
        environment = dict.fromkeys(OF_SERVICE, "/of-the-service")
        environment |= {"RBIT_OUTER": "outer", "KEPT": "kept"}
        if key == "password_env":
            environment["AMQP_SECRET"] = secret
        rbit = self.rbit(
            text, *arguments, command=command, files={"jobs.py": JOBS, "secret": secret + "\n"},
            environment=environment,
        )
        self.assertEqual(rbit.wait(60), status, rbit.output)
        self.assertNotIn(SECRET, rbit.output)
        return rbit

    def test_nothing_that_rbit_prints_shows_it(self) -> None:
        for key in ("password", "password_file", "password_env"):
            with self.subTest(key=key):
                self.publish(self.queue, "x")
                done = self.run_rbit(key, "--once", "--debug", pybit=self.web.url)
                self.assertIn("message #1: Done", done.output)
                self.run_rbit(key, "--check", pybit=self.web.url)
                self.run_rbit(key, "--once", "--debug", right=False, status=77)
                self.run_rbit(key, "--check", right=False, status=78)
                self.run_rbit(key, "--list-failed", self.queue)
                self.run_rbit(
                    key, self.queue, "--file", "secret", right=False, status=77, command=tuple(submit_command())
                )
                fault = self.run_rbit(key, "--debug", status=70, command=(sys.executable, "-c", FAULT))
                self.assertIn("RuntimeError: {", fault.output)
                self.assertIn("Secret(", fault.output)
                pika = self.run_rbit(
                    key, self.queue, "--file", "secret", status=70,
                    command=(sys.executable, "-c", OF_PIKA.replace("cli.main", "cli.submit")),
                )
                self.assertIn("PlainCredentials", pika.output)

    def test_python_job_and_its_keeper_inherit_neither_it_nor_what_is_for_rbit_alone(self) -> None:
        for key in ("password_file", "password_env"):
            with self.subTest(key=key):
                self.publish(self.queue, "x")
                script = 'exec 7<secret 8>sink; exec "$0" "$@"'
                rbit = self.run_rbit(key, "--once", command=("sh", "-c", script, *rbit_command()))
                seen = json.loads((rbit.folder / "seen.json").read_text())
                for name, found in seen.items():
                    self.assertNotIn(SECRET, str(found), name)
                    self.assertNotIn("/of-the-service", str(found), name)
                    self.assertNotIn("outer", str(found), name)
                    if name.startswith("environ"):
                        self.assertIn("KEPT=kept", found)
                    if name.startswith("files"):
                        self.assertFalse([link for link in found.values() if link.startswith(str(rbit.folder))
                                          and not link.endswith("seen.json")], found)

    def test_shell_job_inherits_neither_it_nor_what_is_for_rbit_alone(self) -> None:
        self.publish(self.queue, "x")
        script = 'exec 7<secret 8>sink; exec "$0" "$@"'
        command = ("sh", "-c", script, *rbit_command())
        rbit = self.run_rbit("password_env", "--once", runner=SHELL, command=command)
        seen = (rbit.folder / "seen").read_text()
        self.assertIn("KEPT=kept\n", seen)
        self.assertIn("RBIT_QUEUE=", seen)
        for hidden in (SECRET, "/of-the-service", "outer", f"{rbit.folder}/sink", f"{rbit.folder}/secret"):
            self.assertNotIn(hidden, seen)

    def test_module_that_check_imports_sees_it_neither(self) -> None:
        module = "import os\nwith open('seen', 'w') as file:\n    file.write(str(os.environ))\ndef job(*_): 0\n"
        text = self.ini(
            {self.queue: {"runner": "python!nosy:job"}},
            amqp={"user": self.user, "password": None, "password_env": "AMQP_SECRET"},
        )
        rbit = self.rbit(
            text, "--check", files={"nosy.py": module}, environment={"AMQP_SECRET": SECRET, "KEPT": "kept"}
        )
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        seen = (rbit.folder / "seen").read_text()
        self.assertIn("'KEPT': 'kept'", seen)
        self.assertNotIn(SECRET, seen)

    def test_start_and_check_warn_of_a_password_that_others_can_read(self) -> None:
        text = self.ini({self.queue: {"runner": "shell!true"}}, amqp={"user": self.user, "password": SECRET})
        said = r"open.ini: \[amqp\] password: its group and others can read it in this file: chmod 600 open.ini,"
        for arguments, level in ((("--once",), "WARNING"), (("--check",), "warning:")):
            script = 'cp rbit.ini open.ini; chmod 644 open.ini; exec "$0" open.ini "$@"'
            rbit = self.rbit(
                None, script, *rbit_command(), *arguments, command=("sh", "-c"), files={"rbit.ini": text}
            )
            self.assertEqual(rbit.wait(60), 0, rbit.output)
            self.assertRegex(rbit.output, f"{level} {said}")

    def test_command_line_of_rbit_shows_it_not(self) -> None:
        text = self.ini({self.queue: {"runner": "shell!true"}}, amqp={"user": self.user, "password": SECRET})
        rbit = self.rbit(text)
        rbit.wait_for_line("connected to")
        self.assertNotIn(SECRET, Path(f"/proc/{rbit.pid}/cmdline").read_text())
        self.assertEqual(rbit.stop(), 0, rbit.output)


if __name__ == "__main__":
    unittest.main()
