"""The log on standard output, in this process."""

from __future__ import annotations

import logging
import os
import tempfile
import unittest
from unittest import mock

from rbit.logs import BATCH, Output
from tests.support.waiting import wait_until


class OutputTest(unittest.TestCase):
    def test_many_lines_are_written_without_a_pause_after_each_batch(self) -> None:
        file = tempfile.TemporaryFile("w", encoding="utf-8")  # noqa: SIM115 - the thread of the log goes on
        log = logging.Logger("test")
        with mock.patch("rbit.logs.GATHERING", 0.5):
            log.addHandler(Output(file))
            for number in range(200 * BATCH):
                log.info("%6d", number)
            wait_until(lambda: os.fstat(file.fileno()).st_size == 200 * BATCH * 7, 30, "all lines")


if __name__ == "__main__":
    unittest.main()
