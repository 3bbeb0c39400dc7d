"""What may come again and is one too many then: as often as it was expected, for as long."""

from __future__ import annotations

import time
import unittest
from unittest.mock import patch

from rbit import surplus
from rbit.surplus import Surplus


class SurplusTest(unittest.TestCase):
    def setUp(self) -> None:
        self.surplus = Surplus()

    def test_each_that_is_expected_is_taken_once(self) -> None:
        for seconds in (10.0, 20.0):
            self.surplus.expect("a", seconds)
        self.assertEqual([self.surplus.take("a") for _ in range(3)], [10.0, 20.0, None])
        self.assertIsNone(self.surplus.take("b"))

    def test_what_is_remembered_is_taken_any_number_of_times(self) -> None:
        self.surplus.remember("a", 10.0)
        self.assertTrue(all(self.surplus.take("a") for _ in range(3)))

    def test_nothing_is_expected_for_longer_than_it_was_to_be_unless_it_is_kept(self) -> None:
        for key in ("kept", "other"):
            self.surplus.expect(key, 0.05)
        self.surplus.remember("always", 0.05)
        time.sleep(0.1)
        self.surplus.drop_old({"kept"})
        self.assertEqual([self.surplus.take(key) for key in ("kept", "other", "always")], [0.05, None, None])

    def test_time_counts_from_the_renewal(self) -> None:
        self.surplus.expect("a", 0.2)
        time.sleep(0.15)
        self.surplus.renew("a")
        time.sleep(0.1)
        self.assertEqual(self.surplus.take("a"), 0.2)

    def test_oldest_are_forgotten_when_there_are_too_many(self) -> None:
        with patch.object(surplus, "MOST", 3):
            for key in "abcd":
                self.surplus.expect(key, 10.0)
                self.surplus.remember(key.upper(), 10.0)
        self.assertEqual([self.surplus.take(key) is None for key in "abcdABCD"], [True, False, False, False] * 2)


if __name__ == "__main__":
    unittest.main()
