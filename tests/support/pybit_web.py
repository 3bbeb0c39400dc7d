"""A stand-in for PyBit's web front-end: the part of its HTTP interface that a build client and its tests meet.

It answers as the real one was seen to answer, and publishes what the real one was seen to publish (captures
under ``tests/captures``); it can be slow, broken, silent or dead when told so. It runs in threads of the process
that tests and knows nothing of rbit.
"""

from __future__ import annotations

import re
import ssl
import threading
from typing import Any, Protocol

import pika

from tests.support.http_wire import Answer, Request, Server
from tests.support.processes import free_port
from tests.support.pybit_broker import Broker, Connect
from tests.support.pybit_control import Control
from tests.support.pybit_model import STATUSES, Build, Database, Model, Transport, model
from tests.support.pybit_routes import Routes, error_page

__all__ = ["STATUSES", "PybitWeb"]

BLOCKED_BOUND = 10.0  # seconds that a broker may hold a connection up


class Node(Protocol):
    """A broker that tests started."""

    def parameters(self) -> pika.ConnectionParameters:
        """Return how to connect to it."""


class PybitWeb:
    """The stand-in; starts at once, on 127.0.0.1; also a context manager that ends it.

    Arguments:
        user, password: what basic authentication wants.
        broker: the RabbitMQ that it publishes to, or a function that returns a new connection to it; None for
            one that is away: then what needs it (submissions, retries and cancels) is answered with 500, and no
            build client is active.
        tls: what HTTPS is spoken with; None: HTTP.

    Attributes:
        requests: all requests, as they came.
        buildds: the ids of the build clients by name.
        blacklist: names of packages that are taken and not built.
    """

    def __init__(
        self, user: str = "admin", password: str = "pass", broker: Node | Connect | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.user = user
        self.password = password
        self.requests: list[Request] = []
        self.port = 0
        self._tls = tls
        self._database = Database()
        self.buildds = self._database.buildds
        self.blacklist = self._database.blacklist
        publisher = Broker(_connect(broker))
        self._control = Control(self._database, publisher, lambda: f"127.0.0.1:{self.port}")
        self._routes = Routes(self._database, publisher, self._control, lambda: (self.user, self.password))
        self._lock = threading.RLock()
        self._delays: dict[str, float] = {}  # by a pattern of paths, the newest last
        self._failures: list[tuple[int, str]] = []  # code, pattern of paths
        self._drip = (0.0, False)
        self._elsewhere: str | None = None
        self._open = threading.Event()  # cleared while it hangs
        self._open.set()
        self._server: Server | None = None
        self.come_back()

    def __enter__(self) -> PybitWeb:
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def add_job(self, job_id: int, package: dict[str, Any] | None = None) -> None:
        """Add a job with the status Waiting, as if it had been submitted, but without a message.

        Arguments:
            job_id: its id in the URLs; a job that has it already is replaced.
            package: the JSON of its PackageInstance; None for one that is made up.
        """
        with self._lock:
            job = self._database.add_job(package or _package(job_id), job_id)
            job.transport = {"method": "git", "uri": "http://example.org/", "vcs_id": ""}

    def register(self, dist: str, arch: str, suite: str, format: str, build_env: str | None = None) -> None:
        """Make names known that submissions may use, and have the suite built for the arch.

        cnx, any, latex and pdf are known. "any" in a submission means every arch of its suite.
        """
        with self._lock:
            self._database.register(dist, arch, suite, format, build_env)

    def submit(
        self, queue: str = "cnx_any_latex_pdf", package: str = "col11406", version: str = "1.0", *,
        uri: str = "http://example.org/content/col11406?a=1&b=2", method: str = "git",
        vcs_id: str | None = "abc123",
    ) -> int:
        """Submit a job as a call of /job/vcshook does, without HTTP; names that are not known are registered.

        Arguments:
            queue: the names of distribution, arch, suite and format, with ``_`` between them.
            package, version: what is to be built.
            uri, method, vcs_id: its transport; None as vcs_id is refused after the job was made.

        Returns:
            the id of the job, of the first one if the suite has more arches that fit.

        Errors:
            PybitError: PyBit would have answered 500.
            IndexError: the package is on the blacklist.
        """
        dist, arch, suite, kind = queue.split("_")
        transport: Transport = {"method": method, "uri": uri, "vcs_id": vcs_id}
        with self._lock:
            self._database.register(dist, arch, suite, kind)
            return self._control.submit(Build(dist, arch, suite, kind, package, version), transport)[0].id

    def cancel(self, job_id: int) -> None:
        """Cancel a job as a call of /job/ID/cancel does, without HTTP; PybitError for what is answered 500."""
        with self._lock:
            self._control.cancel(self._database.job(job_id))

    def history(self, job_id: int) -> list[tuple[str, str | None]]:
        """Return the statuses of a job, oldest first, each with the client that was sent with it.

        Empty for a job that was deleted, of which HTTP shows one row without a status.
        """
        with self._lock:
            return [(status, client) for status, client, _ in self._database.jobs[job_id].rows]

    def slow(self, seconds: float, path: str = "") -> None:
        """Wait before each answer from now on; 0 ends it.

        Arguments:
            seconds: how long.
            path: a regular expression: only requests in whose path it is found; of several that fit the
                newest counts. Without it, all requests, and what was said for paths is forgotten.
        """
        with self._lock:
            if not path:
                self._delays.clear()
            self._delays.pop(path, None)
            self._delays[path] = seconds

    def fail_next(self, count: int, code: int, path: str = "") -> None:
        """Answer the next requests with an error code and do nothing else with them.

        Arguments:
            count: how many.
            code: the HTTP status.
            path: a regular expression: only requests in whose path it is found; the others pass.
        """
        with self._lock:
            self._failures += [(code, path)] * count

    def drip(self, seconds: float, head: bool = False) -> None:
        """Wait before each byte of a long text of an answer from now on, with ``head`` of its head too."""
        self._drip = seconds, head

    def redirect(self, url: str) -> None:
        """Answer every request from now on with a redirect to the same path below another URL."""
        self._elsewhere = url

    def hang(self) -> None:
        """Accept and read requests from now on and answer none, until ``go_on`` or ``die``."""
        self._open.clear()

    def go_on(self) -> None:
        """End ``hang``: the requests that wait are worked off and answered."""
        self._open.set()

    def die(self) -> None:
        """Close the port and every connection: from now on connections are refused."""
        server, self._server = self._server, None
        if server is not None:
            server.gone.set()  # first: requests that hang must find it set
            self._open.set()
            server.end()

    def come_back(self) -> None:
        """Serve again, on the same port, with the jobs and requests of before; harmless when it serves.

        Errors:
            OSError: another process took the port meanwhile.
        """
        attempts = 1 if self.port else 10
        while self._server is None:
            port = self.port or free_port()
            try:
                self._server = Server(port, self._work_off, self._tls)
            except OSError:
                attempts -= 1
                if not attempts:
                    raise
            else:
                self.port = port

    def _work_off(self, request: Request, server: Server) -> Answer | None:
        with self._lock:
            self.requests.append(request)
            failure = self._next_failure(request.path)
        self._open.wait()
        if server.gone.wait(self._delay(request.path)):
            return None
        with self._lock:
            answer = error_page(failure) if failure else self._routes.answer(request)
            if self._elsewhere is not None:
                answer = Answer(302, "Found", headers={"Location": self._elsewhere + request.path})
            answer.drip, answer.drip_head = self._drip
            if answer.drip:
                answer.body += " " * 10_000
            request.status = answer.status
            return answer

    def _next_failure(self, path: str) -> int | None:
        for index, (code, pattern) in enumerate(self._failures):
            if re.search(pattern, path):
                del self._failures[index]
                return code
        return None

    def _delay(self, path: str) -> float:
        with self._lock:
            chosen = [seconds for pattern, seconds in self._delays.items() if re.search(pattern, path)]
        return chosen[-1] if chosen else 0.0


def _connect(broker: Node | Connect | None) -> Connect | None:
    if broker is None or callable(broker):
        return broker

    def connect() -> pika.BlockingConnection:
        parameters = broker.parameters()
        parameters.blocked_connection_timeout = BLOCKED_BOUND  # or a broker under an alarm holds up all calls
        return pika.BlockingConnection(parameters)

    return connect


def _package(job_id: int) -> Model:
    return model(
        "PackageInstance",
        id=job_id,
        package=model("Package", id=job_id, version="1.0", name=f"package{job_id}"),
        arch=model("Arch", id=3, name="any"),
        build_env=None,
        suite=model("Suite", id=4, name="latex"),
        distribution=model("Dist", id=2, name="cnx"),
        format=model("Format", id=2, name="pdf"),
        master=True,
    )
