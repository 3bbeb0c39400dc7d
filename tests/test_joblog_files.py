"""Files with names of strangers, and of bounded length; what is removed of them; what is hidden in their heads."""

from __future__ import annotations

import datetime
import os
import random
import re
import shutil
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from rbit import folders, joblog, report
from rbit.clipped import MARKED, Clipped
from rbit.joblog import JobLogs
from rbit.report import masked
from rbit.tree import TERMINATE
from tests.support.joblog_case import LogCase
from tests.support.rbit_process import rbit_command
from tests.support.slots import CANCEL, SlotCase

LIMIT = 1_000_000  # bytes
MARK = re.compile(rb"\n\[\.\.\. +(\d+) bytes are left out here \.\.\.\]\n\n")


class ClippedTest(unittest.TestCase):
    def setUp(self) -> None:
        """Make a file."""
        with tempfile.TemporaryFile() as file:
            self.fd = os.dup(file.fileno())
        self.addCleanup(os.close, self.fd)

    def content(self) -> bytes:
        """Return what is in the file."""
        return os.pread(self.fd, 2 * LIMIT, 0)

    def test_file_is_the_head_the_mark_and_the_tail_at_each_moment(self) -> None:
        chance = random.Random(7)
        os.write(self.fd, b"head\n")
        file = Clipped(self.fd, 5, LIMIT)
        whole = b"head\n"
        for number in range(1000):
            length = chance.choice((10, 1000, 20_000, 200_000 if number % 50 == 0 else 1))
            data = b"%d " % number + b"x" * length + b"\n"
            file.write(data)
            whole += data
            found = self.content()
            self.assertLessEqual(len(found), LIMIT)
            if found == whole:
                continue
            head, lost, tail = MARK.split(found)
            self.assertTrue(whole.startswith(head) and whole.endswith(tail))
            self.assertEqual(len(head) + int(lost) + len(tail), len(whole))
            self.assertTrue(head.endswith(b"\n") and whole[: -len(tail)].endswith(b"\n"))
            self.assertGreaterEqual(len(tail), LIMIT // 4 - 200_010)
        self.assertGreater(len(whole), 4 * LIMIT)
        self.assertEqual(len(found), len(head) + MARKED + len(tail))

    def test_what_fits_is_kept_in_whole_lines_when_the_rest_does_not(self) -> None:
        file = Clipped(self.fd, 0, LIMIT)
        real = os.pwrite
        room = [25]

        def pwrite(fd: int, data: memoryview, at: int) -> int:
            if not room[0]:
                raise OSError(28, "No space left on device")
            count = real(fd, data[: room[0]], at)
            room[0] -= count
            return count

        with mock.patch.object(os, "pwrite", pwrite), self.assertRaises(OSError):
            file.write(b"0123456789\n" * 3)
        self.assertEqual((file.kept, self.content()), (22, b"0123456789\n" * 2))
        file.write(b"more\n")
        self.assertEqual(self.content(), b"0123456789\n" * 2 + b"more\n")


    def test_mark_counts_once_what_could_be_left_out_at_the_second_try_only(self) -> None:
        file = Clipped(self.fd, 0, LIMIT)
        for _ in range(10):
            file.write(b"x" * 99_999 + b"\n")
        with mock.patch.object(os, "ftruncate", side_effect=OSError(5, "Input/output error")), \
                self.assertRaises(OSError):
            file.write(b"more\n")
        file.write(b"more\n")
        head, lost, tail = MARK.split(self.content())
        self.assertEqual(len(head) + int(lost) + len(tail), LIMIT + len(b"more\n"))


class ComponentTest(unittest.TestCase):
    def test_names_that_differ_stay_different_and_are_fit_for_a_file(self) -> None:
        names = ["", ".", "..", "...", "../x", "/etc/passwd", "a/b", "a_b", "a b", "a\0b", "-rf", ".hidden", "A"]
        names += ["a", "a" * 200, "a" * 201, "a" * 255, "é" * 100, "é" * 101, "\ud800", "\u202ea", "日本", "x\n"]
        found = {name: folders.component(name) for name in names}
        self.assertEqual(len(set(found.values())), len(names))
        for made in found.values():
            self.assertRegex(made, r"^[\w+=@#,][\w.+=@#,-]*$")
            self.assertLessEqual(len(made.encode()), folders.LONGEST)
        for name in ("a_b", "a" * 200, "é" * 100, "日本", "A"):
            self.assertEqual(found[name], name)

    def test_many_files_of_one_name_are_all_kept(self) -> None:
        root = tempfile.mkdtemp(prefix="rbit-test-")
        self.addCleanup(shutil.rmtree, root)
        for number in range(50):
            os.close(folders.create(root, ["q"], "m", ".log", b"%d" % number))
        found = {path.read_text() for path in (Path(root) / "q").iterdir()}
        self.assertEqual(found, {str(number) for number in range(50)})


class SecretsTest(unittest.TestCase):
    def test_of_a_command_its_first_word_is_shown(self) -> None:
        for command, expected in (
            ("curl -u bob:hush https://h", "curl …"), ("true", "true"), ("\n  /bin/true\n x", "/bin/true …"),
            ("TOKEN='a'hush", "***"), ("PASSWORD=a&hush curl", "*** …"), ("https://u:hush@h", "***"),
            ("mysql -phush", "mysql …"), ("curl -H 'Authorization: token hush'", "curl …"), ("x" * 9, "x" * 9),
            ("curl<<<hush", "***"), ("cat; echo x", "cat …"), ("true;", "true"), ("KEY=hush; curl", "*** …"),
        ):
            self.assertEqual(masked({"runner": f"shell!{command}"}), {"runner": f"shell!{expected}"})
        self.assertEqual(masked({"runner": "python!a.token:key"}), {"runner": "python!a.token:key"})

    def test_long_values_are_looked_at_quickly(self) -> None:
        for text in ("-" * 10**6, "a-" * 10**6, "://" * 10**6, "key " * 10**6):
            for name in ("runner", "options"):
                start = time.process_time()
                masked({name: f"shell!{text}"})
                self.assertLess(time.process_time() - start, 2.0, (name, text[:4]))

    def test_what_looks_like_a_secret_is_hidden(self) -> None:
        secret = {
            "password": "hush", "DB_PASSWD": "hush", "api-token": "hush", "client_secret": "hush", "key": "hush",
            "url": "amqp://me:hush@host/x", "query": "https://host/?token=hush&size=5", "user": "https://hush@host",
            "header": "Authorization: Basic hush", "options": "--user-PASSWORD hush", "line": "Cookie: hush",
            "json": '{"token": "hush", "size": 5}', "file": "-----BEGIN PRIVATE KEY-----\nhush",
        }
        self.assertEqual(masked(secret), dict.fromkeys(secret, "***"))

    def test_other_settings_are_shown(self) -> None:
        plain = {"title": "Ada", "command": "test -r module.html && zip", "url": "https://host:80/a", "to": "a@b"}
        self.assertEqual(masked(plain), plain)


class BorderTest(SlotCase):
    """Job logs with faults of rbit's own."""

    def test_no_fault_of_a_log_reaches_its_job_and_each_queue_says_it_once(self) -> None:
        (self.folder / "logs").mkdir()
        for module, name in (
            (report, "head"), (report, "file_name"), (folders, "create"), (joblog.Clipped, "write"),
            (joblog.Clipped, "close"),
        ):
            with self.subTest(name=name), mock.patch.object(module, name, side_effect=LookupError("no\npaper")):
                self.records.lines.clear()
                slot = self.slot(logs=JobLogs(str(self.folder / "logs"), 1, 0))
                for _ in range(1 if name == "close" else 2):  # the next file can be made, after a failed close
                    self.begin(slot, "shell!echo hello")
                    self.assertEqual(self.outcome(slot).status, "Done")
                said = [line for line in self.records.lines if "cannot be written" in line]
                self.assertEqual(len(said), 1, self.records.lines)
                self.assertIn("cannot be written: LookupError: no?paper; jobs run on", said[0])


class RemovalTest(LogCase):
    def test_old_days_are_removed_but_nothing_that_is_not_of_rbit(self) -> None:
        rbit = self.once("shell!true")
        [log] = (rbit.folder / "logs").rglob("*.log")
        queue = log.parent.parent
        today = datetime.date.today()
        old, young = (queue / (today - datetime.timedelta(days)).isoformat() for days in (9, 7))
        for folder in (old, young, queue / "2001-01-01", queue / "2001-1-1", rbit.folder / "out" / "2001-01-01"):
            folder.mkdir(parents=True)
            shutil.copy(log, folder / "message-m.log")
            os.utime(folder / "message-m.log", (1e9, 1e9))
        (queue / "2001-01-02").symlink_to(rbit.folder / "out" / "2001-01-01")
        (queue.parent / "linked").symlink_to(rbit.folder / "out")
        (old / "foreign.log").write_text("not of rbit\n")
        (old / "message-x.txt").write_bytes(log.read_bytes())
        (old / "linked.log").symlink_to(rbit.folder / "out" / "2001-01-01" / "message-m.log")
        shutil.copy(log, old / "running.log")  # written just now
        for name in ("foreign.log", "message-x.txt"):
            os.utime(old / name, (1e9, 1e9))
        before = {path for path in rbit.folder.rglob("*") if path.suffix in (".log", ".txt")}
        again = self.rbit(None, *rbit_words(rbit.folder, "log_keep_days = 8"), command=("sh", "-c"))
        again.wait_for_line("INFO 2 job logs of more than 8 days are removed")
        self.assertEqual(again.stop(), 0)
        after = {path for path in rbit.folder.rglob("*") if path.suffix in (".log", ".txt")}
        self.assertEqual(before - after, {old / "message-m.log", queue / "2001-01-01" / "message-m.log"})
        self.assertEqual((old.exists(), (queue / "2001-01-01").exists()), (True, False))


class SlowDiskTest(SlotCase):
    def test_disk_that_hangs_holds_up_its_own_job_only(self) -> None:
        root = self.folder / "logs"
        root.mkdir()
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)
        real = Clipped.write
        hung = threading.Event()

        def write(file: Clipped, data: bytes) -> None:
            if b"hangs" in data:
                hung.set()
                goes_on.wait(30.0)
            real(file, data)

        with mock.patch.object(joblog.Clipped, "write", write):
            logs = JobLogs(str(root), 1, 0)
            slow, quick = self.slot(logs=logs), self.slot(logs=logs)
            job = self.begin(slow, "shell!echo hangs; exec sleep 1000")
            self.assertTrue(hung.wait(30.0))
            slow.end(CANCEL, TERMINATE)  # as the main thread does; it comes back at once
            self.begin(quick, "shell!echo quick")
            self.assertEqual(self.outcome(quick).status, "Done")
            self.assertIsNone(job.outcome)
            goes_on.set()
            self.assertEqual(self.outcome(slow), CANCEL)


def rbit_words(folder: Path, key: str) -> list[str]:
    """Return the arguments of ``sh -c`` that start rbit in a folder once more, with one more key of [rbit]."""
    path = folder / "rbit.ini"
    path.write_text(path.read_text("utf-8").replace("[rbit]\n", f"[rbit]\n{key}\n"), "utf-8")
    return ['cd "$0"; exec "$@"', str(folder), *rbit_command(), "rbit.ini"]


if __name__ == "__main__":
    unittest.main()
