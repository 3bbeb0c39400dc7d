"""Statuses of jobs: into the log, and to PyBit's web front-end.

Knows nothing of queues, slots or HTTP. ``Updates`` is used by a slot's thread and then by the main thread;
``Reporter`` is a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rbit.message import FAILED, STATUSES, Answer
from rbit.repeats import wait_after, worth_saying

log = logging.getLogger("rbit.status")

TRIES = 5  # of an update that PyBit answers with 500
OUTAGES = frozenset({502, 503, 504})
LONGEST_LANE = 100  # updates of one job that wait; of more, the oldest are passed over
CLOSING_WAIT = 1.0  # seconds between two tries at most, during the stop


@dataclass
class Update:
    """A status, how the log calls its job, and how often PyBit has failed at it."""

    status: str
    label: str
    tries: int = 0

    def __str__(self) -> str:
        return _indented(f"the status {self.status}")


@dataclass
class Lane:
    """The updates of one job that PyBit has not got yet, oldest first, without the one that is just being sent."""

    updates: deque[Update] = field(default_factory=deque)
    passed_over: int = 0  # not sent, as newer ones came; not yet said in the log

    def trim(self, length: int) -> None:
        """Passes over the oldest updates until no more than ``length`` are left."""
        while len(self.updates) > length:
            self.updates.popleft()
            self.passed_over += 1


class Reporter(threading.Thread):
    """Tells PyBit, in order for each job; an update that fails holds up no other job's.

    Arguments:
        send: tells PyBit the status of a job, by the job's id at PyBit and the name of the status. Called in
            the reporter's thread; it does not raise.
    """

    def __init__(self, send: Callable[[int, str], Answer]) -> None:
        super().__init__(name="reporter", daemon=True)
        self._send = send
        self._changed = threading.Condition()  # guards what follows, to the empty line
        # A job that has a lane is in one of: _ready, _later, _sending.
        self._lanes: dict[int, Lane] = {}
        self._ready: deque[int] = deque()
        self._later: dict[int, float] = {}  # after a 500: time.monotonic() before which it is not tried again
        self._sending: tuple[int, Update] | None = None
        self._resume = 0.0  # time.monotonic() before which nothing is tried, after an outage
        self._longest = LONGEST_LANE
        self._closing = False
        self._closed = False

        # Of the reporter's thread alone:
        self._outages = 0  # failures in a row that say that PyBit cannot be reached
        self._refusals: Counter[int] = Counter()  # by HTTP status code, since the last success

    def put(self, job: int, status: str, label: str) -> None:
        """Takes an update; returns at once.

        Arguments:
            job: PyBit's id of the job.
            status: the name of the status.
            label: how the log calls the job.
        """
        update = Update(status, label)
        with self._changed:
            if self._closed:
                log.error("%s: PyBit was not told of %s before the stop", label, update)
                return
            if job not in self._lanes:
                self._lanes[job] = Lane()
                self._ready.append(job)
                self._changed.notify_all()
            lane = self._lanes[job]
            lane.updates.append(update)
            lane.trim(self._longest)
            if self._later.pop(job, None) is not None:
                lane.trim(1)  # PyBit does not take the one before: it must not hold this one up
                self._ready.append(job)
                self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """Waits up to ``timeout`` seconds until PyBit has everything; logs what it has not, and ends.

        In the second half of the time only the last update of each job is tried.
        """
        until = time.monotonic() + timeout
        with self._changed:
            self._closing = True
            self._resume = 0.0
            self._ready.extend(self._later)
            self._later.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._lanes, timeout / 2)
            self._longest = 1
            for lane in self._lanes.values():
                lane.trim(self._longest)
            self._changed.wait_for(lambda: not self._lanes, until - time.monotonic())
            self._closed = True
            self._give_up()
            self._changed.notify_all()
        if self.is_alive():
            self.join(max(0.0, until - time.monotonic()))

    def _give_up(self) -> None:
        for job, lane in self._lanes.items():
            if self._sending and self._sending[0] == job:
                lane.updates.appendleft(self._sending[1])
            for update in lane.updates:
                older = f", nor of {lane.passed_over} older ones" if lane.passed_over else ""
                log.error("%s: PyBit was not told of %s%s before the stop", update.label, update, older)
                lane.passed_over = 0
        self._lanes.clear()
        self._ready.clear()
        self._later.clear()

    def run(self) -> None:
        while (turn := self._next()) is not None:
            job, update = turn
            try:
                answer = self._send(job, update.status)
            except Exception:  # the reporter must go on, whatever a library raises
                log.exception("%s: %s not sent to PyBit", update.label, update)
                self._go_on(job)
            else:
                self._settle(job, update, answer)

    def _next(self) -> tuple[int, Update] | None:
        """Waits for an update that is due; None when there is nothing left and no more comes."""
        with self._changed:
            while True:
                now = time.monotonic()
                for job in [job for job, due in self._later.items() if due <= now]:
                    del self._later[job]
                    self._ready.append(job)
                if self._ready and self._resume <= now:
                    break
                if self._closing and not self._lanes:
                    return None
                due = self._resume if self._ready else min(self._later.values(), default=None)
                self._changed.wait(None if due is None else due - now)
            job = self._ready.popleft()
            lane = self._lanes[job]
            update = lane.updates.popleft()
            passed_over, lane.passed_over = lane.passed_over, 0
            self._sending = job, update
        if passed_over:
            text = "%s: older statuses that PyBit is not told of, as newer ones came: %d"
            log.info(text, update.label, passed_over)
        return job, update

    def _settle(self, job: int, update: Update, answer: Answer) -> None:
        """Sees to what follows from an answer."""
        code = answer.code
        if code is None or code in OUTAGES:
            self._outage(job, update, answer.words if code is None else f"HTTP status {code}")
            return
        if self._outages:
            log.info("PyBit answers again")
        self._outages = 0
        if code >= 500:
            self._failed(job, update, code)
            return
        self._go_on(job)
        if code < 300:
            self._refusals.clear()
            log.debug("%s: PyBit took %s", update.label, update)
            return
        self._refused(update, code, answer.words)

    def _refused(self, update: Update, code: int, meaning: str) -> None:
        """Logs a refusal; ever more rarely while PyBit takes nothing."""
        self._refusals[code] += 1
        level = logging.ERROR if worth_saying(self._refusals[code]) else logging.DEBUG
        log.log(level, "%s: PyBit refused %s with %d: %s", update.label, update, code, meaning)

    def _outage(self, job: int, update: Update, reason: str) -> None:
        """Has the update, and every other, wait until PyBit can be reached."""
        self._outages += 1
        with self._changed:
            self._resume = time.monotonic() + self._wait_after(self._outages)
            if job in self._lanes:
                self._lanes[job].updates.appendleft(update)
                self._lanes[job].trim(self._longest)
            self._go_on(job)
            waiting = sum(len(lane.updates) for lane in self._lanes.values())
        if worth_saying(self._outages):
            log.warning("PyBit does not answer (%s); statuses that wait for it: %d", reason, waiting)

    def _failed(self, job: int, update: Update, code: int) -> None:
        """Has the update tried again later, unless that is hopeless or would hold up a newer one of its job."""
        update.tries += 1
        with self._changed:
            lane = self._lanes.get(job)
            if lane is None:  # close() gave it up
                return
            newer = bool(lane.updates)
            again = not newer and update.status in STATUSES and update.tries < TRIES
            if again:
                lane.updates.append(update)
                self._later[job] = time.monotonic() + self._wait_after(update.tries)
                self._sending = None
            else:
                self._go_on(job)
        if newer:
            self._refused(update, code, "not tried again, as a newer one waits")
        elif not again:
            meaning = f"{update.tries} times; PyBit knows no job {job}, or is broken"
            if update.status not in STATUSES:
                meaning = "PyBit has no status of that name"
            log.error("%s: PyBit refused %s with %d: %s", update.label, update, code, meaning)
        elif update.tries == 1:
            log.warning("%s: PyBit answers %s with %d; trying again", update.label, update, code)

    def _go_on(self, job: int) -> None:
        """Ends the sending: the job's next update is due after those of all others that are ready."""
        with self._changed:
            self._sending = None
            lane = self._lanes.get(job)
            if lane is None:  # close() gave it up
                return
            if lane.updates:
                self._ready.append(job)
            else:
                del self._lanes[job]
                self._changed.notify_all()

    def _wait_after(self, failures: int) -> float:
        wait = wait_after(failures)
        return min(wait, CLOSING_WAIT) if self._closing else wait


def _indented(text: str) -> str:
    """Has further lines indented, so that none can pass for an entry of the log."""
    return text.replace("\n", "\n    ")


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
        log.log(level, "%s: %s", self.label, _indented(f"{status}: {message}" if message else status))
        if status != self.last and self._reporter is not None and self._job is not None:
            self._reporter.put(self._job, status, self.label)
        self.last, self._last_message = status, message

    def finish(self, status: str, message: str) -> None:
        """Reports the final status, unless the job itself has just reported the same."""
        if (status, message) != (self.last, self._last_message):
            self.set_status(status, message)
