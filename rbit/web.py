"""PyBit's web front-end, over HTTP: a status is sent, the last one is asked for, the client is registered.

The only importer of requests, and of urllib3, which comes with it. Knows nothing of queues of statuses or of
retries. Runs in threads that may wait; each has a ``Web`` of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from http.client import BadStatusLine
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, InsecureRequestWarning
from urllib3.util.ssl_match_hostname import CertificateError

from rbit import __version__, tls
from rbit.message import OK, OUTAGES, Answer, Entry
from rbit.settings import PybitSettings
from rbit.tls import Tls

LONGEST = 1 << 20  # bytes of an answer that are read
BUNDLE = "REQUESTS_CA_BUNDLE"  # a variable that requests knows
_of_thread = threading.local()  # ``timer`` limits the call that the thread is in

MEANINGS = {
    400: "PyBit finds the update malformed",
    401: "the user or password in [pybit] is wrong",
    403: "the user in [pybit] may not do this",
    404: "there is no such address: is the url in [pybit] right?",
    405: "there is no such address: is the url in [pybit] right?",
}


class Web:
    """PyBit's web front-end.

    Arguments:
        settings: where it is.
        client: the client's name, sent as the form field ``client``.
    """

    def __init__(self, settings: PybitSettings, client: str) -> None:
        self._settings = settings
        self._client = client
        self._session = _Session()
        self._session.headers["User-Agent"] = f"rbit/{__version__}"
        if settings.tls and not settings.tls.verify:
            urllib3.disable_warnings(InsecureRequestWarning)  # rbit says it itself
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter())

    def put(self, job: int, status: str) -> Answer:
        """Sends a status.

        Arguments:
            job: PyBit's id of the job.
            status: the name of the status.
        """
        form: dict[str, str | bytes] = {"status": status.encode(errors="replace"), "client": self._client}
        return self._call("PUT", f"/job/{job}", self._settings.timeout, form)[0]

    def last(self, job: int, timeout: float | None = None) -> tuple[Answer, Entry | None]:
        """Asks for the last status of a job; None for it when the answer is none.

        Arguments:
            job: PyBit's id of the job.
            timeout: seconds, as in the settings; None: those.
        """
        answer, text = self._call("GET", f"/job/{job}/status", timeout or self._settings.timeout)
        if answer.code != OK:
            return answer, None
        try:
            row = (json.loads(text) or [{}])[-1]
            entry = Entry(*(row.get(key) for key in ("status", "buildclient")))
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
            return Answer(answer.code, "its answer makes no sense"), None
        texts = all(value is None or isinstance(value, str) for value in (entry.status, entry.client))
        return (answer, entry) if texts else (Answer(answer.code, "its answer makes no sense"), None)

    def register(self) -> bool:
        """Makes the client's name known if PyBit does not list it; returns whether PyBit has answered."""
        answer, text = self._call("GET", "/buildd", self._settings.timeout)
        if answer.code != OK:
            return answer.code is not None and answer.code not in OUTAGES
        with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
            if self._client not in [row.get("name") for row in json.loads(text)]:
                self._call("PUT", "/buildd", self._settings.timeout, {"name": self._client.encode()})
        return True

    def _access(self) -> dict[str, Any]:
        """Returns the arguments of a request that say who asks, and how both sides show it, as all is now.

        Errors: _NoAccess.
        """
        settings, key = self._settings, self._settings.password.key
        try:
            # As bytes: requests would encode text as Latin-1.
            user, password = settings.user.encode(), settings.password.read().encode() if settings.user else b""
            key = "ca_file"
            proofs = _proofs(settings.tls) if settings.tls else {}
        except ValueError as error:
            key = error.key if isinstance(error, tls.Unusable) else key
            raise _NoAccess(f"[pybit] {key}: {error}") from error
        return {"auth": HTTPBasicAuth(user, password) if user else _NoAuth(), **proofs}

    def _call(
        self, method: str, path: str, timeout: float, form: Mapping[str, str | bytes] | None = None
    ) -> tuple[Answer, bytes]:
        """Calls; returns what came of it, and the text of the answer, which is not read for a form.

        It takes no longer than the timeout to connect, and once more to answer. Only the configured address is
        contacted (by the environment's proxy, if it names one): the ``web_host`` in a message comes from whoever
        can publish, and must not be sent the password. Redirects are not followed for the same reason.
        """
        began = time.monotonic()
        text = b""
        try:
            answer = self._session.request(
                method, self._settings.url + path, data=form, timeout=timeout, allow_redirects=False, stream=True,
                **self._access(),
            )
            with contextlib.closing(answer):
                if form is None and answer.status_code == OK:
                    text = answer.raw.read(LONGEST, decode_content=True)
        except _NoAccess as error:
            return Answer(None, str(error)), b""
        except (requests.RequestException, HTTPError, OSError) as error:
            late = time.monotonic() - began >= timeout
            words = f"no answer within {timeout:g} s" if late else f"no connection: {_cause(error)}"
            return Answer(None, words), b""
        finally:
            if (timer := getattr(_of_thread, "timer", None)) is not None:
                timer.cancel()
        place = _place(answer, path) if answer.is_redirect else None
        if place:
            return Answer(answer.status_code, f"the url in [pybit] redirects to {place!r}, put that there"), b""
        other = "is the url in [pybit] right?" if answer.status_code >= 300 else ""
        return Answer(answer.status_code, MEANINGS.get(answer.status_code, other)), text


def _proofs(settings: Tls) -> dict[str, Any]:
    """Returns the arguments of a request over https: what PyBit's certificate is checked with, and our own.

    The first is named in each case: else requests would take the certificates that it brings, or what the
    environment says in place of ``ca_file``.
    """
    if settings.ca_file or settings.cert_file:
        tls.context(settings)  # its errors say what is wrong with a file; those of requests do not
    own = [file.path() for file in (settings.cert_file, settings.key_file) if file]
    system = ssl.get_default_verify_paths()
    trusted = os.environ.get(BUNDLE) or system.cafile or system.capath or True
    if settings.ca_file:
        trusted = settings.ca_file.path()
    return {"verify": trusted if settings.verify else False, "cert": (own[0], own[-1]) if own else None}


def _cause(error: BaseException) -> str:
    """The system's words for what went wrong, or the name of the error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return tls.words(seen)[0]
        if isinstance(seen, CertificateError):  # urllib3 1 compares names itself
            return f"its certificate is not accepted: {seen}"
        if isinstance(seen, BadStatusLine):
            return "what answers there does not speak HTTP; is the url in [pybit] right, and http or https?"
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__


def _place(answer: requests.Response, path: str) -> str | None:
    """Where a redirect leads: what of it would stand in [pybit], and no secret; None when it makes no sense."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(urljoin(answer.url, answer.headers["Location"]))
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path.removesuffix(path)}"
    return None


class _NoAccess(Exception):
    """Raised when the password or a certificate cannot be read now."""


class _Session(requests.Session):
    """Leaves redirects alone: requests reads their text and parses their address even when told not to follow."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _NoAuth(AuthBase):
    """No authentication: without it requests would look for a password in ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _hang_up(connected: socket.socket) -> None:
    with contextlib.suppress(OSError, TypeError):  # it is closed meanwhile, or TLS inside of TLS
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _Limited(HTTPConnection):
    """Hangs up when an answer is not whole in time: a socket's timeout begins anew with each byte.

    ``Web`` cancels that when it has read what it wants of it.
    """

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        _of_thread.timer = timer = threading.Timer(self.timeout or 0, _hang_up, (self.sock,))
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread to be had: the socket's timeout must do
            timer.start()
        return super().getresponse(*args, **kwargs)


class _LimitedTls(_Limited, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Limited


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _LimitedTls


class _Adapter(HTTPAdapter):
    """Uses the connections above, also to a proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager
