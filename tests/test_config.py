"""Tests of the configuration: its schema, the exact lines of mistakes, odd files, and the example file."""

import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import unittest
from pathlib import Path
from unittest import mock

from rbit import config, ini
from rbit.errors import ConfigError

EXAMPLE = Path(__file__).parent.parent / "rbit.ini.example"
MINIMAL = "[rbit]\nname = box\n[amqp]\n[runner:q]\nrunner = python!a:b\n"
SECRET = "kJ7-very-secret"


class ConfigCase(unittest.TestCase):
    """Writes INI files into a folder of its own, and shows mistakes as if that were the current folder."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(self.folder, "rbit.ini")

    def read(self, text: str | bytes, examine: config.Examine | None = None) -> config.Config:
        Path(self.path).write_bytes(text.encode() if isinstance(text, str) else text)
        return config.read(self.path, examine)

    def mistakes(self, text: str | bytes, examine: config.Examine | None = None) -> list[str]:
        with self.assertRaises(ConfigError) as caught:
            self.read(text, examine)
        return self.lines(caught.exception.mistakes)

    def warnings(self, text: str) -> list[str]:
        return self.lines(self.read(text).warnings)

    def lines(self, lines: list[str] | tuple[str, ...]) -> list[str]:
        for line in lines:
            self.assertTrue(line.startswith(self.path + ": "), line)
            self.assertTrue(line.isprintable(), line)
        return [line.removeprefix(self.folder + os.sep) for line in lines]

    def assert_mistake(self, text: str | bytes, *lines: str) -> None:
        self.assertEqual(self.mistakes(text), [f"rbit.ini: {line}" for line in lines])


def with_lines(section: str, lines: str) -> str:
    """Return the minimal file with lines added to one of its sections, which may be new."""
    head = f"[{section}]\n"
    return MINIMAL.replace(head, head + lines + "\n") if head in MINIMAL else MINIMAL + head + lines + "\n"


class ValuesTest(ConfigCase):
    def test_missing_keys_have_the_documented_defaults(self) -> None:
        read = self.read("[rbit]\n[amqp]\n[pybit]\nurl = http://web\n[runner:q]\nrunner = shell!true\n")
        self.assertEqual((read.client.polling_time, read.client.concurrency, read.client.suites), (60.0, 1, ()))
        self.assertEqual(read.amqp, config.AmqpSettings("localhost", 5672, "guest", "guest", "/", 30, 60.0))
        self.assertEqual(read.pybit, config.PybitSettings("http://web", "", "", 10.0))
        settings = {"runner": "shell!true"}
        self.assertEqual(read.runners, (config.RunnerSettings("q", "shell!true", None, None, False, settings),))
        self.assertEqual((read.path, read.logging), (self.path, None))

    def test_without_pybit_section_there_are_no_pybit_settings(self) -> None:
        self.assertIsNone(self.read(MINIMAL).pybit)

    def test_every_given_value_is_read_with_its_type(self) -> None:
        read = self.read(
            "[rbit]\nname = Bob-1_x\npolling_time = .5\narchitecture = any\ndistribution = cnx\nformat = epub\n"
            "suites = latex, ,princexml,\n  html\nconcurrency = 3\n"
            "[amqp]\nhost = mq.example.org\nport = 1\nuser = u\npassword = p # ;\nvirtual_host = v\n"
            "heartbeat = 65535\nconnect_timeout = 2.25\n"
            "[pybit]\nurl = HTTPS://[::1]:8443/web//\nuser = a\npassword = b\ntimeout = 3\n"
            "[runner:q]\nrunner = python!a.b:c\ntimeout = 7.5\nconcurrency = 2\nunsafe_jsonpickle = ON\n"
        )
        suites = ("latex", "princexml", "html")
        client = config.ClientSettings("Bob-1_x", 0.5, "any", "cnx", "epub", suites, 3)
        self.assertEqual(read.client, client)
        self.assertEqual(read.amqp, config.AmqpSettings("mq.example.org", 1, "u", "p # ;", "v", 65535, 2.25))
        self.assertEqual(read.pybit, config.PybitSettings("HTTPS://[::1]:8443/web", "a", "b", 3.0))
        runner = read.runners[0]
        self.assertEqual((runner.timeout, runner.concurrency, runner.unsafe_jsonpickle), (7.5, 2, True))

    def test_addresses_are_hosts_too(self) -> None:
        for host in ("127.0.0.1", "::1", "fe80::1%eth0", "bücher.example", "rabbit_mq"):
            with self.subTest(host=host):
                self.assertEqual(self.read(with_lines("amqp", f"host = {host}")).amqp.host, host)

    def test_unsafe_jsonpickle_knows_eight_words(self) -> None:
        words = {"yes": True, "True": True, "on": True, "1": True, "NO": False, "false": False, "off": False}
        for word, meaning in (words | {"0": False}).items():
            with self.subTest(word=word):
                read = self.read(with_lines("runner:q", f"unsafe_jsonpickle = {word}"))
                self.assertIs(read.runners[0].unsafe_jsonpickle, meaning)

    def test_default_name_is_the_host_name_with_dashes_for_dots(self) -> None:
        with mock.patch("socket.gethostname", return_value="build.cnx.org"):
            read = self.read("[rbit]\n[amqp]\n[runner:q]\nrunner = python!a:b\n")
        self.assertEqual(read.client.name, "build-cnx-org")

    def test_queue_names_are_made_for_each_suite(self) -> None:
        parts = "architecture = any\ndistribution = cnx\nformat = epub\nsuites = b, a, b"
        client = self.read(with_lines("rbit", parts)).client
        self.assertEqual(client.queue_names(), ["cnx_any_b_epub", "cnx_any_a_epub"])

    def test_no_queue_names_are_made_when_a_part_is_missing(self) -> None:
        parts = ["architecture = any", "distribution = cnx", "format = epub", "suites = html"]
        for missing in range(4):
            with self.subTest(missing=parts[missing]):
                text = with_lines("rbit", "\n".join(parts[:missing] + parts[missing + 1 :]))
                self.assertEqual(self.read(text).client.queue_names(), [])

    def test_runner_settings_are_every_key_in_the_spelling_of_the_file(self) -> None:
        lines = "timeout = 5\npython = /usr/local/bin/python2.4\nprint-dir = a/b\nHost: http://cnx.org\nempty ="
        self.assertEqual(
            self.read(with_lines("runner:q", lines)).runners[0].settings,
            {
                "timeout": "5",
                "python": "/usr/local/bin/python2.4",
                "print-dir": "a/b",
                "Host": "http://cnx.org",
                "empty": "",
                "runner": "python!a:b",
            },
        )

    def test_sections_of_the_description_are_read(self) -> None:
        read = self.read(
            "[rbit]\n# a comment\n#   more of it\nname = bob-villa\npolling_time = 60\narchitecture = any\n"
            "distribution = cnx\nformat = princexml\nsuites = latex, princexml\n\n"
            "[amqp]\nhost = localhost\nport = 5672\nuser = guest\npassword = guest\n\n"
            "[runner:openstax_any_latex_pdf]\nrunner = python!Products.RhaptosPrint.printing:main\n"
            "deposit_location = /mnt/www\n"
            "[runner:cnx_desktop_princexml_epub]\nrunner = shell!%ID.pdf\n"
            "[runner:cnx_any_latex_pdf]\nrunner = python!rbitext.rhaptos_print:make_print\n"
            "python = /usr/local/bin/python2.4\nhost = http://cnx.org\n"
            "print-dir = Products.RhaptosPrint/Products/RhaptosPrint/printing\n"
        )
        self.assertEqual([runner.runner[:6] for runner in read.runners], ["python", "shell!", "python"])
        self.assertEqual(read.runners[1].runner, "shell!%ID.pdf")

    def test_nothing_is_replaced_in_values(self) -> None:
        command = "shell!date +%Y-%m; echo %(name)s %% ${HOME} %ID; printf %s"
        read = self.read(with_lines("runner:q", "name = x").replace("python!a:b", command))
        self.assertEqual(read.runners[0].runner, command)

    def test_indented_lines_continue_a_command(self) -> None:
        read = self.read(MINIMAL.replace("python!a:b", "shell!set -e\n    cd /tmp\n\n    ls"))
        self.assertEqual(read.runners[0].runner, "shell!set -e\ncd /tmp\n\nls")

    def test_carriage_returns_and_a_byte_order_mark_do_no_harm(self) -> None:
        plain = self.read(MINIMAL)
        self.assertEqual(self.read(MINIMAL.replace("\n", "\r\n")), plain)
        self.assertEqual(self.read(MINIMAL.replace("\n", "\r")), plain)
        self.assertEqual(self.read(b"\xef\xbb\xbf" + MINIMAL.encode()), plain)

    def test_names_need_not_be_ascii(self) -> None:
        read = self.read(MINIMAL.replace("runner:q", "runner:büro_日本") + "größe = 𝄞\n")
        self.assertEqual(read.runners[0].queue, "büro_日本")
        self.assertEqual(read.runners[0].settings["größe"], "𝄞")

    def test_a_named_pipe_is_read(self) -> None:
        pipe = os.path.join(self.folder, "pipe")
        os.mkfifo(pipe)
        with subprocess.Popen(["/bin/sh", "-c", 'printf %s "$1" > "$2"', "sh", MINIMAL, pipe]):
            self.assertEqual(config.read(pipe).client.name, "box")


class MistakesTest(ConfigCase):
    def test_each_wrong_value_gives_its_own_line(self) -> None:
        seconds = "expected a number of seconds above 0, at most 2000000"
        url = "expected an http or https URL without user, query and fragment"
        host = "expected one host name or address"
        indented = "(an indented line continues the value above it)"
        heartbeat = "expected a number of seconds from 1 to 65535"
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
            ("amqp", "host = a, b", f"host: {host}, got 'a, b'"),
            ("amqp", "host = a:5672", f"host: {host}, got 'a:5672' (the port has a key of its own, port)"),
            ("amqp", "host = [::1]:5", f"host: {host}, got '[::1]:5' (the port has a key of its own, port)"),
            ("amqp", "host = amqp://a", f"host: {host}, got 'amqp://a'"),
            ("amqp", "host = a..b", f"host: {host}, got 'a..b'"),
            ("amqp", "host = x\n port = 5", f"host: {host}, got 'x\\nport = 5' {indented}"),
            ("amqp", "user =", "user: expected a name of 1 to 255 bytes, got ''"),
            ("amqp", "virtual_host =", "virtual_host: expected a name of 1 to 255 bytes, got ''"),
            ("amqp", "heartbeat = 0", f"heartbeat: {heartbeat}, got '0' {unnoticed}"),
            ("amqp", "heartbeat = 1.5", f"heartbeat: {heartbeat}, got '1.5'"),
            ("amqp", "connect_timeout = 0", f"connect_timeout: {seconds}, got '0'"),
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
        known = "host, port, user, password, virtual_host, heartbeat, connect_timeout"
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

    def test_a_queue_name_of_255_bytes_is_none(self) -> None:
        queue = "ü" * 127 + "x"
        self.assertEqual(self.read(MINIMAL.replace("runner:q", f"runner:{queue}")).runners[0].queue, queue)

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

    def test_unsafe_jsonpickle_is_for_python_runners_only(self) -> None:
        text = with_lines("runner:q", "unsafe_jsonpickle = yes").replace("python!a:b", "shell!true")
        mistake = "[runner:q] unsafe_jsonpickle: expected no, for only a python! runner decodes"
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
                "rbit.ini: [runner:other] runner: other is odd",
                "rbit.ini: [runner:other] runner: so is shell!x",
                f"rbit.ini: [runner:empty] runner: {missing}",
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


class FilesTest(ConfigCase):
    def test_a_file_that_cannot_be_read_gives_one_line(self) -> None:
        missing = os.path.join(self.folder, "none.ini")
        for path, text in (
            (missing, f"{missing}: no such file"),
            (self.folder, f"{self.folder}: expected a file, got a directory"),
            ("/proc/self/mem", "/proc/self/mem: cannot be read: Input/output error"),
            ("/dev/zero", f"/dev/zero: expected an INI file, got more than {ini.SIZE_LIMIT} bytes"),
            (missing + "/x\ny", f"{missing}/x\\ny: no such file"),
            ("a\0b", "a\\x00b: embedded null byte"),
        ):
            with self.subTest(path=path), self.assertRaises(ConfigError) as caught:
                config.read(path)
            self.assertEqual(caught.exception.mistakes, [text])

    def test_a_file_that_is_no_text_gives_one_line(self) -> None:
        for data, mistake in (
            (b"[rbit]\nname = b\xfcro\n", "line 2: expected UTF-8, got the byte 0xfc"),
            (MINIMAL.encode("utf-16"), "line 1: expected UTF-8, got the byte 0xff"),
            (MINIMAL.encode("utf-16-le"), "line 1: expected text, got a NUL character"),
            (b"[rbit]\n\nname = a\0b\n", "line 3: expected text, got a NUL character"),
            (b"\x7fELF\x02\x01\x01", "line 1: expected a [section] before anything else"),
            ('{"rbit": 1}', "line 1: expected a [section] before anything else"),
            ("# INI\n\nname = x\n[rbit]\n", "line 3: expected a [section] before anything else"),
        ):
            with self.subTest(mistake=mistake):
                self.assert_mistake(data, mistake)

    def test_lines_that_are_no_ini_are_mistakes_with_their_numbers(self) -> None:
        text = MINIMAL.replace("[amqp]\n", "[amqp]\nhost\n= 5\n[]\n")
        self.assert_mistake(text, *(f"line {line}: expected [section] or key = value" for line in (4, 5, 6)))

    def test_of_many_lines_that_are_no_ini_ten_are_named(self) -> None:
        lines = [f"line {line}: expected [section] or key = value" for line in range(6, 16)]
        self.assert_mistake(MINIMAL + "broken\n" * 500, *lines, "490 more lines are no INI")

    def test_repeated_sections_and_keys_are_mistakes_with_their_lines(self) -> None:
        self.assert_mistake(
            "  [amqp]\n  host = a\n  host: b\n  host = c\n  port = 0\n[rbit]\nname = x\n[rbit]\nnme = y\n[rbit]\n",
            "[amqp] host: expected each key once, got it again in line 3",
            "[amqp] host: expected each key once, got it again in line 4",
            "[rbit]: expected each section once, got it again in line 8",
            "[rbit]: expected each section once, got it again in line 10",
            "[amqp] port: expected a number from 1 to 65535, got '0'",
        )

    def test_endless_repetitions_end(self) -> None:
        mistakes = self.mistakes(MINIMAL + "x = 1\n" * 5000)
        self.assertEqual(len(mistakes), ini.SHOWN_LINES + 1)
        self.assertEqual(mistakes[-1], "rbit.ini: not read any further")

    def test_keys_that_differ_in_case_are_two_keys(self) -> None:
        settings = self.read(with_lines("runner:q", "a = 1\nA = 2")).runners[0].settings
        self.assertEqual((settings["a"], settings["A"]), ("1", "2"))

    def test_names_from_the_file_cannot_disturb_a_terminal(self) -> None:
        # `mistakes` asserts that each line is printable.
        mistakes = self.mistakes(with_lines("amqp", "\x1b[2Jhost = x\nport = \x1b[0m") + "[runer:\x1b[31m]\n")
        self.assertEqual(len(mistakes), 3)

    def test_ten_thousand_sections_are_read_quickly(self) -> None:
        sections = (f"[runner:q{n}]\nrunner = python!a:b\ntimeout = {n + 1}\nkey{n} = x\n" for n in range(10_000))
        text = MINIMAL + "".join(sections)
        start = time.process_time()
        runners = self.read(text).runners
        self.assertLess(time.process_time() - start, 8.0)
        self.assertEqual((len(runners), runners[-1].timeout), (10_001, 10_000.0))

    def test_garbled_files_give_mistakes_and_never_another_error(self) -> None:
        dice = random.Random(20)
        text = EXAMPLE.read_text("utf-8")
        alphabet = "[]=:;#% \n\r\t\0ü\u2028\x85\x1c'\"!a0-"
        refused = 0
        for _ in range(400):
            garbled = list(text)
            for _ in range(dice.randint(1, 30)):
                at = dice.randrange(len(garbled))
                garbled[at : at + dice.randint(0, 3)] = dice.choices(alphabet, k=dice.randint(0, 3))
            try:
                self.lines(self.read("".join(garbled)).warnings)
            except ConfigError as error:
                refused += 1
                self.lines(error.mistakes)
        self.assertGreater(refused, 50)


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
        self.assertEqual((read.amqp.password, read.runners[0].settings["api_key"]), (SECRET, SECRET))
        self.assertIsNotNone(read.pybit)
        self.assertNotIn(SECRET, repr(read) + str(read) + repr(ini.read(self.path)))


class WarningsTest(ConfigCase):
    def test_a_minimal_file_gives_no_warning(self) -> None:
        self.assertEqual(self.warnings(MINIMAL), [])

    def test_settings_that_look_like_keys_of_rbit_are_warned_of(self) -> None:
        lines = "timout = 5\nTimeout = 6\nhost = x\ntime = 1\npython = y\nprint-dir = z\nname = n"
        self.assertEqual(
            self.warnings(with_lines("runner:q", lines)),
            [
                "rbit.ini: [runner:q] timout: passed to the job as a setting; did you mean timeout?",
                "rbit.ini: [runner:q] Timeout: passed to the job as a setting; did you mean timeout?",
            ],
        )

    def test_a_file_without_runner_is_warned_of(self) -> None:
        warning = "rbit.ini: [runner:QUEUE]: missing, so there is no queue to work off"
        self.assertEqual(self.warnings("[rbit]\nname = x\n[amqp]\n"), [warning])

    def test_queues_that_the_client_values_name_are_missed(self) -> None:
        parts = "architecture = any\ndistribution = cnx\nformat = epub\nsuites = html, latex"
        text = with_lines("rbit", parts) + "[runner:cnx_any_html_epub]\nrunner = python!a:b\n"
        warning = "rbit.ini: [runner:cnx_any_latex_epub]: missing, though [rbit] names this queue"
        self.assertEqual(self.warnings(text), [warning])


class LoggingTest(ConfigCase):
    SECTIONS = (
        "[loggers]\nkeys = root\n[handlers]\nkeys = file\n[formatters]\nkeys = f\n"
        "[logger_root]\nlevel = DEBUG\nhandlers = file\n"
        "[handler_file]\nclass = StreamHandler\nargs = ()\nformatter = f\n"
        "[formatter_f]\nformat = %(levelname)s <%(message)s>\n"
    )

    def test_logging_sections_come_as_a_parser_without_other_sections(self) -> None:
        parser = self.read(MINIMAL + self.SECTIONS).logging
        assert parser is not None
        self.assertEqual(len(parser.sections()), 6)
        self.assertEqual(parser.get("formatter_f", "format"), "%(levelname)s <%(message)s>")
        self.assertNotIn("amqp", parser)

    def test_python_logs_as_the_sections_say(self) -> None:
        self.read(MINIMAL + self.SECTIONS)
        program = (
            "import sys, logging, logging.config; from rbit import config\n"
            "logging.config.fileConfig(config.read(sys.argv[1]).logging)\nlogging.debug('hello')"
        )
        command = [sys.executable, "-c", program, self.path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, "DEBUG <hello>\n"))

    def test_incomplete_logging_sections_are_mistakes(self) -> None:
        text = MINIMAL + self.SECTIONS
        self.assert_mistake(
            text.replace("[formatters]\nkeys = f\n", "")
            .replace("[handler_file]", "[handler_x]")
            .replace("keys = root", "keys = a"),
            "[logger_a]: missing, for [loggers] keys names it",
            "[loggers] keys: expected root among the names",
            "[handler_file]: missing, for [handlers] keys names it",
            "[formatters] keys: missing, expected names separated by commas",
        )


class ExampleTest(ConfigCase):
    def setUp(self) -> None:
        super().setUp()
        self.text = EXAMPLE.read_text("utf-8")
        self.whole = re.sub(r"(?m)^#(\[|[a-z_]+ = )", r"\1", self.text)

    def test_example_has_neither_mistakes_nor_warnings(self) -> None:
        read = self.read(self.text)
        self.assertEqual(read.warnings, ())
        queues = ["ccap_any_latex_completezip", "cnx_any_html_epub", "cnx_any_html_zip"]
        self.assertEqual([runner.queue for runner in read.runners], queues)
        self.assertEqual([runner.timeout for runner in read.runners], [None, None, 60.0])
        self.assertEqual(read.client.queue_names(), ["cnx_any_html_epub"])
        self.assertEqual((read.amqp.port, read.pybit, read.logging), (5672, None, None))

    def test_example_with_every_comment_sign_taken_off_keys_has_no_mistakes(self) -> None:
        read = self.read(self.whole)
        self.assertEqual(read.warnings, ())
        self.assertIsNotNone(read.pybit)
        self.assertIsNotNone(read.logging)

    def test_example_shows_every_key_with_its_default(self) -> None:
        self.read(self.whole)
        sections = ini.read(self.path).sections
        for name, keys in config.SCHEMA.items():
            shown: dict[str, str] = {}
            for section, items in sections.items():
                if section == name or (name.endswith(":") and section.startswith(name)):
                    shown = items | shown
            for key in keys:
                with self.subTest(section=name, key=key.name):
                    self.assertIn(key.name, shown)
                    if f"#{key.name} = " in self.text and isinstance(key.default, str) and key.default:
                        self.assertEqual(shown[key.name], key.default)


if __name__ == "__main__":
    unittest.main()
