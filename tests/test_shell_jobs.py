"""``shell!`` jobs: what they are given, how their end is read, and what is left of them."""

from __future__ import annotations

import json
import unittest
from pathlib import Path

import psutil

from tests.support.case import BrokerCase
from tests.support.processes import is_alive
from tests.support.rbit_process import RbitProcess

CAPTURE = (Path(__file__).parent / "captures" / "build_request.json").read_bytes()
NASTY = "a b'c\"d$(touch canary)`touch canary`;touch canary\n*|&<>\\ \u00e9"


def request(**names: object) -> bytes:
    """Return a build request with other names; keys are package, version, uri, ..."""
    body = json.loads(CAPTURE)
    instance = body["job"]["packageinstance"]
    for name, value in names.items():
        if name == "package":
            instance["package"]["name"] = value
        elif name == "version":
            instance["package"]["version"] = value
        elif name in ("uri", "method"):
            body["transport"][name] = value
        else:
            instance[name]["name"] = value
    return json.dumps(body).encode()


class ShellJobTest(BrokerCase):
    def run_once(self, command: str, *bodies: str | bytes, **keys: object) -> RbitProcess:
        self.queue = self.queue_name()
        for body in bodies:
            self.publish(self.queue, body)
        rbit = self.rbit(self.ini({self.queue: {"runner": f"shell!{command}", **keys}}), "--once")
        self.status = rbit.wait(60)
        self.assertEqual(self.depth(self.queue), 0)
        if "Blocked" in rbit.output:
            self.assertEqual(len(self.bodies(f"{self.queue}.retry")), 1)
        return rbit

    def test_body_is_on_standard_input(self) -> None:
        rbit = self.run_once("cat >got", b"any \x00 bytes\n")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual((rbit.folder / "got").read_bytes(), b"any \x00 bytes\n")

    def test_body_of_20_megabytes_reaches_a_command_that_reads_it_late_or_not_at_all(self) -> None:
        body = b"0123456789abcdef" * 1_250_000
        rbit = self.run_once("sleep 0.2; wc -c >size", body)
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual((rbit.folder / "size").read_text().strip(), "20000000")
        rbit = self.run_once("true", body)
        self.assertEqual(self.status, 0, rbit.output)

    def test_all_placeholders_have_the_values_of_the_build_request(self) -> None:
        rbit = self.run_once(
            "printf '%s\\n' %ID %VERSION %JOB %ARCH %SUITE %DIST %FORMAT %URI %QUEUE "
            "'%ID_%VERSION.pdf' 100%% >got",
            CAPTURE,
        )
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual((rbit.folder / "got").read_text().splitlines(), [
            "col11406", "1.0", "1", "any", "latex", "cnx", "pdf", "http://example.org/content/col11406?a=1&b=2",
            self.queue, "col11406_1.0.pdf", "100%",
        ])

    def test_value_from_a_stranger_never_becomes_shell_text(self) -> None:
        rbit = self.run_once(
            "python3 -c 'import sys, json; json.dump(sys.argv[1:], open(\"got\", \"w\"))' "
            "%ID \"<%ID>\" '<%ID>' \"$(printf %%s %ID)\"",
            request(package=NASTY),
        )
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual(
            json.loads((rbit.folder / "got").read_text()), [NASTY, f"<{NASTY}>", f"<{NASTY}>", NASTY]
        )
        self.assertEqual(sorted(path.name for path in rbit.folder.iterdir()), ["got", "rbit.ini"])

    def test_settings_are_in_the_environment_and_no_outer_rbit_variable_is(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "no build request")
        runner = {"runner": "shell!env >got", "print-dir": "a b", "Depth": "2"}
        rbit = self.rbit(self.ini({queue: runner}), "--once", environment={"RBIT_ID": "outer", "OTHER": "kept"})
        self.assertEqual(rbit.wait(), 0, rbit.output)
        got = (rbit.folder / "got").read_text().splitlines()
        self.assertLessEqual(
            {"RBIT_SETTING_PRINT_DIR=a b", "RBIT_SETTING_DEPTH=2", f"RBIT_QUEUE={queue}", "OTHER=kept"}, set(got)
        )
        self.assertFalse([line for line in got if line.startswith("RBIT_ID=")])

    def test_value_with_a_nul_is_failed_and_nothing_runs(self) -> None:
        rbit = self.run_once("touch ran %ID", request(package="a\0b"))
        self.assertRegex(rbit.output, "job 1: Failed: the value of RBIT_ID holds a NUL character")
        self.assertFalse((rbit.folder / "ran").exists())

    def test_value_that_is_no_text_is_failed(self) -> None:
        rbit = self.run_once("touch ran %ID", request(package="a\ud800"))
        self.assertRegex(rbit.output, "Failed: the value of RBIT_ID is no text")
        self.assertFalse((rbit.folder / "ran").exists())

    def test_value_too_long_for_an_environment_is_failed_and_the_next_job_runs(self) -> None:
        for length in (150_000, 500_000):
            with self.subTest(length):
                rbit = self.run_once("echo %URI | wc -c", request(uri="u" * length), CAPTURE)
                self.assertRegex(rbit.output, "job 1: Failed: .*(too long|bytes; at most)")
                self.assertRegex(rbit.output, "job 1: Done")

    def test_refused_commands_leave_no_descriptor_open(self) -> None:
        queue = self.queue_name()
        rbit = self.rbit(self.ini({queue: {"runner": "shell!echo %URI"}}))
        for count in (1, 21):
            for _ in range(count):
                self.publish(queue, request(uri="u" * 300_000))
            self.wait_until(lambda count=count: rbit.output.count(": Failed") >= count, what="refusals")
            if count == 1:  # and all connections are made
                self.wait_until(lambda: self.depth(f"{queue}.failed") == 1, what="the parked message")
                before = psutil.Process(rbit.pid).num_fds()
        self.wait_until(lambda: rbit.output.count(": Failed") == 22, what="all refusals")
        self.assertLessEqual(psutil.Process(rbit.pid).num_fds(), before + 2)
        self.assertEqual(rbit.stop(), 0)

    def test_placeholder_needs_a_build_request(self) -> None:
        rbit = self.run_once("touch ran %ID %VERSION", "hello")
        self.assertEqual(self.status, 1)
        self.assertRegex(rbit.output, "Failed: the command needs %ID %VERSION from a PyBit build request")
        self.assertFalse((rbit.folder / "ran").exists())

    def test_exit_statuses_become_statuses_in_words(self) -> None:
        for command, words in (
            ("exit 0", "Done"),
            ("exit 75", "Blocked: exit status 75"),
            ("exit 3", "Failed: exit status 3"),
            ("echo one >&2; echo two >&2; exit 4", "Failed: exit status 4: one\n    two"),
            ("no-such-command", r"Failed: exit status 127 \(command not found\): .*no-such-command.*not found"),
            ("./rbit.ini", r"Failed: exit status 126 \(not executable\)"),
            ("kill -TERM $$", r"Failed: killed by signal 15 \(SIGTERM\)"),
            ("kill -KILL $$", r"Failed: killed by signal 9 \(SIGKILL, perhaps out of memory\)"),
            ("sh -c 'kill -SEGV $$'; exit $?", r"Failed: exit status 139 \(killed by signal 11 \(SIGSEGV\)\)"),
        ):
            with self.subTest(command):
                rbit = self.run_once(command, "a")
                self.assertRegex(rbit.output, f"message #1: {words}")
                self.assertEqual(self.status, 0 if words == "Done" else 1)

    def test_lines_on_the_status_descriptor_are_statuses(self) -> None:
        rbit = self.run_once(
            'echo "Building half way" >&$RBIT_STATUS_FD; echo Uploaded to the shelf >&"$RBIT_STATUS_FD"', "a"
        )
        self.assertEqual(self.status, 0, rbit.output)
        self.assertRegex(rbit.output, "(?s)Building: half way\n.*Uploaded: to the shelf")
        self.assertEqual(rbit.output.count("Uploaded"), 1)
        self.assertNotIn("Done", rbit.output)

    def test_command_has_no_descriptors_but_its_own(self) -> None:
        rbit = self.run_once("ls /proc/self/fd | tr '\\n' ' '", "a")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertRegex(rbit.output, "message #1: 0 1 2 3 4 \n", "4 is that of ls itself")

    def test_last_status_line_needs_no_newline(self) -> None:
        rbit = self.run_once('printf "Failed by itself" >&$RBIT_STATUS_FD', "a")
        self.assertEqual(self.status, 1)
        self.assertRegex(rbit.output, "Failed: by itself")

    def test_output_reaches_the_log_line_by_line_as_it_comes(self) -> None:
        queue = self.queue_name()
        self.publish(queue, "a")
        command = "echo out; echo err >&2; while [ ! -e go ]; do sleep 0.02; done; printf last"
        rbit = self.rbit(self.ini({queue: {"runner": f"shell!{command}"}}), "--once")
        rbit.wait_for_line("message #1: out")
        rbit.wait_for_line("message #1: err")
        (rbit.folder / "go").touch()
        self.assertEqual(rbit.wait(), 0, rbit.output)
        self.assertRegex(rbit.output, "message #1: last\n")

    def test_background_child_that_holds_the_output_is_ended_and_logged(self) -> None:
        rbit = self.run_once("sleep 1000 & setsid sleep 1001 & echo started", "a")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertRegex(rbit.output, "message #1: started")
        line = next(line for line in rbit.lines if "ended what it had left running" in line)
        self.assertEqual(line.count("(process"), 2)

    def test_timeout_ends_the_tree_and_output_until_then_is_kept(self) -> None:
        command = "echo begun; setsid sh -c 'echo $$ >far; exec sleep 1000' & sleep 1000"
        rbit = self.run_once(command, "a", timeout=1.5)
        self.assertEqual(self.status, 1)
        self.assertRegex(rbit.output, "message #1: begun")
        self.assertRegex(rbit.output, "message #1: Failed: timed out after 1.5 s")
        self.assertFalse(is_alive(int((rbit.folder / "far").read_text())))

    def test_command_may_hold_exclamation_marks_colons_and_percent_signs(self) -> None:
        rbit = self.run_once("echo 'a!b:c' $(date +%Y) 100% %5 >got", "a")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertRegex((rbit.folder / "got").read_text(), r"^a!b:c 20\d\d 100% %5\n$")

    def test_command_of_several_lines(self) -> None:
        rbit = self.run_once("set -e\n    for x in 1 2; do\n      echo $x\n    done >got", "a")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertEqual((rbit.folder / "got").read_text(), "1\n2\n")

    def test_signals_have_their_defaults_in_a_command(self) -> None:
        # The kernel's own word; bit N-1 stands for signal N. Python ignores SIGPIPE, the keeper ignores others.
        # glibc leaves two real-time signals of its own (32 and 33) ignored in what it spawns.
        rbit = self.run_once("grep -e SigIgn -e SigBlk /proc/self/status", "a")
        self.assertEqual(self.status, 0, rbit.output)
        self.assertRegex(rbit.output, "SigBlk:\t0000000000000000\n")
        self.assertRegex(rbit.output, "SigIgn:\t0000000[01]80000000\n|SigIgn:\t0000000000000000\n")

    def test_bomb_of_jsonpickle_is_failed_and_nothing_runs(self) -> None:
        bomb = b'{"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["touch canary"]}]}'
        rbit = self.run_once("touch ran", bomb)
        self.assertEqual(self.status, 1)
        self.assertRegex(rbit.output, "message #1: Failed: .*py/")
        self.assertEqual([path.name for path in rbit.folder.iterdir()], ["rbit.ini"])


if __name__ == "__main__":
    unittest.main()
