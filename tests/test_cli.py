"""The command line: options, exit statuses, ``--check``, logging."""

from __future__ import annotations

import re
import socket
import unittest

from rbit import __version__
from tests.support.case import BrokerCase
from tests.support.processes import free_port
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess, rbit_command
from tests.test_loop import JOBS, ran

NO_BROKER = {"host": "127.0.0.1", "port": 9}

LOGGING = (
    "\n[loggers]\nkeys = root\n[handlers]\nkeys = file\n[formatters]\nkeys = plain\n"
    "[logger_root]\nlevel = INFO\nhandlers = file\n"
    "[handler_file]\nclass = FileHandler\nformatter = plain\nargs = ('log.txt',)\n"
    "[formatter_plain]\nformat = %(levelname)s|%(message)s\n"
)


class CommandTest(BrokerCase):
    def run_rbit(self, text: str | None, *arguments: str, **files: str) -> RbitProcess:
        """Run the command to its end; its exit status is then in ``self.status``."""
        written = {f"{name}.py": content for name, content in files.items()}
        rbit = self.rbit(text, *arguments, files={"jobs.py": JOBS, **written})
        self.status = rbit.wait()
        return rbit

    def test_version(self) -> None:
        rbit = self.run_rbit(None, "--version")
        self.assertEqual((self.status, rbit.stdout_lines), (0, [f"rbit {__version__}"]))

    def test_wrong_command_line_exits_64_with_one_reason(self) -> None:
        for arguments, reason in (
            ((), "the following arguments are required: CONFIG"),
            (("a.ini", "--nonsense"), "unrecognized arguments: --nonsense"),
            *((("a.ini", "--poll-time", text), f"of seconds above 0, at most 2000000, got '{text}'")
              for text in ("0", "nan", "soon", "1e99")),
            (("a.ini", "--check", "--once"), "--check does not go with --once"),
        ):
            with self.subTest(arguments):
                rbit = self.run_rbit(None, *arguments)
                self.assertEqual(self.status, 64)
                self.assertIn(reason, rbit.stderr_lines[-1])

    def test_mistakes_in_the_configuration_exit_78_with_all_of_them_and_no_traceback(self) -> None:
        text = (
            "[rbit]\nnam = x\n[amqp]\nport = abc\n"
            "[runner:q]\nrunner = pyton!a:b\n[runner:r]\nrunner = shell!echo %IDD\n"
        )
        rbit = self.run_rbit(text)
        self.assertEqual(self.status, 78)
        self.assertEqual(len(rbit.stderr_lines), 4, rbit.output)
        for pattern in (
            r"rbit.ini: \[rbit\] nam: .*did you mean .*name", r"rbit.ini: \[amqp\] port: expected .*, got 'abc'",
            r"rbit.ini: \[runner:q\] runner: expected one of python!.*, got .*; did you mean python!\?",
            r"rbit.ini: \[runner:r\] runner: .*%IDD.*did you mean %ID",
        ):
            self.assertRegex(rbit.output, pattern)

    def test_missing_file_exits_78(self) -> None:
        rbit = self.run_rbit(None, "nowhere.ini")
        self.assertEqual(self.status, 78)
        self.assertEqual(len(rbit.lines), 1)
        self.assertRegex(rbit.lines[0], "nowhere.ini")

    def test_broker_that_does_not_answer_exits_69_after_the_connect_timeout(self) -> None:
        rbit = self.run_rbit(self.ini({}, amqp={**NO_BROKER, "connect_timeout": 1.5}))
        self.assertEqual(self.status, 69)
        self.assertRegex(rbit.output, "no answer from RabbitMQ at 127.0.0.1:9: Connection refused; trying for 1")
        self.assertRegex(rbit.stderr_lines[-1], "no connection to RabbitMQ at 127.0.0.1:9 within 1.5 s")

    def test_unknown_host_exits_69(self) -> None:
        rbit = self.run_rbit(self.ini({}, amqp={"host": "no-such-host.invalid", "connect_timeout": 0.5}))
        self.assertEqual(self.status, 69, rbit.output)

    def test_wrong_password_user_or_virtual_host_exits_77_at_once(self) -> None:
        for amqp in ({"password": "wrong-secret"}, {"user": "nobody"}, {"virtual_host": "/nowhere"}):
            with self.subTest(amqp):
                rbit = self.run_rbit(self.ini({}, amqp={**amqp, "connect_timeout": 3600}))
                self.assertEqual(self.status, 77, rbit.output)
                self.assertRegex(rbit.stderr_lines[-1], "rbit: RabbitMQ at .* refuse")
                self.assertNotIn("wrong-secret", rbit.output)
                self.assertNotIn("Traceback", rbit.output)

    def test_broker_that_comes_up_late_is_waited_for(self) -> None:
        port = free_port()
        rbit = self.rbit(self.ini({}, amqp={"port": port}), "--once")
        rbit.wait_for_line("no answer from RabbitMQ")
        with Proxy(self.node.port, port):
            self.assertEqual(rbit.wait(60), 0, rbit.output)

    def test_check_lists_the_queues_and_exits_0(self) -> None:
        queue, missing = self.declare(self.queue_name()), self.queue_name("missing")
        for _ in range(3):
            self.publish(queue, "x")
        rbit = self.run_rbit(
            self.ini({queue: {"runner": "python!jobs:record"}, missing: {"runner": "shell!echo %ID"}}), "--check"
        )
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual(rbit.stdout_lines, [
            f"{queue}: python!jobs:record (messages waiting: 3)",
            f"{missing}: shell!echo %ID (missing, will be created if its user may do that)",
        ])
        self.assertEqual(self.depth(missing), -1, "--check creates nothing")
        self.assertEqual(ran(rbit), [])

    def test_check_finds_every_mistake_in_one_go(self) -> None:
        runners = {
            "a": {"runner": "python!nowhere:f"}, "b": {"runner": "python!jobs:nothing"},
            "c": {"runner": "python!exits:f"}, "d": {"runner": "shell!echo 'open"},
            "e": {"runner": "shell!if true; then echo; done"}, "f": {"runner": "python!jobs:JOB"},
            "g": {"runner": "python!killed:f"},
        }
        text = self.ini(runners, amqp={"port": "abc"})
        rbit = self.run_rbit(text, "--check", exits="import sys; sys.exit(3)", killed="import os; os._exit(5)")
        self.assertEqual(self.status, 78)
        self.assertEqual(len(rbit.lines), 8, rbit.output)
        for pattern in (
            r"\[amqp\] port: ", r"\[runner:a\] runner: .*No module named 'nowhere'",
            r"\[runner:b\] runner: .*nothing", r"\[runner:c\] runner: .*SystemExit: 3",
            r"\[runner:d\] runner: .*(Unterminated quoted|unexpected EOF)",
            r"\[runner:e\] runner: .*[Ss]yntax error",
            r"\[runner:f\] runner: .*JOB", r"\[runner:g\] runner: .*ended with status 5",
        ):
            self.assertRegex(rbit.output, pattern)

    def test_check_shows_the_warnings_beside_the_mistakes(self) -> None:
        runners = {"a": {"runner": "shell!no-such-command", "time_out": "5"}, "b": {"runner": "python!nowhere:f"}}
        rbit = self.run_rbit(self.ini(runners, amqp=NO_BROKER), "--check")
        self.assertEqual(self.status, 78)
        for pattern in (
            "warning: no answer from RabbitMQ", r"warning: .*\[runner:a\] time_out: .*did you mean timeout",
            r"warning: .*\[runner:a\] runner: .* no command 'no-such-command'",
            r"^rbit.ini: \[runner:b\] runner: .*No module named 'nowhere'",
        ):
            self.assertRegex(rbit.output, f"(?m){pattern}")
        self.assertEqual(len(rbit.stderr_lines), 4, rbit.output)

    def test_check_finds_functions_that_cannot_take_what_a_job_gives_them(self) -> None:
        code = """
import functools

def one(message): pass
def four(message, set_status, settings, more): pass
def keyword(message, set_status, settings, *, more): pass

class Builder:
    def run(self, message, set_status, settings): pass

def some(message, set_status, settings=None, *rest, more=None): pass
bound = Builder().run
part = functools.partial(four, more=1)

@functools.wraps(one)
def wrapped(*arguments): pass

def unknown(message): pass
unknown.__signature__ = "none"
"""
        good = ("some", "bound", "part", "wrapped", "unknown")
        bad = ("one", "four", "keyword", "Builder.run")
        text = self.ini({name: {"runner": f"python!own:{name}"} for name in good + bad}, amqp=NO_BROKER)
        rbit = self.run_rbit(text, "--check", own=code)
        self.assertEqual(self.status, 78)
        mistakes = [line for line in rbit.stderr_lines if "warning" not in line]
        self.assertEqual(len(mistakes), len(bad), rbit.output)
        for name, mistake in zip(bad, mistakes, strict=True):
            called = f"own:{name} is called with message, set_status, settings: "
            self.assertRegex(mistake, rf"\[runner:{name}\] runner: {called}(missing|too many) ")

    def test_check_warns_of_a_missing_command_and_a_missing_broker(self) -> None:
        text = self.ini({"a": {"runner": "shell!no-such-command %ID"}}, amqp=NO_BROKER)
        rbit = self.run_rbit(text, "--check")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertRegex(rbit.output, r"warning: rbit.ini: \[runner:a\] runner: .* no command 'no-such-command'")
        self.assertRegex(rbit.output, "warning: no answer from RabbitMQ at 127.0.0.1:9")
        self.assertEqual(rbit.stdout_lines, ["a: shell!no-such-command %ID (not looked at)"])

    def test_check_warns_of_a_port_that_accepts_and_says_nothing(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            rbit = self.run_rbit(self.ini({}, amqp={"port": mute.getsockname()[1]}), "--check")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertRegex(rbit.output, "warning: no answer from RabbitMQ")
        self.assertNotIn("Traceback", rbit.output)

    def test_check_counts_a_refused_user_as_a_mistake(self) -> None:
        rbit = self.run_rbit(self.ini({}, amqp={"password": "wrong-secret"}), "--check")
        self.assertEqual(self.status, 78)
        self.assertRegex(rbit.stderr_lines[-1], r"rbit.ini: \[amqp\]: .*refuses")
        self.assertNotIn("wrong-secret", rbit.output)

    def test_debug_logs_more_and_no_password(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "x")
        text = self.ini({queue: {"runner": "python!jobs:record"}}, rbit={"concurrency": 1})
        plain = self.run_rbit(text, "--once")
        self.publish(queue, "x")
        debug = self.run_rbit(text, "--once", "--debug")
        self.assertEqual(self.status, 0)
        self.assertGreater(len(debug.stdout_lines), len(plain.stdout_lines))
        self.assertTrue(any(" DEBUG " in line for line in debug.stdout_lines), debug.output)
        self.assertFalse(any(" DEBUG " in line for line in plain.stdout_lines))

    def test_log_that_cannot_be_written_is_said_once_and_the_job_is_done(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "x")
        text = self.ini({queue: {"runner": "shell!for n in 1 2 3 4 5; do echo $n; done; echo done >made"}})
        rbit = self.rbit(
            None, "exec \"$0\" rbit.ini --once >/dev/full", *rbit_command(), command=("sh", "-c"),
            files={"rbit.ini": text},
        )
        rbit.wait()
        self.assertEqual((rbit.folder / "made").read_text(), "done\n")
        self.assertEqual(self.depth(queue), 0)
        said = [line for line in rbit.stderr_lines if line.startswith("rbit: the log cannot be written: ")]
        self.assertEqual(len(said), 1, rbit.output)
        self.assertNotIn("Traceback", rbit.output)

    def test_logging_sections_are_applied(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "x")
        text = self.ini({queue: {"runner": "python!jobs:record"}}) + LOGGING
        rbit = self.run_rbit(text, "--once")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual(rbit.stdout_lines, [])
        self.assertRegex((rbit.folder / "log.txt").read_text(), re.compile(r"^INFO\|.*message #1: Done$", re.M))

    def test_reason_for_which_rbit_ends_is_also_in_a_log_of_its_own(self) -> None:
        text = self.ini({}, amqp={"password": "wrong"}) + LOGGING
        rbit = self.run_rbit(text, "--once")
        self.assertEqual(self.status, 77, rbit.output)
        said = [line.removeprefix("rbit: ") for line in rbit.stderr_lines]
        self.assertEqual(len(said), 1, rbit.output)
        self.assertIn(f"CRITICAL|{said[0]}\n", (rbit.folder / "log.txt").read_text())

    def test_mistake_in_a_logging_section_exits_78_with_one_line(self) -> None:
        text = self.ini({}) + (
            "\n[loggers]\nkeys = root\n[handlers]\nkeys = file\n[formatters]\nkeys =\n"
            "[logger_root]\nlevel = INFO\nhandlers = file\n[handler_file]\nclass = NoSuchHandler\nargs = ()\n"
        )
        rbit = self.run_rbit(text, "--once")
        self.assertEqual(self.status, 78, rbit.output)
        self.assertEqual(len(rbit.lines), 1, rbit.output)
        self.assertIn("logging", rbit.lines[0])

    def test_queue_that_rbit_section_names_without_a_runner_is_a_warning_at_start(self) -> None:
        rbit = self.run_rbit(self.ini({}, rbit={
            "architecture": "any", "distribution": "cnx", "format": "pdf", "suites": "latex"}), "--once")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertRegex(rbit.output, r"WARNING .*runner:cnx_any_latex_pdf")

    def test_unsafe_jsonpickle_is_said_at_each_start(self) -> None:
        queue = self.queue_name()
        body = '{"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": ["made"]}]}'
        decode = "import jsonpickle\ndef job(message, set_status, settings):\n jsonpickle.decode(message.body)\n"
        self.publish(queue, body)
        rbit = self.run_rbit(self.ini({queue: {"runner": "python!more:job"}}), "--once", more=decode)
        self.assertEqual(self.status, 1, rbit.output)
        self.assertFalse((rbit.folder / "made").exists())
        self.publish(queue, body)
        rbit = self.run_rbit(
            self.ini({queue: {"runner": "python!more:job", "unsafe_jsonpickle": "yes"}}), "--once", more=decode)
        self.assertEqual(self.status, 0, rbit.output)
        self.assertRegex(rbit.output, rf"WARNING \[runner:{queue}\] unsafe_jsonpickle is on")
        self.assertTrue((rbit.folder / "made").exists())


if __name__ == "__main__":
    unittest.main()
