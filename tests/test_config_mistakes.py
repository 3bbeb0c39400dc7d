"""Tests of the configuration: the exact lines of mistakes, and that none shows a secret."""

import re
import traceback
import unittest
from unittest import mock

from rbit import config, ini, schema
from rbit.errors import ConfigError
from tests.test_config import MINIMAL, SECRET, ConfigCase, with_lines


class MistakesTest(ConfigCase):
    def test_each_wrong_value_gives_its_own_line(self) -> None:
        seconds = "expected a number of seconds above 0, at most 2000000"
        url = "expected an http or https URL without user, query and fragment"
        third = "expected at most a third of lease_ttl, 100 s here"
        delay = "expected a number of seconds from 1 to 2000000"
        host = "expected HOST or HOST:PORT, or some of them separated by commas"
        indented = "(an indented line continues the value above it)"
        heartbeat = "expected a whole number of seconds from 1 to 65535"
        unnoticed = "(without heartbeats a dead connection would stay unnoticed)"
        for section, line, mistake in (
            ("amqp", "port = abc", "port: expected a number from 1 to 65535, got 'abc'"),
            ("amqp", "port = 0", "port: expected a number from 1 to 65535, got '0'"),
            ("amqp", "port = 65536", "port: expected a number from 1 to 65535, got '65536'"),
            ("amqp", "port = -1", "port: expected a number from 1 to 65535, got '-1'"),
            ("amqp", "port = 1_0", "port: expected a number from 1 to 65535, got '1_0'"),
            ("amqp", "port = ٣", "port: expected a number from 1 to 65535, got '٣'"),
            ("amqp", "port =", "port: expected a number from 1 to 65535, got ''"),
            ("amqp", "host =", f"host: {host}, got ''"),
            ("amqp", "host = a:0", f"host: {host}, got 'a:0'"),
            ("amqp", "host = a, b:65536", f"host: {host}, got 'a, b:65536'"),
            ("amqp", "host = [::1", f"host: {host}, got '[::1'"),
            ("amqp", "queue_type = lazy", "queue_type: expected classic or quorum, got 'lazy'"),
            ("rbit", "lease_after = -1", "lease_after: expected a number of seconds from 0 to 2000000, got '-1'"),
            ("rbit", "lease_ttl = 4000", "lease_ttl: expected a number of seconds from 1 to 3600, got '4000'"),
            ("rbit", "lease_renew = 101", f"lease_renew: {third}, got 101"),
            ("rbit", "max_attempts = x", "max_attempts: expected a number from 0 to 1000000000, got 'x'"),
            ("runner:q", "retry_delay = 0.5", f"retry_delay: {delay}, got '0.5'"),
            ("runner:q", "on_failure = drop", "on_failure: expected park, discard or requeue, got 'drop'"),
            ("amqp", "host = amqp://a", f"host: {host}, got 'amqp://a'"),
            ("amqp", "host = a..b", f"host: {host}, got 'a..b'"),
            ("amqp", "host = x\n port = 5", f"host: {host}, got 'x\\nport = 5' {indented}"),
            ("amqp", "user =", "user: expected a name of 1 to 255 bytes, got ''"),
            ("amqp", "virtual_host =", "virtual_host: expected a name of 1 to 255 bytes, got ''"),
            ("amqp", "heartbeat = 0", f"heartbeat: {heartbeat}, got '0' {unnoticed}"),
            ("amqp", "heartbeat = 1.5", f"heartbeat: {heartbeat}, got '1.5'"),
            ("amqp", "connect_timeout = 0", f"connect_timeout: {seconds}, got '0'"),
            ("rbit", "delivery = pull", "delivery: expected poll or push, got 'pull'"),
            ("rbit", "polling_time = nan", f"polling_time: {seconds}, got 'nan'"),
            ("rbit", "polling_time = inf", f"polling_time: {seconds}, got 'inf'"),
            ("rbit", "polling_time = 1e999", f"polling_time: {seconds}, got '1e999'"),
            ("rbit", "polling_time = -1", f"polling_time: {seconds}, got '-1'"),
            ("rbit", "polling_time = 5m", f"polling_time: {seconds}, got '5m'"),
            ("rbit", "polling_time = 2000001", f"polling_time: {seconds}, got '2000001'"),
            ("rbit", "concurrency = 0", "concurrency: expected a number from 1 to 1000, got '0'"),
            ("rbit", "concurrency = 2.0", "concurrency: expected a number from 1 to 1000, got '2.0'"),
            ("rbit", "format = a\n b", f"format: expected a name, got 'a\\nb' {indented}"),
            ("pybit", "url =", f"url: {url}, got ''"),
            ("pybit", "url = web.example", f"url: {url}, got 'web.example'"),
            ("pybit", "url = ftp://web", f"url: {url}, got 'ftp://web'"),
            ("pybit", "url = http://", f"url: {url}, got 'http://'"),
            ("pybit", "url = http://web:99999", f"url: {url}, got 'http://web:99999'"),
            ("pybit", "url = http://[::1", f"url: {url}, got 'http://[::1'"),
            ("pybit", "url = http://a b", f"url: {url}, got 'http://a b'"),
            ("pybit", "url = http://web#x", f"url: {url}, got 'http://web#x'"),
            ("pybit", "user = x", f"url: missing, {url}"),
            ("pybit", "url = http://web\ntimeout = soon", f"timeout: {seconds}, got 'soon'"),
            ("runner:q", "timeout = 0", f"timeout: {seconds}, got '0'"),
            ("runner:q", "timeout =", f"timeout: {seconds}, got ''"),
            ("runner:q", "concurrency = many", "concurrency: expected a number from 1 to 1000, got 'many'"),
            ("runner:q", "unsafe_jsonpickle = maybe", "unsafe_jsonpickle: expected yes or no, got 'maybe'"),
        ):
            with self.subTest(section=section, line=line):
                self.assert_mistake(with_lines(section, line), f"[{section}] {mistake}")

    def test_a_wrong_name_is_a_mistake(self) -> None:
        for name in ("bob villa", "bob.villa", "böb", ""):
            with self.subTest(name=name):
                mistake = f"[rbit] name: expected letters, digits, - and _, got {name!r}"
                self.assert_mistake(MINIMAL.replace("name = box", f"name = {name}"), mistake)

    def test_a_host_name_that_cannot_be_the_name_says_to_set_it(self) -> None:
        with mock.patch("socket.gethostname", return_value="böb"):
            self.assert_mistake(
                MINIMAL.replace("name = box", ""),
                "[rbit] name: expected letters, digits, - and _, got 'böb' (this is the default, so set name)",
            )

    def test_a_long_value_is_cut(self) -> None:
        mistake = f"[amqp] port: expected a number from 1 to 65535, got '{'9' * 80}'..."
        self.assert_mistake(with_lines("amqp", "port = " + "9" * 100_000), mistake)

    def test_unknown_keys_are_mistakes_with_the_nearest_key(self) -> None:
        for section, key, guess in (
            ("rbit", "poling_time", "polling_time"),
            ("rbit", "Name", "name"),
            ("amqp", "hots", "host"),
            ("amqp", "PORT", "port"),
            ("amqp", "vhost", "virtual_host"),
            ("amqp", "username", "user"),
            ("pybit", "pasword", "password"),
        ):
            with self.subTest(section=section, key=key):
                more = "\nurl = http://web" if section == "pybit" else ""
                mistake = f"[{section}] {key}: unknown key, did you mean {guess}?"
                self.assert_mistake(with_lines(section, f"{key} = 1{more}"), mistake)

    def test_an_unknown_key_like_no_other_lists_the_known_ones(self) -> None:
        known = ", ".join(key.name for key in schema.AMQP_KEYS)
        mistake = f"[amqp] zzz: unknown key, expected one of {known}"
        self.assert_mistake(with_lines("amqp", "zzz = 1"), mistake)

    def test_unknown_sections_are_mistakes_with_the_nearest_section(self) -> None:
        for section, guess in (
            ("runer:x", "runner:x"),
            ("Runner:a:b", "runner:a:b"),
            ("runner", "runner:QUEUE"),
            ("runners", "runner:QUEUE"),
            ("pibit", "pybit"),
            ("AMQP", "amqp"),
            (" rbit ", "rbit"),
            ("logers", "loggers"),
        ):
            with self.subTest(section=section):
                mistake = f"[{section}]: unknown section, did you mean [{guess}]?"
                self.assert_mistake(MINIMAL + f"[{section}]\n", mistake)

    def test_an_unknown_section_like_no_other_lists_the_known_ones(self) -> None:
        known = "[rbit], [amqp], [pybit], [runner:QUEUE] or logging sections"
        self.assert_mistake(MINIMAL + "[zzz]\n", f"[zzz]: unknown section, expected {known}")

    def test_a_default_section_is_a_mistake_and_gives_nothing_to_others(self) -> None:
        mistake = "[DEFAULT]: not supported, expected each key in the section that it is for"
        lines = "[amqp] port: expected a number from 1 to 65535, got 'x'"
        self.assert_mistake(with_lines("amqp", "port = x") + "[DEFAULT]\nhost = ,\nport = 5\n", mistake, lines)

    def test_required_sections_are_missed(self) -> None:
        amqp, rbit = "[amqp]: missing, expected this section", "[rbit]: missing, expected this section"
        self.assert_mistake("[rbit]\nname = x\n", amqp)
        self.assert_mistake("[amqp]\n", rbit)
        for empty in ("", "\n", "# nothing\n", "\ufeff", "\r\n"):
            with self.subTest(empty=empty):
                self.assert_mistake(empty, rbit, amqp)

    def test_wrong_queue_names_are_mistakes(self) -> None:
        shape = "expected runner:QUEUE, 1 to 255 bytes without blanks around them"
        for queue, mistake in (
            ("", shape),
            (" ", shape),
            (" q", shape),
            ("ü" * 128, shape),
            ("amq.gen", "expected another queue name: the broker keeps amq. for itself"),
        ):
            with self.subTest(queue=queue):
                section = f"[runner:{queue}]"
                self.assert_mistake(MINIMAL.replace("[runner:q]", section), f"{section}: {mistake}")

    def test_a_queue_name_leaves_room_for_those_of_its_own_queues(self) -> None:
        text = MINIMAL.replace("name = ", "name = bob\n#")
        longest = "ü" * 120  # 240 bytes, and "rbit.lease.bob." has 15
        self.assertEqual(self.read(text.replace("runner:q", f"runner:{longest}")).runners[0].queue, longest)
        queue = f"{longest}x"
        mistake = f"expected a shorter name: that of its queue rbit.lease.bob.{queue} is over 255 bytes"
        self.assert_mistake(text.replace("runner:q", f"runner:{queue}"), f"[runner:{queue}]: {mistake}")

    def test_a_queue_that_rbit_keeps_messages_of_another_in_is_none_to_be_worked_off(self) -> None:
        for other in ("q.retry", "rbit.lease.box.q"):
            with self.subTest(other):
                section = f"[runner:{other}]"
                mistake = "expected another name: rbit keeps messages of q in this queue"
                self.assert_mistake(f"{MINIMAL}{section}\nrunner = python!a:b\n", f"{section}: {mistake}")

    def test_a_default_queue_that_cannot_be_one_is_a_mistake(self) -> None:
        kept = "expected another name: rbit keeps messages of q in this queue"
        shape = "expected a queue name of 1 to 255 bytes"
        for name, mistake in (
            ("q", "expected a queue without a section, got 'q' as in [runner:q]"),
            ("box", "expected a name that no client has, got 'box' as in name"),
            ("q.failed", kept),
            ("q.retry", kept),
            ("rbit.lease.box.q", kept),
            ("rbit.status.box", "expected another name: rbit keeps rbit. for itself"),
            ("pybit", "expected another name: PyBit's exchange has this one"),
            ("amq.gen", f"{shape}, got 'amq.gen' (the broker keeps amq. for itself)"),
            ("ü" * 128, f"{shape}, got '{'ü' * 80}'..."),
            ("", f"{shape}, got ''"),
        ):
            with self.subTest(name):
                text = with_lines("rbit", f"default_queue = {name}")
                self.assert_mistake(text, f"[rbit] default_queue: {mistake}")
        self.assertEqual(self.read(with_lines("rbit", "default_queue = ü x")).client.default_queue, "ü x")

    def test_the_name_of_the_client_is_no_queue(self) -> None:
        mistake = "expected a name that no queue has, got 'q' as in [runner:q]"
        self.assert_mistake(MINIMAL.replace("name = ", "name = q\n#"), f"[rbit] name: {mistake}")

    def test_a_section_without_runner_is_a_mistake(self) -> None:
        expected = "expected python!package.module:callable or shell!command line"
        for line, mistake in (
            ("", f"missing, {expected}"),
            ("runer = python!a:b", f"missing, {expected} (there is a key 'runer')"),
            ("runner =", f"{expected}, got ''"),
        ):
            with self.subTest(line=line):
                text = MINIMAL.replace("runner = python!a:b", line)
                self.assert_mistake(text, f"[runner:q] runner: {mistake}")

    def test_unsafe_jsonpickle_is_for_no_shell_runner(self) -> None:
        text = with_lines("runner:q", "unsafe_jsonpickle = yes").replace("python!a:b", "shell!true")
        mistake = "[runner:q] unsafe_jsonpickle: expected no, for a shell! runner decodes nothing"
        self.assert_mistake(text, mistake)
        self.assertFalse(self.read(text.replace("= yes", "= no")).runners[0].unsafe_jsonpickle)

    def test_what_examine_finds_is_told_at_the_runner(self) -> None:
        def examine(runner: config.RunnerSettings) -> list[str]:
            return [f"{runner.queue} is odd", f"so is {runner.runner}"] if runner.queue != "q" else []

        text = MINIMAL + "[runner:other]\nrunner = shell!x\ntimeout = never\n[runner:empty]\n"
        expected = "expected a number of seconds above 0, at most 2000000"
        missing = "missing, expected python!package.module:callable or shell!command line"
        self.assertEqual(
            self.mistakes(text, examine),
            [
                f"rbit.ini: [runner:other] timeout: {expected}, got 'never'",
                f"rbit.ini: [runner:empty] runner: {missing}",
                "rbit.ini: [runner:other] runner: other is odd",
                "rbit.ini: [runner:other] runner: so is shell!x",
            ],
        )

    def test_all_mistakes_are_shown_together(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            self.read(
                "[rbit]\nname = a b\n[amqp]\nport = x\nhots = y\nport = 3\n[amqp]\n[oops]\nno key\n"
                "[pybit]\n[runner:]\nrunner = x\n[runner:q]\ntimeout = -1\n[rbit]\nname = a\nname = b\n"
            )
        lines = str(caught.exception).split("\n")
        found = [re.sub(r"^rbit.ini: (\S*\]|line 9).*", r"\1", line) for line in self.lines(lines)]
        expected = ["amqp", "amqp", "rbit", "rbit", "oops", "amqp", "rbit", "amqp", "pybit", "runner:"]
        expected = [f"[{section}]" for section in [*expected, "runner:q", "runner:q"]]
        self.assertEqual(found, [*expected[:4], "line 9", *expected[4:]])


class SecretsTest(ConfigCase):
    def test_no_mistake_and_no_traceback_shows_a_password(self) -> None:
        for text in (
            with_lines("amqp", f"password = {SECRET}\n more"),
            with_lines("amqp", f"password = {SECRET}\npassword = {SECRET}"),
            with_lines("amqp", f"pasword = {SECRET}"),
            with_lines("amqp", f"password {SECRET}"),
            with_lines("amqp", f"password {SECRET}=="),
            with_lines("amqp", f"host = bob:{SECRET}@host"),
            with_lines("pybit", f"url = http://web\npassword = {SECRET}\n  x"),
            with_lines("pybit", f"url = http://bob:{SECRET}@web"),
            with_lines("pybit", f"url = http//bob:{SECRET}@web"),
            with_lines("pybit", f"url = http://bob:{SECRET}\u2100@web"),
            with_lines("pybit", f"url = http://web?token={SECRET}"),
            f"password {SECRET}\n" + MINIMAL,
        ):
            with self.subTest(text=text), self.assertRaises(ConfigError) as caught:
                self.read(text)
            shown = "".join(traceback.format_exception(caught.exception))
            self.assertIn("rbit.ini", shown)
            self.assertNotIn(SECRET, shown)
            self.assertNotIn(SECRET, repr(caught.exception))

    def test_a_hidden_value_still_says_what_was_expected(self) -> None:
        self.assert_mistake(
            with_lines("pybit", "url = http://bob:pass@web"),
            "[pybit] url: expected an http or https URL without user, query and fragment, got a value that"
            " is not shown (user and password have keys of their own)",
        )

    def test_no_repr_shows_a_password(self) -> None:
        text = with_lines("amqp", f"password = {SECRET}") + f"api_key = {SECRET}\n"
        read = self.read(text + f"[pybit]\nurl = http://web\nuser = bob\npassword = {SECRET}\n")
        self.assertEqual((read.amqp.password.read(), read.runners[0].settings["api_key"]), (SECRET, SECRET))
        self.assertIsNotNone(read.pybit)
        self.assertNotIn(SECRET, repr(read) + str(read) + repr(ini.read(self.path)))


if __name__ == "__main__":
    unittest.main()
