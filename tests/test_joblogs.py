"""The log of each run of a job: what is in it, and where it is."""

from __future__ import annotations

import os
import re
import shlex
import stat
import unittest

from tests.support.client_case import CAPTURES
from tests.support.joblog_case import STAMP, LogCase, entries, logs
from tests.support.rbit_process import rbit_command

REQUEST = (CAPTURES / "build_request.json").read_bytes()


class ContentTest(LogCase):
    def test_log_has_head_output_statuses_and_end_in_order(self) -> None:
        queue = self.queue_name("any_latex_pdf")
        keys = {"api_key": "hush1", "deposit": "https://me:hush2@host/?token=hush3&x=1", "size": "A4"}
        rbit = self.once("speak", REQUEST, 1, queue=queue, keys=keys)
        [(path, text)] = logs(rbit).items()
        self.assertEqual(path, f"{queue}/job-1.log")
        head = text.partition("\n\n")[0]
        self.assertRegex(head, re.compile(
            rf"rbit job log\nqueue:    {queue}\nmessage:  m\njob:      1\npackage:  col11406 1\.0\nattempt:  1\n"
            r"client:   bob-villa\nbegun:    \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\nsettings:\n"
        ))
        for line in ("runner = python!jobs:speak", "api_key = ***", "deposit = ***", "size = A4"):
            self.assertIn(f"    {line}\n", f"{head}\n")
        self.assertNotIn("hush", text)
        found = entries(text)
        self.assertEqual(found[:6], [
            ("status", "Building"), ("stdout", "to stdout"), ("stderr", "to stderr \\x1b[31m\\u2028"),
            ("status", "Building: half"), ("", "    way"), ("stdout", "after it"),
        ])
        self.assertEqual(found[6], ("rbit", "Traceback (most recent call last):"))
        self.assertEqual(found[-1], ("rbit", "ended after N s: Failed: ValueError: no paper"))
        stamps = re.findall(f"(?m)^{STAMP}", text)
        self.assertEqual(stamps, sorted(stamps))

    def test_shell_job_has_its_command_both_streams_its_statuses_and_its_exit_status(self) -> None:
        command = "shell!echo one; echo 'Building two' >&$RBIT_STATUS_FD; echo three >&2; exit 3"
        [text] = logs(self.once(command, status=1)).values()
        self.assertIn("\n    runner = shell!echo …\n", text)
        found = entries(text)
        self.assertEqual(found[0], ("status", "Building"))
        self.assertEqual(sorted(found[1:4]), [("status", "Building: two"), ("stderr", "three"), ("stdout", "one")])
        self.assertLess(found.index(("stdout", "one")), found.index(("status", "Building: two")))
        self.assertEqual(found[4:], [("rbit", "ended after N s: Failed: exit status 3: three")])

    def test_files_are_for_the_group_to_read_less_what_the_umask_takes(self) -> None:
        for umask, modes in (("000", (0o640, 0o750)), ("077", (0o600, 0o700))):
            rbit = self.once("shell!true", command=f'umask {umask}; exec "$@"')
            [path] = (rbit.folder / "logs").rglob("*.log")
            found = tuple(stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent))
            self.assertEqual(found, modes)

    def test_each_attempt_and_each_job_of_the_same_name_has_a_file_of_its_own(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "y", message_id="m")
        rbit = self.once("blocked", status=1, keys={"retry_delay": 1, "max_attempts": 2}, queue=queue)
        first = logs(rbit)
        self.assertEqual(set(first), {f"{queue}/message-m.log", f"{queue}/message-m.2.log"})
        self.wait_until(lambda: self.depth(queue) == 2, what="the messages to come back")
        again = self.rbit(None, "rbit.ini", "--once", command=("sh", "-c", f'cd {rbit.folder}; exec "$0" "$@"',
                                                              *rbit_command()))
        self.assertEqual(again.wait(), 1, again.output)
        then = logs(rbit)
        self.assertEqual(set(then) - set(first), {f"{queue}/message-m-attempt-2.log",
                                                  f"{queue}/message-m-attempt-2.2.log"})
        self.assertEqual({path: then[path] for path in first}, first)
        self.assertIn("\nattempt:  2\n", then[f"{queue}/message-m-attempt-2.log"])

    def test_without_log_dir_there_are_no_logs(self) -> None:
        rbit = self.once("shell!echo hello", log_dir=None)
        self.assertEqual([path.name for path in (rbit.folder / "logs").iterdir()], [".keep"])


class PlaceTest(LogCase):
    def test_names_of_strangers_never_lead_out_of_the_folder(self) -> None:
        token = self.queue_name("x").partition("_")[0]
        queue = self.queue_name("../../..")
        self.assertTrue(queue.startswith(token))
        names = ["../../../up", "/tmp/abs", "..", ".", "-rf", "a\nb\x1b[1m", "x" * 255, "é" * 127, "a b", "a/b"]
        names.append("ok")
        for name in names:
            self.publish(queue, "y", message_id=name)
        rbit = self.client("shell!true", "--once", queue=queue)
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        found = logs(rbit)
        self.assertEqual(len(found), len(names))
        self.assertIn("message-ok.log", {path.rpartition("/")[2] for path in found})
        outside = {path.name for path in rbit.folder.rglob("*") if rbit.folder / "logs" not in path.parents}
        self.assertLessEqual(outside, {"jobs.py", "rbit.ini", "logs", "__pycache__"})
        [folder] = {path.partition("/")[0] for path in found}
        self.assertRegex(folder, rf"^{token}_\.\._\.\._\.\.-[0-9a-f]{{8}}$")
        for path in (rbit.folder / "logs").rglob("*"):
            self.assertLessEqual(len(os.fsencode(path.name)), 255)
            self.assertTrue(path.name.isprintable() and not path.is_symlink(), path.name)

    def test_names_that_the_locale_cannot_say_are_those_of_the_files(self) -> None:
        queue = self.queue_name("r\u00e9sum\u00e9")
        self.publish(queue, "y", message_id="r\u00e9sum\u00e9")
        self.publish(queue, "y", message_id="r\u00e9sum\u00e9")
        locale = "export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
        rbit = self.client("shell!true", "--once", queue=queue, command=f'{locale}; exec "$@"')
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertNotIn("cannot be written", rbit.output)
        names = (f"{queue}/message-r\u00e9sum\u00e9{number}.log" for number in ("", ".2"))
        self.assertEqual(set(logs(rbit)), set(names))

    def test_nothing_is_written_through_a_link_and_the_job_is_done(self) -> None:
        queue = self.queue_name()
        rbit = self.once("shell!echo hello", command=f'mkdir out; ln -s ../out logs/{queue}; exec "$@"')
        self.assertEqual(list((rbit.folder / "out").iterdir()), [])
        said = [line for line in rbit.lines if "job logs in" in line]
        self.assertEqual(len(said), 1, rbit.output)
        self.assertIn(f"WARNING the job logs in logs/{queue} cannot be written: Not a directory; jobs ru", said[0])

    def test_missing_folder_is_said_once_and_jobs_run_on_until_it_is_there(self) -> None:
        queue = self.queue_name()
        for number in range(2):
            self.publish(queue, "y", message_id=f"m{number}")
        rbit = self.client("shell!true", queue=queue, dirs=())
        rbit.wait_for_line("message m1: Done")
        (rbit.folder / "logs").mkdir()
        self.publish(queue, "y", message_id="m2")
        rbit.wait_for_line("message m2: Done")
        self.assertEqual(rbit.stop(), 0)
        said = [line.partition(" the job logs ")[2] for line in rbit.lines if " the job logs " in line]
        self.assertEqual(said, [
            f"in logs/{queue} cannot be written: No such file or directory; jobs run on",
            f"in logs/{queue} can be written again",
        ])
        self.assertEqual(set(logs(rbit)), {f"{queue}/message-m2.log"})

    def test_relative_folder_is_the_one_beside_the_file(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "y", message_id="m")
        for option in ("--check", "--once"):
            command = f"mkdir other; cd other; {shlex.join(rbit_command())} ../rbit.ini {option}"
            rbit = self.client("shell!true", queue=queue, command=command)
            self.assertEqual(rbit.wait(60), 0, rbit.output)
            self.assertNotIn("no folder", rbit.output)
        self.assertEqual(set(logs(rbit)), {f"{queue}/message-m.log"})
        rbit = self.client("shell!true", dirs=("other/logs",), command=command.replace("mkdir other; ", "")
                           .replace("--once", "--check"))
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertIn("[rbit] log_dir: '../logs' is no folder", rbit.output)

    def test_check_warns_of_a_folder_that_is_missing(self) -> None:
        for dirs, expected in (((), 1), (("logs",), 0)):
            rbit = self.client("shell!true", "--check", dirs=dirs)
            self.assertEqual(rbit.wait(), 0, rbit.output)
            self.assertEqual(len([line for line in rbit.lines if "[rbit] log_dir: 'logs' is no folder" in line]),
                             expected, rbit.output)


if __name__ == "__main__":
    unittest.main()
