"""The ``rbit`` command: arguments, logging, exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import logging.config
import math
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO

from rbit import __version__, errors

if TYPE_CHECKING:
    from rbit.config import Config
    from rbit.runners import Runner

log = logging.getLogger("rbit")

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class Output(logging.StreamHandler):  # type: ignore[type-arg] # no subscript before Python 3.11
    """Writes the log; what cannot be written (a closed pipe, a full disk) is said once, and jobs go on."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not self._said:
            self._said = True
            with contextlib.suppress(OSError, ValueError):
                print(f"rbit: the log cannot be written: {sys.exc_info()[1]}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """Ends with the exit status of sysexits(3) for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(errors.EXIT_USAGE, f"rbit: {message}\n")


def seconds(text: str) -> float:
    """Returns a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return value


def parser() -> Parser:
    """Returns the parser of the command line."""
    made = Parser(
        prog="rbit",
        description="Works off the queues that CONFIG names with Python functions and shell commands.",
        epilog="Exit statuses: 0 stopped or done; 1 with --once, a job did not end Done; 64 wrong command line; "
        "69 RabbitMQ not reached at the start; 70 a fault in rbit; 77 RabbitMQ refused the user, the password or "
        "the virtual host; 78 mistakes in CONFIG.",
    )
    made.add_argument("config", metavar="CONFIG", help="the INI file; see rbit.ini.example")
    made.add_argument(
        "--poll-time", type=seconds, metavar="SECONDS", help="seconds between polls (polling_time, else 60)"
    )
    made.add_argument("--once", action="store_true", help="work off what is there now, then exit")
    made.add_argument("--check", action="store_true", help="check CONFIG and what it names, then exit")
    made.add_argument("--debug", action="store_true", help="log more")
    made.add_argument("--version", action="version", version=f"rbit {__version__}")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Arguments: those of the command line, or None."""
    options = parser().parse_args(arguments)
    try:
        return run(options)
    except errors.ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return errors.EXIT_CONFIG
    except errors.BrokerRefused as error:
        print(f"rbit: {error}", file=sys.stderr)
        return errors.EXIT_REFUSED
    except errors.BrokerUnreachable as error:
        print(f"rbit: {error}", file=sys.stderr)
        return errors.EXIT_UNAVAILABLE
    except KeyboardInterrupt:  # before the loop took over the signal
        return errors.EXIT_OK
    except Exception:  # a fault of rbit's own: the one place that shows a traceback
        log.exception("rbit failed")
        return errors.EXIT_INTERNAL


def run(options: argparse.Namespace) -> int:
    """Does what the command line asks for; returns the exit status. Errors: RbitError."""
    # Until the loop takes over the signal, while modules are loaded, a stop is a plain end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Here and not above: they load pika and requests, which "rbit --version" can do without.
    from rbit import check, config, runners  # noqa: PLC0415
    from rbit.client import Client  # noqa: PLC0415

    settings = config.read(options.config, check.examine if options.check else runners.mistakes)
    made = {section.queue: runners.make(section) for section in settings.runners}
    if options.check:
        check.check(settings, made)
        return errors.EXIT_OK
    start_logging(settings, options.debug)
    poll_time = options.poll_time or settings.client.polling_time
    announce(settings, made, poll_time)
    client = Client(settings, made, poll_time, options.once)
    client.run()
    return errors.EXIT_JOBS_FAILED if options.once and not client.all_good else errors.EXIT_OK


def start_logging(settings: Config, debug: bool) -> None:
    """Sets up logging: as the INI file says, else to standard output. Errors: ConfigError."""
    if settings.logging is not None:
        try:
            logging.config.fileConfig(settings.logging, disable_existing_loggers=False)
        except Exception as error:  # fileConfig evaluates what the file says: anything may be raised
            cause = error.__cause__ or error
            raise errors.ConfigError([f"{settings.path}: logging sections: {cause!r}"]) from error
    else:
        if isinstance(sys.stdout, io.TextIOWrapper):  # where the locale cannot say all that a job prints
            sys.stdout.reconfigure(errors="backslashreplace")
        level = logging.DEBUG if debug else logging.INFO
        logging.basicConfig(handlers=[Output(sys.stdout)], level=level, format=FORMAT)
    # rbit says what matters of their failures itself, in one line.
    for name, level in (("pika", logging.CRITICAL), ("urllib3", logging.ERROR)):
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING if debug else level)


def announce(settings: Config, made: dict[str, Runner], poll_time: float) -> None:
    """Logs what is about to run, and every warning."""
    client = settings.client
    log.info(
        "rbit %s, client %s: queues: %s; jobs at once: %d; polled every %g s",
        __version__,
        client.name,
        ", ".join(made) or "none",
        client.concurrency,
        poll_time,
    )
    for warning in settings.warnings:
        log.warning("%s", warning)
    if settings.pybit is None:
        log.info("no [pybit] section: statuses go to this log only")
    for section in settings.runners:
        if section.unsafe_jsonpickle:
            log.warning(
                "[runner:%s] unsafe_jsonpickle is on: whoever can publish to this queue can run code here",
                section.queue,
            )


if __name__ == "__main__":
    sys.exit(main())
