"""Odd beginnings and ends of the command: early and late signals, hostile folders, ``--check``, stuck readers."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from rbit.output import LONGEST_LINE, Lines
from tests.support.case import BrokerCase
from tests.support.rbit_process import RbitProcess, rbit_command

ANY_BROKER = {"host": "127.0.0.1", "port": 9}
LATE = '''
import os, sys

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, 2)
        kill(pid, 15)

sys.late = Late()
'''
HOLDS = '''
import subprocess
child = subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; echo $$ >pid; sleep 1000 & wait"])
while True:
    try:
        if open("pid").read().strip():
            break
    except OSError:
        pass
def job(message, set_status, settings):
    pass
'''
SHADOWS = "rbit json queue socket pickle traceback typing importlib contextlib jsonpickle".split()


class SignalTest(BrokerCase):
    def test_signal_while_modules_are_loaded_is_a_plain_end(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            for module in ("argparse", "pika"):
                with self.subTest(number, module=module):
                    text = f"import os, time\nos.kill(os.getpid(), {number:d})\ntime.sleep(60)\n"
                    files = {f"path/{module}.py": text}
                    rbit = self.rbit(self.ini({}), files=files, environment={"PYTHONPATH": "path"})
                    self.assertEqual((rbit.wait(), rbit.lines), (0, []))

    def test_signals_in_the_very_end_do_not_change_the_exit_status(self) -> None:
        for arguments, status in ((("--once",), 0), (("--version",), 0), (("--nonsense",), 64)):
            with self.subTest(arguments):
                rbit = self.rbit(self.ini({}), *arguments, files={"path/sitecustomize.py": LATE},
                                 environment={"PYTHONPATH": "path"})
                self.assertEqual(rbit.wait(), status, rbit.output)
                self.assertNotIn("Traceback", rbit.output)


class FolderTest(BrokerCase):
    def test_modules_of_the_user_with_names_of_rbit_and_python_harm_nothing(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "x")
        files = {f"{name}.py": "raise RuntimeError('mine')\n" for name in SHADOWS}
        jobs = "import mine\ndef job(message, set_status, settings):\n    set_status('Done', mine.WORD)\n"
        files |= {"jobs.py": jobs, "mine.py": "WORD = 'found'\n"}
        text = self.ini({queue: {"runner": "python!jobs:job"}})
        self.assertEqual(self.rbit(text, "--check", files=files).wait(60), 0)
        rbit = self.rbit(text, "--once", files=files)
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertIn("Done: found", rbit.output)

    def test_folder_that_is_gone_is_named_as_the_reason(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "x")
        text = self.ini({queue: {"runner": "python!jobs:job"}})
        script = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" ../rbit.ini --once'
        rbit = self.rbit(None, "-c", script.replace("../rbit.ini", "$OLDPWD/rbit.ini"), *rbit_command(),
                         command=("sh",), files={"rbit.ini": text})
        rbit.wait_for_line("the folder in which rbit was started cannot be used: No such file or directory")
        rbit.stop()
        self.assertNotIn("Traceback", rbit.output)


# A module that is loaded to its end only while another one is being loaded.
MEETS = '''
import os, time
open(__name__, "w").close()
deadline = time.monotonic() + 20
while not (os.path.exists("one") and os.path.exists("two")):
    if time.monotonic() > deadline:
        raise TimeoutError("alone")
    time.sleep(0.01)
def job(message, set_status, settings):
    pass
'''


class CheckTest(BrokerCase):
    def test_modules_are_looked_at_side_by_side(self) -> None:
        text = self.ini({name: {"runner": f"python!{name}:job"} for name in ("one", "two")})
        rbit = self.rbit(text, "--check", files={"one.py": MEETS, "two.py": MEETS})
        self.assertEqual(rbit.wait(60), 0, rbit.output)

    def to(self, target: str, text: str, *arguments: str) -> RbitProcess:
        """Run rbit with its standard output at a place of the shell's."""
        return self.rbit(None, "-c", f'"$0" rbit.ini {" ".join(arguments)} {target}', *rbit_command(),
                         command=("bash", "-o", "pipefail"), files={"rbit.ini": text})

    def test_child_of_a_module_is_ended_and_not_waited_for(self) -> None:
        text = self.ini({"q": {"runner": "python!holds:job"}}, amqp=ANY_BROKER)
        rbit = self.rbit(text, "--check", files={"holds.py": HOLDS})
        self.assertEqual(rbit.wait(30), 0, rbit.output)  # it would be 60 s
        self.assertTrue((rbit.folder / "pid").exists())
        self.assertEqual(rbit.left_over(), [])

    def test_stdout_that_cannot_be_written_gives_one_line_and_74(self) -> None:
        many = {f"queue{n}": {"runner": "shell!true" + "x" * 500} for n in range(30)}
        for runners in ({"q": {"runner": "shell!true"}}, many):
            rbit = self.to(">/dev/full", self.ini(runners, amqp=ANY_BROKER), "--check", "2>said")
            self.assertEqual(rbit.wait(60), 74, rbit.output)
            said = (rbit.folder / "said").read_text().splitlines()
            self.assertEqual(said[-1], "rbit: standard output cannot be written: No space left on device")
            self.assertNotIn("Traceback", str(said))
        self.assertEqual(self.to(">/dev/full", "", "--version").wait(), 74)

    def test_reader_that_has_gone_changes_nothing(self) -> None:
        many = {f"queue{n}": {"runner": "shell!true " + "x" * 2000} for n in range(60)}
        rbit = self.to("| true", self.ini(many, amqp=ANY_BROKER), "--check")
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertNotRegex(rbit.output, "Traceback|Broken")

    def test_broker_is_asked_in_spite_of_other_mistakes(self) -> None:
        text = self.ini({"q": {"runner": "python!nowhere:f"}}, rbit={"nam": "x"}, amqp={"password": "wrong"})
        rbit = self.rbit(text, "--check")
        self.assertEqual(rbit.wait(), 78)
        for pattern in (r"\[rbit\] nam", r"\[runner:q\] runner: .*nowhere", r"\[amqp\]: .*refuses"):
            self.assertRegex(rbit.output, pattern)
        self.assertEqual(len(rbit.lines), 3, rbit.output)

    def test_broker_is_not_asked_when_its_section_has_mistakes(self) -> None:
        for amqp in ({"password": "wrong", "hots": "x"}, {"password": "wrong", "heartbeat": "0"}):
            rbit = self.rbit(self.ini({"q": {"runner": "shell!true"}}, amqp=amqp), "--check")
            self.assertEqual(rbit.wait(), 78)
            self.assertEqual(len(rbit.lines), 1, rbit.output)


class LogTest(BrokerCase):
    def test_reader_that_has_stopped_holds_up_nothing_and_lost_lines_are_counted(self) -> None:
        queue = self.queue_name()
        for _ in range(2):
            self.publish(queue, "x")
        line = "y" * 10_000
        text = self.ini({queue: {"runner": f"shell!yes {line} | head -n 1200"}})
        read, write = os.pipe()
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        (folder / "rbit.ini").write_text(text)
        command = [*rbit_command(), "rbit.ini"]
        with subprocess.Popen(command, cwd=folder, stdout=write, start_new_session=True) as rbit:
            try:
                os.close(write)
                self.wait_until(lambda: self.depth(queue) == 0, 60, "both messages to be acknowledged")
                rbit.send_signal(signal.SIGTERM)
                with os.fdopen(read, "rb") as pipe:
                    log = pipe.read().decode()
                self.assertEqual(rbit.wait(30), 0)
            finally:
                rbit.kill()
        self.assertRegex(log, r"WARNING [0-9]+ lines of the log are lost")
        lost = sum(int(part.split()[-1]) for part in log.split(" lines of the log are lost")[:-1])
        self.assertGreaterEqual(log.count(line) + lost, 2400, "each line is there or counted")

    def test_no_line_is_lost_when_much_is_printed(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "x")
        rbit = self.rbit(self.ini({queue: {"runner": "shell!seq 1 150000"}}), "--once")
        self.assertEqual(rbit.wait(60), 0)
        lines = [line for line in rbit.lines if "message #1: " in line and line[-1].isdigit()]
        numbers = [line.rsplit(": ", 1)[1] for line in lines]
        self.assertEqual(numbers, [str(n) for n in range(1, 150_001)])


class LinesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.addCleanup(self.selector.close)

    def test_long_lines_are_cut_between_characters(self) -> None:
        for shift in range(4):
            text = "x" * shift + "\u20ac\U0001d11e\u00e9" * 20_000
            for end in ("", "\n"):
                read, write = os.pipe()
                found: list[str] = []
                lines = Lines(read, found.append)
                data = (text + end).encode()
                while data:
                    data = data[os.write(write, data[:5000]) :]
                    lines.read()
                lines.drain()
                os.close(write)
                lines.close(self.selector)
                self.assertEqual("".join(found), text)
                self.assertLessEqual(max(len(line.encode()) for line in found), LONGEST_LINE)

    def test_carriage_return_where_a_long_line_is_cut_stays(self) -> None:
        for text in ("a" * (LONGEST_LINE - 1) + "\rb", "a" * (LONGEST_LINE - 1) + "\rb\n"):
            read, write = os.pipe()
            found: list[str] = []
            lines = Lines(read, found.append)
            os.write(write, text.encode())
            lines.drain()
            os.close(write)
            lines.close(self.selector)
            self.assertEqual("".join(found), text.rstrip("\n"))

    def test_bytes_that_are_no_text_are_cut_too(self) -> None:
        read, write = os.pipe()
        found: list[str] = []
        lines = Lines(read, found.append)
        os.write(write, b"\x80" * 40_000)
        lines.drain()
        os.close(write)
        lines.close(self.selector)
        self.assertEqual("".join(found), "\\x80" * 40_000)


if __name__ == "__main__":
    unittest.main()
