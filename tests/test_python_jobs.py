"""``python!`` jobs: what they are given, how they may end, and what is left of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unittest
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

from tests.support.case import BrokerCase
from tests.support.processes import is_alive
from tests.support.python_jobs import JOBS
from tests.support.rbit_process import RbitProcess, rbit_command

CAPTURE = (Path(__file__).parent / "captures" / "build_request.json").read_bytes()


class PythonJobTest(BrokerCase):
    def run_once(self, function: str, *bodies: str | bytes, **keys: object) -> RbitProcess:
        """Work off bodies with one function and wait for the end."""
        self.queue = self.queue_name()
        for body in bodies:
            self.publish(self.queue, body)
        runner = {"runner": f"python!jobs:{function}", **keys}
        rbit = self.rbit(self.ini({self.queue: runner}), "--once", files={"jobs.py": JOBS})
        self.status = rbit.wait(60)
        return rbit

    def ran(self, rbit: RbitProcess) -> list[str]:
        path = rbit.folder / "ran"
        return path.read_text().splitlines() if path.exists() else []

    def assert_ends(self, body: str, *patterns: str) -> RbitProcess:
        """Run ``body``, then an ordinary one; each pattern is in the output and both messages are gone."""
        rbit = self.run_once("by_body", body, "next")
        for pattern in patterns:
            self.assertRegex(rbit.output, pattern)
        self.assertRegex(rbit.output, "message #2: Done")
        self.assertEqual(self.ran(rbit), [f"run {body}", "run next"])
        self.assertEqual(self.depth(self.queue), 0)
        return rbit

    def test_job_is_given_message_and_settings_in_the_spelling_of_the_file(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "caf\u00e9", type="a-type", headers={"n": 1, "deep": {"list": [1, "two"]}})
        runner = {"runner": "python!jobs:given", "Print-Dir": "A/B", "timeout": "30", "percent": "100%"}
        rbit = self.rbit(self.ini({queue: runner}), "--once", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(), 0, rbit.output)
        got = json.loads(self.ran(rbit)[0])
        self.assertEqual(got, {
            "body": "caf\u00e9", "queue": queue, "headers": {"n": 1, "deep": {"list": [1, "two"]}},
            "redelivered": False, "type": "a-type", "delivery_mode": 2, "settings": runner,
        })

    def test_job_is_told_that_its_message_was_delivered_before(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a")
        method, _, _ = self.channel.basic_get(queue)
        self.channel.basic_nack(method.delivery_tag, requeue=True)
        rbit = self.rbit(self.ini({queue: {"runner": "python!jobs:given"}}), "--once", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertIs(json.loads(self.ran(rbit)[0])["redelivered"], True)

    def test_each_bomb_fails_its_own_job_runs_nothing_and_the_next_job_is_run(self) -> None:
        canary = "open('canary', 'w')"
        reduce = {"py/reduce": [{"py/function": "builtins.eval"}, {"py/tuple": [canary]}]}
        bombs = [
            json.dumps(reduce), json.dumps([{"a": reduce}]), json.dumps(reduce).encode("utf-16"),
            '{"py/function": "builtins.eval"}', '{"py/type": "builtins.eval"}', '{"py/repr": "os/os.getcwd()"}',
            "[" * 100_000 + "]" * 100_000, '{"py/object": "pybit.models.Arch", "id": ' + "7" * 10_000_000 + "}",
            '{"py/id": NaN}', '{"py/object": "pybit.models.Arch", "py/object": "pybit.models.Arch"}',
            '{"py/object": "os.system"}',
        ]
        rbit = self.run_once("by_body", *bombs, "next")
        self.assertEqual(len(re.findall("message #[0-9]+: Failed: ", rbit.output)), len(bombs), rbit.output)
        self.assertRegex(rbit.output, f"message #{len(bombs) + 1}: Done")
        self.assertEqual(self.ran(rbit), ["run next"])
        self.assertFalse((rbit.folder / "canary").exists())

    def test_huge_body_with_tags_is_refused_in_little_memory(self) -> None:
        queue = self.queue_name()
        self.publish(queue, '{"py/object": "pybit.models.Arch", "x": [' + "{}," * 24_000_000 + "1]}")
        limited = ("sh", "-c", 'ulimit -v "$0"; exec "$@"', "800000", *rbit_command())  # KiB
        text = self.ini({queue: {"runner": "python!jobs:by_body"}})
        rbit = self.rbit(text, "--once", files={"jobs.py": JOBS}, command=limited)
        self.assertEqual(rbit.wait(60), 1, rbit.output)
        self.assertRegex(rbit.output, "message #1: Failed: the body has [0-9]+ bytes with")

    def test_large_headers_arrive_with_a_small_and_with_a_large_body(self) -> None:
        queue = self.queue_name()
        moments = [datetime.fromtimestamp(n, timezone.utc) for n in range(8000)]
        for body in (b"small", b"x" * 60_000, b"y" * 100_000):
            self.publish(queue, body, headers={"moments": moments})
        rbit = self.rbit(
            self.ini({queue: {"runner": "python!jobs:size"}}), "--once", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual([line.split()[0] for line in self.ran(rbit)], ["5", "60000", "100000"])

    def test_large_body_arrives_unchanged(self) -> None:
        body = os.urandom(20_000_000)
        rbit = self.run_once("size", body, b"")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual(self.ran(rbit)[0], f"20000000 {hashlib.sha256(body).hexdigest()}")
        self.assertTrue(self.ran(rbit)[1].startswith("0 "))

    def test_hello_world_of_the_description_works(self) -> None:
        rbit = self.run_once("hello", CAPTURE, name="World")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual(self.ran(rbit), ["col11406 pybit.models 1.0"])
        for line in ("Building: Starting job", "Hello World!", "Building col11406", "Done: Completed job"):
            self.assertRegex(rbit.output, f"{self.queue} job 1: {line}")

    def test_failed_status_without_an_exception_is_the_end(self) -> None:
        rbit = self.run_once("hello", CAPTURE)
        self.assertEqual(self.status, 1)
        self.assertRegex(rbit.output, "job 1: Failed: 'name'")
        self.assertNotIn("Done", rbit.output)

    def test_worker_is_replaced_after_so_many_jobs(self) -> None:
        queue = self.queue_name()
        for body in "abcde":
            self.publish(queue, body)
        text = self.ini({queue: {"runner": "python!jobs:where"}}, rbit={"max_jobs_per_worker": 2})
        rbit = self.rbit(text, "--once", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(list(Counter(self.ran(rbit)).values()), [2, 2, 1], self.ran(rbit))

    def test_worker_is_reused_and_imports_once_and_runs_jobs_in_its_main_thread(self) -> None:
        rbit = self.run_once("where", *"abcde")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual(len(self.ran(rbit)), 5)
        self.assertEqual(len(set(self.ran(rbit))), 1, "one process for all")
        self.assertTrue(self.ran(rbit)[0].endswith(" True"))
        self.assertEqual((rbit.folder / "imports").read_text().splitlines(), ["import"])

    def test_worker_that_exits_fails_its_job_only(self) -> None:
        self.assert_ends("exit 3", "message #1: Failed: the worker exited with status 3 in the middle of the job")

    def test_worker_that_crashes_fails_its_job_only(self) -> None:
        self.assert_ends("segv", r"message #1: Failed: the worker was killed by signal 11 \(SIGSEGV\)")

    def test_killed_worker_fails_its_job_only(self) -> None:
        self.assert_ends("kill", r"message #1: Failed: .*signal 9 \(SIGKILL, perhaps out of memory\)")

    def test_killed_keeper_fails_its_job_only_and_its_processes_are_ended(self) -> None:
        self.assert_ends("kill keeper", "message #1: Failed: the keeper of the slot was killed",
                         r"killed what had lost its keeper: .*sleep \(process")

    def test_sys_exit_is_failed(self) -> None:
        self.assert_ends("sys.exit", "message #1: Failed: SystemExit: gone", "Traceback")

    def test_keyboard_interrupt_is_failed(self) -> None:
        self.assert_ends("interrupt", "message #1: Failed: KeyboardInterrupt")

    def test_raised_failed_has_no_traceback(self) -> None:
        rbit = self.assert_ends("failed", "message #1: Failed: not today")
        self.assertNotIn("Traceback", rbit.output)

    def test_message_of_a_status_may_be_any_object(self) -> None:
        self.assert_ends("failed status", "message #1: Failed: as an object")
        self.assertEqual(self.status, 1)

    def test_exception_after_done_is_failed(self) -> None:
        self.assert_ends("done then error", "message #1: Failed: RuntimeError: after all")

    def test_uploaded_is_a_good_end(self) -> None:
        rbit = self.assert_ends("uploaded", "message #1: Uploaded: to the shelf")
        self.assertEqual(self.status, 0)
        self.assertNotIn("message #1: Done", rbit.output)

    def test_unknown_status_is_passed_on_with_a_warning(self) -> None:
        self.assert_ends("unknown status", "WARNING .*no status 'Polishing'", "message #1: Polishing: nearly",
                         "message #1: Done")

    def test_same_status_again_is_logged(self) -> None:
        self.assert_ends("same status", "message #1: Building: twice", "message #1: Done")

    def test_empty_status_is_an_error_of_the_job(self) -> None:
        self.assert_ends("empty status", "message #1: Failed: ValueError: set_status needs the name")

    def test_message_object_that_cannot_be_shown_harms_nothing(self) -> None:
        self.assert_ends("bad str", "message #1: Building: <Bad: TypeError in its __str__>", "message #1: Done")

    def test_set_status_may_be_called_from_threads(self) -> None:
        rbit = self.assert_ends("threads")
        self.assertEqual(len([line for line in rbit.lines if "Building: part " in line]), 20)

    def test_job_that_closes_stdout_does_not_harm_the_next(self) -> None:
        self.assert_ends("close stdout", "message #1: Done")

    def test_job_that_closes_its_descriptors_does_not_harm_the_next(self) -> None:
        self.assert_ends("close descriptors", "message #1: Done")

    def test_lines_and_statuses_are_logged_in_their_order(self) -> None:
        rbit = self.assert_ends("prints and reports")
        got = [line.rsplit("#1: ", 1)[1] for line in rbit.lines if re.search("(line|status) \\d+$", line)]
        for n in range(20):
            self.assertLess(got.index(f"line {n}"), got.index(f"Building: status {n}"))

    def test_async_function_is_refused_and_not_taken_for_done(self) -> None:
        for function in ("later", "pieces"):
            rbit = self.run_once(function, "a")
            self.assertRegex(rbit.output, f"Failed: jobs:{function} is async or has a yield")

    def test_job_that_changes_the_folder_does_not_harm_the_next(self) -> None:
        self.assert_ends("chdir", "message #1: Done")

    def test_fork_that_returns_from_the_job_does_not_run_further_jobs(self) -> None:
        self.assert_ends("fork returns", "message #1: Done")

    def test_megabyte_without_newline_reaches_the_log_in_pieces(self) -> None:
        rbit = self.assert_ends("long line", "message #1: Done")
        self.assertEqual(sum(line.count("x") for line in rbit.lines if "message #1: xxx" in line), 1_000_000)

    def test_output_that_is_no_text_harms_nothing(self) -> None:
        self.assert_ends("bytes", r"message #1: caf\\xe9 \\xff$".replace("$", "\n"), "message #1: next",
                         "message #1: to stderr without newline")

    def test_status_message_of_ten_megabytes_is_cut(self) -> None:
        rbit = self.assert_ends("big status", "message #1: Building: yyyy", "message #1: Done")
        self.assertLess(max(map(len, rbit.lines)), 100_000)

    def test_target_that_cannot_be_imported_fails_the_job_with_the_reason(self) -> None:
        rbit = self.run_once("nothing", "a")
        self.assertEqual(self.status, 1)
        self.assertRegex(rbit.output, "Failed: cannot import jobs:nothing: AttributeError: .*nothing")

    def test_what_a_job_leaves_running_is_ended_and_logged(self) -> None:
        rbit = self.run_once("leaves", "a")
        self.assertEqual(self.status, 0, rbit.output)
        line = next(line for line in rbit.lines if "ended what it had left running" in line)
        self.assertGreaterEqual(line.count("(process"), 3, line)
        self.assertEqual(rbit.left_over(), [])

    def test_stopped_keeper_ends_its_job_at_the_timeout(self) -> None:
        rbit = self.run_once("stops_its_keeper", "stop", "next", timeout=1.5)
        self.assertRegex(rbit.output, "message #1: Failed: timed out after 1.5 s")
        self.assertRegex(rbit.output, "message #2: Done")

    def test_timeout_ends_the_whole_tree_and_the_next_job_runs(self) -> None:
        queue, other = self.queue_name(), self.queue_name("other")
        self.publish(queue, "a")
        self.publish(other, "b")
        rbit = self.rbit(
            self.ini({
                queue: {"runner": "python!jobs:stuck", "timeout": 1.5},
                other: {"runner": "python!jobs:where"},
            }),
            "--once", files={"jobs.py": JOBS},
        )
        self.assertEqual(rbit.wait(60), 1, rbit.output)
        self.assertRegex(rbit.output, "message #1: Failed: timed out after 1.5 s")
        self.assertRegex(rbit.output, "message #2: Done")
        worker, grandchild = (int(word) for word in self.ran(rbit)[0].split())
        self.assertFalse(is_alive(worker))
        self.assertFalse(is_alive(grandchild))
        self.assertEqual((self.depth(queue), self.depth(other)), (0, 0))


if __name__ == "__main__":
    unittest.main()
