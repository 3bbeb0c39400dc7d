"""The keeper of a slot: nothing that a job starts escapes it, and nothing else is ended."""

from __future__ import annotations

import os
import resource
import select
import selectors
import signal
import sys
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from rbit import keeper
from rbit.errors import WorkerError
from rbit.message import Message
from rbit.process import CommandProcess, WorkerProcess
from rbit.runners import Command
from rbit.tree import Tree
from tests.support.case import BrokerCase
from tests.support.processes import descendants, is_alive
from tests.support.rbit_process import RbitProcess, rbit_command
from tests.support.waiting import wait_until

# Runs the command after a change to rbit: what the real thing shows only once in a while, or after a minute.
CHANGED = "import sys\nfrom rbit import cli, keeper, tree\n{change}\nsys.exit(cli.main())"

# Each process forks the next and ends: in one group, and each in a session of its own.
FORKERS = {
    "in one group": "while not os.fork():\n    os.getppid()\n",
    "in sessions": "while not os.fork():\n    os.setsid()\n",
}

# Never answers: it starts the command, as a job has it that kills its keeper at once.
SILENT_KEEPER = """
import json, os, socket, sys
control = socket.socket(fileno=int(sys.argv[2]))
control.set_inheritable(False)
request = json.loads(socket.recv_fds(control, 1 << 18, 8)[0])
os.posix_spawn(request["spawn"][0], request["spawn"], {**os.environ, **request["environment"]}, setsid=True)
os.kill(os.getpid(), 9)
"""

JOBS = '''
import ctypes, os, signal, subprocess, sys, time

def stuck_in_c(message, set_status, settings):
    subprocess.Popen(["sh", "-c", "setsid sh -c 'trap \\"\\" TERM; echo $$ >far; exec sleep 1000' & wait"])
    while not os.path.exists("far") or not open("far").read().strip():
        time.sleep(0.01)
    if message.body == b"stop the keeper":
        os.kill(os.getppid(), signal.SIGSTOP)
    open("begun", "w").close()
    ctypes.PyDLL(None).sleep(1000)  # holds the interpreter: no signal handler runs

def floods(message, set_status, settings):
    while True:
        set_status("Building", "x")

def cleans_up(message, set_status, settings):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    try:
        open("begun", "w").close()
        time.sleep(1000)
    finally:
        subprocess.run(["sh", "-c", "sleep 1; echo cleaned >cleaned"])

def names(message, set_status, settings):
    for name in ("Done\\n2026-01-01 ERROR forged", "y" * 256, "\\x1b[31mDone"):
        set_status(name)
    set_status("Building", "a\\x1b[31m\\0b")
    print("printed \\x1b[31m\\0 \\u2028 line")
    raise ValueError("first\\n2026-01-01 ERROR forged \\x1b[0m")

def child_returns(message, set_status, settings):
    if os.fork() == 0:
        return
    os.wait()
    raise ValueError("the outcome of the parent")
'''


class TreeTest(unittest.TestCase):
    """A tree without a broker; the process that tests is its rbit."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.tree = Tree()
        self.addCleanup(self.tree.close)

    def spawn(self, *arguments: str) -> int:
        with open(os.devnull, "r+b") as nothing:
            return self.tree.spawn(arguments, {}, [nothing.fileno()] * 3)

    def end(self, grace: float, spare: int | None = None) -> dict[str, Any]:
        """End what is below the keeper, and return its answer."""
        self.tree.end(spare, [(signal.SIGTERM, grace)])
        answers: list[dict[str, Any]] = []

        def ended() -> bool:
            select.select([self.tree], [], [], 0.1)
            answers.extend(event for event in self.tree.events() if "ended" in event)
            return bool(answers)

        wait_until(ended, 40.0, "the answer of the keeper")
        return answers[0]

    def forker(self, kind: str) -> int:
        """Start a process that forks and ends all the time, and return when it does."""
        (self.folder / "begun").unlink(missing_ok=True)
        code = f"import os\nopen({str(self.folder / 'begun')!r}, 'w').close()\n{FORKERS[kind]}"
        pid = self.spawn(sys.executable, "-S", "-c", code)
        wait_until((self.folder / "begun").exists, what="the first process")
        wait_until(lambda: not is_alive(pid), what="the end of the first process")
        return pid

    def test_processes_that_fork_and_end_all_the_time_are_ended(self) -> None:
        for kind in (*FORKERS,) * 5:  # a single look that misses them all is a matter of luck
            with self.subTest(kind):
                self.forker(kind)
                self.assertEqual(self.end(0.2)["stuck"], [])
                self.assertEqual(keeper.children(self.tree.pid), set())

    def test_processes_that_fork_and_end_beside_a_spared_worker_are_ended(self) -> None:
        worker = self.spawn("/bin/sleep", "1000")
        self.forker("in one group")
        self.assertEqual(self.end(0.2, worker)["stuck"], [])
        self.assertEqual(keeper.children(self.tree.pid), {worker})

    def test_answer_names_some_of_many_processes_and_counts_the_rest(self) -> None:
        self.spawn("/bin/sh", "-c", "for n in $(seq 200); do sleep 1000 & done; wait")
        wait_until(lambda: len(keeper.descendants(self.tree.pid)) == 201, what="the processes")
        ended = self.end(10.0)["ended"]
        self.assertEqual(len(ended), keeper.NAMED + 1)
        self.assertEqual(ended[-1], f"{201 - keeper.NAMED} more")

    def test_name_of_a_process_is_one_line(self) -> None:
        process = keeper.Process("a\nb\x1b", "S", 1, 1, 1)
        self.assertEqual(keeper.shown(7, process), "a?b? (process 7)")

    def test_children_are_found_without_help_of_the_kernel_too(self) -> None:
        pids = {self.spawn("/bin/sleep", "1000") for _ in range(3)}
        for there in (True, False):
            with mock.patch.object(keeper, "CHILDREN_FILE", there):
                self.assertEqual(keeper.children(self.tree.pid), pids)
                self.assertEqual(set(keeper.descendants(self.tree.pid)), pids)

    def test_keeper_has_no_child_but_one_is_known_also_if_the_kernel_keeps_no_file_of_children(self) -> None:
        there = os.open

        def missing(path: Any, *arguments: Any) -> int:
            if str(path).startswith("/proc/"):
                raise FileNotFoundError(path)
            return there(path, *arguments)

        with mock.patch.object(os, "open", missing):
            without = Tree()
        self.addCleanup(without.close)
        for tree in (self.tree, without):
            self.assertTrue(tree.only(None))
            self.tree = tree
            first = self.spawn("/bin/sleep", "1000")
            self.assertTrue(tree.only(first))
            self.assertFalse(tree.only(None))
            second = self.spawn("/bin/sleep", "1000")
            self.assertFalse(tree.only(first))
            os.kill(first, signal.SIGKILL)
            wait_until(lambda tree=tree, second=second: tree.only(second), what="the end of the first")
            os.kill(tree.pid, signal.SIGKILL)
            wait_until(lambda tree=tree: not tree.alive, what="the end of the keeper")
            self.assertFalse(tree.only(None))
            os.kill(second, signal.SIGKILL)

    def test_stopped_keeper_starts_the_next_program(self) -> None:
        os.kill(self.tree.pid, signal.SIGSTOP)
        self.assertTrue(is_alive(self.spawn("/bin/sleep", "1000")))

    def test_process_that_cannot_be_started_leaves_no_descriptor_open(self) -> None:
        selector = selectors.DefaultSelector()
        self.addCleanup(selector.close)
        before = len(os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        probe = os.dup(0)
        os.close(probe)
        command = Command(["/bin/true"], {})
        failures = 0
        for room in range(12):
            for start in (lambda: CommandProcess(self.tree, command, Message(b"", "q"), print, print),
                          lambda: WorkerProcess(self.tree)):
                resource.setrlimit(resource.RLIMIT_NOFILE, (probe + room, hard))
                process: Any = None
                try:
                    process = start()
                except (OSError, WorkerError):
                    failures += 1
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                if isinstance(process, WorkerProcess):
                    process.close(selector)
                elif process is not None:
                    process.finish(selector)
                self.assertEqual(len(os.listdir("/proc/self/fd")), before, room)
        self.assertGreater(failures, 8)


class KeptJobTest(BrokerCase):
    """What jobs do to their keeper and to rbit, with the real command."""

    def start(self, runner: str, body: str, *more: str, change: str = "", **keys: object) -> RbitProcess:
        self.queue = self.queue_name()
        for each in (body, *more):
            self.publish(self.queue, each)
        text = self.ini({self.queue: {"runner": runner, **keys}})
        command = (sys.executable, "-c", CHANGED.format(change=change)) if change else ()
        files = {"jobs.py": JOBS, "silent.py": SILENT_KEEPER}
        return self.rbit(text, "--once", files=files, command=command)

    def assert_killed_rbit_takes_all_along(self, body: str) -> None:
        rbit = self.start("python!jobs:stuck_in_c", body)
        self.wait_until((rbit.folder / "begun").exists, what="the job")
        below = {*descendants(rbit.pid), int((rbit.folder / "far").read_text())}
        self.assertGreaterEqual(len(below), 4)
        rbit.signal(signal.SIGKILL)
        began = time.monotonic()
        self.wait_until(lambda: not any(is_alive(pid) for pid in below), what="the end of its processes")
        self.assertLess(time.monotonic() - began, 2.0)

    def test_killed_rbit_takes_a_worker_in_c_code_and_a_far_grandchild_along(self) -> None:
        self.assert_killed_rbit_takes_all_along("a")

    def test_killed_rbit_takes_all_along_though_a_job_has_stopped_the_keeper(self) -> None:
        self.assert_killed_rbit_takes_all_along("stop the keeper")

    def test_children_that_rbit_did_not_start_are_spared(self) -> None:
        queue = self.queue_name()
        for body in ("kill", "end"):
            self.publish(queue, body)
        runner = "shell!read what; sleep 987 & [ $what = end ] || kill -9 $PPID; exit 0"
        text = self.ini({queue: {"runner": runner}})
        wrapper = 'sleep 999 & echo $! >helper; exec "$0" "$@"'
        rbit = self.rbit(text, "--once", command=("/bin/sh", "-c", wrapper, *rbit_command()))
        self.assertEqual(rbit.wait(60), 1, rbit.output)
        helper = int((rbit.folder / "helper").read_text())
        self.addCleanup(lambda: is_alive(helper) and os.kill(helper, signal.SIGKILL))
        self.assertTrue(is_alive(helper), rbit.output)
        self.assertRegex(rbit.output, r"killed what had lost its keeper: .*s(leep|h) \(process")
        self.assertEqual(rbit.left_over(), [helper])

    def test_keeper_that_a_job_stops_again_and_again_is_replaced(self) -> None:
        rbit = self.start(
            "shell!read what; [ $what = next ] || setsid sh -c \"while :; do kill -STOP $PPID; done\" &", "stop",
            "next\n", change="tree.MARGIN = keeper.PATIENCE = 0.5", timeout=5)
        rbit.wait_for_line("message #2: Done", 60)
        rbit.wait(60)
        self.assertEqual(rbit.left_over(), [])

    def test_slot_goes_on_when_its_processes_cannot_be_cleared_away(self) -> None:
        change = ("felled = tree.Forest.fell\n"
                  "def fell(forest, one):\n    felled(forest, one)\n    raise RuntimeError('cannot')\n"
                  "tree.Forest.fell = fell")
        runner = "shell!read what; [ $what = next ] || { kill -9 $PPID; sleep 1000; }"
        rbit = self.start(runner, "kill\n", "next\n", change=change)
        self.assertEqual(rbit.wait(60), 1, rbit.output)
        self.assertRegex(rbit.output, "message #1: Failed: rbit itself failed")
        self.assertRegex(rbit.output, "message #2: Done")

    def test_command_that_kills_its_keeper_before_it_is_known_is_failed_and_not_run_again(self) -> None:
        rbit = self.start("shell!echo ran >>ran; sleep 1000", "a",
                          change="from rbit import start\nstart.KEEPER = open('silent.py').read()")
        self.assertEqual(rbit.wait(60), 1, rbit.output)
        self.assertRegex(rbit.output, "Failed: the keeper .* was killed as the command began; it may have run")
        self.assertEqual(self.depth(self.queue), 0)
        self.assertLessEqual(rbit.output.count("message #1: Building"), 1)
        self.assertNotIn("message #2", rbit.output)
        self.assertEqual(rbit.left_over(), [])

    def test_processes_that_clean_up_after_sigterm_are_left_alone(self) -> None:
        shell = "trap 'sleep 1; echo cleaned >cleaned; exit 1' TERM; echo >begun; sleep 1000 & wait"
        for runner in (f"shell!{shell}", "python!jobs:cleans_up"):
            with self.subTest(runner):
                rbit = self.start(runner, "a")
                self.wait_until((rbit.folder / "begun").exists, what="the job")
                rbit.signal(signal.SIGTERM)
                rbit.wait_for_line("a second signal ends what runs")
                rbit.signal(signal.SIGTERM)
                self.assertEqual(rbit.wait(60), 1, rbit.output)
                self.assertEqual((rbit.folder / "cleaned").read_text(), "cleaned\n", rbit.output)
                moments = [float(line[17:23].replace(",", ".")) for line in rbit.lines
                           if "stopping now" in line or "message #1: Waiting" in line]
                self.assertLess((moments[-1] - moments[0]) % 60, 10.0, "the job had ended before SIGKILL")

    def test_timeout_acts_under_a_flood_of_statuses_and_output(self) -> None:
        for runner in ("shell!yes >&$RBIT_STATUS_FD & yes >&2 & yes", "python!jobs:floods"):
            with self.subTest(runner):
                rbit = self.start(runner, "a", timeout=1)
                rbit.wait_for_line("message #1: Failed: timed out after 1 s")
                rbit.wait(30)
                moments = [float(line[17:23].replace(",", ".")) for line in rbit.lines
                           if "#1: Building" in line or "timed out" in line]
                # The promise is a second; the bound leaves room for a busy machine.
                self.assertLess((moments[-1] - moments[0]) % 60, 8.0)

    def test_names_of_statuses_and_control_characters_forge_nothing(self) -> None:
        rbit = self.start("python!jobs:names", "a")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertEqual(rbit.output.count("no name of a status, so not reported: "), 3)
        self.assertRegex(rbit.output, r"WARNING .*not reported: Done\?2026-01-01 ERROR forged")
        self.assertRegex(rbit.output, r"Building: a\\x1b\[31m\\x00b")
        self.assertRegex(rbit.output, r"printed \\x1b\[31m\\x00 \\u2028 line")
        self.assertEqual([line for line in rbit.lines if line.startswith("2026-01-01")], [])
        self.assertFalse(set(rbit.output) & {"\x1b", "\0", "\u2028"})

    def test_garbage_on_the_status_descriptor_is_no_status(self) -> None:
        rbit = self.start("shell!head -c 20000 /dev/zero | tr '\\0' x >&$RBIT_STATUS_FD", "a")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertRegex(rbit.output, "no name of a status, so not reported: xxxx")
        self.assertLess(max(map(len, rbit.lines)), 300)

    def test_forked_child_that_returns_has_no_say_in_the_outcome(self) -> None:
        rbit = self.start("python!jobs:child_returns", "a")
        self.assertEqual(rbit.wait(), 1, rbit.output)
        self.assertRegex(rbit.output, "message #1: Failed: ValueError: the outcome of the parent")
        self.assertNotIn("Done", rbit.output)


if __name__ == "__main__":
    unittest.main()
