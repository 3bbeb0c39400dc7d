"""The ``rbit-submit`` command: sends messages to a queue, and cancels jobs. ``rbit.cli`` calls it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rbit import __version__, config, console, errors, ini, submission
from rbit.broker import EXCHANGE, Connection, Outlet, Queue, Subscription, prepare_exchange
from rbit.console import Parser
from rbit.envelope import PERSISTENT
from rbit.errors import BrokerError, BrokerRefused, BrokerUnreachable, PublishFailed, UsageError
from rbit.message import Properties
from rbit.settings import Config
from rbit.submission import Build, Submission
from rbit.update import EXCHANGE as STATUSES
from rbit.watch import Watch

PROGRAM = "rbit-submit"
ALARM = 20.0  # seconds that a publish may hang under an alarm
PATIENCE = 10.0  # seconds without a word of any job after which a hint is given
REFRESH = 1.0  # seconds
OF_REQUEST = ("package", "version", "uri", "job")  # options that make no sense with a body


def whole(text: str) -> int:
    """Returns a whole number from 1."""
    if not text.isdecimal() or not text.isascii() or not 1 <= int(text) <= sys.maxsize:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def parser() -> Parser:
    """Returns the parser of the command line."""
    made = Parser(
        prog=PROGRAM,
        description="Sends a build request, or any other message, to QUEUE; or cancels a job.",
        epilog="Exit statuses: 0 sent, and with --wait every job ended Done; 1 with --wait, a job did not; 64 "
        "wrong command line; 69 RabbitMQ not reached, or it did not take the message; 70 a fault in rbit; 74 "
        "standard output cannot be written; 77 RabbitMQ refused the user, the password or the virtual host; 78 "
        "mistakes in CONFIG; 130 interrupted.",
    )
    made.add_argument("config", metavar="CONFIG", help="the INI file of rbit; its [amqp] says where RabbitMQ is")
    made.add_argument("queue", metavar="QUEUE", nargs="?", help="the queue; not needed with --cancel")
    made.add_argument("--package", metavar="NAME", help="what is to be built (test)")
    made.add_argument("--version", metavar="V", help="its version (1.0); alone it shows that of rbit-submit")
    made.add_argument("--uri", metavar="URI", help="where its source is (nowhere)")
    made.add_argument("--job", metavar="ID", type=whole, help="the id of the job (the milliseconds since 1970)")
    made.add_argument("--file", metavar="BODY", help="send what is in this file, as it is, - for standard input")
    made.add_argument("--count", metavar="N", type=whole, default=1, help="send so many, each with a job id more")
    made.add_argument("--wait", action="store_true", help="show how the jobs go, until the last one has ended")
    made.add_argument("--cancel", metavar="JOB", type=whole, help="ask a client to cancel this job")
    made.add_argument("--client", metavar="NAME", help="with --cancel: the client that has it")
    return made


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns what the command line says; ends as argparse does when it is wrong."""
    if list(sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(f"{PROGRAM} {__version__}")
        raise SystemExit(errors.EXIT_OK)
    made = parser()
    options = made.parse_args(arguments)
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
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Arguments: those of the command line, or None.

    Errors: KeyboardInterrupt when a signal ends it.
    """
    return console.run(PROGRAM, lambda: run(parse(arguments)))


def run(options: argparse.Namespace) -> int:
    """Does what the command line asks for; returns the exit status. Errors: RbitError."""
    settings = config.read(options.config)
    try:
        if options.cancel is not None:
            return cancel(settings, options)
        return send(settings, options.queue, submissions(settings, options), options.wait)
    except (BrokerRefused, BrokerUnreachable):
        raise
    except BrokerError as error:
        raise BrokerUnreachable(str(error)) from error


def submissions(settings: Config, options: argparse.Namespace) -> list[Submission]:
    """Returns what is to be sent. Errors: UsageError."""
    if options.file is not None:
        body = read(options.file)
        return [submission.raw(options.queue, body) for _ in range(options.count)]
    parts = submission.parts_of(options.queue)
    if parts is None:
        raise UsageError(
            f"{ini.printable(options.queue)} is no queue for build requests, whose name has the form "
            "distribution_architecture_suite_format; please say with --file what to send"
        )
    first = options.job or int(time.time() * 1000)
    package, version = options.package or "test", options.version or "1.0"
    builds = [Build(first + number, package, version, options.uri or "") for number in range(options.count)]
    host = submission.host_of(settings)
    return [submission.build_request(options.queue, parts, build, host) for build in builds]


def read(name: str) -> bytes:
    """Returns what is in a file, or comes from standard input for ``-``. Errors: UsageError."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{ini.printable(name)} cannot be read: {error.strerror}") from error


def send(settings: Config, queue: str, messages: Sequence[Submission], wait: bool) -> int:
    """Sends messages to a queue, and follows their jobs if it is to wait; returns the exit status.

    Errors: BrokerError.
    """
    connection = Connection(settings.amqp, PROGRAM)
    prepare(connection, settings, queue)
    # Before anything is sent, or the first statuses could be missed.
    followed = Subscription(connection, STATUSES, f"{queue}.#") if wait else None
    outlet = Outlet(settings.amqp, f"{PROGRAM} (publisher)", ALARM)
    sent = 0
    try:
        for message in messages:
            outlet.probe()
            outlet.publish(queue, message.body, message.properties)
            sent += 1
            console.say([f"{message.label}: published"], PROGRAM)
            connection.wait(0.0)
    except BrokerError as error:
        raise BrokerUnreachable(f"{sent} of {len(messages)} published; {error}") from error
    outlet.close()
    status = follow(followed, queue, messages) if followed else errors.EXIT_OK
    connection.close()
    return console.say([], PROGRAM) or status


def prepare(connection: Connection, settings: Config, queue: str) -> None:
    """Makes a queue that is missing, if the configuration has a section for it. Errors: BrokerError."""
    known = tuple(section.queue for section in settings.runners)
    made = Queue(connection, queue)
    if made.count() is None and queue not in known:
        guess = ini.near(queue, known)
        hint = f"; did you mean {guess}?" if guess else ""
        raise BrokerUnreachable(
            f"there is no queue {ini.printable(queue)} on RabbitMQ, and {settings.path} has no section "
            f"[runner:{ini.printable(queue)}] for which it would be made{hint}"
        )
    if queue in known:
        prepare_exchange(connection)
        made.prepare()


def follow(followed: Subscription, queue: str, messages: Sequence[Submission]) -> int:
    """Shows how jobs go until the last one has ended; returns the exit status. Errors: BrokerUnreachable."""
    watch = Watch({message.id: message.label for message in messages}, partial(console.write, program=PROGRAM))
    hinted = False
    try:
        while not watch.is_over:
            for body, answers in followed.wait(REFRESH):
                watch.take(body, answers)
            watch.refresh()
            if watch.silent and not hinted and watch.seconds > PATIENCE:
                hinted = True
                watch.leave()
                print(
                    f"{PROGRAM}: no client has taken it yet; is rbit running with a section [runner:{queue}]?",
                    file=sys.stderr, flush=True,
                )
    except BrokerError as error:
        watch.leave()
        raise BrokerUnreachable(f"connection to RabbitMQ lost ({error}); the jobs are not affected") from error
    except KeyboardInterrupt:
        watch.leave()
        print(f"{PROGRAM}: not waiting any more; the jobs go on", file=sys.stderr)
        raise
    return errors.EXIT_OK if watch.all_good else errors.EXIT_JOBS_FAILED


def cancel(settings: Config, options: argparse.Namespace) -> int:
    """Asks a client to cancel a job; returns the exit status. Errors: BrokerError."""
    queues = [options.queue] if options.queue else [section.queue for section in settings.runners]
    parts = next((found for queue in queues if (found := submission.parts_of(queue))), ("-", "-", "-", "-"))
    body = submission.cancel_request(parts, options.cancel, options.client, submission.host_of(settings))
    connection = Connection(settings.amqp, PROGRAM)
    prepare_exchange(connection)
    connection.close()
    outlet = Outlet(settings.amqp, f"{PROGRAM} (publisher)", ALARM)
    sent = Properties(content_encoding=submission.ENCODING, delivery_mode=PERSISTENT)
    try:
        outlet.probe()
        outlet.publish(options.client, body, sent, EXCHANGE)
    except PublishFailed as error:
        if not error.refused:
            raise
        raise BrokerUnreachable(f"no client named {ini.printable(options.client)} is connected") from error
    finally:
        outlet.close()
    return console.say([f"job {options.cancel}: {ini.printable(options.client)} is asked to cancel it"], PROGRAM)
