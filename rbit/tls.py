"""TLS: what the configuration says of it, the context that follows from that, and failures in words.

Knows nothing of RabbitMQ or PyBit. Used in the client.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from rbit.files import Named

LARGEST = 1 << 24  # bytes of a file
CERTIFICATE, KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"
# Why a certificate is not accepted; the numbers are OpenSSL's, see X509_STORE_CTX_get_error(3).
NOT_NOW = (9, 10)  # not yet, or no more
ADVICE = {
    **dict.fromkeys((2, 18, 19, 20, 21), "; is its issuer in ca_file?"),
    **dict.fromkeys((62, 64), "; host or url must have a name that it was issued for"),
}
# Parts of OpenSSL's names for what the other side says when it refuses us, and would do so again.
REFUSALS = (
    "CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_REVOKED", "UNSUPPORTED_CERTIFICATE", "ACCESS_DENIED", "PROTOCOL_VERSION",
)
NO_ADVICE = ("UNKNOWN_CA", "PROTOCOL_VERSION")  # those that say themselves what it is
# Its names for what is no TLS; which one depends on its version and on what came.
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


@dataclass(frozen=True)
class Tls:
    """How the other side is known, and we to it.

    Arguments:
        ca_file: certificates of those who may have issued the other side's; None: the system's.
        cert_file, key_file: our own certificate and its key; without the second it is in the first.
        verify: whether the other side's certificate is checked, and that it is for the host.
    """

    ca_file: Named | None = None
    cert_file: Named | None = None
    key_file: Named | None = None
    verify: bool = True


class Unusable(ValueError):
    """Raised when a file of a `Tls` is of no use now.

    Arguments:
        key: the key that names it.
        why: in words.
    """

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


def context(tls: Tls) -> ssl.SSLContext:
    """Returns a context made of the files as they are now. Errors: Unusable."""
    authorities = _pem("ca_file", tls.ca_file, CERTIFICATE) if tls.ca_file else None
    try:
        made = ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:
        raise Unusable("ca_file", f"expected certificates in PEM form ({_said(error)})") from error
    if not tls.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if tls.cert_file:
        certificate = _pem("cert_file", tls.cert_file, CERTIFICATE)
        key = ("key_file", tls.key_file) if tls.key_file else ("cert_file", tls.cert_file)
        try:
            made.load_cert_chain(certificate, _pem(*key, KEY), _no_passphrase)
        except OSError as error:  # of OpenSSL; or a file is gone meanwhile
            if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
                raise Unusable(key[0], "expected the key of the certificate in cert_file, got another") from error
            raise Unusable(key[0], f"expected a certificate and its key in PEM form ({_said(error)})") from error
        except ValueError as error:
            raise Unusable(key[0], str(error)) from error
    return made


def words(error: ssl.SSLError) -> tuple[str, bool]:
    """Returns a failure in words, to follow who it is about, and whether another try would end the same."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
        return said + ADVICE.get(error.verify_code, ""), error.verify_code not in NOT_NOW
    if reason in NO_TLS:
        return "it does not speak TLS on this port; is there another one for that?", True
    if "ALERT" in reason:
        for_good = any(part in reason for part in REFUSALS)
        silent = not for_good or any(part in reason for part in NO_ADVICE)
        advice = "" if silent else "; are cert_file and key_file what it wants?"
        return f"it refuses the TLS connection: {_said(error)}{advice}", for_good
    return _said(error), False


def _pem(key: str, file: Named, mark: bytes) -> str:
    """Returns the path of a file that has the mark of what it should hold. Errors: Unusable."""
    try:
        if mark not in file.read(LARGEST):
            what = "a private key" if mark == KEY else "a certificate"
            raise ValueError(f"expected {what} in PEM form, got none")
        return file.path()
    except ValueError as error:
        raise Unusable(key, str(error)) from error


def _no_passphrase() -> str:
    # Without this OpenSSL would ask for one in the terminal.
    raise ValueError("expected a key without a passphrase, got one that needs it")


def _said(error: Exception) -> str:
    """OpenSSL's words, without its numbers and the place in Python's source."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return reason.lower().replace("_", " ") if reason else str(error)
