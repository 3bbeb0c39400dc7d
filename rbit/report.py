"""What a running job says, and where it goes: to the log, to its statuses, and to its job log.

Knows nothing of processes. Used in a slot's thread.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping

from rbit.decode import Facts
from rbit.job import Job, Outcome
from rbit.joblog import JobLogs
from rbit.output import indented, printable, visible

LONGEST_STATUS = 255  # characters in the name of a status
LONGEST_VALUE = 2000  # characters of a setting in the head of a job log
LONGEST_SHOWN = 255  # characters of what strangers have named
HIDDEN = "***"

# What a secret is called, or follows. A guess: secrets belong into files.
SECRETS = ("pass", "pwd", "secret", "token", "key", "cred", "auth", "private", "cookie", "session")
PROGRAM = re.compile(r"[\w./+-]+")  # a first word of a command that is no more than a name

log = logging.getLogger("rbit.job")
output = logging.getLogger("rbit.output")


class Report:
    """Takes what one run of a job says. It does not hold the body of its message.

    Arguments:
        job: the job.
        facts: what is in its build request; None if it is none.
        logs: the client's job logs.
    """

    def __init__(self, job: Job, facts: Facts | None, logs: JobLogs) -> None:
        self._updates = job.updates
        self._began = time.monotonic()
        self._log = logs.open(job.message.queue, lambda: (file_name(job), "\n".join(head(job, facts))))

    def set_status(self, name: str, message: str = "") -> None:
        """Takes a status."""
        if len(name) > LONGEST_STATUS or not name.isprintable():
            log.warning("%s: no name of a status, so not reported: %s", self._updates, printable(name))
        else:
            message = visible(message)
            self._log.note("status", f"{name}: {message}" if message else name)
            self._updates.set_status(name, message)

    def line(self, stream: str, text: str) -> None:
        """Takes a line of output. Arguments: where it was printed, ``stdout`` or ``stderr``; the line."""
        text = visible(text)
        self._log.note(stream, text)
        output.info("%s: %s", self._updates, text, extra={"stream": stream})

    def flush(self) -> None:
        """Has the job log written as far as it goes."""
        self._log.flush()

    def end(self, outcome: Outcome) -> float:
        """Takes how the run ended; returns how many seconds it has taken."""
        seconds = time.monotonic() - self._began
        if outcome.traceback:
            self._log.note("rbit", visible(outcome.traceback.rstrip()))
        words = f"{outcome.status}: {visible(outcome.why)}" if outcome.why else outcome.status
        self._log.note("rbit", f"ended after {seconds:.3f} s: {words}")
        return seconds

    def close(self) -> None:
        """Ends the job log."""
        self._log.close()


def file_name(job: Job) -> str:
    """Returns what the file of a run is called: by PyBit's number, the message's id, or else as in the log."""
    named = job.message.properties.message_id
    if job.updates.job is not None:
        name = f"job-{job.updates.job}"
    elif named:
        name = f"message-{printable(named, len(named))}"
    else:
        name = str(job).removeprefix(f"{job.message.queue} ").replace(" ", "-")
    return f"{name}-attempt-{job.attempt}" if job.attempt > 1 else name


def head(job: Job, facts: Facts | None) -> Iterator[str]:
    """Yields the lines at the beginning of a job log."""
    named = job.message.properties.message_id
    values = {
        "queue": job.message.queue,
        "message": printable(named, LONGEST_SHOWN) if named else "without an id",
        "job": None if facts is None else str(facts.job),
        "package": None if facts is None else f"{facts.package[:LONGEST_SHOWN]} {facts.version[:LONGEST_SHOWN]}",
        "attempt": str(job.attempt),
        "client": job.updates.client,
        "begun": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    for name, value in values.items():
        if value is not None:
            yield f"{name + ':':<9} {printable(value, 3 * LONGEST_SHOWN)}"
    yield "settings:"
    for name, text in masked(job.section.settings).items():
        yield f"    {printable(name)} = {indented(visible(text)[:LONGEST_VALUE])}"


def masked(settings: Mapping[str, str]) -> dict[str, str]:
    """Returns settings without what looks like a secret, by name or by value; of a command its first word."""
    return {
        name: runner(text) if name == "runner" else HIDDEN if _is_secret(name) or _is_secret(text) else text
        for name, text in settings.items()
    }


def runner(text: str) -> str:
    """Returns what is shown of a runner: all of a Python one, of another the first word."""
    kind, _, rest = text.partition("!")
    if kind == "python":
        return text
    first, *more = rest.split(None, 1) or [""]
    first = first.rstrip(";")
    return f"{kind}!{first if PROGRAM.fullmatch(first) else HIDDEN}" + (" …" if more else "")


def _is_secret(text: str) -> bool:
    small = text.lower()
    return any(word in small for word in SECRETS) or "@" in small.partition("://")[2]
