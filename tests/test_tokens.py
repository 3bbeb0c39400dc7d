"""Random names."""

from __future__ import annotations

import re
import unittest
from concurrent.futures import ThreadPoolExecutor

from rbit.tokens import STOCK, token


class TokenTest(unittest.TestCase):
    def test_names_differ_whichever_thread_asks(self) -> None:
        count = 20 * STOCK
        with ThreadPoolExecutor(8) as pool:
            names = list(pool.map(lambda _: token(), range(count)))
        self.assertEqual(len(set(names)), count)

    def test_name_has_two_digits_for_each_byte(self) -> None:
        for size in (1, 8, 16):
            self.assertTrue(re.fullmatch(f"[0-9a-f]{{{2 * size}}}", token(size)))
