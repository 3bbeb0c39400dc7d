"""The log of each run of a job: what is in it, where it is, and what happens when it cannot be written."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import unittest
from pathlib import Path

from tests.support.case import BrokerCase
from tests.support.client_case import CAPTURES
from tests.support.rbit_process import RbitProcess, rbit_command

REQUEST = (CAPTURES / "build_request.json").read_bytes()
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
ENTRY = re.compile(rf"({STAMP}) (stdout|stderr|status|rbit) +(.*)")
JOBS = '''
import glob, os, sys, time
import rbit

def logged():
    return "".join(open(path).read() for path in glob.glob("logs/*/*/*.log"))

def wait_for(text):
    """Waits until a text is in a job log, or in a folder."""
    while text not in logged() and not os.path.exists(text):
        time.sleep(0.01)

def speak(message, set_status, settings):
    print("to stdout", flush=True)
    wait_for("to stdout")
    print("to stderr \\x1b[31m\\u2028", file=sys.stderr, flush=True)
    wait_for("to stderr")
    set_status("Building", "half\\nway")
    wait_for("half")
    print("after it", flush=True)
    raise ValueError("no paper")

def hold(message, set_status, settings):
    print("begun", flush=True)
    wait_for("begun")
    open("held", "w").close()
    wait_for("go")
    print("went on", flush=True)

def blocked(message, set_status, settings):
    raise rbit.Blocked("not yet")
'''


class LogCase(BrokerCase):
    """A test of a client whose job logs are in the folder ``logs`` of its own."""

    def client(self, runner: str, *arguments: str, dirs: tuple[str, ...] = ("logs",), queue: str | None = None,
               keys: dict[str, object] | None = None, command: str = "", **rbit: object) -> RbitProcess:
        """Start a client.

        Arguments:
            runner: of the queue; a function of JOBS or ``shell!...``.
            arguments: of the command.
            dirs: folders that are made before.
            queue: instead of the test's own.
            keys: further keys of the runner's section.
            command: a shell command that is given the words of rbit's; '' runs that alone.
            rbit: further keys of [rbit].
        """
        target = runner if runner.startswith("shell!") else f"python!jobs:{runner}"
        section = {"runner": target, **(keys or {})}
        text = self.ini({queue or self.queue_name(): section}, rbit={"log_dir": "logs", **rbit})
        files = {"jobs.py": JOBS, "rbit.ini": text, **{f"{name}/.keep": "" for name in dirs}}
        whole = command or 'exec "$@"'
        words = [whole, "sh", *rbit_command(), "rbit.ini", *arguments]
        return self.rbit(None, *words, files=files, command=("sh", "-c"))

    def once(self, runner: str, body: bytes | str = "x", status: int = 0, message_id: str = "m",
             **more: object) -> RbitProcess:
        """Send a message and have it worked off with ``--once``; for the arguments see ``client``."""
        queue = str(more.get("queue") or self.queue_name())
        self.publish(queue, body, message_id=message_id)
        rbit = self.client(runner, "--once", **more)  # type: ignore[arg-type]
        self.assertEqual(rbit.wait(60), status, rbit.output)
        return rbit


def logs(rbit: RbitProcess) -> dict[str, str]:
    """Return the job logs: their texts by their paths without the day."""
    found = sorted((rbit.folder / "logs").rglob("*.log"))
    return {f"{path.parent.parent.name}/{path.name}": path.read_text("utf-8") for path in found}


def entries(text: str) -> list[tuple[str, str]]:
    """Return what is below the head of a log: the kind and the text of each line, without the seconds it took."""
    found = []
    for line in text.partition("\n\n")[2].splitlines():
        match = ENTRY.fullmatch(line)
        kind, said = match.groups()[1:] if match else ("", line)
        found.append((kind, re.sub(r"after \d+\.\d{3} s", "after N s", said)))
    return found


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
        for line in ("runner = python!jobs:speak", "api_key = ***",
                     "deposit = https://me:***@host/?token=***&x=1", "size = A4"):
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
        self.assertIn(f"\n    runner = {command}\n", text)
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

    def test_check_warns_of_a_folder_that_is_missing(self) -> None:
        for dirs, expected in (((), 1), (("logs",), 0)):
            rbit = self.client("shell!true", "--check", dirs=dirs)
            self.assertEqual(rbit.wait(), 0, rbit.output)
            self.assertEqual(len([line for line in rbit.lines if "[rbit] log_dir: 'logs' is no folder" in line]),
                             expected, rbit.output)


class FaultsTest(LogCase):
    def held(self, **more: object) -> tuple[RbitProcess, Path]:
        """Start a job that has written a line and waits; return rbit and the job's log."""
        self.publish(self.queue_name(), "y", message_id="m")
        rbit = self.client("hold", **more)  # type: ignore[arg-type]
        self.wait_until((rbit.folder / "held").exists, what=lambda: f"the job; rbit wrote:\n{rbit.output}")
        [path] = (rbit.folder / "logs").rglob("*.log")
        return rbit, path

    def let_go(self, rbit: RbitProcess) -> None:
        """Let the job end, and rbit after it."""
        (rbit.folder / "go").touch()
        rbit.wait_for_line("message m: Done")
        self.assertEqual(rbit.stop(), 0)

    def test_what_was_written_is_there_after_rbit_was_killed(self) -> None:
        rbit, path = self.held()
        rbit.signal(signal.SIGKILL)
        rbit.wait()
        self.assertEqual(entries(path.read_text("utf-8")), [("status", "Building"), ("stdout", "begun")])

    def test_log_of_a_job_that_prints_without_pause_is_whole_after_rbit_was_killed(self) -> None:
        self.publish(self.queue_name(), "y", message_id="m")
        rbit = self.client(f"shell!yes {'x' * 90}", command='exec "$@" >/dev/null', log_limit=1)

        def clipped() -> list[Path]:
            found = (rbit.folder / "logs").rglob("*.log")
            return [path for path in found if b"bytes are left" in path.read_bytes()]

        self.wait_until(clipped, what="a log that was full")
        rbit.signal(signal.SIGKILL)
        rbit.wait()
        [path] = clipped()
        self.assertLessEqual(path.stat().st_size, 1_000_000)
        text = path.read_text("utf-8")
        self.assertTrue(text.startswith("rbit job log\nqueue:"))
        whole = entries(text)[:-1]  # the last line may have been cut
        self.assertEqual(whole[0], ("status", "Building"))
        others = {entry for entry in whole if entry != ("stdout", "x" * 90)}
        self.assertEqual(len(others - {("status", "Building"), ("", "")}), 1, others)

    def test_log_that_is_removed_while_its_job_runs_goes_on_in_a_new_file(self) -> None:
        rbit, path = self.held()
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
        self.let_go(rbit)
        [text] = logs(rbit).values()
        self.assertTrue(text.startswith("rbit job log\nqueue:"), text)
        self.assertEqual(entries(text), [
            ("rbit", "what was written before was removed"), ("stdout", "went on"),
            ("rbit", "ended after N s: Done"),
        ])

    def test_folder_that_is_removed_while_a_job_runs_is_said_and_changes_nothing(self) -> None:
        rbit, path = self.held()
        for left in (path, path.parent.parent.parent / ".keep"):
            left.unlink()
        for folder in list(path.parents)[:3]:
            folder.rmdir()
        self.let_go(rbit)
        self.assertEqual(len([line for line in rbit.lines if "cannot be written: No such file" in line]), 1)
        self.assertFalse((rbit.folder / "logs").exists())

    def test_file_that_may_not_grow_is_said_once_and_the_job_is_done(self) -> None:
        line = "x" * 999
        runner = f"shell!for n in 1 2 3 4 5 6 7 8 9; do for m in 1 2 3 4 5 6 7 8 9 10; do echo {line}; done; done"
        rbit = self.once(runner, command='ulimit -f 32; exec "$@"')
        said = [line for line in rbit.lines if "cannot be written" in line]
        self.assertEqual(len(said), 1, rbit.output)
        self.assertIn("cannot be written: File too large; jobs run on", said[0])
        [text] = logs(rbit).values()
        self.assertTrue(text.startswith("rbit job log\n"))
        self.assertLessEqual(len(text), 32 * 1024)
        self.assertEqual({kind for kind, _ in entries(text)} - {"rbit"}, {"status", "stdout"})

    def test_full_disk_is_said_once_and_again_when_there_is_room(self) -> None:
        probe = ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            self.skipTest("this user may not mount a small file system")
        runner = (
            "shell!head -c 2000000 /dev/zero >logs/fill 2>/dev/null; i=0; "
            "speak() { while [ ! -e $1 ]; do i=$((i+1)); echo $i; sleep 0.02; done; }; "
            "speak go; rm logs/fill; speak end; cp logs/*/*/*.log copy"
        )
        small = "mount -t tmpfs -o size=128k none logs; exec \"$@\""
        self.publish(self.queue_name(), "y", message_id="m")
        rbit = self.client(runner, command=f"exec unshare -Urm sh -c '{small}' sh \"$@\"")
        rbit.wait_for_line("cannot be written: No space left on device")
        (rbit.folder / "go").touch()
        rbit.wait_for_line("can be written again")
        (rbit.folder / "end").touch()
        rbit.wait_for_line("message m: Done")
        self.assertEqual(len([line for line in rbit.lines if " the job logs " in line]), 2, rbit.output)
        self.assertEqual(rbit.stop(), 0)
        found = entries((rbit.folder / "copy").read_text("utf-8"))
        [gap] = [place for place, (kind, _) in enumerate(found) if kind == "rbit"]
        said = re.fullmatch(r"(\d+) lines could not be written here", found[gap][1])
        assert said is not None, found[gap]
        numbers = [int(text) for kind, text in found if kind == "stdout"]
        lost = range(gap, gap + int(said[1]))  # the first entry is a status, so the numbers before are below gap
        self.assertEqual(numbers, [number for number in range(1, numbers[-1] + 1) if number not in lost])


class LimitTest(LogCase):
    def peak(self, **more: object) -> tuple[int, RbitProcess]:
        """Have a job print 200 MB, with its log or without; return rbit's peak of memory in kB."""
        queue = self.queue_name()
        self.publish(queue, "y", message_id="m")
        line = "x" * 990
        runner = f"shell!echo first; yes {line} | head -c 200000000; echo; echo last"
        rbit = self.client(runner, queue=queue, command='exec "$@" >/dev/null', **more)  # type: ignore[arg-type]
        self.wait_until(lambda: self.depth(queue) == 0 and self.unacked(queue) == 0, 120.0, "the end of the job")
        text = Path(f"/proc/{rbit.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        assert found is not None
        self.assertEqual(rbit.stop(), 0)
        return int(found[1]), rbit

    def test_job_that_prints_200_mb_costs_no_memory_and_leaves_head_and_tail(self) -> None:
        without, _ = self.peak(log_dir=None)
        peak, rbit = self.peak(log_limit=1)
        self.assertLess(peak - without, 16_000)
        [path] = (rbit.folder / "logs").rglob("*.log")
        self.assertLessEqual(path.stat().st_size, 1_000_000)
        self.assertGreater(path.stat().st_size, 400_000)
        found = entries(path.read_text("utf-8"))
        self.assertEqual(found[:2], [("status", "Building"), ("stdout", "first")])
        self.assertEqual(found[-2:], [("stdout", "last"), ("rbit", "ended after N s: Done")])
        marks = [text for kind, text in found if not kind and text]
        self.assertEqual(len(marks), 1, marks)
        self.assertRegex(marks[0], r"^\[\.\.\. +2\d{8} bytes are left out here \.\.\.\]$")


if __name__ == "__main__":
    unittest.main()
