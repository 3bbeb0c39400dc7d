"""Passwords in files and variables, the keys of TLS in the INI file, and who else can read them."""

from __future__ import annotations

import os
import unittest
from pathlib import Path
from unittest import mock

from rbit import secret
from rbit.files import CREDENTIALS, Named
from rbit.secret import Secret
from tests.support.certificates import Certificates
from tests.test_config import MINIMAL, SECRET, ConfigCase, with_lines

VARIABLE = "AMQP_SECRET"
NOBODY = 65534  # the id of a user
LOCKED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgPVDte+8Ha/wICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEKeGtZuObt6Pd0oRygG5V60EQNrk
G9vTNDzOP01K4rXYCbOV+Cdfb19YtLG5bV7baRIqerCpcXodgduEKQsoOqp6cUAF
CSONu0wIKr9tM9w7HSM=
-----END ENCRYPTED PRIVATE KEY-----
"""  # a key with a passphrase
WEB = "url = https://web\n"


class SecretsCase(ConfigCase):
    def setUp(self) -> None:
        super().setUp()
        self.environment()
        for name in (CREDENTIALS, VARIABLE):
            os.environ.pop(name, None)

    def environment(self, **variables: str) -> None:
        patch = mock.patch.dict(os.environ, variables)
        patch.start()
        self.addCleanup(patch.stop)

    def write(self, name: str, data: str | bytes = "") -> Path:
        path = Path(self.folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def password(self, lines: str) -> str:
        return self.read(with_lines("amqp", lines)).amqp.password.read()


class PasswordTest(SecretsCase):
    def test_password_is_the_one_line_of_a_file(self) -> None:
        for data in ("p w", "p w\n", "p w\r\n", "\ufeffp w\n"):
            self.write("secret", data)
            self.assertEqual(self.password("password_file = secret"), "p w", data)
        self.write("secret", " \u00fc\t \n")  # blanks are part of it
        self.assertEqual(self.password("password_file = secret"), " \u00fc\t ")
        longest = "x" * (secret.LONGEST - 1)
        self.write("secret", longest + "\n")
        self.assertEqual(self.password("password_file = secret"), longest)

    def test_file_that_holds_no_password_is_a_mistake(self) -> None:
        for data, mistake in (
            ("", "expected a password, got nothing"),
            ("\n", "expected a password, got nothing"),
            ("a\nb\n", "expected one line, got more"),
            ("a\n\n", "expected one line, got more"),
            (b"a\0b\n", "expected text, got a NUL character"),
            (b"\x7fELF\xff", "expected text in UTF-8, got the byte 0xff"),
            ("x" * (secret.LONGEST + 1), "expected at most 4096 bytes, got more"),
            ("\u00fc" * secret.LONGEST, "expected at most 4096 bytes, got more"),
        ):
            with self.subTest(mistake=mistake, data=data[:9]):
                self.write("secret", data)
                for section, more in (("amqp", ""), ("pybit", WEB)):
                    lines = with_lines(section, more + "password_file = secret")
                    self.assert_mistake(lines, f"[{section}] password_file: {mistake}")

    def test_file_that_cannot_be_read_is_a_mistake_without_its_name(self) -> None:
        os.mkfifo(os.path.join(self.folder, "pipe"))
        self.write("folder/secret")
        (loop := Path(self.folder, "loop")).symlink_to(loop)
        for name, mistake in (
            (SECRET, f"no such file in {self.folder}"),
            (f"folder/secret/{SECRET}", f"no such file in {self.folder}"),
            (f"/nowhere/{SECRET}", "no such file"),
            ("folder", "expected a file, got a directory"),
            ("/dev/zero", "expected a file, got a device"),
            ("pipe", "expected a file, got a pipe, and it is read more than once"),
            ("loop", "cannot be read: Too many levels of symbolic links"),
            ("x" * 300, "cannot be read: File name too long"),
        ):
            with self.subTest(name=name):
                found = self.mistakes(with_lines("amqp", f"password_file = {name}"))
                self.assertEqual(found, [f"rbit.ini: [amqp] password_file: {mistake}"])

    def test_file_without_the_right_to_read_it_is_a_mistake(self) -> None:
        path = self.write("closed/secret", "x")
        wanted = Secret(file=Named(path.name, str(path.parent)))
        os.chmod(self.folder, 0o755)
        self.addCleanup(os.chmod, path.parent, 0o755)
        for of_file, of_folder in ((0o000, 0o755), (0o644, 0o000)):
            path.chmod(of_file)
            path.parent.chmod(of_folder)
            root = os.geteuid() == 0  # who may read everything
            os.seteuid(NOBODY if root else os.geteuid())
            try:
                with self.assertRaisesRegex(ValueError, "^cannot be read: Permission denied$"):
                    wanted.read()
            finally:
                os.seteuid(0 if root else os.geteuid())
            path.parent.chmod(0o755)

    def test_relative_name_is_looked_up_among_the_credentials_and_then_beside_the_file(self) -> None:
        given = self.write("given/secret", "of the service").parent
        self.environment(**{CREDENTIALS: str(given)})
        self.write("secret", "beside")
        self.write("other", "other")
        self.assertEqual(self.password("password_file = secret"), "of the service")
        self.assertEqual(self.password("password_file = other"), "other")
        self.assertEqual(self.password(f"password_file = {self.folder}/secret"), "beside")
        mistake = f"[amqp] password_file: no such file in {given} or {self.folder}"
        self.assert_mistake(with_lines("amqp", "password_file = none"), mistake)
        os.unlink(given / "secret")
        self.assertEqual(self.password("password_file = secret"), "beside")

    def test_password_is_read_from_a_variable_that_is_not_named_in_a_mistake(self) -> None:
        lines = f"password_env = {VARIABLE}"
        where = "[amqp] password_env: "
        missing = "there is no such variable in the environment of rbit"
        self.assert_mistake(with_lines("amqp", lines), where + missing)
        self.environment(**{VARIABLE: ""})
        self.assert_mistake(with_lines("amqp", lines), f"{where}expected a password, got nothing")
        self.environment(**{VARIABLE: "\udcff"})
        self.assert_mistake(with_lines("amqp", lines), f"{where}expected text in UTF-8, got the byte 0xff")
        self.environment(**{VARIABLE: "p\u00fc"})
        self.assertEqual(self.password(lines), "p\u00fc")
        mistakes = self.mistakes(with_lines("amqp", f"password_env = {SECRET}"))  # no name: it has a "-"
        expected = "expected the name of an environment variable, got a value that is not shown"
        self.assertEqual(mistakes, [f"rbit.ini: {where}{expected}"])

    def test_password_is_read_anew_each_time(self) -> None:
        self.write("secret", "a")
        read = self.read(with_lines("amqp", "password_file = secret")).amqp.password
        self.write("secret", "b")
        self.assertEqual(read.read(), "b")
        os.unlink(os.path.join(self.folder, "secret"))
        with self.assertRaisesRegex(ValueError, "^no such file in "):
            read.read()

    def test_password_stands_in_one_place(self) -> None:
        self.write("secret", "a")
        self.environment(**{VARIABLE: "a"})
        keys = {"password": "a", "password_file": "secret", "password_env": VARIABLE}
        for section, more in (("amqp", ""), ("pybit", WEB)):
            for left_out in ("", *keys):
                given = [key for key in keys if key != left_out]
                lines = more + "\n".join(f"{key} = {keys[key]}" for key in given)
                mistake = f"[{section}] {given[0]}: expected only one of {' and '.join(given)}"
                with self.subTest(section=section, given=given):
                    self.assert_mistake(with_lines(section, lines), mistake)

    def test_no_repr_shows_a_password_of_a_file_or_a_variable(self) -> None:
        self.write("secret", SECRET)
        self.environment(**{VARIABLE: SECRET})
        text = with_lines("amqp", "password_file = secret") + f"[pybit]\n{WEB}password_env = {VARIABLE}\n"
        read = self.read(text)
        assert read.pybit is not None
        self.assertEqual((read.amqp.password.read(), read.pybit.password.read()), (SECRET, SECRET))
        self.assertNotIn(SECRET, repr(read) + str(read) + repr(read.pybit.password))
        self.assertNotIn(SECRET, repr(Secret(file=Named(SECRET, self.folder))))  # written in the wrong place


class TlsKeysTest(SecretsCase):
    def setUp(self) -> None:
        super().setUp()
        self.certificates = Certificates(Path(self.folder))

    def test_default_port_is_that_of_tls(self) -> None:
        for lines, port in (("", 5672), ("ssl = no", 5672), ("ssl = yes", 5671), ("ssl = yes\nport = 5672", 5672)):
            read = self.read(with_lines("amqp", f"{lines}\nhost = a, b:1")).amqp
            self.assertEqual((read.nodes, read.tls is None), ([("a", port), ("b", 1)], "yes" not in lines), lines)

    def test_keys_of_tls_without_it_are_mistakes(self) -> None:
        lines = "ca_file = ca.pem\ncert_file = a\nkey_file = b\nverify = yes"
        said = "expected ssl = yes, for without TLS this key means nothing"
        keys = ("ca_file", "cert_file", "key_file", "verify")
        self.assert_mistake(with_lines("amqp", lines), *(f"[amqp] {key}: {said}" for key in keys))
        self.assert_mistake(
            with_lines("pybit", f"url = http://web\n{lines}"),
            *(f"[pybit] {key}: expected https in url, for without TLS this key means nothing" for key in keys),
        )

    def test_files_that_are_not_what_they_should_be_are_mistakes(self) -> None:
        self.certificates.issue("a")
        self.certificates.issue("b")
        self.write("junk", "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n")
        self.write("locked", LOCKED)
        for lines, mistake in (
            ("ca_file = none", f"ca_file: no such file in {self.folder}"),
            ("ca_file = a.key", "ca_file: expected a certificate in PEM form, got none"),
            ("ca_file = /dev/null", "ca_file: expected a file, got a device"),
            ("ca_file = junk", "ca_file: expected certificates in PEM form (.*)"),
            ("cert_file = ca.pem", "cert_file: expected a private key in PEM form, got none"),
            ("cert_file = a.pem\nkey_file = ca.pem", "key_file: expected a private key in PEM form, got none"),
            ("cert_file = a.key\nkey_file = a.key", "cert_file: expected a certificate in PEM form, got none"),
            ("cert_file = a.pem\nkey_file = b.key",
             "key_file: expected the key of the certificate in cert_file, got another"),
            ("cert_file = junk\nkey_file = a.key",
             "key_file: expected a certificate and its key in PEM form (.*)"),
            ("cert_file = a.pem\nkey_file = locked",
             "key_file: expected a key without a passphrase, got one that needs it"),
            ("key_file = a.key", "cert_file: missing, for key_file is the key of its certificate"),
        ):
            with self.subTest(lines=lines):
                found = self.mistakes(with_lines("amqp", f"ssl = yes\n{lines}"))
                self.assertEqual(len(found), 1, found)
                self.assertRegex(found[0], rf"^rbit.ini: \[amqp\] {mistake}$")
        self.assert_mistake(
            with_lines("pybit", WEB + "ca_file = none"), f"[pybit] ca_file: no such file in {self.folder}"
        )

    def test_files_are_looked_up_among_the_credentials_too(self) -> None:
        self.write("c/ca.pem", Path(self.folder, "ca.pem").read_bytes())
        self.environment(**{CREDENTIALS: f"{self.folder}/c"})
        read = self.read(with_lines("amqp", "ssl = yes\nca_file = ca.pem")).amqp
        assert read.tls is not None and read.tls.ca_file is not None
        self.assertEqual(read.tls.ca_file.path(), f"{self.folder}/c/ca.pem")


class ReadersTest(SecretsCase):
    def said(self, text: str, mode: int) -> list[str]:
        self.mode = mode
        return self.warnings(text)

    def test_password_in_a_file_that_others_can_read_is_a_warning(self) -> None:
        texts = {
            "amqp": with_lines("amqp", "password = p"),
            "pybit": with_lines("pybit", WEB + "password = p"),
        }
        for section, text in texts.items():
            for mode, who in (
                (0o644, "its group and others"), (0o640, "its group"), (0o604, "others"), (0o600, ""), (0o622, ""),
            ):
                said = f"{who} can read it in this file: chmod 600 {self.path}, or name a password_file instead"
                expected = [f"rbit.ini: [{section}] password: {said}"] if who else []
                with self.subTest(section=section, mode=oct(mode)):
                    self.assertEqual(self.said(text, mode), expected)

    def test_file_without_a_secret_may_be_read_by_all(self) -> None:
        self.write("secret", "p").chmod(0o600)
        for lines in ("", "password = guest", "password =", "password_file = secret"):
            self.assertEqual(self.said(with_lines("amqp", lines), 0o644), [], lines)

    def test_password_or_key_that_others_can_read_in_a_file_of_its_own_is_a_warning(self) -> None:
        password = self.write("secret", "p")
        key = Certificates(Path(self.folder)).issue("a").with_suffix(".key")
        lines = "password_file = secret\ncert_file = a.pem\nkey_file = a.key"
        texts = {"amqp": with_lines("amqp", f"ssl = yes\n{lines}"), "pybit": with_lines("pybit", WEB + lines)}
        for section, text in texts.items():
            for mode, who in ((0o644, "its group and others"), (0o640, "its group"), (0o600, "")):
                expected = [
                    f"rbit.ini: [{section}] {name}: {who} can read this file: chmod 600 {path}"
                    for name, path in (("password_file", password), ("key_file", key)) if who
                ]
                password.chmod(mode)
                key.chmod(mode)
                with self.subTest(section=section, mode=oct(mode)):
                    self.assertEqual(self.said(text, 0o644), expected)

    def test_key_in_the_file_of_its_certificate_is_one_that_others_must_not_read(self) -> None:
        made = Certificates(Path(self.folder)).issue("a")
        for section, text in {
            "amqp": with_lines("amqp", "ssl = yes\ncert_file = a.pem"),
            "pybit": with_lines("pybit", WEB + "cert_file = a.pem"),
        }.items():
            for mode, who in ((0o644, "its group and others"), (0o640, "its group"), (0o600, "")):
                made.chmod(mode)
                said = f"rbit.ini: [{section}] cert_file: {who} can read this file: chmod 600 {made}"
                with self.subTest(section=section, mode=oct(mode)):
                    self.assertEqual(self.said(text, 0o644), [said] if who else [])

    def test_group_of_another_users_file_is_how_rbit_reads_it(self) -> None:
        text = with_lines("amqp", "password = p")
        with mock.patch("os.geteuid", return_value=os.geteuid() + 1):
            self.assertEqual(self.said(text, 0o640), [])
            self.assertRegex(self.said(text, 0o644)[0], "password: others can read it")

    def test_verify_off_is_a_warning(self) -> None:
        said = "verify: no certificate is checked, so whoever is in between can read the password and "
        text = MINIMAL.replace("[amqp]", "[amqp]\nssl = yes\nverify = no") + f"[pybit]\n{WEB}verify = no\n"
        found = self.warnings(text)
        for line, section in zip(found, ("amqp", "pybit"), strict=True):
            self.assertRegex(line, rf"^rbit.ini: \[{section}\] {said}")


if __name__ == "__main__":
    unittest.main()
