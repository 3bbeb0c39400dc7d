"""Where a client serves its metrics, what keeps it from that, and what its jobs get of it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import unittest
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import psutil
import requests

from rbit import metrics
from rbit.errors import ConfigError
from rbit.listener import PATIENCE
from tests.support.metrics_case import LOOPBACK, MetricsCase
from tests.support.rbit_process import RbitProcess

NOT_OURS = "192.0.2.1"  # RFC 5737: for documentation
NO_LIBRARY = {"none/prometheus_client/__init__.py": "raise ModuleNotFoundError('prometheus_client')\n"}


class StartTest(MetricsCase):
    def check(self, address: str, *arguments: str, **more: object) -> RbitProcess:
        """Run rbit with an address for its metrics to its end."""
        self.publish(self.queue, "x")
        text = self.ini({self.queue: {"runner": "shell!true"}}, rbit={"metrics": address})
        process = self.rbit(text, *arguments, **more)  # type: ignore[arg-type]
        self.status = process.wait()
        return process

    def test_address_is_an_ip_address_and_a_port(self) -> None:
        for address in (
            "9467", ":9467", "localhost:9467", "127.0.0.1", "127.0.0.1:65536", "::1:9467", "[::1]", "[::1:9467",
            "127.0.0.1:x", "127.1:9467", "[127.0.0.1]:9467", "http://127.0.0.1:9467",
        ):
            process = self.check(address, "--once")
            expected = f"expected an IP address and a port as in 127.0.0.1:9467 or [::1]:9467, got '{address}'"
            self.assertEqual((self.status, process.lines), (78, [f"rbit.ini: [rbit] metrics: {expected}"]))

    def test_taken_port_and_an_address_that_is_not_ours_end_the_start_and_nothing_is_run(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            process = self.check(f"127.0.0.1:{port}", "--once")
            self.assertEqual((self.status, process.stderr_lines), (69, [
                f"rbit: rbit.ini: [rbit] metrics: cannot listen at 127.0.0.1:{port}: another program does"
            ]))
        process = self.check(f"{NOT_OURS}:9467", "--once")
        self.assertEqual((self.status, process.stderr_lines), (78, [
            f"rbit.ini: [rbit] metrics: cannot listen at {NOT_OURS}:9467: {os.strerror(errno.EADDRNOTAVAIL)}"
        ]))
        self.assertEqual(self.depth(self.queue), 2)

    def test_missing_library_is_named_at_the_start_and_by_the_check_and_not_needed_without_the_key(self) -> None:
        for address, arguments, status in ((LOOPBACK, "--once", 64), (LOOPBACK, "--check", 64), ("", "--once", 0)):
            text = self.ini({self.queue: {"runner": "shell!true"}}, rbit={"metrics": address or None})
            process = self.rbit(text, arguments, files=NO_LIBRARY, environment={"PYTHONPATH": "none"})
            self.assertEqual(process.wait(), status, process.output)
            said = "[rbit] metrics needs the package prometheus_client: pip install 'rbit[metrics]'"
            self.assertEqual(process.stderr_lines, [f"rbit: rbit.ini: {said}"] if status else [])

    def test_address_that_others_can_reach_gets_a_warning(self) -> None:
        for address, warned in (("0.0.0.0:9467", 1), ("[::]:9467", 1), ("127.0.0.1:9467", 0), ("[::1]:9467", 0)):
            process = self.check(address, "--check")
            self.assertEqual(self.status, 0, process.output)
            warning = "rbit.ini: [rbit] metrics: whoever can reach this address can read the names of the queues"
            self.assertEqual(process.output.count(warning), warned, process.output)

    def test_nothing_listens_without_the_key(self) -> None:
        process = self.start("brief")
        process.wait_for_line("connected to RabbitMQ")
        self.assertEqual(listening(process.pid), [])

    def test_it_listens_at_one_address_only_of_either_family(self) -> None:
        for address in (LOOPBACK, "[::1]:0"):
            with self.subTest(address):
                if address != LOOPBACK and not Path("/proc/net/if_inet6").exists():
                    self.skipTest("there is no IPv6 here")
                process = self.serve("brief", address)
                parts = urlsplit(self.url)
                self.assertEqual(listening(process.pid), [(parts.hostname, parts.port)])
                self.wait_for_health(200, "^ok\n$")
                self.assertEqual(process.stop(), 0, process.output)

    def test_path_and_method_are_bounded(self) -> None:
        self.serve("brief")
        self.assertEqual(requests.get(f"{self.url}/", timeout=30).status_code, 404)
        self.assertEqual(requests.post(f"{self.url}/metrics", timeout=30).status_code, 405)
        self.assertEqual(requests.head(f"{self.url}/metrics", timeout=30).text, "")

    def test_stop_does_not_wait_for_a_client_that_says_nothing(self) -> None:
        def with_a_silent_client() -> RbitProcess:
            process = self.serve("brief", to_pybit=False)
            self.wait_for_health(200, "^ok\n$")
            self.addCleanup(self.connect().close)
            self.health()  # it was taken before this one
            return process

        self.assert_stops_within(PATIENCE / 2, with_a_silent_client)

    def test_jobs_have_no_descriptor_of_the_server(self) -> None:
        shell = self.queue_name("shell")
        job = "shell!touch started; while [ ! -e go ]; do sleep 0.05; done"
        process = self.serve("hold", queues={shell: {"runner": job}}, concurrency=2)
        self.wait_for_health(200, "^ok\n$")
        port = urlsplit(self.url).port or 0

        def seen() -> dict[str, bool]:
            with self.connect():
                self.health()  # it was taken before this one
                return ended_by_exec(process.pid, sockets_at(port))

        # An open connection is there for some seconds only, and jobs may take longer to start.
        what = "that which listens and the open connection, and both closed by an exec"
        self.wait_until(lambda: list(seen().values()) == [True, True], what=lambda: f"{what}, not {seen()}")
        number = self.submit()
        self.publish(shell, "x")
        self.wait_for_note(process, f"start {number}")
        self.wait_until((process.folder / "started").exists, what="the shell job")
        served = sockets_at(port) & descriptors(process.pid)
        self.assertTrue(served)
        children = process.left_over()
        self.assertGreaterEqual(len(children), 5, "two keepers, a worker, a shell and what they started")
        for child in children:
            self.assertFalse(descriptors(child) & served, psutil.Process(child).cmdline())
        for name in ("go", f"go-{number}"):
            (process.folder / name).touch()

    def connect(self) -> socket.socket:
        """Return a connection to the server on which nothing is sent."""
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname or "", parts.port or 0), 30.0)


class ServeTest(unittest.TestCase):
    def test_port_for_which_rbit_has_no_right_is_a_mistake_of_the_configuration(self) -> None:
        refused = PermissionError(errno.EACCES, "whatever")
        with mock.patch("socket.create_server", side_effect=refused), self.assertRaises(ConfigError) as caught:
            metrics.serve("rbit.ini", ("::1", 80), mock.Mock())
        why = f"rbit.ini: [rbit] metrics: cannot listen at [::1]:80: {os.strerror(errno.EACCES)}"
        self.assertEqual(caught.exception.mistakes, [why])


def listening(pid: int) -> list[tuple[str, int]]:
    """Return the addresses at which a process listens."""
    connections = psutil.Process(pid).net_connections("tcp")
    return [tuple(each.laddr) for each in connections if each.status == psutil.CONN_LISTEN]


def descriptors(pid: int) -> set[str]:
    """Return what a process has open, as ``/proc`` shows it."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(path))
    return found


def ended_by_exec(pid: int, wanted: set[str]) -> dict[str, bool]:
    """Return which of some descriptors a process has open, each with whether an exec closes it."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if (link := os.readlink(path)) in wanted:
                shown = Path(f"/proc/{pid}/fdinfo/{path.name}").read_text("ascii")
                flags = re.search(r"(?m)^flags:\s*(\d+)$", shown)
                found[link] = flags is not None and bool(int(flags[1], 8) & os.O_CLOEXEC)
    return found


def sockets_at(port: int) -> set[str]:
    """Return the sockets of this machine whose own port is this one, in the same form."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port}


if __name__ == "__main__":
    unittest.main()
