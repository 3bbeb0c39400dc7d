"""SIGHUP: what is new in the INI file counts, and no job and no connection is lost for it."""

from __future__ import annotations

import signal
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path

from rbit import changes, config
from rbit.settings import Config
from tests.support.case import BrokerCase, rbit_command
from tests.support.rbit_process import RbitProcess

JOBS = '''
import os, time

def note(line):
    with open("ran", "a") as file:
        file.write(line + "\\n")

def word(message, set_status, settings):
    note(f"{settings['word']} {message.body.decode()}")

def gate(message, set_status, settings):
    """Runs until the file named like the body exists."""
    name = message.body.decode()
    note(f"start {settings['word']} {name}")
    while not os.path.exists(name):
        time.sleep(0.02)
    note(f"end {settings['word']} {name}")

def pid(message, set_status, settings):
    note(f"{os.getpid()}")

def fails(message, set_status, settings):
    raise ValueError("no good")
'''
COUNTS = "rbit.ini counts from the next job on"
KEPT = "rbit.ini cannot be used as it is, so what was read before goes on to count"


def ran(rbit: RbitProcess) -> list[str]:
    """Return what the jobs wrote to their common file."""
    path = rbit.folder / "ran"
    return path.read_text().splitlines() if path.exists() else []


def section(function: str = "word", word: str = "old", **more: object) -> dict[str, object]:
    """Return a runner section."""
    return {"runner": f"python!jobs:{function}", "word": word, **more}


class Reloading(BrokerCase):
    """What the tests have in common."""

    def setUp(self) -> None:
        super().setUp()
        self.queue, self.other = self.queue_name("first"), self.queue_name("second")

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **sections: object
    ) -> RbitProcess:
        """Start rbit; keywords as of ``write``."""
        return self.rbit(self.text(**sections), *arguments, files={"jobs.py": JOBS}, environment=environment)

    def text(
        self, runners: Mapping[str, Mapping[str, object]] | None = None, amqp: Mapping[str, object] | None = None,
        pybit: Mapping[str, object] | None = None, **rbit: object,
    ) -> str:
        """Return an INI file. Arguments: the runner sections, one of ``word`` by default; further keys.

        No job is leased, or its message would leave its queue, if nothing else is said.
        """
        rbit = {"lease_after": 600, **rbit}
        return self.ini({self.queue: section()} if runners is None else runners, rbit=rbit, amqp=amqp, pybit=pybit)

    def write(self, rbit: RbitProcess, **sections: object) -> None:
        """Replace the INI file."""
        (rbit.folder / "rbit.ini").write_text(self.text(**sections))  # type: ignore[arg-type]

    def reload(self, rbit: RbitProcess, answer: str = COUNTS, **sections: object) -> str:
        """Replace the INI file, if there are keywords, send SIGHUP, and return the line that is the answer."""
        if sections:
            self.write(rbit, **sections)
        seen = len(rbit.lines)
        rbit.signal(signal.SIGHUP)

        def found() -> list[str]:
            return [line for line in rbit.lines[seen:] if answer in line]

        self.wait_until(found, what=lambda: f"{answer}; rbit wrote:\n{rbit.output}")
        return found()[0]

    def wait_for_runs(self, rbit: RbitProcess, *expected: str) -> None:
        """Wait until the jobs have written these lines."""
        self.wait_until(
            lambda: ran(rbit) == list(expected),
            what=lambda: f"{expected}, not {ran(rbit)}; rbit wrote:\n{rbit.output}",
        )

    def wait_for_acks(self, *queues: str) -> None:
        """Wait until queues have no message any more, neither ready nor unacknowledged."""
        for queue in queues:
            self.wait_until(lambda: self.depth(queue) == 0 == self.unacked(queue), what=f"empty {queue}")  # noqa: B023

    def connections(self) -> set[str]:
        """Return the broker's ids of rbit's connections, each with its name."""
        table = self.node.ctl("list_connections", "--no-table-headers", "pid", "client_properties")
        return {line for line in table.splitlines() if "rbit bob-villa" in line}


class SectionsTest(Reloading):
    def test_section_that_is_added_is_worked_off_on_the_same_connection(self) -> None:
        rbit = self.start()
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "old a")
        before = self.connections()
        self.assertTrue(before)
        self.publish(self.other, "b")
        line = self.reload(rbit, runners={self.queue: section(), self.other: section(word="new")})
        self.assertTrue(line.endswith(f": added: [runner:{self.other}]"), line)
        self.wait_for_runs(rbit, "old a", "new b")
        self.publish(self.queue, "c")
        self.wait_for_runs(rbit, "old a", "new b", "old c")
        self.wait_for_acks(self.queue, self.other)
        self.assertEqual(self.connections(), before)

    def test_queue_of_an_added_section_is_made_if_it_is_missing(self) -> None:
        rbit = self.start(runners={})
        rbit.wait_for_line("connected to RabbitMQ")
        self.reload(rbit, runners={self.queue: section()})
        rbit.wait_for_line(f"queue {self.queue} was missing and is created")
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "old a")

    def test_job_ends_under_the_section_with_which_it_began_and_the_next_gets_the_new_one(self) -> None:
        rbit = self.start(runners={self.queue: section("gate", concurrency=1)}, concurrency=2)
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "start old a")
        self.publish(self.queue, "b")
        changed = section("gate", "new", concurrency=1, on_failure="discard")
        line = self.reload(rbit, runners={self.queue: changed}, concurrency=2)
        self.assertTrue(line.endswith(f": changed: [runner:{self.queue}]"), line)
        # The queue's one job at once is the one from before.
        self.assertEqual((self.depth(self.queue), self.unacked(self.queue)), (1, 1))
        (rbit.folder / "a").touch()
        self.wait_for_runs(rbit, "start old a", "end old a", "start new b")
        (rbit.folder / "b").touch()
        self.wait_for_acks(self.queue)
        self.assertEqual(ran(rbit)[2:], ["start new b", "end new b"])

    def test_fate_of_a_running_job_is_that_of_its_section_and_rbit_keys_reach_the_next(self) -> None:
        failing = {"runner": "shell!until test -e go; do sleep 0.02; done; exit 1"}
        rbit = self.start(runners={self.queue: failing})
        self.publish(self.queue, "a")
        rbit.wait_for_line("Building")
        line = self.reload(rbit, runners={self.queue: failing}, on_failure="discard")
        self.assertTrue(line.endswith(f": changed: [runner:{self.queue}]"), line)
        (rbit.folder / "go").touch()
        rbit.wait_for_line("message #1: a copy of its message is in")
        self.publish(self.queue, "b")
        rbit.wait_for_line("message #2: Failed")
        self.wait_for_acks(self.queue)
        self.assertEqual(self.bodies(f"{self.queue}.failed"), [b"a"])

    def test_queue_that_is_taken_away_keeps_its_messages_and_its_running_job_is_acknowledged(self) -> None:
        rbit = self.start(runners={self.queue: section("gate"), self.other: section()})
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "start old a")
        self.publish(self.queue, "b")
        before = self.connections()
        line = self.reload(rbit, runners={self.other: section()})
        self.assertTrue(line.endswith(f": taken away: [runner:{self.queue}]"), line)
        self.assertEqual((self.depth(self.queue), self.unacked(self.queue)), (1, 1))
        channels = self.channels()
        (rbit.folder / "a").touch()
        self.wait_until(lambda: self.unacked(self.queue) == 0, what="the acknowledgement")
        self.wait_until(lambda: self.channels() == channels - 1, what="the end of its channel")
        self.publish(self.other, "c")
        self.wait_for_runs(rbit, "start old a", "end old a", "old c")
        self.assertEqual(self.connections(), before)
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual(self.bodies(self.queue), [b"b"])

    def test_queue_that_comes_back_while_its_job_runs_is_worked_off_again(self) -> None:
        rbit = self.start(runners={self.queue: section("gate")}, concurrency=2)
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "start old a")
        self.reload(rbit, runners={}, concurrency=2)
        self.reload(rbit, runners={self.queue: section()}, concurrency=2)
        self.publish(self.queue, "b")
        self.wait_for_runs(rbit, "start old a", "old b")
        (rbit.folder / "a").touch()
        self.wait_for_runs(rbit, "start old a", "old b", "end old a")
        self.wait_for_acks(self.queue)

    def test_leased_job_whose_queue_is_taken_away_keeps_its_lease_until_it_ends(self) -> None:
        rbit = self.start("--debug", runners={self.queue: section("gate")}, lease_after=0.1, lease_ttl=3)
        self.publish(self.queue, "a")
        rbit.wait_for_line("holds lease 1")
        self.reload(rbit, runners={}, lease_after=0.1, lease_ttl=3)
        held = len([line for line in rbit.lines if "holds lease" in line])
        rbit.wait_for_line(f"holds lease {held + 6}")  # for longer than the first one lasts
        (rbit.folder / "a").touch()
        self.wait_for_runs(rbit, "start old a", "end old a")
        rbit.wait_for_line("message #1: Done")
        lease = f"rbit.lease.bob-villa.{self.queue}"
        self.wait_for_acks(lease)
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual((self.depth(self.queue), self.depth(lease)), (0, 0))

    def channels(self) -> int:
        """Return how many channels rbit's first connection has."""
        table = self.node.ctl("list_connections", "--no-table-headers", "channels", "client_properties")
        return next(int(line.split("\t")[0]) for line in table.splitlines() if '"rbit bob-villa"' in line)


class KeysTest(Reloading):
    def test_more_slots_take_jobs_at_once_and_fewer_go_when_they_are_free(self) -> None:
        runners = {self.queue: section("gate")}
        rbit = self.start(runners=runners)
        for name in "abcd":
            self.publish(self.queue, name)
        self.wait_for_runs(rbit, "start old a")
        line = self.reload(rbit, runners=runners, concurrency=3)
        self.assertTrue(line.endswith(": changed: [rbit] concurrency"), line)
        self.wait_until(lambda: sorted(ran(rbit)) == [f"start old {name}" for name in "abc"], what="three jobs")
        self.reload(rbit, runners=runners, concurrency=1)
        (rbit.folder / "a").touch()
        (rbit.folder / "b").touch()
        self.wait_until(lambda: self.unacked(self.queue) == 1, what="the end of two jobs, and no new one")
        (rbit.folder / "c").touch()
        (rbit.folder / "d").touch()
        self.wait_for_acks(self.queue)
        self.assertEqual(ran(rbit)[-3:], ["end old c", "start old d", "end old d"])

    def test_more_slots_than_there_are_descriptors_for_change_nothing(self) -> None:
        runners = {self.queue: section("gate")}
        command = ("sh", "-c", 'ulimit -n 100 && exec "$0" "$@"', *rbit_command())
        rbit = self.rbit(self.text(runners=runners), files={"jobs.py": JOBS}, command=command)
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "start old a")
        self.reload(rbit, "no more than 1 jobs can run at once", runners=runners, concurrency=1000)
        self.publish(self.queue, "b")
        self.reload(rbit, runners=runners, concurrency=2)
        self.wait_for_runs(rbit, "start old a", "start old b")
        for name in "ab":
            (rbit.folder / name).touch()
        self.wait_for_acks(self.queue)

    def test_other_keys_of_rbit_count_and_the_command_line_wins(self) -> None:
        logs = {"log_dir": "logs", "worker_idle": 0.05}
        for arguments, polled in (((), True), (("--poll-time", "3000"), False)):
            with self.subTest(arguments):
                queue = self.queue_name(f"polled{polled}")
                rbit = self.start(*arguments, "--debug", runners={queue: section()}, polling_time=3000)
                (rbit.folder / "logs").mkdir()
                rbit.wait_for_line(f"queue {queue} was missing")
                line = self.reload(rbit, runners={queue: section()}, polling_time=0.2, **logs)
                self.assertIn(("polling_time, " if polled else "") + "worker_idle, log_dir", line)
                self.assertEqual("polling_time" in line, polled)
                if polled:
                    self.publish(queue, "a")
                    self.wait_for_runs(rbit, "old a")
                    rbit.wait_for_line("slot-1: idle for 0.05 s")
                    self.assertEqual(len(list((rbit.folder / "logs" / queue).iterdir())), 1)
                self.assertEqual(rbit.stop(), 0, rbit.output)

    def test_leases_and_the_stop_go_by_the_new_keys(self) -> None:
        runners = {self.queue: section("gate")}
        rbit = self.start("--debug", runners=runners, lease_after=600)
        rbit.wait_for_line("connected to RabbitMQ")
        line = self.reload(rbit, runners=runners, lease_after=0.1, lease_ttl=60, stop_timeout=0.5)
        self.assertTrue(line.endswith("[rbit] lease_after, lease_ttl, lease_renew, stop_timeout"), line)
        self.publish(self.queue, "a")
        rbit.wait_for_line("message #1: holds lease 1")
        rbit.signal(signal.SIGTERM)
        rbit.wait_for_line("0.5 s are over since the first signal")
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertEqual(self.bodies(self.queue), [b"a"])

    def test_keys_that_need_a_restart_are_named_without_values_and_the_rest_counts(self) -> None:
        rbit = self.start()
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "old a")
        self.wait_for_acks(self.queue)  # so its publisher is connected, too
        before = self.connections()
        pybit = {"url": "http://127.0.0.1:9", "password": "sesame"}
        line = self.reload(
            rbit, "wait for a restart", runners={self.queue: section(word="new")}, name="bob", stop_timeout=5,
            amqp={"host": "nowhere.invalid", "password": "sesame"}, pybit=pybit,
        )
        keys = "[rbit] name; [amqp] host, password; [pybit]"
        expected = f"rbit.ini: these keys have changed and wait for a restart: {keys}"
        self.assertTrue(line.endswith(expected), line)
        rbit.wait_for_line(rf"{COUNTS}.*: changed: \[runner:{self.queue}\]; changed: \[rbit\] stop_timeout$")
        self.publish(self.queue, "b")
        self.wait_for_runs(rbit, "old a", "new b")
        self.assertEqual(self.connections(), before)
        self.assertNotIn("sesame", rbit.output)
        self.assertNotIn("nowhere.invalid", rbit.output)
        self.reload(rbit)  # what has not been started again still waits
        self.assertEqual(rbit.output.count(expected), 2)

    def test_queue_that_is_still_the_default_queue_gets_no_section(self) -> None:
        rbit = self.start(default_queue=self.other)
        rbit.wait_for_line("connected to RabbitMQ")
        self.reload(rbit, KEPT, runners={self.queue: section(), self.other: section()})
        rbit.wait_for_line(rf"\[runner:{self.other}\]: this is still default_queue in \[rbit\]")

    def test_next_job_after_a_reload_runs_new_code(self) -> None:
        rbit = self.start(runners={self.queue: section("pid")})
        for number in range(2):
            self.publish(self.queue, "x")
            self.wait_until(lambda: len(ran(rbit)) == number + 1, what="the job")  # noqa: B023
        self.assertEqual(len(set(ran(rbit))), 1)
        (rbit.folder / "jobs.py").write_text(JOBS.replace('{os.getpid()}', 'new {os.getpid()}'))
        line = self.reload(rbit)
        self.assertTrue(line.endswith("on, which gets new processes: nothing has changed"), line)
        self.publish(self.queue, "x")
        self.wait_until(lambda: len(ran(rbit)) == 3, what="the job")
        self.assertRegex(ran(rbit)[2], "^new ")


class MistakesTest(Reloading):
    def test_mistakes_are_all_named_and_what_was_read_before_counts(self) -> None:
        rbit = self.start(runners={self.queue: section("gate")})
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "start old a")
        wrong = {self.queue: section("gate", timeout="soon"), self.other: {"runner": "perl!x"}}
        self.reload(rbit, KEPT, runners=wrong, concurrency=0, amqp={"hots": "x"})
        for place in (
            r"\[rbit\] concurrency: expected a number from 1 to 1000, got '0'", r"\[amqp\] hots: unknown key",
            rf"\[runner:{self.queue}\] timeout: expected a number of seconds",
            rf"\[runner:{self.other}\] runner: expected one of",
        ):
            rbit.wait_for_line(f"ERROR rbit.ini: {place}")
        (rbit.folder / "a").touch()
        self.publish(self.queue, "b")
        self.wait_for_runs(rbit, "start old a", "end old a", "start old b")
        self.reload(rbit, runners={self.queue: section("gate", "new")})
        (rbit.folder / "b").touch()
        (rbit.folder / "c").touch()
        self.publish(self.queue, "c")
        self.wait_until(lambda: ran(rbit)[-1] == "end new c", what=lambda: str(ran(rbit)))
        self.wait_for_acks(self.queue)
        self.assertEqual(self.depth(self.other), -1)

    def test_file_that_is_gone_or_cannot_be_read_changes_nothing(self) -> None:
        rbit = self.start()
        rbit.wait_for_line("connected to RabbitMQ")
        path = rbit.folder / "rbit.ini"
        text = path.read_text()
        path.unlink()
        self.reload(rbit, KEPT)
        rbit.wait_for_line("ERROR rbit.ini: no such file")
        path.mkdir()
        self.reload(rbit, KEPT)
        rbit.wait_for_line("ERROR rbit.ini: expected a file, got a directory")
        path.rmdir()
        path.write_bytes(b"\xff")
        self.reload(rbit, KEPT)
        rbit.wait_for_line("ERROR rbit.ini: line 1: expected UTF-8")
        self.publish(self.queue, "a")
        self.wait_for_runs(rbit, "old a")
        path.write_text(text.replace("= old", "= new"))
        self.reload(rbit)
        self.publish(self.queue, "b")
        self.wait_for_runs(rbit, "old a", "new b")


class WordsTest(unittest.TestCase):
    def test_keys_that_wait_are_named_as_in_the_file(self) -> None:
        tls = "[amqp]\nssl = yes\n"
        plain = "[loggers]\nkeys = root\n[handlers]\nkeys =\n[formatters]\nkeys =\n[logger_root]\nhandlers =\n"
        web = "[amqp]\n[pybit]\nurl = http://localhost\n"
        for old, new, expected in (
            ("[amqp]\n", "[amqp]\npassword_env = HOME\n", "[amqp] password, password_env"),
            (tls, f"{tls}verify = no\n", "[amqp] verify"),
            ("[amqp]\nport = 5671\n", tls, "[amqp] ssl"),
            (web, f"{web}timeout = 1\ngate_timeout = 1\n", "[pybit] timeout, gate_timeout"),
            (web, "[amqp]\n", "[pybit]"),
            ("[amqp]\n", f"[amqp]\n{plain}", "the logging sections"),
            (f"[amqp]\n{plain}", f"[amqp]\n{plain.replace('root]', 'root]' + chr(10) + 'level = INFO')}",
             "the logging sections"),
            ("[amqp]\nport = 5672\n", "[amqp]\nheartbeat = 30\n", ""),
        ):
            with self.subTest(expected):
                self.assertEqual(changes.waiting(self.read(old), self.read(new)), expected)

    def read(self, text: str) -> Config:
        """Return a configuration."""
        with tempfile.TemporaryDirectory(prefix="rbit-test-") as folder:
            path = Path(folder) / "rbit.ini"
            path.write_text(f"[rbit]\nname = bob\n{text}", "utf-8")
            return config.read(str(path))


if __name__ == "__main__":
    unittest.main()
