"""One status, sent to PyBit's web front-end over HTTP.

The only importer of requests, and of urllib3, which comes with it. Knows nothing of queues of statuses or of
retries. Runs in the reporter's thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from rbit import __version__
from rbit.message import Answer
from rbit.settings import PybitSettings

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
        # As bytes: requests would encode text as Latin-1.
        user, password = settings.user.encode(), settings.password.encode()
        self._session.auth = HTTPBasicAuth(user, password) if user else _NoAuth()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter())

    def put(self, job: int, status: str) -> Answer:
        """Sends a status.

        It takes no longer than the timeout to connect, and once more to answer; what follows the head of the
        answer is not read. Only the configured address is contacted (by the environment's proxy, if it names
        one): the ``web_host`` in a message comes from whoever can publish, and must not be sent the
        password. Redirects are not followed for the same reason.

        Arguments:
            job: PyBit's id of the job.
            status: the name of the status.
        """
        began = time.monotonic()
        timeout = self._settings.timeout
        try:
            answer = self._session.put(
                f"{self._settings.url}/job/{job}",
                data={"status": status.encode(errors="replace"), "client": self._client},
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            )
        except requests.RequestException as error:
            late = time.monotonic() - began >= timeout
            return Answer(None, f"no answer within {timeout:g} s" if late else f"no connection: {_cause(error)}")
        answer.close()
        place = _place(answer, job) if answer.is_redirect else None
        if place:
            return Answer(answer.status_code, f"the url in [pybit] redirects to {place!r}, put that there")
        other = "is the url in [pybit] right?" if answer.status_code >= 300 else ""
        return Answer(answer.status_code, MEANINGS.get(answer.status_code, other))


def _cause(error: BaseException) -> str:
    """The system's words for what went wrong, or the name of the error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__


def _place(answer: requests.Response, job: int) -> str | None:
    """Where a redirect leads: what of it would stand in [pybit], and no secret; None when it makes no sense."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(urljoin(answer.url, answer.headers["Location"]))
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path.removesuffix(f'/job/{job}')}"
    return None


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
    """Hangs up when the head of an answer is not whole in time: a socket's timeout begins anew with each byte."""

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        timer = threading.Timer(self.timeout or 0, _hang_up, (self.sock,))
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread to be had: the socket's timeout must do
            timer.start()
        try:
            return super().getresponse(*args, **kwargs)
        finally:
            timer.cancel()


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
