"""Decides whether a build request is run: PyBit may have cancelled it, or another client may be at it.

Each question runs in a thread of its own, so a slot can give it up. Knows nothing of HTTP, connections or slots.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from rbit.cancels import Cancels
from rbit.front import Front
from rbit.job import Job, Outcome
from rbit.message import BLOCKED, CANCELLED, FAILED, NOT_FOUND, OVER, WAITING
from rbit.output import printable

log = logging.getLogger("rbit.client")

LONGEST_LOOK = 5.0  # seconds that RabbitMQ has to say whether another client is connected
OPEN = frozenset({None, WAITING, BLOCKED, FAILED})  # statuses of jobs that are to be run


class Question:
    """Whether a job is to be run.

    Attributes:
        verdict: the outcome of one that is not, as far as it is known now; None: it is run.
        until: time.monotonic() until which a better answer is worth waiting for.
        over: whether no better answer comes.
    """

    def __init__(self, verdict: Outcome | None, until: float = 0.0, over: bool = True) -> None:
        self.verdict = verdict
        self.until = until
        self.over = over

    @property
    def open(self) -> bool:
        """Whether a better answer may come in time."""
        return not self.over and time.monotonic() < self.until


class Gate:
    """Asks.

    Arguments:
        client: the client's name.
        cancels: knows jobs that were cancelled before they came here.
        front: makes what asks PyBit, for one question; None without ``[pybit]``.
        timeout: seconds that PyBit has for its answer.
        caught_up: set once PyBit knows what an earlier life of this client had published.
        look: has the main thread find out whether another client is connected to RabbitMQ. Arguments: its name,
            and what is called with the answer.
    """

    def __init__(
        self, client: str, cancels: Cancels, front: Callable[[], Front] | None, timeout: float,
        *, caught_up: threading.Event, look: Callable[[str, Callable[[bool], None]], None],
    ) -> None:
        self._client = client
        self._cancels = cancels
        self._front = front
        self._timeout = timeout
        self._caught_up = caught_up
        self._look = look

    def ask(self, job: Job, ring: Callable[[], None]) -> Question:
        """Asks about a job; returns at once.

        Arguments:
            job: one that has been checked.
            ring: called when there is a better answer, in another thread.
        """
        number = job.updates.job
        if number is None:
            return Question(None)
        if self._cancels.begin(number):
            return Question(Outcome(CANCELLED, "it was cancelled before it came here", skipped=True))
        if job.is_local or self._front is None:
            return Question(None)
        question = Question(None, time.monotonic() + self._timeout, over=False)
        arguments = (question, job, number, self._front(), ring)
        threading.Thread(target=self._answer, args=arguments, name="gate", daemon=True).start()
        return question

    def _answer(
        self, question: Question, job: Job, number: int, front: Front, ring: Callable[[], None]
    ) -> None:
        answer, entry = front.last(number, self._timeout)
        if entry is not None and entry.client == self._client and not self._caught_up.is_set():
            # It may have been cancelled, or done, just before this client was killed.
            self._caught_up.wait(max(0.0, question.until - time.monotonic()))
            answer, entry = front.last(number, self._timeout)
        if answer.code == NOT_FOUND:
            why = f"PyBit knows no job {number}; is the url in [pybit] right?"
            question.verdict = Outcome(FAILED, why, for_good=True, skipped=True)
        elif entry is None:
            words = answer.words or f"HTTP status {answer.code}"
            log.info("%s: PyBit does not say what it knows of it (%s); it is run", job, words)
        elif entry.status in OVER:
            question.verdict = Outcome(str(entry.status), "so it is at PyBit, and is not run", skipped=True)
        elif entry.status not in OPEN and entry.client and entry.client != self._client:
            self._find(question, entry.client, ring)
            return
        question.over = True
        ring()

    def _find(self, question: Question, client: str, ring: Callable[[], None]) -> None:
        """Asks whether the other client lives; as long as that is not known, the job is better not run."""
        why = f"PyBit says that {printable(client)} is at it"
        question.verdict = Outcome(WAITING, why, later=True, skipped=True)
        question.until = time.monotonic() + LONGEST_LOOK

        def found(connected: bool) -> None:
            if not connected:
                question.verdict = None
            question.over = True
            ring()

        self._look(client, found)
