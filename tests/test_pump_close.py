"""The pump at the start and at a stop: it registers the client, and tells PyBit what PyBit takes."""

from __future__ import annotations

import logging
import time
import unittest

from tests.support.proxy import Proxy
from tests.support.pump_case import PumpCase


class CloseTest(PumpCase):
    def test_close_with_a_quick_pybit_drains_the_queue(self) -> None:
        for job in (1, 2, 3):
            self.put(job, *["Building", "Waiting"] * 20, "Done")
        pump = self.pump()
        pump.close(60.0)
        self.assertFalse(pump.is_alive())
        for job in (1, 2, 3):
            self.assertEqual(self.statuses(job), ["Building", "Waiting"] * 20 + ["Done"])
        self.assertEqual(self.depth(self.own), 0)

    def test_close_right_after_the_start_tells_what_is_there(self) -> None:
        self.put(1, "Building", "Done")
        self.pump().close(60.0)
        self.assertEqual(self.statuses(1), ["Building", "Done"])

    def test_close_tries_once_more_what_waits_for_its_time(self) -> None:
        self.patch("rbit.pump.wait_after", lambda failures: 600.0)
        self.web.die()
        self.put(1, "Building", "Done")
        pump = self.pump()
        self.wait_for_line("PyBit does not answer")
        self.web.come_back()
        pump.close(60.0)
        self.assertEqual(self.statuses(1), ["Building", "Done"])

    def test_close_with_a_dead_pybit_takes_no_time_and_leaves_all_in_the_queue(self) -> None:
        self.web.die()
        self.put(1, "Building", "Done")
        pump = self.pump()
        self.wait_for_line("PyBit does not answer")
        began = time.monotonic()
        pump.close(60.0)
        self.assertLess(time.monotonic() - began, 20.0)
        self.assertFalse(pump.is_alive())
        self.wait_until(lambda: self.depth(self.own) == 2, what="both in the queue")
        self.assertEqual([body.count(b"Building") for body in self.bodies(self.own)], [1, 0])

    def test_close_while_a_status_of_unknown_name_waits_takes_no_time(self) -> None:
        self.patch("rbit.teller.wait_after", lambda failures: 600.0)
        self.put(1, "Frobnicating")
        pump = self.pump()
        self.wait_for_line("trying again")
        began = time.monotonic()
        pump.close(60.0)
        self.assertLess(time.monotonic() - began, 20.0)
        self.wait_until(lambda: self.depth(self.own) == 1, what="it in the queue")

    def test_close_with_a_hanging_pybit_takes_no_longer_than_told(self) -> None:
        self.web.hang()
        self.put(1, "Building")
        pump = self.pump(timeout=60.0)
        self.wait_until(lambda: self.web.requests, what="a call")
        began = time.monotonic()
        pump.close(0.5)
        self.assertLess(time.monotonic() - began, 20.0)
        self.web.go_on()

    def test_close_with_a_silent_broker_takes_no_longer_than_its_patience(self) -> None:
        with Proxy(self.node.port) as proxy:
            for connected in (True, False):
                with self.subTest(connected=connected):
                    proxy.silence(not connected)
                    pump = self.pump(proxy.port)
                    if connected:
                        self.wait_until(lambda: pump._queue is not None, what="the connection")  # noqa: B023
                        proxy.silence()
                    began = time.monotonic()
                    pump.close(60.0)
                    self.assertLess(time.monotonic() - began, 30.0)
                    self.assertTrue(pump.is_alive(), "it is left to itself")
                    proxy.cut()
                    pump.join(30.0)


class RegistrationTest(PumpCase):
    def registrations(self) -> list[str]:
        return [request.method for request in list(self.web.requests) if request.path == "/buildd"]

    def test_name_is_registered_once_at_the_start_without_any_update(self) -> None:
        for expected in (["GET", "PUT"], ["GET", "PUT", "GET"]):
            pump = self.pump()
            self.wait_until(lambda: self.registrations() == expected, what="the registration")  # noqa: B023
            self.put(1, "Building")
            pump.wake()
            self.wait_for_empty_queue()
            pump.close(10.0)
            self.assertEqual(self.registrations(), expected)
        self.assertEqual(list(self.web.buildds), [self.client])

    def test_name_is_registered_when_a_dead_pybit_is_back(self) -> None:
        self.web.die()
        self.put(1, "Building")
        self.pump()
        self.wait_for_line("PyBit does not answer")
        self.web.come_back()
        self.wait_for(1, "Building")
        self.wait_until(lambda: self.registrations()[:1] == ["GET"], what="the registration")
        self.assertEqual(list(self.web.buildds), [self.client])
        self.assertEqual(self.lines(logging.ERROR), [])


if __name__ == "__main__":
    unittest.main()
