"""The command line of ``rbit-submit``. Knows nothing of what is done about it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rbit import __version__, console, errors, ini
from rbit.console import Parser
from rbit.settings import LONGEST_NAME

PROGRAM = "rbit-submit"
OF_REQUEST = ("package", "version", "uri", "job")  # options that make no sense with a body
DIGITS = 30  # of a number, leading zeros too


def whole(text: str) -> int:
    """Returns a whole number from 1."""
    # The length first: int() refuses very long ones with words of its own.
    if not text.isdecimal() or not text.isascii() or len(text) > DIGITS or not 1 <= int(text) <= sys.maxsize:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {ini.shown(text)}")
    return int(text)


def words(text: str) -> str:
    """Returns a text that JSON can hold; what is not UTF-8 on the command line cannot be."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"expected UTF-8, got {ini.shown(text)}") from error
    return text


def filled(text: str) -> str:
    """Returns such a text that is not blank."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a text that is not blank, got {ini.shown(text)}")
    return words(text)


def name(text: str) -> str:
    """Returns what a queue can be called. RabbitMQ strips line breaks, and then it would be another one."""
    if not 1 <= len(words(text).encode()) <= LONGEST_NAME or "\r" in text or "\n" in text:
        raise argparse.ArgumentTypeError(
            f"expected 1 to {LONGEST_NAME} bytes without line breaks, got {ini.shown(text)}"
        )
    return text


def parser() -> Parser:
    """Returns the parser of the command line."""
    made = Parser(
        prog=PROGRAM,
        description="Sends a build request, or any other message, to QUEUE; or cancels a job.",
        epilog="Exit statuses: 0 sent, and with --wait every job ended Done or Uploaded; 1 with --wait, a job did "
        "not; 64 wrong command line, or BODY cannot be read; 69 RabbitMQ not reached or lost, or it refused "
        "something, or the client is not connected; 70 a fault in rbit; 74 standard output cannot be written; 77 "
        "RabbitMQ refused the user, the password or the virtual host, or TLS fails; 78 mistakes in CONFIG; "
        "130 interrupted.",
    )
    made.add_argument("config", metavar="CONFIG", help="the INI file of rbit; its [amqp] says where RabbitMQ is")
    made.add_argument("queue", metavar="QUEUE", nargs="?", type=name, help="the queue; not needed with --cancel")
    made.add_argument("--package", metavar="NAME", type=filled, help="what is to be built (test)")
    made.add_argument("--version", metavar="V", type=filled, help="its version (1.0); alone: show rbit-submit's")
    made.add_argument("--uri", metavar="URI", type=words, help="where its source is (nowhere)")
    made.add_argument("--job", metavar="ID", type=whole, help="the id of the job (the milliseconds since 1970)")
    made.add_argument("--file", metavar="BODY", help="send what is in this file, as it is, - for standard input")
    made.add_argument("--count", metavar="N", type=whole, default=1, help="send so many, each with a job id more")
    made.add_argument("--wait", action="store_true", help="show how the jobs go, until the last one has ended")
    made.add_argument("--cancel", metavar="JOB", type=whole, help="ask a client to cancel this job, by its number")
    made.add_argument("--client", metavar="NAME", type=name, help="with --cancel: the client that has it")
    return made


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns what the command line says; ends as argparse does when it is wrong."""
    if list(sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        console.say([f"{PROGRAM} {__version__}"], PROGRAM)
        raise SystemExit(errors.EXIT_OK)
    made = parser()
    options = made.parse_intermixed_args(arguments)  # QUEUE may stand behind an option
    given = [name for name in (*OF_REQUEST, "file", "wait") if getattr(options, name) not in (None, False)]
    if options.cancel is not None:
        if options.client is None:
            made.error("--cancel needs --client")
        if given or options.count > 1:
            made.error(f"--cancel does not go with --{(given or ['count'])[0]}")
    elif options.client is not None:
        made.error("--client needs --cancel")
    elif options.queue is None:
        made.error("a QUEUE is needed")
    of_request = [name for name in given if name in OF_REQUEST]
    if options.file is not None and of_request:
        made.error(f"--file does not go with --{of_request[0]}")
    if options.job is not None and options.job + options.count - 1 > sys.maxsize:
        made.error("--job and --count lead to a job id that is too large")
    return options
