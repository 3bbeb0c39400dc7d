"""``rbit --check``: looks at everything that a configuration names, and runs no job.

Job code is imported in child processes only, as a worker would.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from rbit import config, runners
from rbit.broker import Connection, Queue
from rbit.config import AmqpSettings, Config, RunnerSettings
from rbit.definitions import Missing
from rbit.errors import BrokerError, BrokerRefused, ConfigError, QueueUnavailable, RbitError
from rbit.tree import Forest, Tree

PROBE_LIMIT = 60.0  # seconds that an import may take
AT_ONCE = max(2, os.cpu_count() or 1)  # imports


def report(path: str, examine: Callable[[Config], object]) -> list[str]:
    """Checks a configuration and prints its warnings; returns a line for each queue, and for the broker's node.

    Arguments:
        path: the INI file.
        examine: called with the configuration, if it has no mistakes; what it raises ends the check.

    Errors: ConfigError with every mistake, when the warnings are printed; the broker's refusal of the user, the
    password or the virtual host is one.
    """
    check = Check(path)
    try:
        settings = config.read(path, check.examine, check.ask)
    except ConfigError as error:
        warn(*error.warnings, *check.warnings)
        raise
    finally:
        check.close()
    examine(settings)
    warn(*settings.warnings, *check.warnings, *check.missing(settings))
    folder = settings.client.log_dir
    if folder is not None and not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        warn(f"{path}: [rbit] log_dir: {folder!r} is no folder that can be written, so there will be no job logs")
    shown = {section.queue: first_line(section.runner) for section in settings.runners}
    if settings.client.default_queue is not None:
        shown[settings.client.default_queue] = "default queue"
    return check.answers + [
        f"{queue}: {what} ({check.states.get(queue, 'not looked at')})" for queue, what in shown.items()
    ]


class Check:
    """What one check asks and hears; ``examine`` and ``ask`` are for ``rbit.config.read``.

    Arguments:
        path: the INI file.

    Attributes:
        states: of each queue that was looked at, in words.
        answers: a line that says which of several nodes answered, if one did.
        warnings: of the runners.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._forest = Forest()
        self._probes: deque[Probe] = deque()  # that may not have ended
        self.states: dict[str, str] = {}
        self.answers: list[str] = []
        self.warnings: list[str] = []

    def examine(self, section: RunnerSettings) -> Iterable[str]:
        """Returns the mistakes of a runner section: those of its text, else those that its probe finds."""
        try:
            runner = runners.make(section)
            where = f"{self._path}: [runner:{section.queue}] runner"
            self.warnings += [f"{where}: {warning}" for warning in runner.warnings]
            command = runner.probe()
            if command is None:
                return []
            while len(self._probes) >= AT_ONCE:
                self._probes.popleft().end()
            self._probes.append(Probe(self._forest, section.runner, command))
        except ConfigError as error:
            return error.mistakes
        except RbitError as error:
            return [f"{section.runner!r} cannot be checked: {error}"]
        return self._probes[-1]

    def close(self) -> None:
        """Ends the probes that nobody has asked for their mistakes."""
        for probe in self._probes:
            probe.close()

    def ask(self, amqp: AmqpSettings, names: list[str]) -> list[str]:
        """Looks at the queues; returns the broker's refusal, or nothing. Without an answer it only warns."""
        try:
            connection = Connection(amqp, "rbit --check")
            if len(amqp.nodes) > 1:
                self.answers = [f"RabbitMQ answers at {connection.where}"]
            then = "will be created if its user may do that" if amqp.declare else "and rbit may not create it"
            self.states = dict(look(connection, names, then))
        except BrokerRefused as error:
            return [str(error)]
        except BrokerError as error:
            warn(f"{error}; the queues were not looked at")
        return []

    def missing(self, settings: Config) -> list[str]:
        """Returns a line for each queue that is missing and that rbit may not create; without an answer none."""
        if settings.amqp.declare or not self.states:
            return []
        with contextlib.suppress(BrokerError):  # it has just been asked, and its refusals were said
            connection = Connection(settings.amqp, "rbit --check")
            try:
                return Missing(settings).look(connection)
            finally:
                connection.close()
        return []


class Probe:
    """A process that looks at a runner. It is started on construction; who iterates it waits for its mistakes.

    Arguments:
        forest: where it runs.
        runner: as it is written in the configuration.
        command: to be run; it says on standard error what is wrong, in its last line.

    Errors: RbitError when it cannot be started.
    """

    def __init__(self, forest: Forest, runner: str, command: Sequence[str]) -> None:
        self._forest = forest
        self._runner = runner
        self._mistakes: list[str] = []
        # A file and no pipe: what the command has started may hold its end, and is not waited for.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._tree: Tree | None = forest.plant()
        try:
            with open(os.devnull, "r+b") as nothing:
                ends = [nothing.fileno(), nothing.fileno(), self._said.fileno()]
                self._pid = self._tree.spawn(command, {}, ends)
        except RbitError:
            self.close()
            raise
        self._until = time.monotonic() + PROBE_LIMIT

    def __iter__(self) -> Iterator[str]:
        self.end()
        return iter(self._mistakes)

    def end(self) -> None:
        """Waits for its end. Whatever it has started is ended with it."""
        if self._tree is None:
            return
        try:
            status = wait_for(self._tree, self._pid, self._until)
            self._said.seek(0)
            said = self._said.read().decode("utf-8", "backslashreplace").strip().splitlines()
        except RbitError as error:
            self._mistakes = [f"{self._runner!r} cannot be checked: {error}"]
        else:
            if status is None:
                self._mistakes = [f"{self._runner!r} took more than {PROBE_LIMIT:g} s to check"]
            elif code := os.waitstatus_to_exitcode(status):
                self._mistakes = [said[-1] if said else f"the check of {self._runner!r} ended with status {code}"]
        finally:
            self.close()

    def close(self) -> None:
        """Ends it at once, if it has not ended."""
        tree, self._tree = self._tree, None
        if tree is not None:
            self._forest.fell(tree)
            self._said.close()


def wait_for(tree: Tree, pid: int, deadline: float) -> int | None:
    """Waits for the end of a process; returns its wait status, or None if it is not over by the deadline."""
    while True:
        for event in tree.events():
            if event.get("exited") == pid:
                return int(event["status"])
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([tree], [], [], left)[0]:
            return None


def look(connection: Connection, names: list[str], then: str) -> Iterator[tuple[str, str]]:
    """Yields each queue with its state in words, and closes the connection.

    Arguments:
        connection: an open connection.
        names: of the queues.
        then: what becomes of one that is missing, in words.

    Errors: ConnectionLost.
    """
    try:
        for name in names:
            try:
                count = Queue(connection, name).count()
            except QueueUnavailable as error:
                warn(f"the broker refuses the queue {error}")
                yield name, "refused by the broker"
                continue
            yield name, f"missing, {then}" if count is None else f"messages waiting: {count}"
    finally:
        connection.close()


def first_line(text: str) -> str:
    """Returns a text in one line; dots stand for further lines."""
    first, *more = text.splitlines()
    return f"{first} ..." if more else first


def warn(*texts: str) -> None:
    """Prints warnings to standard error."""
    for text in texts:
        print(f"warning: {text}", file=sys.stderr)
