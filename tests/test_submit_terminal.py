"""``rbit-submit --wait`` on a terminal: one line is drawn again and again, and never wraps."""

from __future__ import annotations

import os
import re
import unittest

from tests.support.rbit_process import submit_command
from tests.support.submit_case import WaitCase
from tests.support.terminal import REWRITTEN, Terminal


class TerminalTest(WaitCase):
    def test_on_a_terminal_one_line_is_rewritten_and_the_last_statuses_stay(self) -> None:
        self.client("python!jobs:evil")
        text = self.on_a_terminal(60, "--count", "2", "--job", "70")
        kept = [line for line in text.replace(REWRITTEN, "\n").splitlines() if line]
        lasting = [line for line in text.split("\r\n") if line]
        self.assertEqual(sum(line.endswith(": Done") for line in lasting), 2, text)
        self.assertRegex(text, re.escape(REWRITTEN) + r"\[0 of 2 ended, \d+ s\] job 70: Building")
        self.assertRegex(text, re.escape(REWRITTEN) + r"\[1 of 2 ended, \d+ s\] ")
        live = [line for line in kept if line.startswith("[")]
        self.assertLess(max(map(len, live)), 60, live)
        self.assertNotIn("\x1b", text.replace(REWRITTEN, ""))
        self.assertNotIn("\nINFO", text)

    def test_live_line_never_wraps_however_narrow_the_terminal_is(self) -> None:
        self.client("python!jobs:wide")
        for columns, room in ((1, 0), (2, 1), (10, 9), (20, 19), (60, 59), (0, 79)):
            with self.subTest(columns):
                shown = live(self.on_a_terminal(columns, COLUMNS="200"))
                self.assertTrue(any("\u4e2d" in line for line in shown) or room < 20, shown)
                self.assertLessEqual(max(map(width, shown)), room, shown)
                self.assertGreaterEqual(max(map(width, shown)), room - 1, shown)

    def test_live_line_fits_a_terminal_that_becomes_narrower(self) -> None:
        rbit = self.client("python!jobs:gate")
        terminal = self.terminal(60, "--job", "1")
        self.wait_until(lambda: "Building: waiting" in terminal.text, what=lambda: terminal.text)
        terminal.resize(24)
        before = len(terminal.text)
        self.wait_until(lambda: terminal.text.count(REWRITTEN, before) > 3, what=lambda: terminal.text)
        (rbit.folder / "go").touch()
        # One may have been on its way when it was resized.
        shown = live(self.end(terminal)[before:])[1:]
        self.assertEqual({width(line) for line in shown}, {23}, shown)

    def test_hint_stands_in_a_line_of_its_own(self) -> None:
        terminal = self.terminal(60)
        self.wait_until(lambda: "no client has taken it yet" in terminal.text, what=lambda: terminal.text)
        self.client("shell!true")
        written = self.end(terminal)
        self.assertRegex(written, re.escape(REWRITTEN) + "rbit-submit: no client has taken it yet; .*\r\n")

    def on_a_terminal(self, columns: int, *arguments: str, **environment: str) -> str:
        """Run rbit-submit --wait on a terminal of so many columns to its end; return all that it wrote."""
        return self.end(self.terminal(columns, *arguments, **environment))

    def terminal(self, columns: int, *arguments: str, **environment: str) -> Terminal:
        """Start rbit-submit --wait on a terminal of so many columns."""
        folder = self.rbit(self.text, command=("true",)).folder
        command = [*submit_command(), "rbit.ini", self.queue, "--wait", *arguments]
        terminal = Terminal(command, folder, columns, {**os.environ, **environment})
        self.addCleanup(terminal.close)
        return terminal

    def end(self, terminal: Terminal) -> str:
        """Wait for the end of the command, which must be a good one; return all that it wrote."""
        self.assertEqual(terminal.wait(), 0, terminal.text)
        return terminal.text


def live(text: str) -> list[str]:
    """Return the lines that were drawn to be erased again."""
    return [line for line in text.split(REWRITTEN)[1:] if "\n" not in line]


def width(line: str) -> int:
    """Return how many columns a line takes, of the characters that are in these tests."""
    return len(line) + line.count("\u4e2d") - line.count("\u0301")


if __name__ == "__main__":
    unittest.main()
