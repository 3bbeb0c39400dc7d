"""``rbit-submit``: what it says of what it cannot do, and its exit statuses."""

from __future__ import annotations

import itertools
import re
import sys
import unittest

from rbit import errors
from tests.support.rbit_process import rbit_command, submit_command
from tests.support.submit_case import SubmitCase, only


class RefusedTest(SubmitCase):
    def test_wrong_command_line_exits_64_with_one_reason(self) -> None:
        whole = "expected a whole number from 1, got"
        name = "expected 1 to 255 bytes without line breaks"
        for arguments, reason in (
            ((), "a QUEUE is needed"),
            ((self.queue, "more"), "unrecognized arguments: more"),
            ((self.queue, "--nonsense"), "unrecognized arguments: --nonsense"),
            *(((self.queue, "--count", text), f"argument --count: {whole} '{text}'")
              for text in ("0", "-1", "1.5", "many", "", "\u0663", "9" * 30)),
            *(((self.queue, "--job", text), f"argument --job: {whole} '{text}'") for text in ("0", "x")),
            (("--cancel", "x", "--client", "c"), f"argument --cancel: {whole} 'x'"),
            ((self.queue, "--package"), "argument --package: expected one argument"),
            (("--cancel", "1"), "--cancel needs --client"),
            ((self.queue, "--client", "c"), "--client needs --cancel"),
            *((("--cancel", "1", "--client", "c", option, *value), f"--cancel does not go with {option}")
              for option, *value in (("--package", "p"), ("--version", "1"), ("--uri", "u"), ("--job", "2"),
                                     ("--file", "f"), ("--wait",), ("--count", "2"))),
            *(((self.queue, "--file", "f", option, "1"), f"--file does not go with {option}")
              for option in ("--package", "--version", "--uri", "--job")),
            (("a_b_c",), "a_b_c is no queue for build requests, .*; please say with --file what to send"),
            (("a_b__c",), "a_b__c is no queue for build requests, .*"),
            (("a_b", "--cancel", "1", "--client", "c"), "a_b is no queue .*; it is not needed with --cancel"),
            *(((self.queue, option, text), f"argument {option}: expected a text that is not blank, got '{text}'")
              for option in ("--package", "--version") for text in ("", " ")),
            *(((self.queue, option, "\udcff"), rf"argument {option}: expected UTF-8, got '\\udcff'")
              for option in ("--package", "--version", "--uri")),
            *(((text, "--file", "f"), f"argument QUEUE: {name}, got .*")
              for text in ("", "a\nb", "\r", "\u4e2d" * 86)),
            *((("--cancel", "1", "--client", text), f"argument --client: {name}, got .*") for text in ("", "a\n")),
            (("\udcff",), r"argument QUEUE: expected UTF-8, got '\\udcff'"),
            ((self.queue, "--job", "9" * 5000), f"argument --job: {whole} '9+'\\.\\.\\."),
            ((self.queue, "--job", str(sys.maxsize), "--count", "2"),
             "--job and --count lead to a job id that is too large"),
            ((self.queue, "--file", ""), "'' cannot be read: No such file or directory"),
            ((self.queue, "--file", "\udcff"), r"\\udcff cannot be read: No such file or directory"),
            ((self.queue, "--file", "nowhere"), "nowhere cannot be read: No such file or directory"),
            ((self.queue, "--file", "/"), "/ cannot be read: Is a directory"),
        ):
            self.refused(reason, 64, *arguments)
        process = self.rbit(None, command=tuple(submit_command()))
        self.assertEqual(process.wait(), 64)
        self.assertEqual(process.lines[-1], "rbit-submit: the following arguments are required: CONFIG")

    def test_standard_input_that_is_closed_exits_64(self) -> None:
        process = self.shell('"$0" "$@" <&-', self.queue, "--file", "-", status=64)
        self.assertEqual(process.lines, ["rbit-submit: standard input cannot be read: Bad file descriptor"])

    def test_body_that_rabbitmq_does_not_take_is_told_with_the_limit(self) -> None:
        process = self.shell('head -c 134217729 /dev/zero | "$0" "$@"', self.queue, "--file", "-", status=69)
        larger = "134217729 is larger than configured max size 134217728"
        self.assertRegex(only(process.lines), f"^rbit-submit: 0 of 1 published; .*{larger}")
        self.submit(self.queue)  # nothing of it is there
        self.assertEqual(self.depth(self.queue), 1)
        process = self.submit(self.queue, "--file", "/dev/zero", status=64)
        self.assertRegex(only(process.lines), "^rbit-submit: /dev/zero has more than 536870912 bytes, ")

    def test_help_names_each_exit_status(self) -> None:
        process = self.rbit(None, "--help", command=tuple(submit_command()))
        self.assertEqual(process.wait(), 0)
        said = re.findall(r"(?:: |; )(\d+) ", process.output.partition("Exit statuses")[2].replace("\n", " "))
        known = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
        self.assertEqual({int(number) for number in said}, known)

    def test_unknown_queue_exits_69_with_a_guess_and_is_not_made(self) -> None:
        near = f"{self.queue}f"
        none = rf"there is no queue {near} on RabbitMQ, and rbit.ini has no section \[runner:{near}\] for which .*"
        self.refused(rf"{none}; did you mean {self.queue}\?", 69, near)
        self.refused(none, 69, near, text=self.ini({}))
        self.assertEqual(self.depth(near), -1)

    def test_mistakes_in_the_configuration_exit_78_with_all_of_them(self) -> None:
        process = self.submit(self.queue, text="[rbit]\nnam = x\n[amqp]\nport = abc\n", status=78)
        self.assertEqual([line.split(":")[0] for line in process.lines], ["rbit.ini"] * 2)
        process = self.submit(self.queue, text="[rbit]\nname = x\n", status=78)
        self.assertEqual(process.lines, ["rbit.ini: [amqp]: missing, expected this section"])
        process = self.rbit(None, ".", self.queue, command=tuple(submit_command()))
        self.assertEqual(process.wait(), 78)
        self.assertEqual(process.lines, [".: expected a file, got a directory"])
        process = self.rbit(None, "nowhere.ini", self.queue, command=tuple(submit_command()))
        self.assertEqual(process.wait(), 78)
        self.assertRegex(only(process.lines), "^nowhere.ini: ")

    def test_broker_away_exits_69_and_a_wrong_password_77_with_one_line(self) -> None:
        away = self.ini({}, amqp={"port": 9, "connect_timeout": 3600})
        wrong = self.ini({}, amqp={"password": "wrong-secret"})
        for arguments in ((self.queue,), (self.queue, "--wait"), ("--cancel", "1", "--client", "c")):
            for text, status, reason in (
                (away, 69, "no answer from RabbitMQ at 127.0.0.1:9: Connection refused"),
                (wrong, 77, "RabbitMQ at .* refuses the user 'guest' or its password"),
            ):
                with self.subTest(arguments, status=status):
                    process = self.submit(*arguments, text=text, status=status)
                    self.assertRegex(only(process.lines), f"^rbit-submit: {reason}$")

    def test_queue_that_takes_no_more_exits_69_and_says_how_many_it_took(self) -> None:
        self.declare(self.queue, x_max_length=1, x_overflow="reject-publish")
        process = self.submit(self.queue, "--count", "3", "--job", "70", status=69)
        self.assertEqual(process.stdout_lines, [f"{self.queue} job 70: published"])
        self.assertRegex(only(process.stderr_lines), f"^rbit-submit: 1 of 3 published; .*{self.queue}")
        self.assertEqual(self.depth(self.queue), 1)

    def test_reader_of_the_output_that_goes_is_no_mistake(self) -> None:
        process = self.shell('("$0" "$@"; echo $? >&2) | head -n 1', self.queue, "--count", "20", "--job", "1")
        self.assertEqual(process.stdout_lines, [f"{self.queue} job 1: published"])
        self.assertEqual(process.stderr_lines, ["0"])
        self.assertEqual(self.depth(self.queue), 20)
        self.shell('"$0" "$@" >&-', self.queue)

    def test_help_and_version_that_cannot_be_written_exit_74(self) -> None:
        for command, option in itertools.product((submit_command(), rbit_command()), ("--help", "--version")):
            for unbuffered in ("", "1"):
                with self.subTest(command, option=option, unbuffered=unbuffered):
                    process = self.rbit(
                        None, '"$0" "$@" >/dev/full', *command, option, command=("sh", "-c"),
                        environment={"PYTHONUNBUFFERED": unbuffered},
                    )
                    self.assertEqual(process.wait(), 74, process.output)
                    self.assertRegex(only(process.lines), "standard output cannot be written: No space left")

    def test_standard_error_that_cannot_be_written_changes_no_exit_status(self) -> None:
        for line in ('"$0" "$@" 2>/dev/full', '"$0" "$@" 2>&-'):
            for status, arguments in ((64, ("a_b_c",)), (64, ("--nonsense",)), (69, (f"{self.queue}f",))):
                with self.subTest(line, arguments=arguments):
                    self.assertEqual(self.shell(line, *arguments, status=status).lines, [])


if __name__ == "__main__":
    unittest.main()
