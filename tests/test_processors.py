"""Processors of other distributions: found, used on real jobs, and every way in which one can be wrong.

rbit is the real command. Distributions are installed into folders of the tests, which PYTHONPATH names.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path

from tests.support.case import BrokerCase, write_ini
from tests.support.rbit_process import RbitProcess
from tests.support.readme import ROOT, commands, example

REQUEST = (ROOT / "tests" / "captures" / "build_request.json").read_bytes()
RUNNER = '''
import os, sys, threading
import rbit
from rbit.runners import Call, Command

class Plain:
    mistakes = warnings = ()

    def __init__(self, rest, section):
        self.rest = rest

    def prepare(self, message, facts):
        return Call(self.rest)

    def probe(self):
        return None
'''
BAD = f'''{RUNNER}
number = 3

class Raises(Plain):
    def __init__(self, rest, section):
        raise ValueError("two\\nlines \\x1b[2J")

class Exits(Plain):
    def __init__(self, rest, section):
        sys.exit(0)

class Ends(Plain):
    def __init__(self, rest, section):
        raise GeneratorExit("over")

class Idle:
    mistakes = warnings = ()

    def __init__(self, rest, section):
        pass

class Texts(Plain):
    mistakes = "one text"

class Warns(Plain):
    warnings = [1]

class Finds(Plain):
    mistakes = ["this is\\nwrong", "that too"]

class Probes(Plain):
    def probe(self):
        raise {{}}["key"]

class Breaks(Plain):
    def probe(self):
        raise GeneratorExit

class Asks(Plain):
    def probe(self):
        return ["true"]

class Fails(Plain):
    def probe(self):
        return ["/bin/sh", "-c", "echo not here >&2; exit 3"]

def nothing(rest, section):
    return None
'''
# What is told of a section that names one of these, at the start and by --check.
BROKEN = {
    "absent = nowhere:Runner": "cannot be loaded: ModuleNotFoundError: No module named 'nowhere'",
    "noattr = bad:Missing": "cannot be loaded: AttributeError: module 'bad' has no attribute 'Missing'",
    "number = bad:number": "is no factory: bad:number is of the type int",
    "raises = bad:Raises": r"cannot make a runner of this: ValueError: two lines \x1b[2J",
    "leaves = leaves:Runner": "cannot be loaded: GeneratorExit: over",
    "ends = bad:Ends": "cannot make a runner of this: GeneratorExit: over",
    "exits = bad:Exits": "cannot make a runner of this: SystemExit: 0",
    "idle = bad:Idle": "makes no runner: Idle has no method prepare and no probe",
    "texts = bad:Texts": "cannot make a runner of this: TypeError: mistakes is no list of texts",
    "warns = bad:Warns": "cannot make a runner of this: TypeError: warnings is no list of texts",
    "nothing = bad:nothing":
        "cannot make a runner of this: AttributeError: 'NoneType' object has no attribute 'mistakes'",
}
UNCHECKED = {
    "probes = bad:Probes": "cannot be checked: KeyError: 'key'",
    "breaks = bad:Breaks": "cannot be checked: GeneratorExit",
    "asks = bad:Asks": "cannot be checked: ValueError: expected the whole path of a command's program, got 'true'",
}
PLANS = f'''{RUNNER}
class Odd(Plain):
    def prepare(self, message, facts):
        assert threading.current_thread() is not threading.main_thread()
        return eval(message.body)

def leave():
    sys.exit(3)

def interrupt():
    raise KeyboardInterrupt

class Mute(Exception):
    def __str__(self):
        raise ValueError

class Leaves(Exception):
    def __str__(self):
        sys.exit(4)

def throw(error):
    raise error
'''
PLAN = "the processor odd! of plans 1.0 failed: "
# Bodies, each with the end of its job.
ENDS = {
    "throw(KeyError('that'))": f"Failed: {PLAN}KeyError: 'that'",
    "throw(Mute())": f"Failed: {PLAN}Mute",
    "throw(Leaves())": f"Failed: {PLAN}Leaves",
    "leave()": f"Failed: {PLAN}SystemExit: 3",
    "interrupt()": f"Failed: {PLAN}KeyboardInterrupt",
    "throw(rbit.Failed('no such thing'))": "Failed: no such thing",
    "throw(rbit.Failed('half \\ud800'))": "Failed: half \\ud800",
    "throw(rbit.Blocked('not yet'))": "Blocked: not yet",
    "None": f"Failed: {PLAN}TypeError: prepare() returned neither a Call nor a Command, but a NoneType",
    "Call('nothing')":
        f"Failed: {PLAN}ValueError: expected package.module:callable as the target of a Call, got 'nothing'",
    "Call(3)": f"Failed: {PLAN}ValueError: expected package.module:callable as the target of a Call, got 3",
    "Command([])": f"Failed: {PLAN}TypeError: the arguments of a command are no list of texts, or there are none",
    "Command(['true'])": f"Failed: {PLAN}ValueError: expected the whole path of a command's program, got 'true'",
    "Command(['/bin/true', 'a\\0'])":
        f"Failed: {PLAN}TypeError: an argument or a variable of a command is no text, or holds a NUL character",
    "Command(['/bin/true'], {'A=': 'x'})":
        f"Failed: {PLAN}ValueError: a variable of a command has no proper name: 'A='",
    "Command(['/bin/sh', '-c', 'echo Uploaded $A >&$RBIT_STATUS_FD'], {'A': 'there'})": "Uploaded: there",
    "Call('os:getcwd')": "Failed: TypeError",
}


class ProcessorsCase(BrokerCase):
    """A test with a folder, ``self.folder``, on the PYTHONPATH of its rbit."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def register(self, name: str, points: str, module: str = RUNNER) -> None:
        """Install a distribution with one module, both of this name, and entry points."""
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[rbit.runners]\n{points}\n")
        (self.folder / f"{name}.py").write_text(module)

    def run_rbit(self, runners: Mapping[str, str], *arguments: str, status: int) -> RbitProcess:
        """Run rbit with a queue of the test for each runner, by its name, to its end."""
        text = self.ini({queue: {"runner": runner} for queue, runner in runners.items()})
        rbit = self.rbit(text, *arguments, environment={"PYTHONPATH": str(self.folder)})
        self.assertEqual(rbit.wait(60), status, rbit.output)
        return rbit


class ExampleTest(ProcessorsCase):
    @example("processor pyproject.toml", "processor rbit_program.py", "processor install", "processor rbit.ini")
    def test_the_example_is_installed_checked_and_runs_a_job(
        self, project: str, module: str, install: str, section: str
    ) -> None:
        source = self.folder / "source"
        source.mkdir()
        (source / "pyproject.toml").write_text(project)
        (source / "rbit_program.py").write_text(module)
        [command] = commands(install)
        pip = [sys.executable, "-m", *command.removeprefix("~/rbit/bin/").split()]
        # Not into the environment of the tests.
        kept = ["--target", str(self.folder / "target"), "--no-deps", "--no-index", "--no-build-isolation"]
        done = subprocess.run([*pip, *kept], cwd=source, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

        queue = "cnx_any_html_print"
        self.addCleanup(self.channel.queue_delete, queue)
        self.publish(queue, REQUEST)
        text = self.ini({}) + section
        environment = {"PYTHONPATH": str(self.folder / "target")}
        check = self.rbit(text, "--check", environment=environment)
        self.assertEqual(check.wait(60), 0, check.output)
        self.assertEqual(check.stdout_lines, [f'{queue}: program!echo "now printed:" (messages waiting: 1)'])
        rbit = self.rbit(text, "--once", environment=environment)
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertRegex(rbit.output, f"{queue} job 1: now printed: --package=\\S+\n")
        wrong = self.rbit(text.replace("!echo", "!no-such-program"), environment=environment)
        self.assertEqual(wrong.wait(60), 78)
        mistake = f"rbit.ini: [runner:{queue}] runner: there is no program 'no-such-program' on the PATH"
        self.assertEqual(wrong.stderr_lines, [mistake])


class MistakesTest(ProcessorsCase):
    def mistakes(self, *arguments: str, **runners: str) -> dict[str, list[str]]:
        """Run rbit, which refuses; return the mistakes of each section, by its name."""
        rbit = self.run_rbit(runners, *arguments, status=78)
        self.assertNotIn("Traceback", rbit.output)
        found: dict[str, list[str]] = {}
        for line in rbit.stderr_lines:
            place, mark, mistake = line.partition("] runner: ")
            self.assertTrue(mark, line)
            found.setdefault(place.removeprefix("rbit.ini: [runner:"), []).append(mistake)
        return found

    def test_whatever_is_wrong_with_a_processor_is_a_mistake_of_its_sections(self) -> None:
        self.register("bad", "\n".join([*BROKEN, *UNCHECKED, "finds = bad:Finds", "fails = bad:Fails"]), BAD)
        (self.folder / "leaves.py").write_text("raise GeneratorExit('over')\n")
        expected = {
            name: [f"the processor {name}! of bad 1.0 {mistake}"]
            for name, mistake in ((point.split()[0], mistake) for point, mistake in BROKEN.items())
        }
        expected["finds"] = ["this is wrong", "that too"]
        self.assertEqual(self.mistakes(**{name: f"{name}!x" for name in expected}), expected)
        for point, mistake in UNCHECKED.items():
            name = point.split()[0]
            expected[name] = [f"the processor {name}! of bad 1.0 {mistake}"]
        expected["fails"] = ["not here"]
        self.assertEqual(self.mistakes("--check", **{name: f"{name}!x" for name in expected}), expected)

    def test_unknown_processor_is_answered_with_those_that_there_are(self) -> None:
        self.register("plain", "plain = plain:Plain")
        known = "expected one of plain!..., python!..., shell!..., got"
        found = self.mistakes(a="plan!x", b="plain", c="nothing!x")
        self.assertEqual(found["a"], [f"{known} 'plan!x'; did you mean plain!?"])
        self.assertEqual((found["b"], found["c"]), ([f"{known} 'plain'"], [f"{known} 'nothing!x'"]))

    def test_name_that_two_distributions_register_is_refused_with_both(self) -> None:
        self.register("one", "double = one:Plain")
        self.register("two", "double = two:Plain\nsingle = two:Plain")
        both = "the processor double! is registered by one 1.0 and two 1.0; uninstall all of them but one"
        self.assertEqual(self.mistakes(a="double!x", b="single!x", c="shell!true"), {"a": [both]})

    def test_nothing_takes_the_place_of_rbits_own(self) -> None:
        self.register("evil", "python = evil:Plain\nshell = evil:Plain")
        found = self.mistakes(python="python!os:getcwd", shell="shell!true")
        for name in ("python", "shell"):
            [mistake] = found[name]
            self.assertRegex(mistake, rf"^the processor {name}! is registered by evil 1.0 and rbit \d\S+; uninst")

    def test_processor_that_no_section_names_is_not_loaded(self) -> None:
        self.register("noisy", "noisy = noisy:Plain", f"print('loaded')\n{RUNNER}")
        self.assertNotIn("loaded", self.run_rbit({self.queue_name(): "shell!true"}, "--once", status=0).output)
        self.assertIn("loaded", self.run_rbit({self.queue_name(): "noisy!a:b"}, "--once", status=0).output)

    def test_rbit_that_is_not_installed_says_so(self) -> None:
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if "rbit" not in entry.name:
                (self.folder / entry.name).symlink_to(entry)
        (self.folder / "rbit").symlink_to(ROOT / "rbit")
        text = write_ini({"rbit": {"name": "a"}, "amqp": {"port": 1}, "runner:q": {"runner": "shell!true"}})
        start = "import sys; from rbit.cli import main; sys.exit(main())"
        rbit = self.rbit(text, command=(sys.executable, "-S", "-c", start),
                         environment={"PYTHONPATH": str(self.folder)})
        self.assertEqual(rbit.wait(60), 78, rbit.output)
        mistake = "rbit.ini: [runner:q] runner: rbit is not installed in this Python, "
        self.assertEqual(rbit.stderr_lines[0][: len(mistake)], mistake)


class JobsTest(ProcessorsCase):
    def test_whatever_prepare_does_ends_one_job_and_not_the_client(self) -> None:
        self.register("plans", "odd = plans:Odd", PLANS)
        queue = self.queue_name()
        for body in ENDS:
            self.publish(queue, body, message_id=body)
        rbit = self.run_rbit({queue: "odd!x"}, "--once", status=1)
        for number, (body, end) in enumerate(ENDS.items(), 1):
            with self.subTest(body):
                label = f"{queue} message {body[:80]}"
                found = [line.partition(f"{label}: ")[2] for line in rbit.stdout_lines if f"{label}: " in line]
                self.assertTrue(any(line.startswith(end) for line in found), f"{number}: {end!r} in {found}")
        # A stranger's code is found by its traceback.
        self.assertIn('plans.py", line', rbit.output)
        self.assertNotIn("rbit itself failed", rbit.output)
        self.assertEqual(self.depth(queue), 0)
        self.assertEqual(self.depth(f"{queue}.failed"), len(ENDS) - 2)

    def test_call_of_a_processor_gets_the_settings_and_may_decode_if_its_section_says_so(self) -> None:
        job = "def job(message, set_status, settings):\n    print(settings['key'], message.body.decode())\n"
        self.register("plain", "plain = plain:Plain", f"{RUNNER}\n{job}")
        queue = self.queue_name()
        body = '{"py/object": "any.Class"}'
        self.publish(queue, body)
        keys = {"runner": "plain!plain:job", "key": "value", "unsafe_jsonpickle": "yes"}
        rbit = self.rbit(self.ini({queue: keys}), "--once", environment={"PYTHONPATH": str(self.folder)})
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertIn(f"value {body}", rbit.output)


if __name__ == "__main__":
    unittest.main()
