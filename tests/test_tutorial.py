"""docs/tutorial.rst, done from its beginning to its end as a reader would, on terminals."""

from __future__ import annotations

import os
import re
import signal
import sys
import unittest
from pathlib import Path

from tests.support.rbit_process import RbitProcess
from tests.support.readme import PATH, ReadmeCase, commands, example
from tests.support.terminal import Terminal

COLUMNS = 98  # of the terminals; the tutorial says so
QUEUES = ("demo_any_text_upper", "demo_any_text_slow", "demo_any_text_paper")
# What differs from run to run: times in a table or in the log, seconds of waiting, processes.
MOMENT = re.compile(
    r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d+ )?|(?<=^\[)\d+(?= s\])|python[\d.]* \(process \d+\)"
)


def lasting(text: str) -> str:
    """Return a text without what differs from run to run."""
    return MOMENT.sub("", text)


class TutorialTest(ReadmeCase):
    def setUp(self) -> None:
        super().setUp()
        for queue in QUEUES:
            self.queue(queue)
            self.channel.queue_delete(queue)

    def terminal(self, line: str, folder: Path) -> Terminal:
        """Start a command line on a terminal, which is closed after the test."""
        terminal = Terminal(["/bin/sh", "-c", f"exec {line}"], folder, COLUMNS, {"PATH": PATH})
        self.addCleanup(terminal.close)
        return terminal

    def assert_prints(self, block: str, expected: str, folder: Path, status: int = 0) -> None:
        """Run the commands of a block; fail unless the last ends with a status, and this is on the terminal."""
        screen = ""
        for line in commands(block):
            terminal = self.terminal(line, folder)
            ended = terminal.wait()
            screen += terminal.screen
            self.assertEqual(ended, status if line == commands(block)[-1] else 0, screen)
        self.assertEqual(lasting(screen), lasting(expected))

    def client(self, line: str, **files: str) -> RbitProcess:
        """Start the client of the tutorial, with its files in its folder."""
        here = {name.replace("__", "."): self.here(text) for name, text in files.items()}
        return self.rbit(None, files=here, environment={"PATH": PATH}, command=("/bin/sh", "-c", f"exec {line}"))

    def assert_logged(self, rbit: RbitProcess, block: str) -> None:
        """Wait until the client has logged the lines of a block, one right after the other."""
        expected = lasting(self.here(block))
        self.wait_until(
            lambda: expected in lasting(f"{rbit.output}\n"), what=lambda: f"{expected}\nin:\n{rbit.output}"
        )

    @example("tutorial activate")
    def test_the_commands_are_known_after_the_first_one(self, block: str) -> None:
        if not Path(sys.prefix, "bin", "activate").exists():
            self.skipTest("the tests run outside of a virtual environment")
        home = self.folder()
        (home / "rbit").symlink_to(sys.prefix)
        names = ("rbit", "rbit-submit", "python3")
        script = "\n".join([*commands(block), *(f"command -v {name}" for name in names)])
        terminal = Terminal(
            ["/bin/sh", "-c", script], home, 500, environment={"PATH": os.defpath, "HOME": str(home)}
        )
        self.addCleanup(terminal.close)
        self.assertEqual(terminal.wait(), 0, terminal.screen)
        self.assertEqual(terminal.screen.splitlines(), [str(Path(sys.prefix, "bin", name)) for name in names])

    @example(
        *(f"tutorial {name}" for name in (
            "rbit.ini", "jobs.py", "client", "client output", "submit", "submit output", "follow.py", "follow",
            "watch", "follow output", "slow", "slow output", "cancel", "cancel output", "cancel log", "cancelled",
            "fail", "fail output", "list", "list output", "retry", "retry output", "retried", "retried output",
            "paper", "paper output", "paper done", "stop log",
        ))
    )
    def test_the_tutorial_works_from_its_beginning_to_its_end(self, *blocks: str) -> None:
        (ini, jobs, client, connected, submit, submitted, follow_py, follow, watch, followed, slow, slow_shown,
         cancel, cancel_asked, cancel_log, cancelled, fail, failed, table, listed, retry, put_back, retried, poem,
         paper, paper_shown, paper_done, stop_log) = blocks
        rbit = self.client(commands(client)[0], rbit__ini=ini, jobs__py=jobs, follow__py=follow_py)
        folder = rbit.folder
        self.assert_logged(rbit, connected)
        self.assert_prints(submit, submitted, folder)

        follower = self.terminal(commands(follow)[0], folder)
        self.wait_until(lambda: "following" in follower.screen, what=lambda: follower.text)
        several = self.terminal(commands(watch)[0], folder)
        self.assertEqual((several.wait(), several.screen.count(": Done\n")), (0, 3), several.text)
        expected = {line.replace("2", number, 1) for number in "234" for line in followed.splitlines()}
        self.wait_until(
            lambda: {line.rstrip() for line in follower.lines[1:]} == expected, what=lambda: follower.text
        )
        follower.interrupt()
        self.assertEqual(follower.wait(), 0, follower.text)

        waiting = self.terminal(commands(slow)[0], folder)
        self.wait_until(lambda: lasting(waiting.screen) == lasting(slow_shown[:-1]), what=lambda: waiting.text)
        self.assert_prints(cancel, cancel_asked, folder)
        self.assertEqual((waiting.wait(), waiting.screen), (1, cancelled))
        self.assert_logged(rbit, cancel_log)

        self.assert_prints(fail, failed, folder, 1)
        self.assert_prints(table, listed, folder)
        self.assert_prints(retry, put_back, folder)
        rbit.wait_for_line("job 6: Done")
        self.assert_prints(retried, poem, folder)

        waiting = self.terminal(commands(paper)[0], folder)
        self.assertEqual((waiting.wait(), waiting.screen), (0, paper_done), waiting.text)
        self.assertLessEqual(set(lasting(paper_shown).splitlines()), {lasting(line) for line in waiting.lines})

        os.killpg(rbit.pid, signal.SIGINT)  # as a terminal does at Ctrl+C
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertTrue(lasting(f"{rbit.output}\n").endswith(stop_log), rbit.output)


if __name__ == "__main__":
    unittest.main()
