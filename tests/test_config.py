"""Tests of the configuration: its schema, the exact lines of mistakes, odd files, and the example file."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from rbit import config
from rbit.errors import ConfigError
from rbit.secret import Secret
from rbit.tls import Tls

EXAMPLE = Path(__file__).parent.parent / "rbit.ini.example"
MINIMAL = "[rbit]\nname = box\n[amqp]\n[runner:q]\nrunner = python!a:b\n"
SECRET = "kJ7-very-secret"


class ConfigCase(unittest.TestCase):
    """Writes INI files into a folder of its own, and shows mistakes as if that were the current folder."""

    mode = 0o600  # of the file

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(self.folder, "rbit.ini")

    def read(self, text: str | bytes, examine: config.Examine | None = None) -> config.Config:
        Path(self.path).write_bytes(text.encode() if isinstance(text, str) else text)
        os.chmod(self.path, self.mode)
        return config.read(self.path, examine)

    def mistakes(self, text: str | bytes, examine: config.Examine | None = None) -> list[str]:
        with self.assertRaises(ConfigError) as caught:
            self.read(text, examine)
        return self.lines(caught.exception.mistakes)

    def warnings(self, text: str) -> list[str]:
        return self.lines(self.read(text).warnings)

    def lines(self, lines: list[str] | tuple[str, ...]) -> list[str]:
        for line in lines:
            self.assertTrue(line.startswith(self.path + ": "), line)
            self.assertTrue(line.isprintable(), line)
        return [line.removeprefix(self.folder + os.sep) for line in lines]

    def assert_mistake(self, text: str | bytes, *lines: str) -> None:
        self.assertEqual(self.mistakes(text), [f"rbit.ini: {line}" for line in lines])


def with_lines(section: str, lines: str) -> str:
    """Return the minimal file with lines added to one of its sections, which may be new."""
    head = f"[{section}]\n"
    return MINIMAL.replace(head, head + lines + "\n") if head in MINIMAL else MINIMAL + head + lines + "\n"


class ValuesTest(ConfigCase):
    def test_missing_keys_have_the_documented_defaults(self) -> None:
        read = self.read("[rbit]\n[amqp]\n[pybit]\nurl = http://web\n[runner:q]\nrunner = shell!true\n")
        self.assertEqual((read.client.polling_time, read.client.concurrency, read.client.suites), (60.0, 1, ()))
        host = (("localhost", None),)
        amqp = config.AmqpSettings(host, 5672, "guest", Secret("guest"), "/", 30, 60.0, "classic")
        self.assertEqual(read.amqp, amqp)
        self.assertEqual(read.pybit, config.PybitSettings("http://web", "", Secret(), 10.0, 3.0))
        settings = {"runner": "shell!true"}
        runner = config.RunnerSettings("q", "shell!true", None, None, False, "park", 60.0, 0, 10000, settings)
        self.assertEqual(read.runners, (runner,))
        client = read.client
        self.assertEqual((client.lease_after, client.lease_ttl, client.lease_renew), (10.0, 300.0, 60.0))
        self.assertEqual((client.stop_timeout, client.max_jobs_per_worker, client.worker_idle), (None, 0, 300.0))
        self.assertIsNone(client.default_queue)
        self.assertEqual((read.path, read.logging), (self.path, None))

    def test_without_pybit_section_there_are_no_pybit_settings(self) -> None:
        self.assertIsNone(self.read(MINIMAL).pybit)

    def test_every_given_value_is_read_with_its_type(self) -> None:
        read = self.read(
            "[rbit]\nname = Bob-1_x\npolling_time = .5\ndelivery = push\n"
            "architecture = any\ndistribution = cnx\nformat = epub\n"
            "suites = latex, ,princexml,\n  html\nconcurrency = 3\n"
            "lease_after = 0\nlease_ttl = 60\nlease_renew = 20\nstop_timeout = 9.5\nmax_jobs_per_worker = 7\n"
            "worker_idle = 1.5\ndefault_queue = unclaimed\nlog_dir = logs\nlog_limit = 5\n"
            "log_keep_days = 0\nmetrics = [0:0::1]:9467\n"
            "[amqp]\nhost = mq.example.org, [::1]:2, b:3\nqueue_type = quorum\nport = 1\n"
            "user = u\npassword = p # ;\nvirtual_host = v\n"
            "heartbeat = 65535\nconnect_timeout = 2.25\n"
            "[pybit]\nurl = HTTPS://[::1]:8443/web//\nuser = a\npassword = b\ntimeout = 3\ngate_timeout = .5\n"
            "[runner:q]\nrunner = python!a.b:c\ntimeout = 7.5\nconcurrency = 2\nunsafe_jsonpickle = ON\n"
        )
        suites = ("latex", "princexml", "html")
        client = config.ClientSettings(
            "Bob-1_x", 0.5, "push", "any", "cnx", "epub", suites, 3, 0.0, 60.0, 20.0, 9.5, 7, 1.5, "unclaimed",
            f"{self.folder}/logs", 5, 0, ("::1", 9467),
        )
        self.assertEqual(read.client, client)
        hosts = (("mq.example.org", None), ("::1", 2), ("b", 3))
        amqp = config.AmqpSettings(hosts, 1, "u", Secret("p # ;"), "v", 65535, 2.25, "quorum")
        self.assertEqual(read.amqp, amqp)
        self.assertEqual(read.amqp.nodes, [("mq.example.org", 1), ("::1", 2), ("b", 3)])
        url = "HTTPS://[::1]:8443/web"
        self.assertEqual(read.pybit, config.PybitSettings(url, "a", Secret("b"), 3.0, 0.5, Tls()))
        runner = read.runners[0]
        self.assertEqual((runner.timeout, runner.concurrency, runner.unsafe_jsonpickle), (7.5, 2, True))

    def test_addresses_are_hosts_too(self) -> None:
        for host in ("127.0.0.1", "::1", "fe80::1%eth0", "bücher.example", "rabbit_mq"):
            with self.subTest(host=host):
                self.assertEqual(self.read(with_lines("amqp", f"host = {host}")).amqp.host, ((host, None),))

    def test_what_becomes_of_messages_is_set_for_all_queues_or_for_one(self) -> None:
        both = with_lines("rbit", "on_failure = requeue\nretry_delay = 5\nmax_attempts = 3\nfailed_max = 9")
        own = both.replace("[runner:q]\n", "[runner:q]\non_failure = discard\nmax_attempts = 0\n")
        for text, expected in ((both, ("requeue", 5.0, 3, 9)), (own, ("discard", 5.0, 0, 9))):
            runner = self.read(text).runners[0]
            found = (runner.on_failure, runner.retry_delay, runner.max_attempts, runner.failed_max)
            self.assertEqual(found, expected)

    def test_unsafe_jsonpickle_knows_eight_words(self) -> None:
        words = {"yes": True, "True": True, "on": True, "1": True, "NO": False, "false": False, "off": False}
        for word, meaning in (words | {"0": False}).items():
            with self.subTest(word=word):
                read = self.read(with_lines("runner:q", f"unsafe_jsonpickle = {word}"))
                self.assertIs(read.runners[0].unsafe_jsonpickle, meaning)

    def test_default_name_is_the_host_name_with_dashes_for_dots(self) -> None:
        with mock.patch("socket.gethostname", return_value="build.cnx.org"):
            read = self.read("[rbit]\n[amqp]\n[runner:q]\nrunner = python!a:b\n")
        self.assertEqual(read.client.name, "build-cnx-org")

    def test_queue_names_are_made_for_each_suite(self) -> None:
        parts = "architecture = any\ndistribution = cnx\nformat = epub\nsuites = b, a, b"
        client = self.read(with_lines("rbit", parts)).client
        self.assertEqual(client.queue_names(), ["cnx_any_b_epub", "cnx_any_a_epub"])

    def test_no_queue_names_are_made_when_a_part_is_missing(self) -> None:
        parts = ["architecture = any", "distribution = cnx", "format = epub", "suites = html"]
        for missing in range(4):
            with self.subTest(missing=parts[missing]):
                text = with_lines("rbit", "\n".join(parts[:missing] + parts[missing + 1 :]))
                self.assertEqual(self.read(text).client.queue_names(), [])

    def test_runner_settings_are_every_key_in_the_spelling_of_the_file(self) -> None:
        lines = "timeout = 5\npython = /usr/local/bin/python2.4\nprint-dir = a/b\nHost: http://cnx.org\nempty ="
        self.assertEqual(
            self.read(with_lines("runner:q", lines)).runners[0].settings,
            {
                "timeout": "5",
                "python": "/usr/local/bin/python2.4",
                "print-dir": "a/b",
                "Host": "http://cnx.org",
                "empty": "",
                "runner": "python!a:b",
            },
        )

    def test_sections_of_the_description_are_read(self) -> None:
        read = self.read(
            "[rbit]\n# a comment\n#   more of it\nname = bob-villa\npolling_time = 60\narchitecture = any\n"
            "distribution = cnx\nformat = princexml\nsuites = latex, princexml\n\n"
            "[amqp]\nhost = localhost\nport = 5672\nuser = guest\npassword = guest\n\n"
            "[runner:openstax_any_latex_pdf]\nrunner = python!Products.RhaptosPrint.printing:main\n"
            "deposit_location = /mnt/www\n"
            "[runner:cnx_desktop_princexml_epub]\nrunner = shell!%ID.pdf\n"
            "[runner:cnx_any_latex_pdf]\nrunner = python!rbitext.rhaptos_print:make_print\n"
            "python = /usr/local/bin/python2.4\nhost = http://cnx.org\n"
            "print-dir = Products.RhaptosPrint/Products/RhaptosPrint/printing\n"
        )
        self.assertEqual([runner.runner[:6] for runner in read.runners], ["python", "shell!", "python"])
        self.assertEqual(read.runners[1].runner, "shell!%ID.pdf")

    def test_nothing_is_replaced_in_values(self) -> None:
        command = "shell!date +%Y-%m; echo %(name)s %% ${HOME} %ID; printf %s"
        read = self.read(with_lines("runner:q", "name = x").replace("python!a:b", command))
        self.assertEqual(read.runners[0].runner, command)

    def test_indented_lines_continue_a_command(self) -> None:
        read = self.read(MINIMAL.replace("python!a:b", "shell!set -e\n    cd /tmp\n\n    ls"))
        self.assertEqual(read.runners[0].runner, "shell!set -e\ncd /tmp\n\nls")

    def test_carriage_returns_and_a_byte_order_mark_do_no_harm(self) -> None:
        plain = self.read(MINIMAL)
        self.assertEqual(self.read(MINIMAL.replace("\n", "\r\n")), plain)
        self.assertEqual(self.read(MINIMAL.replace("\n", "\r")), plain)
        self.assertEqual(self.read(b"\xef\xbb\xbf" + MINIMAL.encode()), plain)

    def test_names_need_not_be_ascii(self) -> None:
        read = self.read(MINIMAL.replace("runner:q", "runner:büro_日本") + "größe = 𝄞\n")
        self.assertEqual(read.runners[0].queue, "büro_日本")
        self.assertEqual(read.runners[0].settings["größe"], "𝄞")

    def test_a_named_pipe_is_read(self) -> None:
        pipe = os.path.join(self.folder, "pipe")
        os.mkfifo(pipe)
        with subprocess.Popen(["/bin/sh", "-c", 'printf %s "$1" > "$2"', "sh", MINIMAL, pipe]):
            self.assertEqual(config.read(pipe).client.name, "box")


if __name__ == "__main__":
    unittest.main()
