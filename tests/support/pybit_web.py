"""A stand-in for PyBit's web front-end: the part of its HTTP interface that a build client meets.

It answers as the real one was seen to answer (captures under ``tests/captures/http``), and it can be slow,
broken, silent or dead when told so. It runs in threads of the process that tests and knows nothing of rbit.
"""

from __future__ import annotations

import datetime
import html
import json
import re
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from tests.support.http_wire import Answer, Request, Server
from tests.support.processes import free_port

STATUSES = ("Waiting", "Blocked", "Cancelled", "Building", "Failed", "Uploaded", "Done")


@dataclass
class _Job:
    package: dict[str, Any]
    client: str | None = None
    rows: list[tuple[str, str | None, str]] = field(default_factory=list)  # status, client sent with it, time


def _error_page(code: int) -> Answer:
    title = f"Error: {code}"
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return Answer(code, HTTPStatus(code).phrase, page)


def _json(value: object) -> Answer:
    return Answer(200, "OK", json.dumps(value), "application/json")


def _model(kind: str, /, **fields: object) -> dict[str, object]:
    return {"py/object": f"pybit.models.{kind}", **fields}


class PybitWeb:
    """The stand-in; starts at once, on 127.0.0.1; also a context manager that ends it.

    Arguments:
        user, password: what basic authentication wants.
    """

    def __init__(self, user: str = "admin", password: str = "pass") -> None:
        self.user = user
        self.password = password
        self.requests: list[Request] = []
        self.buildds: dict[str, int] = {}
        self.port = 0
        self._jobs: dict[int, _Job] = {}
        self._lock = threading.RLock()
        self._delay = 0.0
        self._failures: list[int] = []
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
        return f"http://127.0.0.1:{self.port}"

    def add_job(self, job_id: int, package: dict[str, Any] | None = None) -> None:
        """Add a job with the status Waiting.

        Arguments:
            job_id: its id in the URLs.
            package: the JSON of its PackageInstance; None for one that is made up.
        """
        with self._lock:
            self._jobs[job_id] = _Job(package or _package(job_id))
            self._add_row(self._jobs[job_id], "Waiting", None)

    def history(self, job_id: int) -> list[tuple[str, str | None]]:
        """Return the statuses of a job, oldest first, each with the client that was sent with it."""
        with self._lock:
            return [(status, client) for status, client, _ in self._jobs[job_id].rows]

    def slow(self, seconds: float) -> None:
        """Wait before each answer from now on; 0 ends it."""
        self._delay = seconds

    def fail_next(self, count: int, code: int) -> None:
        """Answer the next requests with an error code and do nothing else with them."""
        with self._lock:
            self._failures += [code] * count

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
                self._server = Server(port, self._work_off)
            except OSError:
                attempts -= 1
                if not attempts:
                    raise
            else:
                self.port = port

    def _work_off(self, request: Request, server: Server) -> Answer | None:
        with self._lock:
            self.requests.append(request)
            failure = self._failures.pop(0) if self._failures else None
        self._open.wait()
        if server.gone.wait(self._delay):
            return None
        with self._lock:
            answer = _error_page(failure) if failure else self._route(request)
            if self._elsewhere is not None:
                answer = Answer(302, "Found", headers={"Location": self._elsewhere + request.path})
            answer.drip, answer.drip_head = self._drip
            if answer.drip:
                answer.body += " " * 10_000
            request.status = answer.status
            return answer

    def _route(self, request: Request) -> Answer:
        path = urlsplit(request.path).path
        writes = request.method in {"PUT", "POST"}
        job = re.fullmatch(r"/job/(\d+)(/status)?", path)
        if writes and request.auth != (self.user, self.password):
            login = {"Www-Authenticate": 'Basic realm="PyBit"'}
            return Answer(401, "- Unauthorized", "401 - Unauthorized", "text/html", login)
        if not writes and request.method != "GET":
            return _error_page(405)
        if path in {"/buildd", "/buildd/"}:
            return self._put_buildd(request.form) if writes else self._get_buildds()
        if job and job[2]:
            return _error_page(405) if writes else self._get_history(int(job[1]))
        if job:
            return self._put_status(int(job[1]), request.form) if writes else self._get_job(int(job[1]))
        return _error_page(404)

    def _put_status(self, job_id: int, form: dict[str, str]) -> Answer:
        # PyBit stores form values escaped.
        status, client = (_escaped(form.get(name, "")) for name in ("status", "client"))
        if not status:
            return Answer(400, "- Required fields missing.")
        job = self._jobs.get(job_id)
        if job is None or status not in STATUSES:
            return _error_page(500)
        if client:
            job.client = client
            self.buildds.setdefault(client, len(self.buildds) + 1)
        self._add_row(job, status, client or None)
        return Answer(200)

    def _get_history(self, job_id: int) -> Answer:
        job = self._jobs.get(job_id)
        if job is None:
            return Answer(404, "- No job found with this ID.")
        # The real one shows the job's present client in every row, also in rows of another client.
        return _json([
            _model("JobHistory", job_id=job_id, status=status, buildclient=job.client, time=when)
            for status, _, when in job.rows
        ])

    def _get_job(self, job_id: int) -> Answer:
        job = self._jobs.get(job_id)
        if job is None:
            return _error_page(500)
        client = job.client and _model("BuildD", id=self.buildds[job.client], name=job.client)
        return _json(_model("Job", id=job_id, packageinstance=job.package, buildclient=client))

    def _get_buildds(self) -> Answer:
        return _json([_model("BuildD", id=key, name=name) for name, key in sorted(self.buildds.items())])

    def _put_buildd(self, form: dict[str, str]) -> Answer:
        name = form.get("name", "")
        if not name:
            return Answer(400, "- Required fields missing.")
        if name in self.buildds:
            return _error_page(500)
        self.buildds[name] = len(self.buildds) + 1
        return Answer(200)

    @staticmethod
    def _add_row(job: _Job, status: str, client: str | None) -> None:
        job.rows.append((status, client, str(datetime.datetime.now())))


def _escaped(value: str) -> str:
    return html.escape(value, quote=False).replace('"', "&quot;")


def _package(job_id: int) -> dict[str, Any]:
    return _model(
        "PackageInstance",
        id=job_id,
        package=_model("Package", id=job_id, version="1.0", name=f"package{job_id}"),
        arch=_model("Arch", id=3, name="any"),
        build_env=None,
        suite=_model("Suite", id=4, name="latex"),
        distribution=_model("Dist", id=2, name="cnx"),
        format=_model("Format", id=2, name="pdf"),
        master=True,
    )
