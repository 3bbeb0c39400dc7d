"""The HTTP interface of the stand-in for PyBit: which call gives which answer.

It answers as the real one was seen to answer (captures under ``tests/captures/http``). The comment ``read`` at
a place says that no answer was seen, only the source. It runs in threads of the process that tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.http_wire import Answer, Request
from tests.support.pybit_broker import Broker
from tests.support.pybit_control import Control, NoArchError
from tests.support.pybit_model import Build, Database, Job, PybitError, Transport, escaped

MISSING = "- Required fields missing."
SUBMITTED = ("distribution", "architecture_list", "suite", "format", "package", "package_version")

Handler = Callable[..., Answer]


def error_page(code: int) -> Answer:
    """Return the answer of a failure, with an HTML page."""
    title = f"Error: {code}"
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return Answer(code, HTTPStatus(code).phrase, page)


class Routes:
    """What is answered to each request.

    Arguments:
        database, broker, control: what the calls work on.
        login: returns the user and the password that basic authentication wants; asked for each request.
    """

    def __init__(
        self, database: Database, broker: Broker, control: Control, login: Callable[[], tuple[str, str]]
    ) -> None:
        self._database = database
        self._broker = broker
        self._control = control
        self._login = login
        # The methods, the path, whether the login is asked for, and what answers. The first that fits counts.
        self._table: list[tuple[str, str, bool, Handler]] = [
            ("GET", "/job/?", False, self._get_jobs),
            ("PUT POST", "/job/?", True, self._put_job),
            ("DELETE", "/job/?", True, self._cancel_all),  # read
            ("PUT POST", "/job/vcshook", True, self._vcshook),
            ("GET", "/job/cancelall", True, self._cancel_all),
            ("GET", "/job/status", False, self._get_unfinished),
            ("GET", "/job/status/([^/]+)", False, self._get_by_status),
            ("GET", r"/job/(\d+)", False, self._get_job),
            ("PUT POST", r"/job/(\d+)", True, self._put_status),
            ("DELETE", r"/job/(\d+)", True, self._delete_job),
            ("GET", r"/job/(\d+)/delete", True, self._delete_job),  # read
            ("GET", r"/job/(\d+)/status", False, self._get_history),
            ("GET", r"/job/(\d+)/cancel", True, self._cancel),
            ("GET", r"/job/(\d+)/retry", True, self._retry),
            ("GET", "/buildd/?", False, self._get_buildds),
            ("PUT POST", "/buildd/?", True, self._put_buildd),
            ("GET", r"/buildd/(\d+)", False, self._get_buildd),
            ("GET", r"/buildd/(\d+)/jobs", False, self._get_buildd_jobs),
            ("GET", "/buildd/([^/]+)/status", False, self._get_buildd_status),
        ]

    def answer(self, request: Request) -> Answer:
        """Work off a request and return its answer."""
        path = unquote(urlsplit(request.path).path)
        found = False
        for methods, pattern, guarded, handler in self._table:
            match = re.fullmatch(pattern, path)
            found = found or match is not None
            if match is None or request.method not in methods.split():
                continue
            if guarded and request.auth != self._login():
                header = {"Www-Authenticate": 'Basic realm="PyBit"'}
                return Answer(401, "- Unauthorized", "401 - Unauthorized", "text/html", header)
            try:
                return handler(request, *match.groups())
            except PybitError:
                return error_page(500)
        return error_page(405 if found else 404)

    def _vcshook(self, request: Request) -> Answer:
        form = request.form
        if not any(form.get(name) for name in (*SUBMITTED, "uri", "method")):
            return Answer(400, MISSING)
        try:
            self._control.submit(Build(*(form.get(name) for name in SUBMITTED)), _transport(form))
        except NoArchError:
            return Answer(500, "- Error submitting job")
        return Answer(200, "- Version control poke received")

    def _put_job(self, request: Request) -> Answer:
        form = request.form
        if not all(form.get(name) for name in ("packageinstance_id", "method", "uri")):
            return Answer(400, MISSING)
        instance = self._database.instance_by_id(form["packageinstance_id"])
        try:
            self._control.submit_again(instance, _transport(form))
        except NoArchError:
            return Answer(500, "- Error submitting job")  # read
        return Answer(200)

    def _retry(self, _: Request, job_id: str) -> Answer:
        try:
            self._control.retry(self._database.job(int(job_id)))
        except NoArchError:
            return Answer(500, "- Error submitting job")  # read
        return Answer(200)

    def _cancel(self, _: Request, job_id: str) -> Answer:
        self._control.cancel(self._database.job(int(job_id)))
        return Answer(202, "- CANCEL JOB request received")

    def _cancel_all(self, _: Request) -> Answer:
        self._control.cancel_all()
        return Answer(202, "- CANCEL ALL request received")  # the phrase: read

    def _get_jobs(self, _: Request) -> Answer:
        return self._list(lambda job: True)

    def _get_unfinished(self, _: Request) -> Answer:
        return self._list(lambda job: job.unfinished)

    def _get_by_status(self, _: Request, status: str) -> Answer:
        return self._list(lambda job: job.status == status)

    def _list(self, wanted: Callable[[Job], bool]) -> Answer:
        return _json([self._database.job_json(job) for job in self._database.in_order() if wanted(job)])

    def _get_job(self, _: Request, job_id: str) -> Answer:
        return _json(self._database.job_json(self._database.job(int(job_id))))

    def _get_history(self, _: Request, job_id: str) -> Answer:
        job = self._database.jobs.get(int(job_id))
        if job is None:
            return Answer(404, "- No job found with this ID.")
        return _json(self._database.history_json(job))

    def _put_status(self, request: Request, job_id: str) -> Answer:
        status = request.form.get("status")
        if not status:
            return Answer(400, MISSING)
        self._database.put_status(self._database.job(int(job_id)), status, request.form.get("client", ""))
        return Answer(200)

    def _delete_job(self, _: Request, job_id: str) -> Answer:
        job = self._database.jobs.get(int(job_id))
        if job is None:
            return Answer(404, "Cannot DELETE", "404 Cannot DELETE")  # phrase and text: read
        job.rows.clear()  # they are gone when the job itself cannot be deleted
        return Answer(409, "FOREIGN_KEY_VIOLATION", "409 FOREIGN_KEY_VIOLATION")

    def _get_buildds(self, _: Request) -> Answer:
        return _json([self._database.buildd_json(name) for name in sorted(self._database.buildds)])

    def _put_buildd(self, request: Request) -> Answer:
        name = escaped(request.form.get("name", ""))
        if not name:
            return Answer(400, MISSING)
        if name in self._database.buildds:
            return error_page(500)
        self._database.add_buildd(name)
        return Answer(200)

    def _get_buildd(self, _: Request, key: str) -> Answer:
        names = [name for name, number in self._database.buildds.items() if number == int(key)]
        if not names:
            return Answer(404, "- No buildd found with this ID.")  # the phrase: read
        return _json(self._database.buildd_json(names[0]))

    def _get_buildd_jobs(self, _: Request, key: str) -> Answer:
        number = int(key)
        # Here, and only here, a job's client is a bare number.
        jobs = [
            {**self._database.job_json(job), "buildclient": number}
            for job in self._database.in_order()
            if job.client is not None and self._database.buildds[job.client] == number
        ]
        if not jobs:
            return Answer(404, "- No buildd found with this ID.")  # read
        return _json(jobs)

    def _get_buildd_status(self, _: Request, name: str) -> Answer:
        return Answer(200, "OK", "Active" if self._broker.is_active(name) else "Not Active")


def _json(value: Any) -> Answer:
    return Answer(200, "OK", json.dumps(value), "application/json")


def _transport(form: dict[str, str]) -> Transport:
    return {name: form.get(name) for name in ("method", "uri", "vcs_id")}
