"""What rbit tells a service manager, and the unit for systemd."""

from __future__ import annotations

import configparser
import itertools
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

from rbit import errors
from rbit.client import SILENCE
from rbit.notify import AGAIN, Notifier
from tests.support.case import BrokerCase, OwnNodeCase
from tests.support.notify_socket import NotifySocket
from tests.support.processes import free_port
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess, rbit_command
from tests.test_loop import JOBS, ran

UNIT = Path(__file__).parent.parent / "examples" / "systemd" / "rbit@.service"
TEN = {"WATCHDOG_USEC": "10000000"}


class Service:
    """What the tests of the whole command have in common."""

    def start(
        self, manager: NotifySocket, environment: Mapping[str, str] | None = None, command: tuple[str, ...] = (),
        **sections: dict[str, object],
    ) -> RbitProcess:
        """Start rbit as a service manager does; its jobs run until a file exists that is named like the body."""
        assert isinstance(self, BrokerCase)
        self.manager, self.queue = manager, self.queue_name()
        self.addCleanup(manager.__exit__)  # after rbit's end
        manager.__enter__()
        text = self.ini({self.queue: {"runner": "python!jobs:gate"}}, **sections)
        return self.rbit(
            text, files={"jobs.py": JOBS}, command=command,
            environment={"NOTIFY_SOCKET": manager.name, **(environment or {})},
        )

    def wait_for(self, key: str, value: str, more: int = 1) -> None:
        """Wait until a line has come so many times from now on, or once ever if ``more`` is 1."""
        assert isinstance(self, BrokerCase)
        seen = 0 if more == 1 else self.manager.of(key).count(value)
        self.wait_until(
            lambda: self.manager.of(key).count(value) >= seen + more,
            what=lambda: f"{more} times {key}={value}; there was {self.manager.lines}",
        )


class ServiceTest(Service, BrokerCase):
    def test_start_is_ready_with_the_first_connection_and_may_take_its_time_until_then(self) -> None:
        port = free_port()
        self.start(NotifySocket(), amqp={"port": port})
        self.wait_for("STATUS", "connecting to RabbitMQ; idle")
        self.wait_for("EXTEND_TIMEOUT_USEC", "130000000", more=2)
        self.assertEqual(self.manager.of("READY"), [])
        with Proxy(self.node.port, port) as proxy:
            self.wait_for("READY", "1")
            self.wait_for("STATUS", "connected; idle")
            proxy.cut()
            extended = len(self.manager.of("EXTEND_TIMEOUT_USEC"))
            self.wait_for("STATUS", "no connection to RabbitMQ; idle")
            self.wait_until(lambda: self.manager.of("STATUS")[-1] == "connected; idle", what="a new connection")
        self.assertEqual(self.manager.of("READY"), ["1"])
        self.assertEqual(len(self.manager.of("EXTEND_TIMEOUT_USEC")), extended)

    def test_start_of_a_client_whose_name_is_taken_is_never_ready(self) -> None:
        self.channel.queue_declare("bob-villa", exclusive=False, auto_delete=True)
        self.addCleanup(self.channel.queue_delete, "bob-villa")
        rbit = self.start(NotifySocket())
        self.assertEqual(rbit.wait(), 69, rbit.output)
        self.assertEqual(self.manager.of("READY"), [])

    def test_status_shows_what_runs_and_says_nothing_twice(self) -> None:
        rbit = self.start(NotifySocket())
        self.publish(self.queue, "one")
        running = f"connected; running: {self.queue} message #1"
        self.wait_for("STATUS", running)
        (rbit.folder / "one").touch()
        self.wait_until(lambda: self.manager.of("STATUS")[-1] == "connected; idle", what="the end of the job")
        self.assertEqual(rbit.stop(), 0, rbit.output)
        said = self.manager.of("STATUS")
        self.assertEqual([text for text, next_text in itertools.pairwise(said) if text == next_text], [])

    def test_stop_takes_as_long_as_the_job(self) -> None:
        rbit = self.start(NotifySocket(), environment=TEN)
        self.publish(self.queue, "one")
        self.wait_until(lambda: ran(rbit) == ["start one"], what="the job")
        self.assertEqual(self.manager.of("STOPPING"), [])
        rbit.signal(signal.SIGTERM)
        self.wait_for("STATUS", f"stopping; connected; running: {self.queue} message #1")
        self.wait_for("EXTEND_TIMEOUT_USEC", "130000000", more=2)
        self.wait_for("WATCHDOG", "1", more=2)
        (rbit.folder / "one").touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(ran(rbit), ["start one", "end one"])
        self.assertEqual(self.manager.of("STOPPING"), ["1"])

    def test_watchdog_is_fed_if_it_is_for_this_process(self) -> None:
        for pid, fed in (("", True), ("WATCHDOG_PID=$$ ", True), ("WATCHDOG_PID=1 ", False)):
            with self.subTest(pid):
                rbit = self.start(
                    NotifySocket(), environment=TEN, command=("sh", "-c", f'{pid}exec "$0" "$@"', *rbit_command())
                )
                self.wait_for("READY", "1")
                if fed:
                    self.wait_for("WATCHDOG", "1", more=2)
                self.assertEqual(rbit.stop(), 0, rbit.output)
                self.assertEqual(bool(self.manager.of("WATCHDOG")), fed, self.manager.lines)

    def test_abstract_socket_is_reached(self) -> None:
        self.start(NotifySocket(abstract=True))
        self.wait_for("READY", "1")

    def test_manager_that_cannot_be_told_is_said_once_and_the_job_is_done(self) -> None:
        for name in ("/nowhere/notify", "@nobody", "x" * 200):
            with self.subTest(name):
                queue = self.queue_name()
                self.publish(queue, "x")
                text = self.ini({queue: {"runner": "shell!true"}})
                rbit = self.rbit(text, "--once", environment={"NOTIFY_SOCKET": name, **TEN})
                self.assertEqual(rbit.wait(), 0, rbit.output)
                self.assertEqual(rbit.output.count("NOTIFY_SOCKET"), 1, rbit.output)


class OutageTest(Service, OwnNodeCase):
    def test_watchdog_goes_on_while_the_broker_is_down_and_the_status_says_so(self) -> None:
        rbit = self.start(NotifySocket(), environment={"WATCHDOG_USEC": "2000000"})
        self.publish(self.queue, "one")
        running = f"running: {self.queue} message #1"
        self.wait_for("STATUS", f"connected; {running}")
        self.node.kill()
        self.wait_for("STATUS", f"no connection to RabbitMQ; {running}")
        self.wait_for("WATCHDOG", "1", more=6)
        self.assertEqual(self.manager.of("STATUS")[-1], f"no connection to RabbitMQ; {running}")
        self.node.restart()
        self.wait_until(lambda: self.manager.of("STATUS")[-1] == f"connected; {running}", 60, "the connection")
        (rbit.folder / "one").touch()
        self.wait_until(lambda: self.manager.of("STATUS")[-1] == "connected; idle", what="the end of the job")
        self.assertEqual(ran(rbit), ["start one", "end one"])


class NotifierTest(unittest.TestCase):
    """One turn after the other, called by hand, with a clock of the test's."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="rbit-test-")
        self.addCleanup(folder.cleanup)
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(f"{folder.name}/notify")
        self.manager.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": f"{folder.name}/notify", "WATCHDOG_USEC": "100000000"}
        self.now = 1000.0

    def made(self, longest_turn: float = 70.0) -> Notifier:
        with patch.dict(os.environ, self.environment):
            notifier = Notifier(longest_turn)
        if notifier._socket:
            self.addCleanup(notifier._socket.close)
        return notifier

    def turn(self, notifier: Notifier, now: float, jobs: Sequence[object] = (), stopping: bool = False) -> None:
        with patch("rbit.notify.time.monotonic", lambda: now):
            notifier.tend(connected=True, ready=True, stopping=stopping, jobs=jobs)

    def came(self) -> str:
        """Return the next datagram; empty for none."""
        try:
            return self.manager.recv(65536).decode("utf-8")
        except BlockingIOError:
            return ""

    def test_watchdog_is_fed_four_times_in_its_time_however_fast_the_turns(self) -> None:
        notifier = self.made()
        fed = []
        for step in range(1000):
            self.turn(notifier, 1000.0 + step / 10)
            fed += [step / 10] if "WATCHDOG=1" in self.came() else []
        self.assertEqual(fed, [0.0, 25.0, 50.0, 75.0])

    def test_next_turn_is_due_when_something_is_to_be_sent(self) -> None:
        notifier = self.made()
        self.assertEqual(notifier.due, math.inf)
        self.turn(notifier, 1000.0)
        self.assertEqual(notifier.due, 1025.0, "the watchdog")
        self.turn(notifier, 1000.5, jobs=["a"])
        self.assertEqual(notifier.due, 1001.0, "the status")
        self.turn(notifier, 1001.0, jobs=["a"], stopping=True)
        self.assertEqual(notifier.due, 1006.0, "more time")
        self.manager.close()
        with self.assertLogs("rbit.client"):
            self.turn(notifier, 1006.0, stopping=True)
        self.assertEqual(notifier.due, 1006.0 + AGAIN)
        self.environment = {}
        notifier = self.made()
        self.turn(notifier, 1000.0)
        self.assertEqual(notifier.due, math.inf, "there is nobody to be told")

    def test_status_is_sent_at_most_once_a_second_and_the_last_one_arrives(self) -> None:
        notifier = self.made()
        said = []
        for step in range(30):
            self.turn(notifier, 1000.0 + step / 10, jobs=[f"job {step}"] if step < 15 else ["the last"])
            said += [(step, line) for line in self.came().split("\n") if line.startswith("STATUS=")]
        self.assertEqual(said, [
            (0, "STATUS=connected; running: job 0"), (10, "STATUS=connected; running: job 10"),
            (20, "STATUS=connected; running: the last"),
        ])

    def test_status_of_many_jobs_with_long_names_fits_what_systemd_takes(self) -> None:
        self.turn(self.made(), 1000.0, jobs=["\N{GRINNING FACE}" * 500] * 30, stopping=True)
        data = self.came()
        self.assertLess(len(data.encode()), 4096)
        self.assertTrue(data.endswith(" and 22 more"), data)

    def test_what_a_busy_manager_does_not_take_is_sent_later(self) -> None:
        notifier = self.made()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, self.assertRaises(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"full", self.environment["NOTIFY_SOCKET"])
        self.turn(notifier, 1000.0)
        with self.assertRaises(BlockingIOError):
            while True:
                self.assertEqual(self.manager.recv(65536), b"full")
        self.turn(notifier, 1000.1)
        self.assertEqual(self.came(), "READY=1\nWATCHDOG=1\nSTATUS=connected; idle")

    def test_watchdog_that_is_shorter_than_the_wait_for_a_silent_broker_is_a_warning(self) -> None:
        with self.assertNoLogs("rbit.client"):
            self.made(longest_turn=70.0)
        with self.assertLogs("rbit.client", "WARNING") as logged:
            self.made(longest_turn=130.0)
        self.assertIn("the watchdog's time is 100 s, and", logged.output[0])

    def test_without_a_socket_or_a_watchdog_nothing_is_sent(self) -> None:
        for key in ("WATCHDOG_USEC", "NOTIFY_SOCKET"):
            for value in ("", "0", "-1", "soon") if key == "WATCHDOG_USEC" else ("",):
                with self.subTest(key=key, value=value), patch.dict(self.environment, {key: value}):
                    self.turn(self.made(), 1000.0)
                    expected = "READY=1\nSTATUS=connected; idle" if key == "WATCHDOG_USEC" else ""
                    self.assertEqual(self.came(), expected)


class UnitTest(unittest.TestCase):
    text = UNIT.read_text("utf-8")

    def complaints(self, text: str) -> list[str]:
        """Return what systemd says against a unit of this name."""
        with tempfile.TemporaryDirectory(prefix="rbit-test-") as folder:
            Path(folder, UNIT.name).write_text(text, "utf-8")
            done = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", f"./{UNIT.name}"], cwd=folder, text=True, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60.0,
            )
        # It may also find something in units of this machine.
        return [line for line in done.stdout.splitlines() if "rbit@" in line]

    def test_systemd_has_nothing_against_it(self) -> None:
        if not shutil.which("systemd-analyze"):
            self.assertNotEqual(os.environ.get("CI"), "true", "systemd-analyze is missing (Debian: systemd)")
            self.skipTest("systemd-analyze is missing (Debian: systemd)")
        text = self.text.replace("/opt/rbit/bin/rbit", rbit_command()[0])
        self.assertEqual(self.complaints(text), [])
        self.assertRegex(str(self.complaints(text.replace("KillMode=mixed", "KilMode=mixed"))), "'KilMode'")

    def test_it_restarts_what_may_work_and_gives_a_silent_broker_time(self) -> None:
        unit = configparser.RawConfigParser()
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(self.text)
        service = unit["Service"]
        lasting = {int(number) for number in service["RestartPreventExitStatus"].split()}
        self.assertEqual(lasting, {errors.EXIT_USAGE, errors.EXIT_REFUSED, errors.EXIT_CONFIG})
        self.assertEqual(
            [service[key] for key in ("Type", "KillMode", "Restart")], ["notify", "mixed", "on-failure"]
        )
        self.assertEqual(service["ExecReload"], "kill -HUP $MAINPID")
        for key in ("WatchdogSec", "TimeoutStopSec"):
            minutes = re.fullmatch(r"(\d+)min", service[key])
            assert minutes is not None
            self.assertGreater(60 * int(minutes[1]), 2 * (30 + SILENCE), f"{key} and the default heartbeat")


if __name__ == "__main__":
    unittest.main()
