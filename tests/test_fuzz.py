"""Some hundred cases of the fuzzing, the same in each run, for `make fuzz` tries more; and what it says."""

from __future__ import annotations

import time
import unittest

from hypothesis import strategies as st

from tests.fuzz.target import Target, run
from tests.fuzz.targets import TARGETS

CASES = 600  # of all targets together
LEAST = 10


class FuzzTest(unittest.TestCase):
    def test_all_is_as_it_must_be_in_some_cases_of_each_target(self) -> None:
        whole = sum(target.share for target in TARGETS)
        self.assertEqual(len({target.name for target in TARGETS}), len(TARGETS))
        for target in TARGETS:
            with self.subTest(target.name):
                self.assertGreaterEqual(run(target, max(LEAST, CASES * target.share // whole), None), LEAST)

    def test_what_is_wrong_is_shown_by_its_smallest_case(self) -> None:
        def check(number: int) -> None:
            assert number < 1000, f"{number} is too large"

        for seed in (None, 1):
            with self.assertRaisesRegex(AssertionError, "^1000 is too large"):
                run(Target("numbers", st.integers(0, 10**6), check, 1), 200, seed)

    def test_case_that_takes_far_too_long_is_wrong(self) -> None:
        def check(number: int) -> None:
            until = time.thread_time() + 0.05
            while number and time.thread_time() < until:
                pass

        target = Target("numbers", st.integers(0, 1), check, 1)
        self.assertEqual(run(target, 2, None), 2)
        with self.assertRaisesRegex(AssertionError, "took"):
            run(target, 2, None, 0.04)


if __name__ == "__main__":
    unittest.main()
