"""Tests of the configuration: odd files, warnings, logging sections, and the example file."""

import os
import random
import re
import subprocess
import sys
import time
import unittest
from pathlib import Path
from unittest import mock

from rbit import config, files, ini, schema
from rbit.errors import ConfigError
from tests.test_config import EXAMPLE, MINIMAL, ConfigCase, with_lines


class FilesTest(ConfigCase):
    def test_a_file_that_cannot_be_read_gives_one_line(self) -> None:
        missing, fifo, large = (os.path.join(self.folder, name) for name in ("none.ini", "fifo", "large.ini"))
        os.mkfifo(fifo)
        Path(large).touch()
        os.truncate(large, ini.SIZE_LIMIT + 1)
        for path, text in (
            (missing, f"{missing}: no such file"),
            (self.folder, f"{self.folder}: expected a file, got a directory"),
            ("/proc/self/mem", "/proc/self/mem: cannot be read: Input/output error"),
            ("/dev/zero", "/dev/zero: expected a file, got a device"),
            (fifo, f"{fifo}: a pipe that did not come to its end within 0.1 s"),
            (large, f"{large}: expected an INI file, got more than {ini.SIZE_LIMIT} bytes"),
            (missing + "/x\ny", f"{missing}/x\\ny: no such file"),
            ("a\0b", "a\\x00b: embedded null byte"),
        ):
            with self.subTest(path=path), mock.patch.object(files, "PIPE_WAIT", 0.1):
                with self.assertRaises(ConfigError) as caught:
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
        self.every = re.sub(r"(?m)^#(\[|[a-z_]+ = )", r"\1", self.text)
        # Without what takes the place of the password, and what needs TLS.
        self.whole = re.sub(r"(?m)^(password_|ca_|cert_|key_|verify).*", "", self.every)

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
        Path(self.path).write_text(self.every, "utf-8")
        sections = ini.read(self.path).sections
        for name, keys in schema.SCHEMA.items():
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
