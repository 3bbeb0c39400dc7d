"""Job logs that are removed, too long, or cannot be written, and a client that is killed as it writes one."""

from __future__ import annotations

import re
import signal
import subprocess
import unittest
from pathlib import Path

from tests.support.joblog_case import LogCase, entries, logs
from tests.support.rbit_process import RbitProcess


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

    def test_open_log_of_a_long_job_does_not_say_that_others_can_be_written(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "long\n", message_id="long")
        runner = (
            "shell!read kind; test \"$kind\" = long || exit 0; touch held; "
            "until test -e go; do echo tick; sleep 0.02; done"
        )
        rbit = self.client(runner, concurrency=2)
        self.wait_until((rbit.folder / "held").exists, what="the long job")
        folder = rbit.folder / "logs" / queue
        folder.rename(rbit.folder / "away")
        folder.touch()
        [path] = (rbit.folder / "away").rglob("*.log")

        def run(name: str) -> None:
            """Have a small job run, and wait until the long one has printed then."""
            self.publish(queue, "y", message_id=name)
            rbit.wait_for_line(f"message {name}: Done")
            size = path.stat().st_size
            self.wait_until(lambda: path.stat().st_size > size, what="more of the long job's log")

        for name in ("a", "b", "c"):
            run(name)
        said = [line.partition(" the job logs ")[2] for line in rbit.lines if " the job logs " in line]
        self.assertEqual(said, [f"in logs/{queue} cannot be written: Not a directory; jobs run on"])
        folder.unlink()
        for name in ("d", "e"):
            run(name)
        (rbit.folder / "go").touch()
        rbit.wait_for_line("message long: Done")
        self.assertEqual(rbit.stop(), 0)
        said = [line.partition(" the job logs ")[2] for line in rbit.lines if " the job logs " in line]
        self.assertEqual(said[1:], [f"in logs/{queue} can be written again"])

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
        more.setdefault("lease_after", 3600)  # or its message would leave the queue before its end
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
