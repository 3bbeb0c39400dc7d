"""docs/tutorial.rst, done from its beginning to its end as a reader would."""

from __future__ import annotations

import re
import signal
import subprocess
import unittest
from pathlib import Path

from tests.support.processes import end
from tests.support.rbit_process import RbitProcess
from tests.support.readme import PATH, ReadmeCase, commands, example

QUEUES = ("demo_any_text_upper", "demo_any_text_slow")
MOMENT = re.compile(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d+)?\b")  # a time in a table, or in the log


class TutorialTest(ReadmeCase):
    def setUp(self) -> None:
        super().setUp()
        for queue in QUEUES:
            self.queue(queue)

    def run_lines(self, block: str, folder: Path, last: int = 0) -> str:
        """Run the commands of a block, of which the last ends with a status; return what they print."""
        *first, end_of_block = commands(block)
        outputs = [self.run_line(line, folder) for line in first]
        return "".join([*outputs, self.run_line(end_of_block, folder, last)])

    def background(self, block: str, folder: Path) -> subprocess.Popen[str]:
        """Start the one command of a block; it is ended after the test."""
        (line,) = commands(block)
        with (folder / "background").open("w") as out:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {line}"], cwd=folder, env={"PATH": PATH}, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, text=True,
            )
        self.addCleanup(end, process)
        return process

    def client(self, line: str, **files: str) -> RbitProcess:
        """Start the client of the tutorial, with its files in its folder."""
        here = {name.replace("__", "."): self.here(text) for name, text in files.items()}
        rbit = self.rbit(None, files=here, environment={"PATH": PATH}, command=("/bin/sh", "-c", f"exec {line}"))
        rbit.wait_for_line("connected to RabbitMQ")
        return rbit

    @example(
        *(f"tutorial {name}" for name in (
            "rbit.ini", "jobs.py", "client", "submit", "submit output", "follow.py", "follow", "watch",
            "follow output", "slow", "cancel", "cancel output", "cancel log", "fail", "fail output", "list",
            "list output", "retry", "retry output",
        ))
    )
    def test_the_tutorial_works_from_its_beginning_to_its_end(self, *blocks: str) -> None:
        (ini, jobs, client, submit, submitted, follow_py, follow, watch, followed, slow, cancel, cancelled, log,
         fail, failed, table, listed, retry, retried) = blocks
        rbit = self.client(commands(client)[0], rbit__ini=ini, jobs__py=jobs, follow__py=follow_py)
        folder = rbit.folder
        self.assertEqual(self.run_lines(submit, folder), submitted)

        follower = self.background(follow, folder)
        said = folder / "background"
        self.wait_until(lambda: "following" in said.read_text(), what="the follower")
        self.assertEqual(self.run_lines(watch, folder).count(": Done\n"), 3)
        expected = {line.replace("2", number, 1) for number in "234" for line in followed.splitlines()}
        self.wait_until(
            lambda: {line.rstrip() for line in said.read_text().splitlines()[1:]} == expected, what=said.read_text
        )
        end(follower)

        waiting = self.background(slow, folder)
        rbit.wait_for_line("demo_any_text_slow job 5: Building: this takes five minutes")
        self.assertEqual(self.run_lines(cancel, folder), cancelled)
        self.assertEqual(waiting.wait(30), 1)
        self.assertTrue(said.read_text().endswith("job 5: Cancelled: cancelled by request\n"), said.read_text())
        shown = MOMENT.sub("", rbit.output).replace("\n ", "\n").splitlines()
        self.assertEqual([line for line in shown if line in log.splitlines()], log.splitlines(), rbit.output)

        self.assertEqual(self.run_lines(fail, folder, 1), failed)
        self.assertEqual(MOMENT.sub("", self.run_lines(table, folder)), MOMENT.sub("", listed))
        self.assertEqual(self.run_lines(retry, folder), retried)
        rbit.wait_for_line("job 6: Done")
        self.assertEqual((folder / "poem.upper.txt").read_text(), "ROSES ARE RED\n")
        rbit.signal(signal.SIGINT)
        self.assertEqual(rbit.wait(), 0, rbit.output)


if __name__ == "__main__":
    unittest.main()
