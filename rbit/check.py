"""``rbit --check``: looks at everything that a configuration names, and runs no job.

Job code is imported in child processes only, as a worker would.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping

from rbit import runners
from rbit.broker import Connection, Queue
from rbit.config import AmqpSettings, Config, RunnerSettings
from rbit.errors import BrokerError, BrokerRefused, ConfigError, QueueUnavailable
from rbit.runners import Runner

PROBE_LIMIT = 60.0  # seconds that an import may take


def examine(section: RunnerSettings) -> list[str]:
    """Returns the mistakes of a runner section: those of its text, else those that its probe finds."""
    try:
        runner = runners.make(section)
    except ConfigError as error:
        return error.mistakes
    command = runner.probe()
    if command is None:
        return []
    try:
        probe = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return [f"{section.runner!r} took more than {PROBE_LIMIT:g} s to check"]
    if probe.returncode == 0:
        return []
    said = probe.stderr.decode("utf-8", "backslashreplace").strip().splitlines()
    return [said[-1] if said else f"the check of {section.runner!r} ended with status {probe.returncode}"]


def check(config: Config, made: Mapping[str, Runner]) -> None:
    """Prints the warnings and a line for each queue.

    Arguments:
        config: a configuration without mistakes.
        made: the runner of each queue, by its name.

    Errors: ConfigError when the broker refuses the user, the password or the virtual host.
    """
    for warning in config.warnings:
        warn(warning)
    for queue, runner in made.items():
        for warning in runner.warnings:
            warn(f"{config.path}: [runner:{queue}] runner: {warning}")
    counts: dict[str, str] = {}
    try:
        counts = dict(look(config.amqp, list(made)))
    except BrokerRefused as error:
        raise ConfigError([f"{config.path}: [amqp] {error}"]) from error
    except BrokerError as error:
        warn(f"{error}; the queues were not looked at")
    for section in config.runners:
        state = counts.get(section.queue, "not looked at")
        command = " ".join(section.runner.split())
        print(f"{section.queue}: {command} ({state})")


def look(amqp: AmqpSettings, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yields each queue with its state in words. Errors: BrokerError."""
    connection = Connection(amqp, "rbit --check")
    try:
        for name in names:
            try:
                count = Queue(connection, name).count()
            except QueueUnavailable as error:
                yield name, f"refused by the broker: {error}"
                continue
            yield name, "missing, will be created" if count is None else f"messages waiting: {count}"
    finally:
        connection.close()


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
