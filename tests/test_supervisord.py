"""The example for supervisord, run by a real one: started, stopped, killed, and with a mistake."""

from __future__ import annotations

import getpass
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import psutil

from rbit import errors
from tests.support.case import BrokerCase
from tests.support.processes import descendants, end, is_alive
from tests.support.rbit_process import rbit_command

EXAMPLE = Path(__file__).parent.parent / "examples" / "supervisor" / "rbit.conf"
BIN = Path(sys.executable).parent
# The job says that it runs, and goes on until it may end; its child lives in a session of its own.
JOB = "shell!setsid sleep 1000 & echo $! >child; echo >>started; while [ ! -e go-on ]; do sleep 0.05; done"


class SupervisordTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.queue = self.queue_name()
        self.folder = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.started, self.log = self.folder / "started", self.folder / "rbit.log"

    def start(self, ini: str, **changes: str) -> None:
        """Start supervisord with the example, which is changed only to run here, and as the test says."""
        user = getpass.getuser()
        text = EXAMPLE.read_text("utf-8")
        for old, new in {
            "/opt/rbit/bin/rbit": rbit_command()[0], "/etc/rbit.ini": "rbit.ini", "/srv/rbit": str(self.folder),
            "/var/log/supervisor": str(self.folder), "user=rbit": f"user={user}",
            **{key: f"{key.partition('=')[0]}={value}" for key, value in changes.items()},
        }.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        (self.folder / "rbit.ini").write_text(ini, "utf-8")
        (self.folder / "rbit.ini").chmod(0o600)
        (self.folder / "supervisord.conf").write_text(
            f"[supervisord]\nnodaemon=true\nuser={user}\nchildlogdir=.\nlogfile=supervisord.log\n"
            "pidfile=supervisord.pid\n\n[unix_http_server]\nfile=control\n\n"
            "[supervisorctl]\nserverurl=unix://control\n\n[rpcinterface:supervisor]\n"
            f"supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\n{text}", "utf-8"
        )
        with (self.folder / "out").open("wb") as out:
            self.supervisord = subprocess.Popen(
                [str(BIN / "supervisord"), "-c", "supervisord.conf"], cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out,
            )
        self.addCleanup(end, self.supervisord)
        self.wait_until((self.folder / "control").exists, what=lambda: (self.folder / "out").read_text("utf-8"))

    def ctl(self, *arguments: str) -> str:
        """Return what supervisorctl says."""
        done = subprocess.run(
            [str(BIN / "supervisorctl"), "-c", "supervisord.conf", *arguments], cwd=self.folder, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60.0,
        )
        return done.stdout

    def wait_for_state(self, state: str) -> None:
        """Wait until the program is in a state."""
        self.wait_until(lambda: self.ctl("status", "rbit").split()[1] == state, 60.0,
                        lambda: f"{state}; it is: {self.ctl('status', 'rbit')}{self.logged}")

    @property
    def logged(self) -> str:
        """What rbit has written."""
        return self.log.read_text("utf-8") if self.log.exists() else ""

    def wait_for_jobs(self, number: int) -> None:
        """Wait until so many jobs have begun."""
        self.wait_until(lambda: self.started.exists() and len(self.started.read_text()) == number, 60.0,
                        lambda: f"job {number}; rbit wrote: {self.logged}")

    def start_with_job(self) -> int:
        """Start supervisord, and wait until a job runs; return the id of rbit."""
        self.publish(self.queue, "a message")
        self.start(self.ini({self.queue: {"runner": JOB}}))
        self.wait_for_jobs(1)
        self.wait_for_state("RUNNING")
        return int(self.ctl("pid", "rbit"))

    def test_job_finishes_at_a_stop_of_the_program(self) -> None:
        rbit = self.start_with_job()
        with subprocess.Popen(
            [str(BIN / "supervisorctl"), "-c", "supervisord.conf", "stop", "rbit"], cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        ) as stop:
            self.addCleanup(stop.kill)
            self.wait_until(lambda: "stopping after" in self.logged, what="the signal to reach rbit")
            self.assertTrue(is_alive(rbit))
            (self.folder / "go-on").touch()
            self.assertEqual(stop.communicate(timeout=60.0)[0], "rbit: stopped\n")
        self.assert_done()
        self.assertEqual(self.ctl("status", "rbit").split()[1], "STOPPED")

    def test_signal_has_the_configuration_read_anew(self) -> None:
        self.start_with_job()
        path = self.folder / "rbit.ini"
        path.write_text(path.read_text("utf-8").replace("[amqp]", "concurrency = 2\n[amqp]"), "utf-8")
        self.assertEqual(self.ctl("signal", "HUP", "rbit"), "rbit: signalled\n")
        self.publish(self.queue, "one more")
        self.wait_for_jobs(2)
        (self.folder / "go-on").touch()
        self.wait_until(lambda: self.logged.count(": Done") == 2, what="the end of both jobs")

    def test_job_finishes_at_the_end_of_supervisord(self) -> None:
        self.start_with_job()
        self.supervisord.terminate()
        self.wait_until(lambda: "stopping after" in self.logged, what="the signal to reach rbit")
        (self.folder / "go-on").touch()
        self.supervisord.wait(60.0)
        self.assert_done()

    def assert_done(self) -> None:
        """Fail unless the job has ended as it should, and rbit after it."""
        self.assertRegex(self.logged, r"message #1: Done\n")
        self.assertTrue(self.logged.endswith("INFO stopped\n"), self.logged)
        self.assertEqual(self.depth(self.queue), 0)

    def test_killed_rbit_is_started_again_and_leaves_no_process(self) -> None:
        rbit = self.start_with_job()
        below = [*descendants(rbit), int((self.folder / "child").read_text())]
        self.assertGreater(len(below), 2)
        processes = [psutil.Process(pid) for pid in below]
        psutil.Process(rbit).send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=30.0)
        self.assertEqual([process for process in processes if process.is_running() and is_alive(process.pid)], [])
        self.wait_for_jobs(2)  # its message came again
        self.wait_for_state("RUNNING")
        self.assertNotEqual(int(self.ctl("pid", "rbit")), rbit)
        (self.folder / "go-on").touch()
        self.wait_until(lambda: "message #1: Done" in self.logged, what="the end of the job")

    def test_second_signal_ends_the_job_and_rbit_is_not_started_again(self) -> None:
        self.start_with_job()
        for said in ("stopping after", "INFO stopped\n"):
            self.ctl("signal", "TERM", "rbit")
            self.wait_until(lambda said=said: said in self.logged, what=said)
        self.wait_for_state("EXITED")
        self.assertEqual(self.depth(self.queue), 1)

    def test_mistake_in_the_configuration_is_fatal_at_once(self) -> None:
        # On a machine that is busy a start may take longer than the example says.
        self.start(self.ini({}, rbit={"nam": "x"}), **{"startsecs=5": "60"})
        self.wait_for_state("FATAL")
        self.assertEqual(self.logged.count("[rbit] nam: "), 1, self.logged)
        noted = (self.folder / "supervisord.log").read_text("utf-8")
        self.assertEqual(noted.count("spawned: 'rbit'"), 1, noted)
        self.assertIn(f"exit status {errors.EXIT_CONFIG}", noted)

    def test_mistake_that_a_slow_start_finds_late_does_not_restart_it(self) -> None:
        self.start(self.ini({}, rbit={"nam": "x"}), **{"startsecs=5": "0"})
        self.wait_for_state("EXITED")
        noted = (self.folder / "supervisord.log").read_text("utf-8")
        self.assertIn(f"exit status {errors.EXIT_CONFIG}; expected", noted)


if __name__ == "__main__":
    unittest.main()
