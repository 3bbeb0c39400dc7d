"""PyBit behind HTTPS: whom rbit trusts, and what it says when that does not fit."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import tempfile
import unittest
from pathlib import Path
from typing import ClassVar
from unittest import mock

from rbit import tls
from rbit.files import Named
from rbit.message import Answer
from rbit.secret import Secret
from rbit.settings import PybitSettings
from rbit.tls import Tls
from rbit.web import Web
from tests.support.certificates import HOST, Certificates
from tests.support.client_case import ClientCase
from tests.support.pybit_web import PybitWeb

NOT_ACCEPTED = "no connection: its certificate is not accepted: "
UNKNOWN = NOT_ACCEPTED + "unable to get local issuer certificate; is its issuer in ca_file?"


class CertificatesCase(unittest.TestCase):
    """A test with ``self.certificates`` in a folder of the class."""

    certificates: ClassVar[Certificates]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.mkdtemp(prefix="rbit-test-")
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.certificates = Certificates(Path(folder))
        cls.certificates.issue("server")
        cls.certificates.issue("expired", expired=True)

    def context(self, name: str = "server", mutual: bool = False) -> ssl.SSLContext:
        return self.certificates.server_context(self.certificates.folder / f"{name}.pem", mutual)


class ContextTest(CertificatesCase):
    def test_certificate_that_is_gone_before_it_is_loaded_is_a_mistake(self) -> None:
        path, folder = self.certificates.issue("gone"), str(self.certificates.folder)
        real = tls._pem

        def pem(key: str, file: Named, mark: bytes) -> str:
            found = real(key, file, mark)
            if mark == tls.KEY:
                path.unlink()
            return found

        with mock.patch.object(tls, "_pem", pem), self.assertRaisesRegex(tls.Unusable, "No such file"):
            tls.context(Tls(cert_file=Named("gone.pem", folder), key_file=Named("gone.key", folder)))

    def test_certificate_and_key_are_asked_about_only_where_they_may_be_the_cause(self) -> None:
        for reason, expected in (
            ("TLSV13_ALERT_CERTIFICATE_REQUIRED", True), ("SSLV3_ALERT_BAD_CERTIFICATE", True),
            ("SSLV3_ALERT_HANDSHAKE_FAILURE", True), ("TLSV1_ALERT_UNKNOWN_CA", False),
            ("TLSV1_ALERT_PROTOCOL_VERSION", False),
        ):
            error = ssl.SSLError(1, "x")
            error.reason = reason
            said, for_good = tls.words(error)
            self.assertEqual(("cert_file" in said, for_good), (expected, True), said)


class WebTest(CertificatesCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = str(self.certificates.folder)
        self.pybit = self.server()
        self.environment()
        os.environ.pop("REQUESTS_CA_BUNDLE", None)

    def server(self, name: str = "server", mutual: bool = False) -> PybitWeb:
        made = PybitWeb(tls=self.context(name, mutual) if name else None)
        self.addCleanup(made.die)
        made.add_job(1)
        return made

    def put(self, url: str = "", ca_file: str | None = "ca.pem", **more: object) -> Answer:
        """Send a status; return PyBit's answer."""
        trusted = Named(ca_file, self.folder) if ca_file else None
        keys = {"user": "admin", "password": Secret("pass"), **more}
        names = [keys.pop(key, None) for key in ("cert_file", "key_file")]
        own = [Named(str(name), self.folder) if name else None for name in names]
        tls = Tls(trusted, *own, verify=bool(keys.pop("verify", True)))
        url = url or f"https://{HOST}:{self.pybit.port}"
        return Web(PybitSettings(url, timeout=10.0, gate_timeout=3.0, tls=tls, **keys), "bob").put(1, "Done")

    def environment(self, **variables: str) -> None:
        patch = mock.patch.dict(os.environ, variables)
        patch.start()
        self.addCleanup(patch.stop)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def test_status_is_taken_over_https(self) -> None:
        self.assertEqual(self.put().code, 200)
        self.assertEqual(self.pybit.requests[0].auth, ("admin", "pass"))

    def test_certificate_of_an_unknown_authority_is_not_accepted(self) -> None:
        for name in ("stranger.pem", None):
            self.assertEqual(self.put(ca_file=name), Answer(None, UNKNOWN))
        self.assertEqual(self.pybit.requests, [])

    def test_certificate_for_another_host_is_not_accepted(self) -> None:
        answer = self.put(self.pybit.url)
        self.assertEqual(answer.code, None)
        self.assertRegex(answer.words, f"^{NOT_ACCEPTED}.*'127.0.0.1'")

    def test_certificate_that_has_expired_is_not_accepted(self) -> None:
        answer = self.put(f"https://{HOST}:{self.server('expired').port}")
        self.assertEqual(answer, Answer(None, f"{NOT_ACCEPTED}certificate has expired"))

    def test_pybit_that_wants_a_certificate_gets_it(self) -> None:
        for name, issuer in (("client", "ca"), ("alien", "stranger")):
            self.certificates.issue(name, issuer)
        url = f"https://{HOST}:{self.server(mutual=True).port}"
        self.assertEqual(self.put(url, cert_file="client.pem").code, 200)
        self.assertEqual(self.put(url, cert_file="client.pem", key_file="client.key").code, 200)
        for keys in ({}, {"cert_file": "alien.pem"}):
            self.assertRegex(self.put(url, **keys).words, "^no connection: ")
        answer = self.put(url, cert_file="client.pem", key_file="alien.key")
        mistake = "[pybit] key_file: expected the key of the certificate in cert_file, got another"
        self.assertEqual(answer, Answer(None, mistake))

    def test_nothing_is_checked_with_verify_off(self) -> None:
        self.assertEqual(self.put(self.pybit.url, None, verify=False).code, 200)

    def test_authorities_of_the_environment_count_without_a_file(self) -> None:
        self.environment(REQUESTS_CA_BUNDLE=self.path("ca.pem"))
        self.assertEqual(self.put(ca_file=None).code, 200)

    def test_authorities_of_the_system_count_without_a_file(self) -> None:
        self.environment(SSL_CERT_FILE=self.path("ca.pem"))  # which OpenSSL takes for the system's
        self.assertEqual(self.put(ca_file=None).code, 200)

    def test_file_wins_over_the_environment(self) -> None:
        self.environment(REQUESTS_CA_BUNDLE=self.path("stranger.pem"))
        self.assertEqual(self.put().code, 200)
        self.environment(REQUESTS_CA_BUNDLE=self.path("ca.pem"))
        self.assertEqual(self.put(ca_file="stranger.pem"), Answer(None, UNKNOWN))

    def test_https_to_a_port_without_it_is_said(self) -> None:
        plain = self.server("")
        answer = self.put(f"https://{HOST}:{plain.port}")
        said = "no connection: it does not speak TLS on this port; is there another one for that?"
        self.assertEqual(answer, Answer(None, said))

    def test_http_to_a_port_with_https_is_said(self) -> None:
        answer = self.put(f"http://{HOST}:{self.pybit.port}")
        self.assertEqual(answer.code, None)
        self.assertRegex(answer.words, "^no connection: what answers there does not speak HTTP; .* http or https")

    def test_password_and_authorities_are_read_anew_for_each_call(self) -> None:
        secret, trusted = Path(self.path("secret")), Path(self.path("trusted.pem"))
        password = Secret(file=Named("secret", self.folder))
        self.assertEqual(
            self.put(password=password), Answer(None, f"[pybit] password_file: no such file in {self.folder}")
        )
        secret.write_text("pass\n")
        self.assertEqual(
            self.put(ca_file="trusted.pem"), Answer(None, f"[pybit] ca_file: no such file in {self.folder}")
        )
        trusted.write_bytes(Path(self.path("ca.pem")).read_bytes())
        self.assertEqual(self.put(password=password, ca_file="trusted.pem").code, 200)
        secret.write_text("other\n")
        self.assertEqual(self.put(password=password).code, 401)


class ClientTest(CertificatesCase, ClientCase):
    def test_client_tells_pybit_over_https_and_says_why_it_cannot(self) -> None:
        self.web.die()
        self.web = PybitWeb(broker=self.node, tls=self.context())
        self.addCleanup(self.web.die)
        url = f"https://{HOST}:{self.web.port}"
        job = self.submit()
        rbit = self.start("record", pybit={"url": url, "ca_file": self.certificates.folder / "stranger.pem"})
        rbit.wait_for_line("WARNING .*" + re.escape(UNKNOWN))
        rbit.wait_for_line("Done")
        self.assertEqual(rbit.stop(), 0, rbit.output)
        rbit = self.start("record", pybit={"url": url, "ca_file": self.certificates.folder / "ca.pem"})
        self.wait_for_statuses(job, "Waiting", "Building", "Done")
        self.assertEqual(rbit.stop(), 0, rbit.output)

    def test_start_says_that_nothing_is_checked(self) -> None:
        self.web.die()
        self.web = PybitWeb(broker=self.node, tls=self.context())
        self.addCleanup(self.web.die)
        rbit = self.start("record", pybit={"url": self.web.url, "verify": "no"})
        rbit.wait_for_line(r"WARNING rbit.ini: \[pybit\] verify: no certificate is checked")
        self.wait_for_statuses(self.submit(), "Waiting", "Building", "Done")
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertNotIn("InsecureRequestWarning", rbit.output)


if __name__ == "__main__":
    unittest.main()
