"""The benchmarks: their table is right, and they run. No test looks at what they measure."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import docutils.core

from bench import table
from bench.measure import Row
from tests.support.case import require_broker

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.rst"
FAST = Row("jobs", "jobs/s", "another", 2.0, True)
SMALL = Row("memory", "MB", "another", 0.5)


class TableTest(unittest.TestCase):
    def test_ratio_is_the_median_of_the_ratios_and_not_the_ratio_of_the_medians(self) -> None:
        cells = table.line(FAST, [(100.0, 100.0), (300.0, 100.0), (500.0, 200.0)])
        self.assertEqual(cells, ("jobs", "another", "2.50", "1.00", "3.00", ">= 2", "yes", "300", "100", "jobs/s"))

    def test_goal_is_a_least_or_a_most(self) -> None:
        for row, ratio, met in (
            (FAST, 2.0, "yes"), (FAST, 1.9, "no"), (SMALL, 0.5, "yes"), (SMALL, 0.6, "no"),
        ):
            with self.subTest(f"{row.what} {ratio}"):
                self.assertEqual(table.line(row, [(ratio, 1.0)])[table.HEAD.index("met")], met)

    def test_figures_have_three_digits_that_count(self) -> None:
        cells = table.line(SMALL, [(0.0123456, 1234.56)])
        self.assertEqual(cells[2:3] + cells[7:9], ("1.00e-05", "0.0123", "1235"))

    def test_table_takes_the_place_of_the_last_one_in_the_document(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        self.addCleanup(lambda: (document.unlink(), folder.rmdir()))
        document = folder / "benchmarks.rst"
        document.write_text(DOCUMENT.read_text("utf-8"), encoding="utf-8")
        for number in (31415.0, 27182.0):
            table.replace(document, table.table([table.line(FAST, [(number, 1.0)])]))
        text = document.read_text("utf-8")
        self.assertIn("  27182  ", text)
        self.assertNotIn("  31415  ", text)
        before, after = (DOCUMENT.read_text("utf-8").split(mark)[place] for mark, place in
                         ((table.BEGIN, 0), (table.END, 1)))
        self.assertTrue(text.startswith(before) and text.endswith(after))
        shown = docutils.core.publish_string(text, writer="html", settings_overrides={"halt_level": 2})
        self.assertIn(b"<table", shown)

    def test_document_without_a_place_for_the_table_stays_as_it_is(self) -> None:
        with tempfile.NamedTemporaryFile("w+") as file:
            file.write("Benchmarks\n")
            file.flush()
            with self.assertRaisesRegex(ValueError, "found them 0 times"):
                table.replace(Path(file.name), "a table")
            self.assertEqual(Path(file.name).read_text("utf-8"), "Benchmarks\n")


class RunTest(unittest.TestCase):
    def test_measures_that_need_nothing_else_run_and_make_a_table(self) -> None:
        require_broker(self)
        command = [sys.executable, "-m", "bench", "--repeat", "1", "--jobs", "20", "--only", "poll", "empty"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300.0, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        for what in ("python! jobs, polling", "a poll of 10 empty queues"):
            self.assertRegex(done.stdout, rf"(?m)^{what} .* (yes|no) ")


if __name__ == "__main__":
    unittest.main()
