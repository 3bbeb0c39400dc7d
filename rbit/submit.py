"""The ``rbit-submit`` command: sends messages to a queue, and cancels jobs. ``rbit.cli`` calls it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial

from rbit import __version__, config, console, errors, ini, submission
from rbit.broker import EXCHANGE, Connection, Published, Queue, Subscription, prepare_exchange
from rbit.console import Parser, complain
from rbit.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnreachable,
    ConnectionLost,
    QueueUnavailable,
    Unroutable,
    UsageError,
)
from rbit.sender import Sender
from rbit.settings import LONGEST_NAME, Config
from rbit.submission import Build, Submission
from rbit.update import EXCHANGE as STATUSES
from rbit.watch import Watch

PROGRAM = "rbit-submit"
PATIENCE = 10.0  # seconds without a word of any job after which a hint is given
REFRESH = 1.0  # seconds
OF_REQUEST = ("package", "version", "uri", "job")  # options that make no sense with a body
DIGITS = 30  # of a number, leading zeros too
LARGEST = 512 << 20  # bytes of a message, as many as RabbitMQ can be told to take
CHUNK = 1 << 20  # bytes that are read at once


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
        "RabbitMQ refused the user, the password or the virtual host; 78 mistakes in CONFIG; 130 interrupted.",
    )
    made.add_argument("config", metavar="CONFIG", help="the INI file of rbit; its [amqp] says where RabbitMQ is")
    made.add_argument("queue", metavar="QUEUE", nargs="?", type=name, help="the queue; not needed with --cancel")
    made.add_argument("--package", metavar="NAME", type=filled, help="what is to be built (test)")
    made.add_argument("--version", metavar="V", type=filled, help="its version (1.0); alone that of rbit-submit")
    made.add_argument("--uri", metavar="URI", type=words, help="where its source is (nowhere)")
    made.add_argument("--job", metavar="ID", type=whole, help="the id of the job (the milliseconds since 1970)")
    made.add_argument("--file", metavar="BODY", help="send what is in this file, as it is, - for standard input")
    made.add_argument("--count", metavar="N", type=whole, default=1, help="send so many, each with a job id more")
    made.add_argument("--wait", action="store_true", help="show how the jobs go, until the last one has ended")
    made.add_argument("--cancel", metavar="JOB", type=whole, help="ask a client to cancel this job")
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
        return send(settings, options, submissions(settings, options))
    except (BrokerRefused, BrokerUnreachable):
        raise
    except BrokerError as error:
        raise BrokerUnreachable(str(error)) from error


def submissions(settings: Config, options: argparse.Namespace) -> Iterator[Submission]:
    """Returns what is to be sent, each made when its turn comes. Errors: UsageError, at once."""
    if options.file is not None:
        body = read(options.file)
        job = submission.job_in(body)
        return (submission.raw(options.queue, body, job) for _ in range(options.count))
    parts = submission.parts_of(options.queue)
    if parts is None:
        raise UsageError(
            f"{ini.printable(options.queue)} is no queue for build requests, whose name has the form "
            "distribution_architecture_suite_format; please say with --file what to send"
        )
    first = options.job or int(time.time() * 1000)
    package, version = options.package or "test", options.version or "1.0"
    host = submission.host_of(settings)
    builds = (Build(first + number, package, version, options.uri or "") for number in range(options.count))
    return (submission.build_request(options.queue, parts, build, host) for build in builds)


def read(path: str) -> bytes:
    """Returns what is in a file, or comes from standard input for ``-``. Errors: UsageError."""
    shown = "standard input" if path == "-" else ini.printable(path) or "''"
    body = bytearray()
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            while len(body) <= LARGEST and (chunk := file.read(CHUNK)):
                body += chunk
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror}") from error
    if len(body) > LARGEST:
        raise UsageError(f"{shown} has more than {LARGEST} bytes, and RabbitMQ takes no such message")
    return bytes(body)


def send(settings: Config, options: argparse.Namespace, messages: Iterator[Submission]) -> int:
    """Sends messages to a queue, and follows their jobs if it is to wait; returns the exit status.

    Errors: BrokerError.
    """
    connection = Connection(settings.amqp, PROGRAM)
    prepare(connection, settings, options.queue)
    watch = Watch(partial(console.write, program=PROGRAM))
    followed: Subscription | None = None
    if options.wait:  # before anything is sent, or the first statuses could be missed
        followed = Subscription(connection, STATUSES)
    else:
        connection.close()
    heard: list[Published] = []
    sender = sender_of(settings)
    try:
        for message in messages:
            if followed:
                watch.add(message.id, message.label)
            sender.send(options.queue, message.body, message.properties)
            console.say([f"{message.label}: published"], PROGRAM)
            if followed:
                heard += [(body, answers) for body, answers in followed.wait(0.0) if watch.knows(answers)]
        sender.close()
    except KeyboardInterrupt:
        complain(f"{PROGRAM}: {sender.progress(options.count)}")
        raise
    except BrokerError as error:
        raise BrokerUnreachable(f"{sender.progress(options.count)}; {error}") from error
    status = follow(followed, watch, heard, options.queue) if followed else errors.EXIT_OK
    connection.close()
    return console.say([], PROGRAM) or status


def sender_of(settings: Config) -> Sender:
    """Returns what publishes. Errors: BrokerRefused, BrokerUnreachable."""
    return Sender(settings.amqp, f"{PROGRAM} (publisher)", lambda line: complain(f"{PROGRAM}: {line}"))


def prepare(connection: Connection, settings: Config, queue: str) -> None:
    """Makes a queue that is missing, if the configuration has a section for it. Errors: BrokerError."""
    known = tuple(section.queue for section in settings.runners)
    made = Queue(connection, queue)
    if made.count() is not None:
        return
    if queue not in known:
        guess = ini.near(queue, known)
        hint = f"; did you mean {guess}?" if guess else ""
        raise BrokerUnreachable(
            f"there is no queue {ini.printable(queue)} on RabbitMQ, and {settings.path} has no section "
            f"[runner:{ini.printable(queue)}] for which it would be made{hint}"
        )
    prepare_exchange(connection)
    made.prepare()


def follow(followed: Subscription, watch: Watch, heard: Sequence[Published], queue: str) -> int:
    """Shows how jobs go until the last one has ended; returns the exit status.

    Arguments:
        followed: where their statuses come from.
        watch: shows them.
        heard: those that have come.
        queue: where the jobs were sent to.

    Errors: BrokerUnreachable.
    """
    hinted = False
    try:
        for body, answers in heard:
            watch.take(body, answers)
        while not watch.is_over:
            watch.refresh()
            for body, answers in followed.wait(REFRESH):
                watch.take(body, answers)
            if watch.silent and not hinted and watch.seconds > PATIENCE:
                hinted = True
                watch.leave()
                complain(
                    f"{PROGRAM}: no client has taken it yet; is rbit running with a section "
                    f"[runner:{ini.printable(queue)}]?"
                )
    except BrokerError as error:
        watch.leave()
        lost = "connection to RabbitMQ lost" if isinstance(error, ConnectionLost) else "no more statuses"
        raise BrokerUnreachable(f"{lost} ({error}); the jobs are not affected") from error
    except KeyboardInterrupt:
        watch.leave()
        complain(f"{PROGRAM}: not waiting any more; the jobs go on")
        raise
    return errors.EXIT_OK if watch.all_good else errors.EXIT_JOBS_FAILED


def cancel(settings: Config, options: argparse.Namespace) -> int:
    """Asks a client to cancel a job; returns the exit status. Errors: BrokerError."""
    queues = [options.queue] if options.queue else [section.queue for section in settings.runners]
    parts = next((found for queue in queues if (found := submission.parts_of(queue))), ("-", "-", "-", "-"))
    body = submission.cancel_request(parts, options.cancel, options.client, submission.host_of(settings))
    client = ini.printable(options.client)
    nobody = f"no client named {client} is connected"
    connection = Connection(settings.amqp, PROGRAM)
    prepare_exchange(connection)
    # What finds no queue may be collected in another one, for ever.
    there = has_queue(connection, options.client)
    connection.close()
    if not there:
        raise BrokerUnreachable(nobody)
    sender = sender_of(settings)
    try:
        sender.send(options.client, body, submission.properties(submission.ENCODING, named=False), EXCHANGE)
    except Unroutable as error:
        raise BrokerUnreachable(nobody) from error
    finally:
        sender.close()
    return console.say([f"job {options.cancel}: {client} is asked to cancel it"], PROGRAM)


def has_queue(connection: Connection, client: str) -> bool:
    """Whether a client has its queue, so far as RabbitMQ says it. Errors: ConnectionLost."""
    try:
        return Queue(connection, client).count() is not None
    except QueueUnavailable:  # another connection's own
        return True
