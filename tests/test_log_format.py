"""The log as JSON: one object a line, whatever a job prints, with what the line says of its job as keys."""

from __future__ import annotations

import json
import logging
import unittest
from datetime import datetime, timezone
from typing import Any

from rbit.jsonlog import Objects
from tests.support.case import BrokerCase
from tests.support.client_case import CAPTURES
from tests.support.rbit_process import RbitProcess

REQUEST = (CAPTURES / "build_request.json").read_bytes()
JOBS = '''
import os, sys

def job(message, set_status, settings):
    os.write(1, b'{"level": "fake"}\\n\\x1b[2Jred\\r\\n\\xff\\xfe\\n')
    os.write(1, b'\\xe2\\x80\\xa8\\xc2\\x85\\x00\\x0b}\\n"quoted" \\\\ \\xf0\\x9f\\x98\\x80\\n')
    set_status("Building", "half\\nway \\u2028")
    raise ValueError("no\\npaper \\x00")
'''
SECTIONS = (
    "\n[loggers]\nkeys = root\n[handlers]\nkeys = file\n[formatters]\nkeys = json\n"
    "[logger_root]\nlevel = INFO\nhandlers = file\n"
    "[handler_file]\nclass = FileHandler\nformatter = json\nargs = ('log.txt',)\n"
    "[formatter_json]\nclass = pythonjsonlogger.json.JsonFormatter\nformat = %(levelname)s %(message)s\n"
)


class LogFormatTest(BrokerCase):
    def run_job(self, *arguments: str, message_id: str = "m\u00e9", more: str = "",
                environment: dict[str, str] | None = None, files: dict[str, str] | None = None) -> RbitProcess:
        """Work off a build request with the function of JOBS, and return rbit at its end."""
        queue = self.queue_name("any_latex_pdf")
        self.publish(queue, REQUEST, message_id=message_id)
        text = self.ini({queue: {"runner": "python!jobs:job"}}) + more
        rbit = self.rbit(text, "--once", *arguments, files={"jobs.py": JOBS, **(files or {})},
                         environment=environment)
        self.status = rbit.wait()
        return rbit

    def objects(self, lines: list[str]) -> list[dict[str, Any]]:
        """Return the objects of lines, each of which must be one."""
        found = [json.loads(line) for line in lines]
        self.assertEqual({type(entry) for entry in found}, {dict})
        return found

    def test_each_line_is_an_object_with_what_it_says_of_its_job(self) -> None:
        before = datetime.now(timezone.utc)
        rbit = self.run_job("--log-format", "json")
        self.assertEqual((self.status, rbit.stderr_lines), (1, []), rbit.output)
        found = self.objects(rbit.stdout_lines)
        for entry in found:
            self.assertEqual(list(entry)[:4], ["time", "level", "logger", "message"])
            self.assertLess(abs((datetime.fromisoformat(entry["time"]) - before).total_seconds()), 60)
        queue = self.queue_name("any_latex_pdf")
        of_job = {"queue": queue, "job": 1, "message_id": "m\u00e9", "attempt": 1}
        printed = [entry for entry in found if entry["logger"] == "rbit.output"]
        self.assertEqual(
            [entry["message"].removeprefix(f"{queue} job 1: ") for entry in printed],
            ['{"level": "fake"}', "\\x1b[2Jred", "\\xff\\xfe", "\\u2028\\x85\\x00\\x0b}",
             '"quoted" \\ \U0001f600'],
        )
        for entry in printed:
            self.assertEqual({key: entry[key] for key in list(entry)[4:]}, {**of_job, "stream": "stdout"})
        statuses = [entry for entry in found if entry["logger"] == "rbit.status"]
        self.assertEqual([entry["status"] for entry in statuses], ["Building", "Building", "Failed"])
        self.assertEqual([entry["level"] for entry in statuses], ["INFO", "INFO", "WARNING"])
        self.assertIn("half\n    way \\u2028", statuses[1]["message"])
        [traceback] = [entry for entry in found if "Traceback" in entry["message"]]
        self.assertIn("job 1: Traceback (most recent call last):\n      File ", traceback["message"])
        for entry in (*statuses, traceback):
            self.assertLessEqual(of_job.items(), entry.items())
        self.assertNotIn("queue", found[0])

    def test_text_is_the_default_and_can_be_asked_for(self) -> None:
        plain, asked = (self.run_job(*arguments).stdout_lines for arguments in ((), ("--log-format", "text")))
        stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
        for lines in (plain, asked):
            self.assertRegex("\n".join(lines), rf"(?m)^{stamp} INFO \S+ job 1: Building$")

    def test_other_formats_are_refused(self) -> None:
        rbit = self.run_job("--log-format", "xml")
        self.assertEqual(self.status, 64)
        self.assertRegex(rbit.stderr_lines[-1], "--log-format: invalid choice: 'xml'")

    def test_missing_package_is_named_and_nothing_is_run(self) -> None:
        # As where it is not installed: what is found before it cannot be imported.
        files = {"none/pythonjsonlogger/__init__.py": "raise ModuleNotFoundError('pythonjsonlogger')\n"}
        rbit = self.run_job("--log-format", "json", environment={"PYTHONPATH": "none"}, files=files)
        self.assertEqual(self.status, 64)
        self.assertEqual(rbit.lines, [
            "rbit: --log-format json needs the package python-json-logger, 3.1 or later: pip install 'rbit[json]'"
        ])
        self.assertEqual(self.depth(self.queue_name("any_latex_pdf")), 1)
        self.run_job(environment={"PYTHONPATH": "none"}, files=files)
        self.assertEqual(self.status, 1)

    def test_check_looks_for_the_package_too(self) -> None:
        text = self.ini({self.queue_name(): {"runner": "shell!true"}})
        files = {"none/pythonjsonlogger/__init__.py": "raise ModuleNotFoundError('pythonjsonlogger')\n"}
        for path, status in (("none", 64), ("", 0)):
            arguments = ("--check", "--log-format", "json")
            rbit = self.rbit(text, *arguments, files=files, environment={"PYTHONPATH": path})
            self.assertEqual(rbit.wait(), status, rbit.output)
            self.assertEqual("needs the package python-json-logger" in rbit.output, status == 64)

    def test_half_a_character_is_replaced(self) -> None:
        for text, expected in (
            ("\ud800", "\ufffd"), ("a\udcff\udc00b", "a\ufffd\ufffdb"), ("\U0001f600\ud83d", "\U0001f600\ufffd"),
            ("\\ud800", "\\ud800"), ("\U0001f600", "\U0001f600"), ('"\ud800\n', '"\ufffd\n'),
        ):
            record = logging.makeLogRecord({"msg": text, "more": {text: [text]}})
            line = Objects().format(record)
            found = json.loads(line)
            self.assertTrue(line.isascii() and line.isprintable())
            self.assertEqual((found["message"], found["more"]), (expected, {expected: [expected]}))

    def test_logging_sections_and_a_format_do_not_go_together(self) -> None:
        for log_format in ("json", "text"):
            rbit = self.run_job("--log-format", log_format, more=SECTIONS)
            self.assertEqual(self.status, 64)
            self.assertEqual(rbit.lines, ["rbit: --log-format does not go with the logging sections of rbit.ini"])
            self.assertFalse((rbit.folder / "log.txt").exists())

    def test_formatter_of_a_logging_section_finds_what_a_line_says_of_its_job(self) -> None:
        rbit = self.run_job(more=SECTIONS)
        self.assertEqual((self.status, rbit.lines), (1, []), rbit.output)
        found = self.objects((rbit.folder / "log.txt").read_text("utf-8").splitlines())
        failed = [entry for entry in found if entry.get("status") == "Failed"]
        self.assertEqual([(entry["job"], entry["attempt"]) for entry in failed], [(1, 1)])


if __name__ == "__main__":
    unittest.main()
