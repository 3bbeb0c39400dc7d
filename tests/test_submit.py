"""``rbit-submit``: what it sends, byte for byte."""

from __future__ import annotations

import json
import re
import time
import unittest
from pathlib import Path
from typing import Any

from rbit import __version__
from tests.support.pybit_web import PybitWeb
from tests.support.rbit_process import submit_command
from tests.support.submit_case import SubmitCase, only

CAPTURES = Path(__file__).parent / "captures"
PARTS = ("distribution", "arch", "suite", "format")
HEX = re.compile("[0-9a-f]{32}")
ANY = bytes(range(256)) * 3


def captured(name: str) -> Any:
    """Return a captured body as plain JSON; written again, it is the same to the byte."""
    body = (CAPTURES / name).read_text("ascii").rstrip("\n")
    plain = json.loads(body)
    assert json.dumps(plain) == body, name
    return plain


def properties_of(name: str) -> dict[str, Any]:
    """Return the captured properties of a message."""
    return dict(json.loads((CAPTURES / name).read_text("utf-8"))["properties"])


def set_place(instance: Any, queue: str) -> None:
    """Set what a captured PackageInstance says of its queue, and the ids that only PyBit's database has."""
    for part, name in zip(PARTS, queue.split("_"), strict=True):
        instance[part].update(id=0, name=name)
    instance["id"] = instance["package"]["id"] = 0


class SentTest(SubmitCase):
    def request(self, job: int, package: str, version: str, uri: str, host: str = "localhost:8080") -> bytes:
        """Return the body of the captured build request with other values."""
        plain = captured("build_request.json")
        set_place(plain["job"]["packageinstance"], self.queue)
        plain["job"]["id"] = job
        plain["job"]["packageinstance"]["package"].update(version=version, name=package)
        plain["transport"].update(method="http", uri=uri, vcs_id="")
        plain["web_host"] = host
        return json.dumps(plain).encode("ascii")

    def assert_properties(self, properties: Any, encoding: str | None) -> None:
        """Fail unless properties are those of PyBit's messages, with an id and the header for local jobs."""
        expected = properties_of("build_request.properties.json") | {"content_encoding": encoding}
        found = {key: getattr(properties, key) for key in expected}
        self.assertRegex(found.pop("message_id"), HEX)
        self.assertEqual(found.pop("headers"), {"x-rbit-local": True})
        self.assertEqual(found, {key: expected[key] for key in found})

    def test_build_request_is_pybits_to_the_byte(self) -> None:
        text = self.ini({self.queue: {"runner": "shell!true"}}, pybit={"url": "http://pybit.example:8080/web"})
        process = self.submit(
            self.queue, "--job", "70", "--package", "col11406", "--version", "2.5-1",
            "--uri", "http://example.org/content?a=1&b=2", text=text,
        )
        self.assertEqual(process.lines, [f"{self.queue} job 70: published"])
        _, properties, body = only(self.taken(self.queue))
        sent = self.request(70, "col11406", "2.5-1", "http://example.org/content?a=1&b=2", "pybit.example:8080")
        self.assertEqual(body, sent)
        self.assert_properties(properties, "UTF-8")

    def test_web_host_has_a_port_as_pybits_has(self) -> None:
        for url, host in (
            ("http://pybit.example", "pybit.example:80"), ("https://pybit.example/", "pybit.example:443"),
            ("http://pybit.example:/web", "pybit.example:80"), ("http://[::1]", "[::1]:80"),
            ("https://[::1]:8080", "[::1]:8080"), ("http://pybit.example:80", "pybit.example:80"),
        ):
            with self.subTest(url):
                self.submit(self.queue, "--job", "1", text=self.ini({self.queue: {"runner": "shell!true"}},
                                                                    pybit={"url": url}))
                self.assertEqual(only(self.bodies(self.queue)), self.request(1, "test", "1.0", "", host))

    def test_queue_may_stand_before_and_behind_the_options(self) -> None:
        for arguments in (
            ("rbit.ini", "--job", "7", "--count", "1", self.queue), ("--job", "7", "rbit.ini", self.queue),
            ("--job", "7", "rbit.ini", "--uri", "", self.queue), ("rbit.ini", "--job", "7", "--", self.queue),
        ):
            with self.subTest(arguments):
                files = {"rbit.ini": self.text}
                process = self.rbit(None, *arguments, command=tuple(submit_command()), files=files)
                self.assertEqual(process.wait(), 0, process.output)
                self.assertEqual(process.lines, [f"{self.queue} job 7: published"])
                self.assertEqual(only(self.bodies(self.queue)), self.request(7, "test", "1.0", ""))

    def test_without_options_it_is_a_test_with_the_time_as_id(self) -> None:
        before = int(time.time() * 1000)
        self.submit(self.queue)
        _, _, body = only(self.taken(self.queue))
        job = json.loads(body)["job"]["id"]
        self.assertTrue(before <= job <= time.time() * 1000, (before, job))
        self.assertEqual(body, self.request(job, "test", "1.0", ""))

    def test_odd_characters_are_written_as_pybit_writes_them(self) -> None:
        self.submit(self.queue, "--job", "1", "--package", "café", "--uri", 'http://example.org/café?q="<x>"\\\t')
        _, _, body = only(self.taken(self.queue))
        self.assertEqual(body, self.request(1, "café", "1.0", 'http://example.org/café?q="<x>"\\\t'))
        old = (CAPTURES / "build_request.nonascii.py27-jsonpickle072.json").read_text("ascii")
        written = re.search(r'"name": "caf[^"]*"', old)
        assert written is not None
        self.assertIn(written[0].encode(), body)
        odd = (CAPTURES / "build_request.nonascii.json").read_text("ascii")
        self.assertIn(r'?q=\"<x>\"', odd)
        self.assertIn(rb'caf\u00e9?q=\"<x>\"\\\t', body)

    def test_count_sends_each_with_a_job_id_and_a_message_id_of_its_own(self) -> None:
        process = self.submit(self.queue, "--count", "3", "--job", "70")
        self.assertEqual(process.lines, [f"{self.queue} job {job}: published" for job in (70, 71, 72)])
        messages = self.taken(self.queue)
        self.assertEqual([body for _, _, body in messages], [
            self.request(job, "test", "1.0", "") for job in (70, 71, 72)])
        self.assertEqual(len({properties.message_id for _, properties, _ in messages}), 3)

    def test_body_of_a_file_is_sent_as_it_is(self) -> None:
        queue = self.declare(self.queue_name())
        process = self.rbit(self.text, command=("true",))
        (process.folder / "body").write_bytes(ANY)
        self.submit(queue, "--file", str(process.folder / "body"), "--count", "2")
        self.submit(queue, "--file", "empty", files={"empty": ""})
        messages = self.taken(queue)
        self.assertEqual([body for _, _, body in messages], [ANY, ANY, b""])
        for _, properties, _ in messages:
            self.assert_properties(properties, None)
        self.assertEqual(len({properties.message_id for _, properties, _ in messages}), 3)

    def test_body_that_is_a_build_request_is_called_as_its_client_calls_it(self) -> None:
        body = self.request(70, "café", "1.0", "").decode()
        process = self.submit(self.queue, "--file", "body", "--count", "2", files={"body": body})
        self.assertEqual(process.lines, [f"{self.queue} job 70: published"] * 2)
        self.assertEqual(self.bodies(self.queue), [body.encode()] * 2)
        for other in (body.replace("BuildRequest", "Evil"), body.replace("}", "", 1), '{"py/object": "x"}'):
            process = self.submit(self.queue, "--file", "body", files={"body": other})
            self.assertRegex(only(process.lines), f"^{self.queue} message [0-9a-f]{{32}}: published$")

    def test_body_from_standard_input_is_sent_as_it_is(self) -> None:
        queue = self.declare(self.queue_name())
        process = self.shell(r'''printf 'a\0\377\n\n' | "$0" "$@"''', queue, "--file", "-")
        line = only(process.stdout_lines)
        self.shell('"$0" "$@" </dev/null', queue, "--file", "-")
        (_, properties, body), (_, _, empty) = self.taken(queue)
        self.assertEqual((body, empty), (b"a\0\xff\n\n", b""))
        self.assertEqual(line, f"{queue} message {properties.message_id}: published")

    def test_raw_body_may_go_to_a_queue_for_build_requests_and_with_a_name_of_any_kind(self) -> None:
        for suffix in ("any_latex_pdf", "a.#.*", "*.#", "two words ", "caf\u00e9 \u4e2d", "back\\slash", "%s{}"):
            with self.subTest(suffix):
                queue = self.declare(self.queue_name(suffix))
                process = self.submit(queue, "--file", "body", files={"body": "x"})
                _, properties, body = only(self.taken(queue))
                self.assertEqual(body, b"x")
                self.assertEqual(process.lines, [f"{queue} message {properties.message_id}: published"])

    def test_name_that_would_disturb_a_terminal_is_shown_escaped(self) -> None:
        queue = self.declare(self.queue_name("a_b_\x1b[2J"))
        lines = self.submit(queue, "--job", "1").lines
        self.assertEqual(lines, [queue.replace("\x1b", "\\x1b") + " job 1: published"])

    def test_missing_queue_of_a_runner_section_is_made_as_rbit_makes_it(self) -> None:
        self.channel.exchange_delete("pybit")
        self.submit(self.queue)
        self.channel.exchange_declare("pybit", "direct", durable=True)
        self.channel.queue_declare(self.queue, durable=True)  # as PyBit would: refused if it differed
        self.channel.basic_publish("pybit", self.queue.replace("_", "."), b"by route", mandatory=True)
        self.assertEqual(len(self.bodies(self.queue)), 2)
        free = self.queue_name("free")
        self.submit(free, "--file", "body", text=self.ini({free: {"runner": "shell!true"}}), files={"body": "x"})
        self.assertEqual(self.bodies(free), [b"x"])

    def test_pybit_is_neither_asked_nor_told_about_the_job_nor_about_its_second_run(self) -> None:
        with PybitWeb() as web:
            web.add_job(1)
            blocks = 'test -e seen || { touch seen; exec 3>&-; rm -f no; kill -9 $$; }'
            text = self.ini(
                {self.queue: {"runner": f"shell!{blocks}", "on_failure": "requeue", "retry_delay": 1}},
                pybit={"url": web.url, "user": "admin", "password": "pass"},
            )
            rbit = self.rbit(text)
            process = self.submit(self.queue, "--job", "1", "--wait", text=text)
            self.assertRegex(process.lines[-1], r"job 1 \(attempt 2\): Done$")
            self.assertEqual(rbit.stop(), 0)
            self.assertEqual([request.path for request in web.requests if "/job" in request.path], [])
            self.assertEqual(len(web.history(1)), 1)

    def test_version_and_help(self) -> None:
        command = tuple(submit_command())
        process = self.rbit(None, "--version", command=command)
        self.assertEqual((process.wait(), process.lines), (0, [f"rbit-submit {__version__}"]))
        process = self.rbit(None, "--help", command=command)
        self.assertEqual(process.wait(), 0)
        self.assertEqual(process.stderr_lines, [])


class CancelTest(SubmitCase):
    def listen(self, name: str) -> None:
        """Have a queue as a client of this name has it."""
        self.channel.exchange_declare("pybit", "direct", durable=True)
        self.channel.queue_declare(name, exclusive=True, auto_delete=True)
        self.channel.queue_bind(name, "pybit", name)

    def test_cancel_request_is_pybits_to_the_byte_and_goes_where_pybits_go(self) -> None:
        name = f"{self._token}-client"
        self.listen(name)
        for arguments, text in (
            ((self.queue,), self.ini({}, pybit={"url": "http://pybit.example:8080"})),
            ((), self.ini({"plain": {"runner": "shell!true"}, self.queue: {"runner": "shell!true"}},
                          pybit={"url": "https://pybit.example:8080/web"})),
        ):
            with self.subTest(arguments):
                process = self.submit(*arguments, "--cancel", "70", "--client", name, text=text)
                self.assertEqual(process.lines, [f"job 70: {name} is asked to cancel it"])
                delivery, properties, body = only(self.taken(name))
                plain = captured("cancel_request.json")
                set_place(plain["job"]["packageinstance"], self.queue)
                plain["job"]["packageinstance"]["package"].update(version="-", name="-")
                plain["job"]["id"] = 70
                plain["job"]["buildclient"].update(id=0, name=name)
                plain["web_host"] = "pybit.example:8080"
                self.assertEqual(body, json.dumps(plain).encode("ascii"))
                expected = properties_of("cancel_request.properties.json")
                expected["headers"] = {"x-rbit-local": True}  # the client tells nobody at PyBit of it
                self.assertEqual({key: getattr(properties, key) for key in expected}, expected)
                self.assertEqual((delivery.exchange, delivery.routing_key), ("pybit", name))

    def test_what_pybit_throws_away_is_not_collected_as_if_a_client_had_it(self) -> None:
        collected = self.declare(self.queue_name("collected"))
        self.channel.exchange_declare(collected, "fanout")
        self.addCleanup(self.channel.exchange_delete, collected)
        self.channel.queue_bind(collected, collected)
        self.channel.exchange_delete("pybit")
        self.channel.exchange_declare("pybit", "direct", durable=True, arguments={"alternate-exchange": collected})
        self.addCleanup(self.channel.exchange_delete, "pybit")
        self.refused("no client named nobody is connected", 69, "--cancel", "1", "--client", "nobody")
        self.assertEqual(self.depth(collected), 0)

    def test_client_without_a_binding_is_not_connected(self) -> None:
        name = f"{self._token}-client"
        self.channel.queue_declare(name, exclusive=True, auto_delete=True)
        self.refused(f"no client named {name} is connected", 69, "--cancel", "1", "--client", name)

    def test_user_who_may_not_write_to_pybits_exchange_is_told_so(self) -> None:
        name = f"{self._token}-client"
        self.listen(name)
        text = self.text_of_user("^$", "^(?!pybit$).*", ".*")
        reason = "the broker took no copy for pybit: ACCESS_REFUSED - access to exchange 'pybit' .* refused .*"
        self.refused(reason, 69, "--cancel", "1", "--client", name, text=text)
        self.node.ctl("set_permissions", self._token, "^$", "^pybit$", ".*")  # it is asked first, for alarms
        reason = "the broker took no copy for the default exchange: ACCESS_REFUSED - .*'amq.default'.*"
        self.refused(reason, 69, "--cancel", "1", "--client", name, text=text)

    def test_cancel_names_no_queue_when_it_may_be_one_of_several(self) -> None:
        name = f"{self._token}-client"
        self.listen(name)
        sections = {queue: {"runner": "shell!true"} for queue in (self.queue, "a_b_c_d")}
        self.submit("--cancel", "70", "--client", name, text=self.ini(sections))
        self.submit("a_b_c_d", "--cancel", "70", "--client", name, text=self.ini(sections))
        instances = [json.loads(body)["job"]["packageinstance"] for body in self.bodies(name)]
        named = [[instance[part]["name"] for part in PARTS] for instance in instances]
        self.assertEqual(named, [["-"] * 4, ["a", "b", "c", "d"]])

    def test_cancel_needs_no_queue_that_is_pybits(self) -> None:
        name = f"{self._token}-client"
        self.listen(name)
        self.submit("--cancel", "70", "--client", name, text=self.ini({}))
        instance = json.loads(self.bodies(name)[0])["job"]["packageinstance"]
        self.assertEqual([instance[part]["name"] for part in PARTS], ["-"] * 4)

    def test_client_that_is_not_connected_exits_69(self) -> None:
        self.channel.exchange_delete("pybit")
        for _ in range(2):  # without the exchange of PyBit, and with it
            self.refused("no client named nobody is connected", 69, "--cancel", "1", "--client", "nobody")


if __name__ == "__main__":
    unittest.main()
