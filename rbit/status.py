"""Statuses of jobs: into the log, and to PyBit's web front-end over HTTP.

The only importer of requests. Knows nothing of queues or slots. ``Updates`` is used by a slot's thread
and then by the main thread; ``Reporter`` is a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import requests
from requests.auth import HTTPBasicAuth

from rbit import __version__
from rbit.config import PybitSettings
from rbit.message import FAILED, STATUSES
from rbit.repeats import wait_after, worth_saying

log = logging.getLogger("rbit.status")

TRIES = 5  # of an update that PyBit answers with 500
OUTAGES = frozenset({502, 503, 504})
MEANINGS = {
    400: "PyBit finds the update malformed",
    401: "the user or password in [pybit] is wrong",
    403: "the user in [pybit] may not do this",
    404: "there is no such address: is the url in [pybit] right?",
    405: "there is no such address: is the url in [pybit] right?",
}


@dataclass
class Lane:
    """The updates of one job that PyBit has not taken yet, oldest first."""

    updates: deque[tuple[str, str]] = field(default_factory=deque)  # status and label
    due: float = 0.0  # time.monotonic() before which it is not tried
    tries: int = 0


class Reporter(threading.Thread):
    """Tells PyBit, in order for each job; an update that fails holds up no other job's.

    Arguments:
        settings: where PyBit is.
        client: the client's name, sent as the form field ``client``.
    """

    def __init__(self, settings: PybitSettings, client: str) -> None:
        super().__init__(name="reporter", daemon=True)
        self._settings = settings
        self._client = client
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"rbit/{__version__}"
        if settings.user:
            # As bytes: requests would encode text as Latin-1.
            self._session.auth = HTTPBasicAuth(settings.user.encode(), settings.password.encode())
        self._lanes: OrderedDict[int, Lane] = OrderedDict()
        self._changed = threading.Condition()
        self._closing = False
        self._outages = 0  # failures in a row that say that PyBit cannot be reached
        self._resume = 0.0  # time.monotonic() before which nothing is tried, after an outage

    def put(self, job: int, status: str, label: str) -> None:
        """Takes an update; returns at once.

        Arguments:
            job: PyBit's id of the job.
            status: the name of the status.
            label: how the log calls the job.
        """
        with self._changed:
            self._lanes.setdefault(job, Lane()).updates.append((status, label))
            self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """Waits up to ``timeout`` seconds until PyBit has everything; logs what it has not, and ends."""
        until = time.monotonic() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._lanes and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            for lane in self._lanes.values():
                for status, label in lane.updates:
                    log.error("%s: PyBit was not told of the status %s before the stop", label, status)
            self._lanes.clear()

    def run(self) -> None:
        while True:
            with self._changed:
                job = self._next()
                if job is None:
                    return
                status, label = self._lanes[job].updates[0]
            wait = self._deliver(job, status, label)
            with self._changed:
                self._settle(job, wait)
                self._changed.notify_all()

    def _next(self) -> int | None:
        """Waits for a job whose oldest update is due; None when there is nothing left and no more comes."""
        while True:
            now = time.monotonic()
            due = {job: max(lane.due, self._resume) for job, lane in self._lanes.items()}
            ready = next((job for job, at in due.items() if at <= now), None)
            if ready is not None:
                self._lanes.move_to_end(ready)  # a job that fails again and again lets the others go first
                return ready
            if self._closing and not self._lanes:
                return None
            self._changed.wait(min(due.values()) - now if due else None)

    def _settle(self, job: int, wait: float | None) -> None:
        """Notes the end of a try: ``wait`` seconds until the next, or None when the update is done with."""
        lane = self._lanes.get(job)
        if lane is None:  # close() gave up on it meanwhile
            return
        if wait is not None:
            lane.due = time.monotonic() + wait
            return
        lane.updates.popleft()
        lane.tries = 0
        if not lane.updates:
            del self._lanes[job]

    def _deliver(self, job: int, status: str, label: str) -> float | None:
        """Sends one update; returns the seconds to wait before the next try, or None when it is done with."""
        # Only the configured address is ever contacted: the web_host in a message comes from whoever
        # can publish, and must not be sent the password. For the same reason redirects are not followed.
        try:
            answer = self._session.put(
                f"{self._settings.url}/job/{job}",
                data={"status": status, "client": self._client},
                timeout=self._settings.timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            return self._outage(type(error).__name__)
        except Exception:  # the reporter must go on, whatever a library raises
            log.exception("%s: status %s not sent to PyBit", label, status)
            return None
        if answer.status_code in OUTAGES:
            return self._outage(f"HTTP status {answer.status_code}")
        self._reached()
        if answer.status_code < 300:
            log.debug("%s: PyBit took the status %s", label, status)
            return None
        return self._refused(job, status, label, answer.status_code)

    def _refused(self, job: int, status: str, label: str, code: int) -> float | None:
        lane = self._lanes.get(job)
        if lane is not None and code >= 500:
            lane.tries += 1
            if lane.tries == 1:
                log.warning("%s: PyBit answers the status %s with %d; trying again", label, status, code)
            if lane.tries < TRIES:
                return wait_after(lane.tries)
            meaning = f"{TRIES} times; PyBit knows no job {job}, or no status of that name"
        else:
            meaning = MEANINGS.get(code, "is the url in [pybit] right?")
        log.error("%s: PyBit refused the status %s with %d: %s", label, status, code, meaning)
        return None

    def _outage(self, reason: str) -> float:
        self._outages += 1
        if worth_saying(self._outages):
            waiting = sum(len(lane.updates) for lane in list(self._lanes.values()))
            log.warning("PyBit does not answer (%s); %d statuses wait for it", reason, waiting)
        wait = wait_after(self._outages)
        self._resume = time.monotonic() + wait
        return wait

    def _reached(self) -> None:
        if self._outages:
            log.info("PyBit answers again")
        self._outages = 0


class Updates:
    """The statuses of one job.

    Arguments:
        label: how the log calls the job.
        job: PyBit's id of the job; None when its message is no build request, which PyBit does not know.
        reporter: tells PyBit; None without ``[pybit]``.
    """

    def __init__(self, label: str, job: int | None, reporter: Reporter | None) -> None:
        self.label = label
        self._job = job
        self._reporter = reporter
        self.last: str | None = None
        self._last_message = ""

    def set_status(self, status: str, message: str = "") -> None:
        """Logs a status, and sends it to PyBit when it differs from the last one."""
        if status not in STATUSES:
            log.warning("%s: PyBit has no status %r; it is passed on as it is", self.label, status)
        level = logging.WARNING if status == FAILED else logging.INFO
        # Further lines are indented, so that none can pass for an entry of the log.
        log.log(level, "%s: %s%s", self.label, status, f": {message}".replace("\n", "\n    ") if message else "")
        if status != self.last and self._reporter is not None and self._job is not None:
            self._reporter.put(self._job, status, self.label)
        self.last, self._last_message = status, message

    def finish(self, status: str, message: str) -> None:
        """Reports the final status, unless the job itself has just reported the same."""
        if (status, message) != (self.last, self._last_message):
            self.set_status(status, message)
