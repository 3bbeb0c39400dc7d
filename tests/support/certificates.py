"""Certificates made for a test: an authority of its own, what it issues, and strangers' ones.

It knows nothing of rbit. It runs in the process that tests.
"""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme

HOST = "localhost"  # and not 127.0.0.1: that is another name, at which the same servers are


class Certificates:
    """An authority, whose certificate is in ``ca.pem``, and that of a stranger, in ``stranger.pem``.

    Arguments:
        folder: where all files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authorities = {"ca": trustme.CA(), "stranger": trustme.CA()}
        for name, authority in self._authorities.items():
            authority.cert_pem.write_to_path(str(folder / f"{name}.pem"))

    def issue(self, name: str, issuer: str = "ca", expired: bool = False) -> Path:
        """Issue a certificate for HOST; return the file NAME.pem that holds it and its key.

        The key alone is in NAME.key.
        """
        now = datetime.now(timezone.utc)
        until = now - timedelta(days=1) if expired else now + timedelta(days=1)
        made = self._authorities[issuer].issue_cert(HOST, not_before=now - timedelta(days=9), not_after=until)
        path = self.folder / f"{name}.pem"
        made.private_key_and_cert_chain_pem.write_to_path(str(path))
        made.private_key_pem.write_to_path(str(path.with_suffix(".key")))
        return path

    def server_context(self, server: Path, mutual: bool = False) -> ssl.SSLContext:
        """Return what a server of Python's speaks TLS with. Arguments: as of ``options``."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(server)
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.folder / "ca.pem")
        return context

    def options(self, server: Path, mutual: bool = False) -> dict[str, object]:
        """Return RabbitMQ's ``ssl_options`` for a server's certificate.

        Arguments:
            server: as ``issue`` returned it.
            mutual: whether clients need a certificate of this authority.
        """
        return {
            "cacertfile": self.folder / "ca.pem", "certfile": server, "keyfile": server,
            "verify": "verify_peer" if mutual else "verify_none", "fail_if_no_peer_cert": str(mutual).lower(),
        }
