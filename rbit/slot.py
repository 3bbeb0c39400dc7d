"""A slot: a thread that runs one job at a time in its processes.

It knows nothing of the broker: it gets a job, reports its statuses, and hands back its outcome.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import selectors
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from rbit.bell import Bell
from rbit.decode import Facts
from rbit.errors import Blocked, RbitError, RunnerBroken, StartUnknown, WorkerError
from rbit.gate import Gate
from rbit.job import Job
from rbit.joblog import JobLogs
from rbit.message import BLOCKED, BUILDING, FAILED, WAITING
from rbit.output import forget, visible
from rbit.process import CommandProcess, Outcome, WorkerProcess
from rbit.report import Report
from rbit.runners import Call, Command
from rbit.tree import TERMINATE, Forest, Ladder, Tree

log = logging.getLogger("rbit.job")


class Slot(threading.Thread):
    """Runs one job at a time. Its processes start when a job needs them, are reused, and end when they are idle.

    Arguments:
        number: from 1; for the log.
        forest: where its processes are started.
        done: called in the slot's thread with the job when it has an outcome and no process is left.
        logs: where a log of each job is written.
        gate: knows jobs that are not to be run; None: all are run.
        worker_jobs: a worker is replaced after so many; 0: never.
        worker_idle: seconds without a job after which its processes are ended; None: never.
    """

    def __init__(
        self, number: int, forest: Forest, done: Callable[[Job], None], logs: JobLogs,
        *, gate: Gate | None = None, worker_jobs: int = 0, worker_idle: float | None = None,
    ) -> None:
        super().__init__(name=f"slot-{number}", daemon=True)
        self.job: Job | None = None  # what it has to do; set and cleared by the main thread
        self._forest = forest
        self._done = done
        self._logs = logs
        self._gate = gate
        self._worker_jobs = worker_jobs
        self._worker_idle = worker_idle
        self._jobs: queue.SimpleQueue[Job | tuple[JobLogs, int, float | None] | None] = queue.SimpleQueue()
        self._verdict: Outcome | None = None
        self._ladder = TERMINATE
        self._verdict_lock = threading.Lock()
        self._tree: Tree | None = None
        self._worker: WorkerProcess | None = None
        self._had_worker = False  # since its processes were ended as idle
        self._process: CommandProcess | WorkerProcess | None = None
        self._report: Report | None = None  # of the job that runs
        self._ended: list[str] = []
        self._stuck: list[str] = []
        self._selector = selectors.DefaultSelector()
        self._bell = Bell()
        self._selector.register(self._bell, selectors.EVENT_READ, self._bell.take)

    def begin(self, job: Job) -> None:
        """Starts a job; called by the main thread when ``job`` is None."""
        self.job = job
        self._verdict = None
        job.begun = True
        self._jobs.put(job)

    def renew(self, logs: JobLogs, worker_jobs: int, worker_idle: float | None) -> None:
        """Has the next jobs run with these settings, and in new processes. Arguments: as of the slot."""
        self._jobs.put((logs, worker_jobs, worker_idle))

    def end(self, verdict: Outcome, ladder: Ladder = TERMINATE) -> None:
        """Ends the processes of the job that runs. Any thread may call it; only the first call counts.

        Arguments:
            verdict: becomes the outcome of the job, unless that has ended by itself.
            ladder: signals, each with the seconds that are waited after it; SIGKILL follows.
        """
        with self._verdict_lock:
            if self._verdict is None:
                self._ladder = ladder
                self._verdict = verdict  # last: the slot's thread waits for it
        self._bell.ring()

    def close(self) -> None:
        """Ends the slot's processes and its thread, once the job is done; ``join`` waits for that."""
        self._jobs.put(None)

    def run(self) -> None:
        while job := self._next():
            outcome = Outcome(FAILED, "rbit itself failed")
            try:
                outcome = self._work(job)
            except Exception as error:  # the job boundary: a fault here must not end the client
                log.exception("%s: rbit itself failed", job)
                outcome = Outcome(FAILED, f"rbit itself failed: {error!r}")
                self._give_up(str(job))
            finally:
                why = visible(outcome.why)
                job.outcome = outcome if why == outcome.why else replace(outcome, why=why)
                if outcome.traceback:
                    # Indented, so that none of its lines can pass for an entry of the log.
                    log.error("%s: %s", job, visible(outcome.traceback.rstrip()).replace("\n", "\n    "))
                self._done(job)
            del job  # or its body, which may be large, would stay until the next job
        self._discard()
        self._selector.close()

    def _next(self) -> Job | None:
        """Waits for a job, and ends the slot's processes when that takes long; returns None at the slot's end."""
        while True:
            try:
                entry = self._jobs.get(timeout=None if self._tree is None else self._worker_idle)
            except queue.Empty:  # a job that comes now gets new processes
                log.debug("%s: idle for %g s, so its processes are ended", self.name, self._worker_idle)
            else:
                if not isinstance(entry, tuple):
                    return entry
                self._logs, self._worker_jobs, self._worker_idle = entry
            self._give_up(self.name)
            self._had_worker = False

    def _work(self, job: Job) -> Outcome:
        try:
            facts = job.check()
            if refusal := self._refusal(job):
                return refusal
        except RbitError as error:
            return Outcome(FAILED, str(error))
        with contextlib.closing(Report(job, facts, self._logs)) as report:
            self._report = report
            try:
                outcome = self._attempt(job, facts, report)
            except Blocked as error:
                outcome = Outcome(BLOCKED, str(error))
            except RunnerBroken as error:
                outcome = Outcome(FAILED, str(error), error.traceback)
            except RbitError as error:
                outcome = Outcome(FAILED, str(error))
            finally:
                self._report = None
            job.seconds = report.end(outcome)
        return outcome

    def _attempt(self, job: Job, facts: Facts | None, report: Report) -> Outcome:
        """Runs a job. Errors: RbitError when it cannot be run."""
        outcome = Outcome(WAITING)
        plan = job.runner.prepare(job.message, facts)
        for _ in range(2):
            try:
                process = self._start(job, plan, report)
            except StartUnknown as error:
                self._discard()
                return Outcome(FAILED, f"{error} as the command began; it may have run")
            except (WorkerError, OSError) as error:  # no fault of this job
                self._discard()
                return Outcome(WAITING, str(error), later=True, pause=True)
            outcome = self._watch(job, process)
            if process.started or self._verdict is not None:
                return outcome
            # The worker had died, or the job before had spoilt it: this job never began.
            self._discard()
        return Outcome(WAITING, f"no worker can be started: {outcome.why}", later=True, pause=True)

    def _refusal(self, job: Job) -> Outcome | None:
        """Returns the outcome of a job that is not to be run; None for one that is."""
        question = self._gate.ask(job, self._bell.ring) if self._gate else None
        while question and question.open and self._verdict is None:
            self._turn(question.until)
        return self._verdict or (question.verdict if question else None)

    def _start(self, job: Job, plan: Call | Command, report: Report) -> CommandProcess | WorkerProcess:
        """Starts a process for a job. Errors: CommandRefused for this job; WorkerError for all jobs."""
        if self._tree is None:
            self._tree = self._forest.plant()
            self._selector.register(self._tree, selectors.EVENT_READ, self._answer_tree)
        sinks = report.set_status, report.line
        process: CommandProcess | WorkerProcess
        if isinstance(plan, Command):
            process = CommandProcess(self._tree, plan, job.message, *sinks)
            process.register(self._selector)
            report.set_status(BUILDING)
        else:
            self._answer_tree()  # the worker may have died since its last job
            if self._worker is not None and not self._worker.reusable:
                self._drop_worker()
            if self._worker is None:
                self._worker = WorkerProcess(self._tree, self._worker_jobs)
                self._worker.register(self._selector)
                job.workers_replaced += self._had_worker
                self._had_worker = True
            process = self._worker
            process.send(plan, job.message, job.section.settings, sinks)  # first, for its worker waits
            if job.updates.last != BUILDING:
                report.set_status(BUILDING)
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
                    self.end(Outcome(FAILED, f"timed out after {timeout:g} s"))
            verdict = None if process.over else self._verdict
            self._clear(job, process, verdict)
            outcome = process.finish(self._selector)
        except WorkerError as error:
            self._fell()  # first, or a worker that lives still may begin the job after it was asked
            process.finish(self._selector)
            self._drop_worker()
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
        tree.end(spare, self._ladder if verdict else TERMINATE)
        while tree.ending:
            self._turn(tree.check())
            if verdict and process.over:
                process.dismiss()
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
        if self._report is not None:
            self._report.flush()

    def _answer_tree(self) -> None:
        for event in self._tree.events() if self._tree else ():
            if "ended" in event:
                self._ended, self._stuck = event["ended"], event["stuck"]
            for process in (self._process, self._worker):
                if process is not None and event.get("exited") == process.pid:
                    process.exited(event["status"])

    def _drop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close(self._selector)

    def _give_up(self, label: str) -> None:
        try:
            self._discard()
        except Exception:  # the slot must go on
            log.exception("%s: some of its processes may be left", label)

    def _discard(self) -> None:
        """Ends all processes of the slot at once; new ones start when they are needed."""
        self._fell()
        self._drop_worker()

    def _fell(self) -> None:
        tree, self._tree = self._tree, None
        if tree is not None:
            forget(self._selector, tree.fileno())
            strays = self._forest.fell(tree)
            if strays:
                log.warning("%s: killed what had lost its keeper: %s", self.name, ", ".join(strays))
