"""The ``rbit`` command: arguments, logging, exit statuses. ``rbit.cli`` calls it."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rbit import __version__, console, errors
from rbit.console import Parser, say
from rbit.logs import Output, with_fields

if TYPE_CHECKING:
    from rbit.config import Config
    from rbit.figures import Figures
    from rbit.runners import Runner
    from rbit.web import Web

log = logging.getLogger("rbit")

PROGRAM = "rbit"
LONGEST = 2_000_000  # seconds, as in the INI file
FORMAT = "%(asctime)s %(levelname)s %(message)s"
TEXT, JSON = "text", "json"
NO_METRICS = "[rbit] metrics needs the package prometheus_client: pip install 'rbit[metrics]'"
DEFAULT_USER = "guest"  # of a new RabbitMQ, with all rights
GUEST = "these would take the place of all rights of guest, please give rbit a user of its own in [amqp]"
NO_JSON = "--log-format json needs the package python-json-logger, 3.1 or later: pip install 'rbit[json]'"


def seconds(text: str) -> float:
    """Returns a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LONGEST:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, at most {LONGEST}, got {text!r}")
    return value


def parser() -> Parser:
    """Returns the parser of the command line."""
    made = Parser(
        prog=PROGRAM,
        description="Works off the queues that CONFIG names with Python functions and shell commands.",
        epilog="Exit statuses: 0 stopped or done; 1 with --once, a job did not end Done; 64 wrong command line, "
        "also a QUEUE without a runner section; 69 RabbitMQ not reached at the start, or not to the end of "
        "--list-failed and --retry-failed, or the port of metrics taken; 70 a fault in rbit; 74 standard output "
        "cannot be written; 77 RabbitMQ refused the user, the password or the virtual host, or TLS fails; 78 "
        "mistakes in CONFIG.",
    )
    made.add_argument("config", metavar="CONFIG", help="the INI file; the README describes it")
    made.add_argument(
        "--poll-time", type=seconds, metavar="SECONDS", help="seconds between polls (polling_time, else 60)"
    )
    made.add_argument("--once", action="store_true", help="work off what is there now, then exit")
    made.add_argument("--check", action="store_true", help="check CONFIG and what it names, then exit")
    made.add_argument(
        "--definitions", action="store_true", help="show what the user of CONFIG needs on RabbitMQ, as JSON for "
        "rabbitmqctl import_definitions, then exit",
    )
    made.add_argument(
        "--list-failed", metavar="QUEUE", help="show the messages of QUEUE whose jobs have failed, then exit"
    )
    made.add_argument(
        "--retry-failed", metavar="QUEUE", help="put them back on QUEUE, each as a first attempt, then exit"
    )
    made.add_argument(
        "--match", metavar="TEXT", help="of the failed messages only those with TEXT, in capitals or not, in why "
        "they failed, their body, message id or package",
    )
    made.add_argument("--debug", action="store_true", help="log more")
    made.add_argument(
        "--log-format", choices=(TEXT, JSON), metavar="FORMAT", help="text, or json: an object a line"
    )
    made.add_argument("--version", action="version", version=f"rbit {__version__}")
    return made


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns what the command line says; ends as argparse does when it is wrong."""
    made = parser()
    options = made.parse_args(arguments)
    given = [option for option in ("list-failed", "retry-failed", "definitions", "once", "check", "poll-time")
             if getattr(options, option.replace("-", "_")) not in (None, False)]
    failed = [option for option in given if option.endswith("-failed")]
    if (failed or options.definitions) and len(given) > 1:
        made.error(f"--{given[0]} does not go with --{given[1]}")
    if options.check and options.once:
        made.error("--check does not go with --once")
    if options.match is not None and not failed:
        made.error("--match needs --list-failed or --retry-failed")
    if options.match == "":
        made.error("--match needs a text")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Arguments: those of the command line, or None.

    Errors: KeyboardInterrupt when a stop signal comes before the client's loop takes over.
    """
    return console.run(PROGRAM, lambda: run(parse(arguments)), log_too)


def run(options: argparse.Namespace) -> int:
    """Does what the command line asks for; returns the exit status. Errors: RbitError."""
    # Here and not above: they load pika, which "rbit --version" can do without, and more.
    if options.check:
        from rbit import check  # noqa: PLC0415

        formatter_of(options.log_format)  # whether there is one
        return say(check.report(options.config, metrics_of), PROGRAM)
    # One that comes from here on, and may be about a newer file, is obeyed when the client's loop takes it over.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    settings, made = read(options)
    if options.definitions:
        from rbit import definitions  # noqa: PLC0415

        if settings.amqp.user == DEFAULT_USER:
            print(f"{PROGRAM}: {GUEST}", file=sys.stderr)
        return say(definitions.text(settings), PROGRAM)
    queue = options.list_failed if options.list_failed is not None else options.retry_failed
    if queue is not None:
        from rbit import failed  # noqa: PLC0415

        found = failed.Failed(settings, queue, options.match or "")
        return say(found.table() if options.retry_failed is None else found.retry(), PROGRAM)
    from rbit.client import Client  # noqa: PLC0415

    serve = metrics_of(settings)
    start_logging(settings, options.debug, options.log_format)
    announce(settings, made, options.once)
    client = Client(settings, made, options.once, front_of(settings), partial(read, options))
    if serve is not None:
        serve(client.figures)
    client.run()
    return errors.EXIT_JOBS_FAILED if options.once and not client.all_good else errors.EXIT_OK


def read(options: argparse.Namespace) -> tuple[Config, dict[str, Runner]]:
    """Reads the configuration, as far as the command line says nothing else; returns it with the queues' runners.

    Errors: ConfigError.
    """
    from dataclasses import replace  # noqa: PLC0415 - it loads much that "rbit --version" can do without

    from rbit import config, runners  # noqa: PLC0415

    settings = config.read(options.config, runners.mistakes)
    unsafe = [
        f"[runner:{section.queue}] unsafe_jsonpickle is on: whoever can publish to this queue can run code here"
        for section in settings.runners if section.unsafe_jsonpickle
    ]
    client = replace(settings.client, polling_time=options.poll_time or settings.client.polling_time)
    made = {section.queue: runners.make(section) for section in settings.runners}
    return replace(settings, client=client, warnings=(*settings.warnings, *unsafe)), made


def front_of(settings: Config) -> Callable[[], Web] | None:
    """Returns what makes a caller of PyBit; None without ``[pybit]``, which needs no HTTP either."""
    if settings.pybit is None:
        return None
    from rbit.web import Web  # noqa: PLC0415

    return partial(Web, settings.pybit, settings.client.name)


def metrics_of(settings: Config) -> Callable[[Figures], None] | None:
    """Returns what serves a client's figures; None without the key for it. Errors: UsageError without the library.

    What it returns may raise ConfigError and AddressTaken.
    """
    if settings.client.metrics is None:
        return None
    try:
        from rbit import metrics  # noqa: PLC0415
    except ImportError as error:
        raise errors.UsageError(f"{settings.path}: {NO_METRICS}") from error
    return partial(metrics.serve, settings.path, settings.client.metrics)


def log_too(error: Exception) -> None:
    """Logs why rbit ends, if the INI file has set up a log of its own: standard error has it already."""
    if log.hasHandlers() and not any(isinstance(handler, Output) for handler in logging.getLogger().handlers):
        log.critical("%s", error)


def formatter_of(log_format: str | None) -> logging.Formatter:
    """Returns the formatter for a value of ``--log-format``. Errors: UsageError."""
    if log_format != JSON:
        return logging.Formatter(FORMAT)
    try:
        from rbit.jsonlog import Objects  # noqa: PLC0415
    except ImportError as error:
        raise errors.UsageError(NO_JSON) from error
    return Objects()


def start_logging(settings: Config, debug: bool, log_format: str | None = None) -> None:
    """Sets up logging: as the INI file says, else to standard output. Errors: ConfigError, UsageError."""
    if settings.logging is not None or log_format == JSON:
        with_fields()
    if settings.logging is not None:
        if log_format is not None:
            raise errors.UsageError(f"--log-format does not go with the logging sections of {settings.path}")
        from logging.config import fileConfig  # noqa: PLC0415 - it loads much, and few files have such sections

        try:
            fileConfig(settings.logging, disable_existing_loggers=False)
        except Exception as error:  # fileConfig evaluates what the file says: anything may be raised
            cause = error.__cause__ or error
            reason = f"{type(cause).__name__}: {cause}"
            raise errors.ConfigError([f"{settings.path}: logging sections: {reason}"]) from error
    else:
        level = logging.DEBUG if debug else logging.INFO
        stream = sys.stdout or sys.stderr  # None: it was closed before the start
        handler = Output(stream) if stream else logging.NullHandler()
        handler.setFormatter(formatter_of(log_format))
        logging.basicConfig(handlers=[handler], level=level)
    # rbit says what matters of their failures itself, in one line.
    for name, level in (("pika", logging.CRITICAL), ("urllib3", logging.ERROR)):
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(level)


def announce(settings: Config, made: dict[str, Runner], once: bool) -> None:
    """Logs what is about to run, and every warning."""
    client = settings.client
    how = f"polled every {client.polling_time:g} s"
    if once:
        how = "stops when nothing more can run now"
    elif client.delivery == "push":
        how = f"RabbitMQ sends messages, and is {how} besides"
    log.info(
        "rbit %s, client %s: queues: %s; jobs at once: %d; %s",
        __version__,
        client.name,
        ", ".join(made) or "none",
        client.concurrency,
        how,
    )
    for warning in settings.warnings:
        log.warning("%s", warning)
    if settings.pybit is None:
        log.info("no [pybit] section: statuses go to this log and to the exchange rbit.status")
