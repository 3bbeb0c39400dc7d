"""The bell that ends a wait of another thread."""

from __future__ import annotations

import os
import signal
import socket
import threading
import unittest
from pathlib import Path

from rbit.bell import Bell
from tests.support.waiting import wait_until

LONG = 30.0  # seconds; no test waits so long


class BellTest(unittest.TestCase):
    def setUp(self) -> None:
        self.bell = Bell()

    def test_ring_before_the_wait_ends_it_at_once_and_only_one(self) -> None:
        for _ in range(3):
            self.bell.ring()
        self.assertEqual(self.bell.wait(LONG), (True, False))
        self.assertEqual(self.bell.wait(0.0), (False, False))

    def test_ring_of_another_thread_ends_a_wait(self) -> None:
        ringer = threading.Thread(target=self.bell.ring)
        self.addCleanup(ringer.join)
        ringer.start()
        self.assertEqual(self.bell.wait(LONG), (True, False))

    def test_handler_of_a_signal_ends_a_wait(self) -> None:
        before = signal.signal(signal.SIGUSR1, lambda *_: self.bell.ring())
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        main = threading.get_ident()
        state = f"/proc/self/task/{threading.get_native_id()}/stat"

        def send() -> None:
            wait_until(lambda: Path(state).read_text("ascii").rpartition(")")[2].split()[0] == "S")
            signal.pthread_kill(main, signal.SIGUSR1)

        sender = threading.Thread(target=send)
        self.addCleanup(sender.join)
        sender.start()
        self.assertEqual(self.bell.wait(LONG), (True, False))

    def test_signal_that_another_thread_gets_ends_a_wait_in_the_main_one(self) -> None:
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        self.addCleanup(signal.set_wakeup_fd, signal.set_wakeup_fd(-1))
        self.bell.ring_at_signals()
        sender = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
        self.addCleanup(sender.join)
        sender.start()
        self.assertEqual(self.bell.wait(LONG), (True, False))

    def test_readable_socket_ends_a_wait_and_does_not_ring(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        theirs.close()
        self.assertEqual(self.bell.wait(LONG, ours.fileno()), (False, True))

    def test_descriptor_is_closed_once_nobody_can_ring(self) -> None:
        fd = self.bell.fileno()
        ring = self.bell.ring
        del self.bell
        os.fstat(fd)
        ring()
        del ring
        with self.assertRaises(OSError):
            os.fstat(fd)

    def test_wait_that_nothing_ends_is_over_in_time(self) -> None:
        self.assertEqual(self.bell.wait(0.01), (False, False))
