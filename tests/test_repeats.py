"""How long to wait after failures, and when the log has them."""

from __future__ import annotations

import unittest

from rbit.repeats import wait_after, worth_saying


class RepeatsTest(unittest.TestCase):
    def test_waits_double_from_a_second_to_half_a_minute_and_are_up_to_a_quarter_shorter(self) -> None:
        for failures, longest in ((1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (1000, 30)):
            waits = {wait_after(failures) for _ in range(200)}
            self.assertGreater(len(waits), 100, "all at once would meet again and again")
            self.assertTrue(0.75 * longest <= min(waits) and max(waits) <= longest, (failures, waits))

    def test_wait_may_have_another_bound(self) -> None:
        self.assertTrue(3.0 <= wait_after(9, longest=4.0) <= 4.0)

    def test_failures_in_a_row_are_said_ever_more_rarely(self) -> None:
        self.assertEqual([number for number in range(1, 40) if worth_saying(number)], [1, 2, 4, 8, 16, 32])


if __name__ == "__main__":
    unittest.main()
