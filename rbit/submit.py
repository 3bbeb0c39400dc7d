"""The ``rbit-submit`` command: sends messages to a queue, and cancels jobs. ``rbit.cli`` calls it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import partial

from rbit import config, console, errors, ini, submission
from rbit.arguments import PROGRAM, parse
from rbit.broker import (
    EXCHANGE,
    NOT_MADE,
    Connection,
    Published,
    Queue,
    Subscription,
    is_connected,
    prepare_exchange,
)
from rbit.console import complain
from rbit.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnreachable,
    ConnectionLost,
    Unroutable,
    UsageError,
)
from rbit.sender import Sender
from rbit.settings import Config
from rbit.submission import Build, Submission
from rbit.update import EXCHANGE as STATUSES
from rbit.watch import Watch

PATIENCE = 10.0  # seconds without a word of any job after which a hint is given
REFRESH = 1.0  # seconds
LARGEST = 512 << 20  # bytes of a message, as many as RabbitMQ can be told to take
CHUNK = 1 << 20  # bytes that are read at once


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status. Arguments: those of the command line, or None.

    Errors: KeyboardInterrupt when a signal ends it.
    """
    return console.run(PROGRAM, lambda: run(parse(arguments)))


def run(options: argparse.Namespace) -> int:
    """Does what the command line asks for; returns the exit status. Errors: RbitError."""
    settings = config.read(options.config)
    if options.wait and not settings.amqp.declare:
        raise UsageError("--wait makes a queue for the statuses, which declare = no in [amqp] forbids")
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
        raise no_requests(options.queue, "please say with --file what to send")
    first = options.job or int(time.time() * 1000)
    package, version = options.package or "test", options.version or "1.0"
    host = submission.host_of(settings)
    builds = (Build(first + number, package, version, options.uri or "") for number in range(options.count))
    return (submission.build_request(options.queue, parts, build, host) for build in builds)


def no_requests(queue: str, advice: str) -> UsageError:
    """Returns the error for a queue whose name PyBit would not give to one."""
    return UsageError(
        f"{ini.printable(queue)} is no queue for build requests, whose name has the form "
        f"distribution_architecture_suite_format; {advice}"
    )


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
    if not settings.amqp.declare:
        raise BrokerUnreachable(f"there is no queue {ini.printable(queue)} on RabbitMQ; {NOT_MADE}")
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
                section = f"[runner:{ini.printable(queue)}]"
                complain(
                    f"{PROGRAM}: no client has taken it yet; is rbit running with a section {section}? "
                    "It takes one when it is free, and looks for new ones once in its poll time"
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
    found = [parts for queue in queues if (parts := submission.parts_of(queue))]
    if options.queue and not found:
        raise no_requests(options.queue, "it is not needed with --cancel")
    parts = found[0] if len(found) == 1 else submission.NO_PARTS
    body = submission.cancel_request(parts, options.cancel, options.client, submission.host_of(settings))
    client = ini.printable(options.client)
    nobody = f"no client named {client} is connected"
    connection = Connection(settings.amqp, PROGRAM)
    prepare_exchange(connection)
    # What finds no queue may be collected in another one, for ever.
    there = is_connected(connection, options.client)
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
