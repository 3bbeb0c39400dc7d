"""TLS to RabbitMQ: whom rbit trusts, who it is itself, and what it says when that does not fit."""

from __future__ import annotations

import shutil
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from rbit import config
from rbit.broker import Connection, Inflow, Queue
from tests.support.case import OwnNodeCase
from tests.support.certificates import HOST, Certificates
from tests.support.proxy import Proxy
from tests.support.rbit_process import RbitProcess, submit_command
from tests.support.readme import example

UNKNOWN = "self-signed certificate in certificate chain; is its issuer in ca_file[?]"


class TlsCase(OwnNodeCase):
    """A test with a node that has a TLS listener; ``self.certificates`` are in a folder of the class."""

    expired = mutual = False
    certificates: ClassVar[Certificates]

    @classmethod
    def tls(cls) -> Mapping[str, object]:
        folder = tempfile.mkdtemp(prefix="rbit-test-")
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.certificates = Certificates(Path(folder))
        return cls.certificates.options(cls.certificates.issue("server", expired=cls.expired), cls.mutual)

    def setUp(self) -> None:
        super().setUp()
        self.queue = self.queue_name()

    def text(self, host: str = HOST, runner: str = "shell!cat >out", **amqp: object) -> str:
        """Return the INI file of a client that trusts the authority, with keys of [amqp]; None leaves one out."""
        keys = {
            "host": host, "port": self.node.tls_port, "ssl": "yes", "ca_file": self.file("ca.pem"),
            "connect_timeout": 5, **amqp,
        }
        return self.ini({self.queue: {"runner": runner}}, amqp=keys)

    def file(self, name: str) -> Path:
        return self.certificates.folder / name

    def run_rbit(self, text: str, *arguments: str, status: int = 0) -> RbitProcess:
        rbit = self.rbit(text, *(arguments or ("--once",)))
        self.assertEqual(rbit.wait(60), status, rbit.output)
        self.assertNotIn("Traceback", rbit.output)
        return rbit

    def refused(self, reason: str, text: str, status: int = 77) -> None:
        """Fail unless rbit ends with this exit status, and its last line says why."""
        rbit = self.run_rbit(text, status=status)
        self.assertRegex(rbit.stderr_lines[-1], f"^rbit: {reason}$")


class TlsTest(TlsCase):
    def test_job_with_a_large_body_is_run_and_acknowledged_over_tls(self) -> None:
        body = bytes(range(256)) * 8000
        self.publish(self.queue, body)
        rbit = self.run_rbit(self.text())
        self.assertEqual((rbit.folder / "out").read_bytes(), body)
        self.assertRegex(rbit.output, f"INFO connected to RabbitMQ at {HOST}:{self.node.tls_port}\n")
        self.assertNotIn("WARNING", rbit.output)
        self.assertEqual(self.depth(self.queue), 0)

    @example("secrets rbit.ini")
    def test_sections_of_the_readme_connect(self, block: str) -> None:
        hosts = "mq1.example.org, mq2.example.org"
        self.assertIn(hosts, block)
        here = block.replace(hosts, f"{HOST}:9, {HOST}:{self.node.tls_port}").replace("user = bob", "user = guest")
        text = f"[rbit]\nname = bob-villa\n{here}[runner:{self.queue}]\nrunner = shell!true\n"
        trusted = self.file("ca.pem").read_text()
        rbit = self.rbit(text, "--once", files={"amqp_password": "guest\n", "ca.pem": trusted})
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        self.assertNotIn("WARNING", rbit.output)

    def test_message_of_which_the_end_is_in_the_layer_of_tls_is_read_without_more_to_come(self) -> None:
        self.declare(self.queue)
        folder = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        self.addCleanup(shutil.rmtree, folder)
        path = folder / "rbit.ini"
        path.write_text(self.text(heartbeat=3600), encoding="utf-8")
        path.chmod(0o600)
        connection = Connection(config.read(str(path)).amqp, "test")
        self.addCleanup(connection.close)
        come: list[int] = []
        inflow = Inflow(connection, Queue(connection, self.queue), lambda: come.append(1))
        inflow.begin(100)
        for count, size in enumerate(range(50_000, 250_000, 10_000), 1):  # what pika reads at once is in between
            self.publish(self.queue, "x" * size)

            def has_come(count: int = count) -> bool:
                connection.wait(60.0)
                return len(come) == count

            self.wait_until(has_come, what=f"the message of {size} bytes")

    def test_message_is_submitted_and_followed_over_tls(self) -> None:
        client = self.rbit(self.text())
        submit = self.rbit(
            self.text(), self.queue, "--file", "/dev/null", "--wait", command=tuple(submit_command())
        )
        self.assertEqual(submit.wait(60), 0, submit.output)
        self.assertRegex(submit.output, "Done")
        self.assertEqual(client.stop(), 0, client.output)

    def test_certificate_of_an_unknown_authority_is_refused_at_once(self) -> None:
        said = f"RabbitMQ at localhost:[0-9]+: its certificate is not accepted: {UNKNOWN}"
        self.refused(said, self.text(ca_file=self.file("stranger.pem")))
        self.refused(said, self.text(ca_file=None))
        check = self.run_rbit(self.text(ca_file=None), "--check", status=78)
        self.assertRegex(check.stderr_lines[-1], rf"^rbit\.ini: \[amqp\]: {said}$")
        submit = self.rbit(
            self.text(ca_file=None), self.queue, "--file", "/dev/null", command=tuple(submit_command())
        )
        self.assertEqual(submit.wait(60), 77, submit.output)
        self.assertRegex(submit.stderr_lines[-1], f"^rbit-submit: {said}$")

    def test_certificate_for_another_host_is_refused_at_once(self) -> None:
        self.refused(
            "RabbitMQ at 127.0.0.1:[0-9]+: its certificate is not accepted: IP address mismatch, certificate is "
            "not valid for '127.0.0.1'; host or url must have a name that it was issued for",
            self.text("127.0.0.1"),
        )

    def test_of_several_hosts_each_name_is_checked(self) -> None:
        wrong, right = f"127.0.0.1:{self.node.tls_port}", f"{HOST}:{self.node.tls_port}"
        rbit = self.run_rbit(self.text(f"{wrong}, {right}"))
        self.assertRegex(rbit.output, f"INFO connected to RabbitMQ at {right}\n")
        self.refused(f"RabbitMQ at {wrong}: [^;]*; [^;]*; RabbitMQ at {wrong}: .*", self.text(f"{wrong}, {wrong}"))
        # One that is away may come back.
        self.refused("no connection .* within 1 s .*", self.text(f"{wrong}, 127.0.0.1:9", connect_timeout=1), 69)

    def test_nothing_is_checked_with_verify_off_and_each_start_says_so(self) -> None:
        text = self.text("127.0.0.1", ca_file=None, verify="no")
        said = r"rbit.ini: \[amqp\] verify: no certificate is checked, so whoever is in between can read "
        self.assertRegex(self.run_rbit(text).output, f"WARNING {said}")
        self.assertRegex(self.run_rbit(text, "--check").output, f"warning: {said}")

    def test_port_without_tls_is_named(self) -> None:
        self.refused(
            "RabbitMQ at localhost:[0-9]+: it does not speak TLS on this port; is there another one for that[?]",
            self.text(port=self.node.port),
        )

    def test_port_with_tls_is_named_to_who_speaks_none(self) -> None:
        self.refused(
            r"what answers at localhost:[0-9]+ speaks TLS; is ssl = yes missing in \[amqp\][?]",
            self.text(ssl="no", ca_file=None),
        )

    def test_connection_that_is_lost_is_made_again_with_what_the_files_hold_then(self) -> None:
        user = self._token
        self.node.ctl("add_user", user, "first")
        self.addCleanup(self.node.ctl, "delete_user", user)
        self.node.ctl("set_permissions", user, ".*", ".*", ".*")
        text = self.text(user=user, password=None, password_file="secret", ca_file="trusted.pem")
        trusted = self.file("ca.pem").read_text()
        rbit = self.rbit(text, "--debug", files={"secret": "first\n", "trusted.pem": trusted})
        rbit.wait_for_line("connected to")
        self.node.ctl("change_password", user, "second")
        (rbit.folder / "secret").unlink()
        self.node.ctl("close_all_user_connections", user, "test")
        rbit.wait_for_line(rf"\[amqp\] password_file: no such file in {rbit.folder}")
        (rbit.folder / "trusted.pem").unlink()
        (rbit.folder / "secret").write_text("second\n")
        rbit.wait_for_line(rf"\[amqp\] ca_file: no such file in {rbit.folder}")
        (rbit.folder / "trusted.pem").write_text(trusted)
        rbit.wait_for_line("connected again")
        self.publish(self.queue, "x")
        rbit.wait_for_line("message #1: Done")
        self.assertEqual(rbit.stop(), 0, rbit.output)


    def test_job_goes_on_though_its_connection_breaks_and_its_message_is_acknowledged(self) -> None:
        self.publish(self.queue, "x")
        with Proxy(self.node.tls_port) as proxy:
            text = self.text(port=proxy.port, runner="shell!touch began; until test -e go; do sleep 0.1; done")
            rbit = self.rbit(text)
            self.wait_until((rbit.folder / "began").exists, what="the job")
            proxy.cut()
            rbit.wait_for_line("connected again")
            (rbit.folder / "go").touch()
            rbit.wait_for_line("message #1: Done")
            self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertNotIn("message #2", rbit.output)
        self.assertEqual((self.depth(self.queue), self.unacked(self.queue)), (0, 0))

    def test_silent_node_does_not_hold_up_a_stop(self) -> None:
        with Proxy(self.node.tls_port) as proxy:

            def silenced() -> RbitProcess:
                proxy.silence(False)
                rbit = self.rbit(self.text(port=proxy.port))
                rbit.wait_for_line("connected to")
                proxy.silence()
                return rbit

            self.assert_stops_within(1.0, silenced)


class ExpiredTest(TlsCase):
    expired = True

    def test_certificate_that_has_expired_is_tried_again_for_it_may_be_renewed(self) -> None:
        said = "RabbitMQ at localhost:[0-9]+: its certificate is not accepted: certificate has expired"
        rbit = self.run_rbit(self.text(connect_timeout=1), status=69)
        self.assertRegex(rbit.output, f"WARNING {said}; trying for 1 s")
        self.assertRegex(rbit.stderr_lines[-1], rf"^rbit: no connection .* within 1 s \({said}\)")


class MutualTest(TlsCase):
    mutual = True

    def test_node_that_wants_a_certificate_gets_it(self) -> None:
        both = self.certificates.issue("client")
        self.publish(self.queue, "x")
        self.run_rbit(self.text(cert_file=both))
        self.publish(self.queue, "x")
        self.run_rbit(self.text(cert_file=both, key_file=self.file("client.key")))
        self.assertEqual(self.depth(self.queue), 0)

    def test_node_that_wants_a_certificate_refuses_who_has_none(self) -> None:
        self.refused(
            "RabbitMQ at localhost:[0-9]+: it refuses the TLS connection: .*; are cert_file and key_file what it "
            "wants[?]",
            self.text(),
        )

    def test_certificate_of_a_stranger_is_refused(self) -> None:
        self.refused(
            "RabbitMQ at localhost:[0-9]+: it refuses the TLS connection: tlsv1 alert unknown ca",
            self.text(cert_file=self.certificates.issue("alien", "stranger")),
        )


if __name__ == "__main__":
    unittest.main()
