"""``rbit-submit`` when signals, connections, alarms, rights or its output come in between."""

from __future__ import annotations

import re
import signal
import unittest

from tests.support.proxy import Proxy
from tests.support.submit_case import WaitCase, only

ALARM = r"^rbit-submit: RabbitMQ has an alarm \(low on memory\) and takes no messages; waiting for at most 20 s$"
MANY = str(10**15)  # messages, more than can be made beforehand


class FaultsTest(WaitCase):
    def test_signal_between_the_messages_says_how_many_were_published(self) -> None:
        for number, wait in ((signal.SIGINT, ()), (signal.SIGTERM, ("--wait",))):
            with self.subTest(number):
                process = self.start_submit(self.queue, "--count", MANY, "--job", "1", *wait)
                process.wait_for_line("job 20: published")
                process.signal(number)
                self.assertEqual(process.wait(), 130, process.output)
                said = re.fullmatch(
                    rf"rbit-submit: (\d+) of {MANY} published(, perhaps one more)?", only(process.stderr_lines)
                )
                assert said is not None, process.stderr_lines
                self.assertIn(int(said[1]) - len(process.stdout_lines), (0, 1))
                self.assertIn(len(self.bodies(self.queue)) - int(said[1]), (0, 1) if said[2] else (0,))

    def test_message_whose_confirmation_is_awaited_at_a_signal_or_a_lost_connection_is_in_doubt(self) -> None:
        self.declare(self.queue)
        for status, reason in ((130, ""), (69, "; Stream connection lost: .*")):
            with self.subTest(status), Proxy(self.node.port) as proxy:
                text = self.ini({}, amqp={"port": proxy.port})
                proxy.hold_after("a marked body")
                process = self.start_submit(
                    self.queue, "--file", "body", "--count", "2", text=text, files={"body": "a marked body"}
                )
                self.wait_until(lambda proxy=proxy: proxy.holds, what=lambda process=process: process.output)
                if status == 130:
                    process.signal(signal.SIGTERM)
                else:
                    proxy.cut("rbit-submit (publisher)")
                self.assertEqual(process.wait(), status, process.output)
                self.assertRegex(
                    only(process.lines), f"^rbit-submit: 0 of 2 published, perhaps one more{reason}$"
                )
        self.assertEqual(self.bodies(self.queue), [b"a marked body"] * 2)

    def test_lost_connection_exits_69_and_says_that_the_job_goes_on(self) -> None:
        with Proxy(self.node.port) as proxy:
            text = self.ini({self.queue: {"runner": "shell!true"}}, amqp={"port": proxy.port})
            waiting = self.start_submit(self.queue, "--wait", text=text)
            waiting.wait_for_line("published")
            proxy.cut("rbit-submit")
            self.assertEqual(waiting.wait(), 69)
        self.assertRegex(waiting.stderr_lines[-1], r"^rbit-submit: connection to RabbitMQ lost \(.*\); the jobs")
        self.assertEqual(self.depth(self.queue), 1)

    def test_output_that_cannot_be_written_exits_74(self) -> None:
        self.client("shell!true")
        process = self.shell('"$0" "$@" >/dev/full', self.queue, "--wait", status=74)
        self.assertEqual(
            process.stderr_lines[0], "rbit-submit: standard output cannot be written: No space left on device"
        )

    def test_alarm_ends_it_with_69_and_nothing_is_sent_later(self) -> None:
        self.declare(self.queue)
        self.node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            process = self.submit(self.queue, "--count", "2", status=69)
        finally:
            self.node.ctl("set_vm_memory_high_watermark", "0.4")
        said = r"0 of 2 published; RabbitMQ has an alarm \(low on memory\): Blocked connection timeout expired"
        self.assertRegex(process.stderr_lines[0], ALARM)
        self.assertRegex(process.stderr_lines[1], f"^rbit-submit: {said}")
        self.submit(self.queue, "--job", "7")  # what an abandoned connection held would be there before it
        self.assertEqual(self.depth(self.queue), 1)

    def test_alarm_that_is_over_in_time_is_told_and_waited_for(self) -> None:
        self.declare(self.queue)
        self.node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            process = self.start_submit(self.queue, "--job", "7")
            process.wait_for_line(ALARM)
        finally:
            self.node.ctl("set_vm_memory_high_watermark", "0.4")
        self.assertEqual(process.wait(), 0, process.output)
        self.assertEqual(process.stdout_lines, [f"{self.queue} job 7: published"])
        self.assertEqual(len(process.stderr_lines), 1)

    def test_reader_of_the_output_that_goes_does_not_end_the_waiting(self) -> None:
        self.client("shell!true")
        process = self.shell('("$0" "$@"; echo $? >&2) | head -n 1', self.queue, "--wait", "--job", "1")
        self.assertEqual(process.stdout_lines, [f"{self.queue} job 1: published"])
        self.assertEqual(process.stderr_lines, ["0"])

    def test_deleted_exchange_ends_the_waiting_with_69(self) -> None:
        self.declare(self.queue)
        waiting = self.start_submit(self.queue, "--wait")
        waiting.wait_for_line("published")
        self.channel.exchange_delete("rbit.status")
        self.assertEqual(waiting.wait(), 69, waiting.output)
        self.assertRegex(
            waiting.stderr_lines[-1],
            r"^rbit-submit: no more statuses \(exchange rbit.status: NOT_FOUND .*\); the jobs are not affected$",
        )


class FollowTest(WaitCase):
    def setUp(self) -> None:
        """Have the exchange away, before and after."""
        super().setUp()
        self.declare(self.queue)
        self.channel.exchange_delete("rbit.status")
        self.addCleanup(self.channel.exchange_delete, "rbit.status")

    def test_user_who_may_not_make_the_exchange_may_follow(self) -> None:
        text = self.text_of_user("^amq[.]gen.*$", "^amq[.](gen.*|default)$", "^(amq[.]gen.*|rbit[.]status)$")
        right = "the user needs the right to configure rbit.status, which is missing"
        self.refused(f"exchange rbit.status: ACCESS_REFUSED .*; {right}", 69, self.queue, "--wait", text=text)
        self.assertEqual(self.depth(self.queue), 0)
        self.channel.exchange_declare("rbit.status", "topic", durable=True)
        self.client("shell!true")
        self.assertEqual(self.submit(self.queue, "--wait", text=text).lines[-1].rpartition(": ")[2], "Done")

    def test_user_who_may_not_follow_is_told_which_rights_it_takes(self) -> None:
        self.channel.exchange_declare("rbit.status", "topic", durable=True)
        rights = "the user needs the rights to configure, write and read amq.gen-*, and to read rbit.status"
        text = self.text_of_user("^$", ".*", ".*")
        for lacking in (("^$", ".*", ".*"), (".*", "^amq.default$", ".*"), (".*", ".*", "^amq.gen.*")):
            self.node.ctl("set_permissions", self._token, *lacking)
            self.refused(f".*ACCESS_REFUSED .*; {re.escape(rights)}", 69, self.queue, "--wait", text=text)
        self.submit(self.queue, text=text)  # to send alone takes none of them

    def test_exchange_of_another_type_is_refused_and_one_that_is_not_durable_will_do(self) -> None:
        self.channel.exchange_declare("rbit.status", "direct", durable=True)
        said = "exchange rbit.status: .*'topic' but current is 'direct'"
        self.refused(f"{said} .*; it must be of type topic, please delete it", 69, self.queue, "--wait")
        self.channel.exchange_delete("rbit.status")
        self.channel.exchange_declare("rbit.status", "topic", durable=False)
        self.client("shell!true")
        self.assertEqual(self.waited()[-1], "job 1: Done")


if __name__ == "__main__":
    unittest.main()
