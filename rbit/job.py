"""A job, and the slot that runs it: a thread that runs one job at a time in its processes.

A slot knows nothing of the broker: it gets a job, reports its statuses, and hands back its outcome.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import selectors
import threading
import time
from collections.abc import Callable

from rbit import decode
from rbit.broker import Delivery
from rbit.config import RunnerSettings
from rbit.decode import Facts
from rbit.errors import BodyRefused, RbitError, WorkerError
from rbit.message import BUILDING, FAILED, WAITING, Message
from rbit.process import CommandProcess, Outcome, WorkerProcess
from rbit.runners import Call, Command, Runner
from rbit.status import Reporter, Updates
from rbit.tree import Forest, Tree

log = logging.getLogger("rbit.job")
output = logging.getLogger("rbit.output")

__all__ = ["Job", "Outcome", "Slot"]


class Job:
    """One message to be worked off.

    Arguments:
        delivery: the message as it was taken from its queue.
        section: the settings of its queue.
        runner: says what to run.
        number: counts this client's jobs; names the job when the message has no name.
    """

    def __init__(self, delivery: Delivery, section: RunnerSettings, runner: Runner, number: int) -> None:
        self.delivery = delivery
        self.section = section
        self.runner = runner
        self.message = Message(delivery.body, delivery.queue, delivery.properties, delivery.redelivered)
        self.outcome: Outcome | None = None
        self.copying = False  # whether a copy is with the publisher
        self.copied = False  # whether the broker has confirmed the copy of a Blocked one
        self.ended_at = 0.0  # time.monotonic(); 0.0 while it runs
        name = printable(delivery.properties.message_id or f"#{number}")
        self.updates = Updates(f"{delivery.queue} message {name}", None, None)

    def __str__(self) -> str:
        return self.updates.label

    @property
    def key(self) -> tuple[str, str | None, bytes]:
        """What a message is known by when it comes again: its queue, message id and body."""
        return (self.message.queue, self.message.properties.message_id, self.message.body)

    def check(self, reporter: Reporter | None) -> Facts | None:
        """Checks the body and returns the names in its build request, if it is one.

        Errors: BodyRefused when the body must not reach a job.
        """
        try:
            facts = decode.facts(decode.check(self.message.body))
        except BodyRefused:
            if not self.section.unsafe_jsonpickle:
                raise
            facts = None
        if facts is not None:
            self.updates = Updates(f"{self.message.queue} job {facts.job}", facts.job, reporter)
        return facts


class Slot(threading.Thread):
    """Runs one job at a time. Its processes start on first need and are reused.

    Arguments:
        number: from 1; for the log.
        forest: where its processes are started.
        reporter: tells PyBit; None without ``[pybit]``.
        done: called in the slot's thread with the job when it has an outcome and no process is left.
    """

    def __init__(
        self, number: int, forest: Forest, reporter: Reporter | None, done: Callable[[Job], None]
    ) -> None:
        super().__init__(name=f"slot-{number}", daemon=True)
        self.job: Job | None = None  # what it has to do; set and cleared by the main thread
        self._forest = forest
        self._reporter = reporter
        self._done = done
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._verdict: Outcome | None = None
        self._tree: Tree | None = None
        self._worker: WorkerProcess | None = None
        self._process: CommandProcess | WorkerProcess | None = None
        self._ended: list[str] = []
        self._stuck: list[str] = []
        self._selector = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._bell, selectors.EVENT_READ, self._answer_bell)

    def begin(self, job: Job) -> None:
        """Starts a job; called by the main thread when ``job`` is None."""
        self.job = job
        self._verdict = None
        self._jobs.put(job)

    def end(self, verdict: Outcome) -> None:
        """Ends the processes of the job that runs; ``verdict`` becomes its outcome. Any thread may call it."""
        self._verdict = verdict
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Ends the slot's processes and its thread, once the job is done; waits for it."""
        self._jobs.put(None)
        self.join()

    def run(self) -> None:
        while job := self._jobs.get():
            try:
                job.outcome = self._work(job)
            except Exception as error:  # the job boundary: a fault here must not end the client
                log.exception("%s: rbit itself failed", job)
                self._discard()
                job.outcome = Outcome(FAILED, f"rbit itself failed: {error!r}")
            if job.outcome.traceback:
                log.error("%s: %s", job, job.outcome.traceback.rstrip())
            self._done(job)
            del job  # or its body, which may be large, would stay until the next job
        self._discard()
        self._selector.close()
        os.close(self._bell)

    def _work(self, job: Job) -> Outcome:
        outcome = Outcome(WAITING, pause=True)
        try:
            facts = job.check(self._reporter)
            plan = job.runner.prepare(job.message, facts)
            for _ in range(2):
                process = self._start(job, plan)
                outcome = self._watch(job, process)
                if process.started or self._verdict is not None:
                    return outcome
                # The worker had died, or the job before had spoilt it: this job never began.
                self._discard()
        except (WorkerError, OSError) as error:  # no fault of this job
            self._discard()
            return Outcome(WAITING, str(error), pause=True)
        except RbitError as error:
            return Outcome(FAILED, str(error))
        return Outcome(WAITING, f"no worker can be started: {outcome.why}", pause=True)

    def _start(self, job: Job, plan: Call | Command) -> CommandProcess | WorkerProcess:
        """Starts a process for a job. Errors: CommandRefused for this job; WorkerError for all jobs."""
        if self._tree is None:
            self._tree = self._forest.plant()
            self._selector.register(self._tree, selectors.EVENT_READ, self._answer_tree)
        label = str(job)
        report = (job.updates.set_status, lambda line: output.info("%s: %s", label, line))
        process: CommandProcess | WorkerProcess
        if isinstance(plan, Command):
            process = CommandProcess(self._tree, plan, job.message, *report)
            process.register(self._selector)
            job.updates.set_status(BUILDING)
        else:
            self._answer_tree()  # the worker may have died since its last job
            if self._worker is not None and not self._worker.reusable:
                self._drop_worker()
            if self._worker is None:
                self._worker = WorkerProcess(self._tree)
                self._worker.register(self._selector)
            process = self._worker
            if job.updates.last != BUILDING:
                job.updates.set_status(BUILDING)
            process.send(plan, job.message, job.section.settings, report)
        return process

    def _watch(self, job: Job, process: CommandProcess | WorkerProcess) -> Outcome:
        """Waits until the job's process is over, its time is up or somebody ends it; then clears up."""
        self._process = process
        timeout = job.section.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not process.over and self._verdict is None:
                self._turn(deadline)
                if deadline is not None and not process.over and time.monotonic() >= deadline:
                    self._verdict = self._verdict or Outcome(FAILED, f"timed out after {timeout:g} s")
            verdict = None if process.over else self._verdict
            self._clear(job, process, verdict)
            outcome = process.finish(self._selector)
        except WorkerError as error:
            process.finish(self._selector)
            self._discard()
            return self._verdict or Outcome(FAILED, str(error))
        finally:
            self._process = None
        if self._worker is not None and not self._worker.reusable:
            self._drop_worker()
        return verdict or outcome

    def _clear(self, job: Job, process: CommandProcess | WorkerProcess, verdict: Outcome | None) -> None:
        """Ends what is left of the job's processes; a worker that can run further jobs goes on."""
        tree, worker = self._tree, self._worker
        if tree is None:
            return
        alive = worker is not None and worker.status is None
        spare = worker.pid if worker and alive and (process is not worker or not verdict) else None
        if process.over and not process.has_children() and tree.only(spare):
            return
        self._ended, self._stuck = [], []
        tree.end(spare)
        while tree.ending:
            self._turn(None)
        if self._ended:
            left = "" if verdict else " what it had left running"
            log.info("%s: ended%s: %s", job, left, ", ".join(self._ended))
        if self._stuck:
            log.error("%s: cannot be killed: %s", job, ", ".join(self._stuck))
            raise WorkerError("its processes cannot be killed")

    def _turn(self, deadline: float | None) -> None:
        """Waits for something to happen, no longer than to the deadline, and deals with it."""
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        for key, _ in self._selector.select(wait):
            # What came before it may have closed it.
            if key.fd in self._selector.get_map():
                key.data()

    def _answer_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def _answer_tree(self) -> None:
        for event in self._tree.events() if self._tree else ():
            if "ended" in event:
                self._ended, self._stuck = event["ended"], event["stuck"]
            for process in (self._process, self._worker):
                if process is not None and event.get("exited") == process.pid:
                    process.exited(event["status"])

    def _drop_worker(self) -> None:
        if self._worker is not None:
            self._worker.close(self._selector)
            self._worker = None

    def _discard(self) -> None:
        """Ends all processes of the slot at once; new ones start when they are needed."""
        self._drop_worker()
        if self._tree is not None:
            self._selector.unregister(self._tree)
            strays = self._forest.fell(self._tree)
            self._tree = None
            if strays:
                log.warning("%s: killed what had lost its keeper: %s", self.name, ", ".join(strays))


def printable(text: str | bytes) -> str:
    """Returns a text from a stranger in one line, fit for the log; pika gives bytes for what is not UTF-8."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "?" for char in text)[:80]
