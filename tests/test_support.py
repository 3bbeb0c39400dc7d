"""The helpers of the tests, tested: the private node, the watched command, the broker's test case."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import unittest
from pathlib import Path

import pika
import psutil

from tests.support.case import BrokerCase, RbitProcess, ini, require_broker
from tests.support.node import NodeError, PrivateNode
from tests.support.processes import descendants, free_port, is_alive
from tests.support.waiting import wait_until

ROOT = Path(__file__).parent.parent
LOOPBACK = {"127.0.0.1", "::1"}  # epmd adds ::1 by itself
ORPHAN = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, flush=True)"
START = "from tests.support.node import PrivateNode; PrivateNode().start()"
NO_RABBITMQ = """
import os, pathlib, sys, unittest
from tests.support import case, erlang
erlang.DEBIAN_SERVER = pathlib.Path("/nowhere")
os.environ["PATH"] = ""
class Sample(case.BrokerCase):
    def test_anything(self): pass
unittest.main(argv=["sample", "-v"])
"""


def python(program: str, **environment: str) -> subprocess.Popen[str]:
    """Start a Python that can import the helpers; its output is a pipe, with both streams."""
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )


class PrivateNodeTest(unittest.TestCase):
    """What the private node promises."""

    def setUp(self) -> None:
        require_broker(self)

    def assert_gone(self, pids: list[int], folder: Path | None) -> None:
        wait_until(lambda: not any(is_alive(pid) for pid in pids), 15.0, f"the end of {pids}")
        assert folder is not None
        wait_until(lambda: not folder.exists(), 15.0, f"the end of {folder}")

    def test_node_listens_on_loopback_only_and_leaves_nothing_behind(self) -> None:
        node = PrivateNode()
        self.addCleanup(node.stop)
        node.start()
        family = [*node.pids, *(child for pid in node.pids for child in descendants(pid))]
        self.assertEqual(["beam.smp", "epmd"], [psutil.Process(pid).name() for pid in node.pids[:2]])
        for pid in family:
            sockets = psutil.Process(pid).net_connections("inet")
            listening = {entry.laddr.ip for entry in sockets if entry.status == psutil.CONN_LISTEN}
            self.assertLessEqual(listening, LOOPBACK)
            self.assertEqual(pid in node.pids[:2], bool(listening))
        folder = node.folder
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(node.url))) as connection:
            self.assertTrue(connection.channel().queue_declare("").method.queue)
        node.kill()
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port), 5.0).close()
        self.assertEqual("epmd", psutil.Process(node.pids[0]).name())
        node.stop()
        self.assert_gone(family, folder)
        self.assertEqual([], node.pids)
        self.assertRaises(NodeError, node.ctl, "status")

    def test_failed_start_shows_the_log_and_leaves_nothing_behind(self) -> None:
        seen: list[tuple[list[int], Path | None]] = []

        class Watched(PrivateNode):
            def stop(self) -> None:
                seen.append((self.pids, self.folder))
                super().stop()

        with self.assertRaisesRegex(NodeError, "no_such_setting"):
            Watched("no_such_setting = 1\n").start()
        self.assertEqual(3, len(seen[0][0]))
        self.assert_gone(*seen[0])

    def test_node_replaces_ports_that_are_taken_reads_its_configuration_and_keeps_its_data(self) -> None:
        other = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(other.close)
        taken = other.getsockname()[1]
        unlucky = []
        for place in range(3):
            ports = [free_port(), free_port(), free_port()]
            ports[place] = taken
            unlucky.append((ports[0], ports[1], ports[2]))

        class Unlucky(PrivateNode):
            def _choose_ports(self) -> tuple[int, int, int]:
                return unlucky.pop() if unlucky else super()._choose_ports()

        config, advanced = "heartbeat = 7\n", "[{rabbit, [{consumer_timeout, 4000}]}]."
        with Unlucky(config, advanced) as node:
            self.assertEqual([], unlucky)
            self.assertNotEqual(taken, node.port)
            self.assert_configured_and_durable(node)

    def assert_configured_and_durable(self, node: PrivateNode) -> None:
        port = node.port
        for setting, value in (("heartbeat", "7"), ("consumer_timeout", "4000")):
            shown = node.ctl("eval", f"application:get_env(rabbit, {setting}).")
            self.assertEqual(f"{{ok,{value}}}", shown.strip())
        self.assertRaises(NodeError, node.ctl, "no_such_command")
        with contextlib.closing(node.connect()) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("kept", durable=True)
            channel.basic_publish("", "kept", b"body", pika.BasicProperties(delivery_mode=2))
        node.restart()
        self.assertEqual(port, node.port)
        with contextlib.closing(node.connect()) as connection:
            self.assertEqual(b"body", connection.channel().basic_get("kept")[2])

    def test_killed_or_interrupted_process_leaves_no_node_behind(self) -> None:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            with self.subTest(number), python(START) as starter:
                self.addCleanup(starter.kill)
                wait_until(lambda: self.node_below(starter.pid), 30.0, "a node that starts")
                node = self.node_below(starter.pid)
                folder = Path(psutil.Process(node[0]).cwd())
                self.assertTrue(folder.name.startswith("rbit-node-"), folder)
                family = descendants(starter.pid)
                starter.send_signal(number)
                starter.communicate(timeout=30.0)
                self.assert_gone([starter.pid, *family], folder)

    @staticmethod
    def node_below(pid: int) -> list[int]:
        found = []
        for child in descendants(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(child).name() == "beam.smp":
                    found.append(child)
        return found


class RbitProcessTest(unittest.TestCase):
    """What the helper around the command promises, shown on small programs in the command's place."""

    def run_program(self, program: str, **more: object) -> RbitProcess:
        process = RbitProcess(None, command=(sys.executable, "-c", program), **more)  # type: ignore[arg-type]
        self.addCleanup(process.close)
        return process

    def test_lines_of_both_streams_and_the_exit_status_are_seen(self) -> None:
        process = self.run_program("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
        self.assertEqual("err", process.wait_for_line("^e"))
        self.assertEqual(7, process.wait())
        self.assertEqual((["out"], ["err"]), (process.stdout_lines, process.stderr_lines))

    def test_line_that_never_comes_is_an_error_as_soon_as_the_command_ended(self) -> None:
        process = self.run_program("print('only this')")
        with self.assertRaisesRegex(AssertionError, "ended with 0 .*(.|\n)*only this"):
            process.wait_for_line("something else", bound=60.0)

    def test_line_that_does_not_come_in_time_is_an_error_that_shows_the_output(self) -> None:
        process = self.run_program("import time; print('only this', flush=True); time.sleep(60)")
        process.wait_for_line("only")
        with self.assertRaisesRegex(AssertionError, "waited 0.1 s for (.|\n)*only this"):
            process.wait_for_line("something else", bound=0.1)

    def test_files_and_configuration_are_in_the_current_folder_of_the_command(self) -> None:
        program = "import sys; print(sys.argv[1:], open('rbit.ini').read(), open('jobs/a.py').read())"
        command = (sys.executable, "-c", program)
        process = RbitProcess("[rbit]", "--once", files={"jobs/a.py": "pass"}, command=command)
        self.addCleanup(process.close)
        process.wait_for_line(r"^\['rbit.ini', '--once'\] \[rbit\] pass$")
        process.close()
        self.assertFalse(process.folder.exists())

    def test_signal_reaches_the_command(self) -> None:
        process = self.run_program("import time; print('up', flush=True); time.sleep(60)")
        process.wait_for_line("up")
        process.signal(signal.SIGTERM)
        self.assertEqual(-signal.SIGTERM, process.wait())

    def test_command_that_ignores_sigterm_is_killed(self) -> None:
        class Impatient(RbitProcess):
            patience = (0.2, 0.2)

        program = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()"
        process = Impatient(None, command=(sys.executable, "-c", program))
        self.addCleanup(process.close)
        process.wait_for_line("up")
        self.assertEqual(-signal.SIGKILL, process.stop())

    def test_orphan_of_the_command_is_found_named_and_ended(self) -> None:
        process = self.run_program(ORPHAN)
        orphan = int(process.wait_for_line("^[0-9]+$"))
        self.assertTrue(is_alive(orphan))
        self.assertEqual([f"{orphan} sleep 60"], process.close(bound=0.1))
        self.assertFalse(is_alive(orphan))

    def test_zombie_is_not_alive_and_no_descendant(self) -> None:
        child = subprocess.Popen(["sleep", "60"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        self.assertIn(child.pid, descendants(os.getpid()))
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        self.assertEqual(psutil.STATUS_ZOMBIE, psutil.Process(child.pid).status())
        self.assertFalse(is_alive(child.pid))
        self.assertNotIn(child.pid, descendants(os.getpid()))


class BrokerCaseTest(BrokerCase):
    """What the test case with a broker promises."""

    def test_message_is_counted_while_it_is_ready_and_while_it_is_held(self) -> None:
        queue = self.queue_name()
        self.assertEqual((-1, -1), (self.depth(queue), self.unacked(queue)))
        self.publish(queue, "one", message_id="m1")
        self.publish(queue, b"two")
        self.assertEqual(2, self.depth(queue))
        properties = self.channel.basic_get(queue)[1]
        self.assertEqual(("m1", 2), (properties.message_id, properties.delivery_mode))
        self.assertEqual((1, 1), (self.depth(queue), self.unacked(queue)))
        self.assertEqual([b"two"], self.bodies(queue))

    def test_queues_of_a_test_have_names_of_its_own_and_are_deleted_after_it(self) -> None:
        names: list[str] = []

        class Sample(BrokerCase):
            def test_sample(self) -> None:
                names.append(self.queue_name("any_latex_pdf"))
                self.publish(names[-1], b"body")

        for _ in range(2):
            result = Sample("test_sample").run(unittest.TestResult())
            assert result is not None
            self.assertTrue(result.wasSuccessful(), result.errors)
        self.assertEqual(4, len(names[0].split("_")))
        self.assertNotEqual(names[0], names[1])
        self.assertEqual([-1, -1], [self.depth(name) for name in names])

    def test_test_that_leaves_a_process_alive_fails(self) -> None:
        orphans: list[int] = []

        class Sample(BrokerCase):
            left_over_bound = 0.1

            def test_sample(self) -> None:
                process = self.rbit(None, command=(sys.executable, "-c", ORPHAN))
                orphans.append(int(process.wait_for_line("^[0-9]+$")))

        result = Sample("test_sample").run(unittest.TestResult())
        assert result is not None
        self.assertEqual(1, len(result.failures))
        self.assertIn(f"{orphans[0]} sleep 60", result.failures[0][1])
        self.assertFalse(is_alive(orphans[0]))

    def test_configuration_names_the_node_and_takes_other_keys(self) -> None:
        runners, pybit = {"q": {"runner": "shell!true"}}, {"url": "http://x"}
        text = ini(self.node, runners, rbit={"polling_time": 9}, amqp={"user": None}, pybit=pybit)
        self.assertEqual(
            "[rbit]\nname = bob-villa\npolling_time = 9\n\n[amqp]\nhost = 127.0.0.1\n"
            f"port = {self.node.port}\npassword = guest\nvirtual_host = /\n\n"
            "[pybit]\nurl = http://x\n\n[runner:q]\nrunner = shell!true\n",
            text,
        )

    def test_broker_test_without_rabbitmq_is_skipped_at_home_and_fails_in_ci(self) -> None:
        for value, words in (("", "skipped 'no rabbitmq-server"), ("true", "FAILED (failures=1)")):
            with self.subTest(CI=value), python(NO_RABBITMQ, CI=value) as sample:
                output = sample.communicate(timeout=60.0)[0]
                self.assertIn(words, output)
                self.assertEqual(bool(value), bool(sample.returncode))


class WaitUntilTest(unittest.TestCase):
    """The bounded wait."""

    def test_wait_ends_when_the_condition_holds(self) -> None:
        looks = io.StringIO("abc")
        wait_until(lambda: looks.read(1) == "c", 30.0)
        self.assertEqual("", looks.read())

    def test_wait_that_is_over_says_what_it_waited_for(self) -> None:
        with self.assertRaisesRegex(AssertionError, r"^waited 0\.05 s for the moon$"):
            wait_until(lambda: False, 0.05, "the moon")
