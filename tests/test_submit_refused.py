"""``rbit-submit``: what it says of what it cannot do, and its exit statuses."""

from __future__ import annotations

import unittest

from tests.support.rbit_process import submit_command
from tests.support.submit_case import SubmitCase, only


class RefusedTest(SubmitCase):
    def test_wrong_command_line_exits_64_with_one_reason(self) -> None:
        whole = "expected a whole number from 1, got"
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
            ((self.queue, "--file", "nowhere"), "nowhere cannot be read: No such file or directory"),
            ((self.queue, "--file", "/"), "/ cannot be read: Is a directory"),
        ):
            self.refused(reason, 64, *arguments)
        process = self.rbit(None, command=tuple(submit_command()))
        self.assertEqual(process.wait(), 64)
        self.assertEqual(process.lines[-1], "rbit-submit: the following arguments are required: CONFIG")

    def test_unknown_queue_exits_69_with_a_guess_and_is_not_made(self) -> None:
        near = f"{self.queue}f"
        none = rf"there is no queue {near} on RabbitMQ, and rbit.ini has no section \[runner:{near}\] for which .*"
        self.refused(rf"{none}; did you mean {self.queue}\?", 69, near)
        self.refused(none, 69, near, text=self.ini({}))
        self.assertEqual(self.depth(near), -1)

    def test_mistakes_in_the_configuration_exit_78_with_all_of_them(self) -> None:
        process = self.submit(self.queue, text="[rbit]\nnam = x\n[amqp]\nport = abc\n", status=78)
        self.assertEqual([line.split(":")[0] for line in process.lines], ["rbit.ini"] * 2)
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

    def test_standard_error_that_cannot_be_written_changes_no_exit_status(self) -> None:
        for line in ('"$0" "$@" 2>/dev/full', '"$0" "$@" 2>&-'):
            for status, arguments in ((64, ("a_b_c",)), (64, ("--nonsense",)), (69, (f"{self.queue}f",))):
                with self.subTest(line, arguments=arguments):
                    self.assertEqual(self.shell(line, *arguments, status=status).lines, [])


if __name__ == "__main__":
    unittest.main()
