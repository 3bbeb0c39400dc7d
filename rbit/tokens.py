"""Random names that nobody can guess, made in stock: each question to the kernel costs more than a name."""

from __future__ import annotations

import os
from collections import deque

SIZE = 16  # bytes of one
STOCK = 256

_stock: deque[bytes] = deque()


def token(size: int = SIZE) -> str:
    """Returns a random name as hexadecimal digits, twice as many as bytes; any thread may ask.

    Arguments:
        size: bytes, at most 16.
    """
    while True:
        try:
            return _stock.pop()[:size].hex()
        except IndexError:
            fresh = os.urandom(SIZE * STOCK)
            _stock.extend(fresh[at : at + SIZE] for at in range(0, len(fresh), SIZE))
