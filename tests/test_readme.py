"""Every command, configuration and program in README.rst, run or read as a reader would.

A test takes the blocks that it covers as arguments; see ``tests.support.readme``. It runs in the testing
process; rbit is the real command.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
import unittest
from pathlib import Path
from typing import Any

from rbit import errors
from tests.support.pybit_web import PybitWeb
from tests.support.readme import BLOCKS, PATH, ReadmeCase, commands, example

ROOT = Path(__file__).resolve().parent.parent
REQUEST = (ROOT / "tests" / "captures" / "build_request.json").read_bytes()
AMQP = re.compile(r"(?m)^host = localhost\nport = 5672$")


def request(**names: str) -> bytes:
    """Return a real build request with other names: package, version, distribution, suite, format."""
    body: dict[str, Any] = json.loads(REQUEST)
    instance = body["job"]["packageinstance"]
    for key, value in names.items():
        if key == "version":
            instance["package"]["version"] = value
        else:
            instance[key]["name"] = value
    return json.dumps(body).encode()


class StartTest(ReadmeCase):
    @example("start jobs.py", "start rbit.ini", "start send.py", "start commands", "start output")
    def test_a_new_user_gets_the_output_that_the_readme_shows(
        self, jobs: str, ini: str, send: str, lines: str, expected: str
    ) -> None:
        for queue in ("greetings", "texts"):
            self.channel.queue_delete(self.queue(queue))
        self.channel.exchange_delete("rbit.status")
        self.assertRegex(ini, AMQP)
        folder = self.folder(jobs__py=jobs, rbit__ini=self.here(ini), send__py=self.here(send))
        outputs = [self.run_line(line, folder) for line in commands(lines)]
        shown = re.sub(r"(?m)^[\d-]+ [\d:,]+ ", "", outputs[-1])
        created = "INFO exchange rbit.status is created\n"  # by another thread than the lines around it
        self.assertEqual((shown.count(created), expected.count(created)), (1, 1), shown)
        self.assertEqual(shown.replace(created, ""), self.here(expected).replace(created, ""))
        self.assertEqual((folder / "words.txt").read_text("utf-8").split(), ["3"])
        self.assertEqual(
            outputs[0],
            "greetings: python!jobs:greet (missing, will be created if its user may do that)\n"
            "texts: shell!wc -w > words.txt (missing, will be created if its user may do that)\n",
        )

    @example("start for good", "start submit")
    def test_the_client_goes_on_for_good_until_ctrl_c(self, line: str, submit: str) -> None:
        for queue in ("greetings", "texts"):
            self.queue(queue)
        files = {"jobs.py": BLOCKS["start jobs.py"], "rbit.ini": self.here(BLOCKS["start rbit.ini"])}
        rbit = self.rbit(
            None, files=files, environment={"PATH": PATH}, command=("/bin/sh", "-c", f"exec {commands(line)[0]}")
        )
        rbit.wait_for_line("polled every 5 s")
        rbit.wait_for_line("connected to RabbitMQ")
        shown = self.run_line(*commands(submit), rbit.folder)
        self.assertRegex(shown, "^greetings message [0-9a-f]{32}: published\n")
        self.assertTrue(shown.endswith(": Done\n"), shown)
        rbit.wait_for_line("Good morning, Grace!")
        rbit.signal(signal.SIGINT)
        self.assertEqual(rbit.wait(), 0, rbit.output)

    @example("configuration")
    def test_the_configuration_passes_the_check(self, ini: str) -> None:
        self.queue("cnx_any_latex_pdf")
        folder = self.folder(rbit__ini=self.here(ini))
        (folder / "my_package").mkdir()
        (folder / "my_package" / "printing.py").write_text("def make_pdf(*arguments): pass\n", encoding="utf-8")
        output = self.run_line("rbit rbit.ini --check", folder)
        self.assertIn("cnx_any_latex_pdf: python!my_package.printing:make_pdf", output)
        self.assertNotIn("warning", output)


class JobsTest(ReadmeCase):
    @example("python-job publishing.py", "python-job rbit.ini")
    def test_the_python_job_ends_uploaded_blocked_or_failed(self, code: str, ini: str) -> None:
        queue = self.queue("cnx_any_web_html")
        self.publish(queue, request(format="html"))
        output, _ = self.once(ini, publishing__py=code)
        self.assertRegex(output, r"(?m)job 1: Uploaded: https://example.org/$")
        self.assertIn("job 1: Building: working on col11406", output)
        self.assertIn("job 1: version 1.0", output)
        self.publish(queue, request(format="pdf"))
        output, _ = self.once(ini, errors.EXIT_JOBS_FAILED, publishing__py=code)
        self.assertRegex(output, r"(?m)job 1: Failed: expected html, got pdf$")
        self.assertEqual(self.depth(queue), 0)
        self.publish(queue, request(format="html"))
        full = re.sub(r"bytes_needed = \d+", f"bytes_needed = {10**24}", ini)
        output, _ = self.once(full, errors.EXIT_JOBS_FAILED, publishing__py=code)
        self.assertRegex(output, r"(?m)job 1: Blocked: the disk is full$")
        self.assertEqual((self.depth(queue), self.depth(f"{queue}.retry")), (0, 1))

    @example("shell-job rbit.ini")
    def test_the_shell_jobs_pack_report_and_wait(self, ini: str) -> None:
        packing, checking = self.queue("cnx_any_html_zip"), self.queue("cnx_any_html_check")
        evil = "a b;'\"$(id)`id`*"
        self.publish(packing, request(package=evil, version="1.0"))
        self.publish(checking, request(version="-v"))
        ini = ini.replace("\nrunner = ", "\nretry_delay = 1\nrunner = ")
        output, folder = self.once(ini, errors.EXIT_JOBS_FAILED, module__html="<p>hello</p>")
        self.assertTrue((folder / f"{evil}-1.0.zip").is_file(), output)
        self.assertIn("cnx_any_html_check job 1: Building: job 1", output)
        self.assertRegex(output, r"(?m)cnx_any_html_check job 1: Blocked\b")
        self.wait_until(lambda: self.depth(checking) == 1, what="the message to come back")
        output, _ = self.once(ini, released__txt="-v\n")
        self.assertRegex(output, r"job 1: col11406 -v is out, says Ada on \d{4}-\d\d-\d\d\n")
        self.assertRegex(output, r"(?m)cnx_any_html_check job 1: Done$")

    @example("shell-send send_request.py", "shell-job rbit.ini")
    def test_a_build_request_is_sent_that_the_shell_job_understands(self, send: str, ini: str) -> None:
        for queue in ("cnx_any_html_zip", "cnx_any_html_check"):
            self.queue(queue)
        folder = self.folder(send_request__py=self.here(send))
        shutil.copy(ROOT / "examples" / "build_request.json", folder)
        self.run_line("python3 send_request.py", folder)
        output, _ = self.once(ini, released__txt="1.0\n")
        self.assertRegex(output, r"job 1: col11406 1.0 is out, says Ada on ")

    @example("shell-wrong", "shell-right")
    def test_a_placeholder_in_a_text_that_is_read_again_is_refused_and_the_argument_works(
        self, wrong: str, right: str
    ) -> None:
        output, _ = self.once(wrong, errors.EXIT_CONFIG)
        self.assertIn("rbit.ini: [runner:cnx_any_html_wrong] runner:", output)
        self.assertIn("%ID", output)
        self.publish(self.queue("cnx_any_html_right"), request())
        output, _ = self.once(right)
        self.assertRegex(output, r"(?m)job 1: col11406$")

    @example("fate rbit.ini")
    def test_failed_job_is_tried_again_as_often_as_the_section_says_and_then_kept(self, ini: str) -> None:
        code = "def main(message, set_status, settings): raise ValueError('no paper')\n"
        queue = self.queue("reports")
        self.publish(queue, "a")
        ini = ini.replace("retry_delay = 600", "retry_delay = 1")
        for attempt in (1, 2, 3):
            self.wait_until(lambda: self.depth(queue) == 1, what="the message")
            output, _ = self.once(ini, errors.EXIT_JOBS_FAILED, reports__py=code)
            said = "Failed: in attempt 3"
            if attempt < 3:
                said = f"Waiting: attempt {attempt} failed, tried again in 1 s"
            self.assertIn(f"message #1: {said}: ValueError: no paper", output)
        _, properties, _ = self.channel.basic_get(f"{queue}.failed", auto_ack=True)
        self.assertEqual(properties.headers["x-rbit-why"], "in attempt 3: ValueError: no paper")

    @example("unsafe rbit.ini")
    def test_classes_of_ones_own_pass_only_if_the_publishers_are_trusted(self, ini: str) -> None:
        code = (
            "import jsonpickle\nclass Report: pass\n"
            "def main(message, set_status, settings): print(jsonpickle.decode(message.body).title)\n"
        )
        body = json.dumps({"py/object": "reports.Report", "title": "Harvest"})
        queue = self.queue("reports")
        self.publish(queue, body)
        output, _ = self.once(ini, reports__py=code)
        self.assertIn("message #1: Harvest", output)
        self.assertRegex(output, r"WARNING .*unsafe_jsonpickle")
        self.publish(queue, body)
        safe = ini.replace("unsafe_jsonpickle = yes\n", "")
        output, _ = self.once(safe, errors.EXIT_JOBS_FAILED, reports__py=code)
        self.assertNotIn("Harvest", output)
        self.assertRegex(output, r"message #1: Failed: .*reports\.Report")

    @example("pybit rbit.ini")
    def test_pybit_is_told_of_each_status(self, ini: str) -> None:
        queue = self.queue_name("any_latex_pdf")
        with PybitWeb() as web:
            web.add_job(1)
            self.publish(queue, REQUEST)
            there = ini.replace("http://localhost:8080", web.url)
            self.assertNotEqual(there, ini)
            output, _ = self.once(f"[runner:{queue}]\nrunner = shell!true\n\n{there}")
            self.assertEqual(
                web.history(1)[1:], [("Building", "bob-villa"), ("Done", "bob-villa")], output
            )


class FollowTest(ReadmeCase):
    @example("update")
    def test_a_status_is_published_as_the_readme_shows_it(self, update: str) -> None:
        queue = self.queue("cnx_any_latex_pdf")
        self.channel.exchange_declare("rbit.status", "topic", durable=True)
        follower = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(follower, "rbit.status", "*.Failed")
        self.publish(queue, request(), message_id="mine")
        self.once(f"[runner:{queue}]\nrunner = shell!echo no such font >&2; exit 2\n", errors.EXIT_JOBS_FAILED)
        method, properties, body = self.channel.basic_get(follower, auto_ack=True)
        shown, seen = json.loads(update), json.loads(body)
        self.assertEqual({**seen, "time": 0}, {**shown, "time": 0})
        self.assertEqual(list(seen), list(shown))
        self.assertLess(abs(time.time() - seen["time"]), 60)
        self.assertEqual(method.routing_key, "cnx_any_latex_pdf.Failed")
        self.assertEqual((properties.content_type, properties.correlation_id), ("application/json", "mine"))


class LogsTest(ReadmeCase):
    @example("job-log file")
    def test_a_job_leaves_the_log_that_the_readme_shows(self, file: str) -> None:
        queue = self.queue("reports")
        self.publish(queue, "x", message_id="2026-W48")
        section = {"runner": "shell!echo no paper; exit 1", "printer_password": "hush"}
        folder = self.folder(rbit__ini=self.ini({queue: section}, rbit={"name": "bob-villa", "log_dir": "logs"}))
        (folder / "logs").mkdir()
        self.run_line("rbit rbit.ini --once", folder, errors.EXIT_JOBS_FAILED)
        [path] = (folder / "logs").rglob("*.log")
        self.assertRegex(str(path.relative_to(folder)), r"^logs/reports/\d{4}-\d\d-\d\d/message-2026-W48\.log$")
        shown, found = (re.sub(r"[+-]\d{4}$|\d+", "0", text, flags=re.MULTILINE)
                        for text in (file.rstrip("\n"), path.read_text("utf-8").rstrip("\n")))
        self.assertEqual(found, shown)


if __name__ == "__main__":
    unittest.main()
