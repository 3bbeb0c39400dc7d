"""``rbit --list-failed`` and ``--retry-failed``: shows the messages parked in QUEUE.failed, or puts them back.

What is not put back keeps its place. Runs no job.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

from rbit import decode, envelope, ini
from rbit.broker import Connection, Delivery, Outlet
from rbit.decode import Facts
from rbit.errors import BodyRefused, BrokerError, BrokerRefused, BrokerUnreachable, UsageError
from rbit.output import printable
from rbit.settings import Config, own_queues
from rbit.sweep import Sweep

ALARM = 20.0  # seconds that a publish may hang under an alarm
HEAD = ("FAILED AT", "ATTEMPTS", "STATUS", "JOB OR MESSAGE", "WHY")
LONGEST_CELL = 32  # characters, but for the last column
LONGEST_REASON = 2000  # characters
BEGINNING = 24  # characters of a reason that is cut; its end says more


class Failed:
    """The parked messages of a queue.

    Arguments:
        config: where the broker is, and which queues there are.
        queue: the queue whose jobs they were.
        text: only those are meant in which it is found, see ``matches``; '' is found in all.

    Errors: UsageError when no runner section is for the queue. Of the methods: BrokerRefused;
    BrokerUnreachable, also when the broker refuses something or the connection breaks.
    """

    def __init__(self, config: Config, queue: str, text: str) -> None:
        known = tuple(section.queue for section in config.runners)
        if queue not in known:
            guess = ini.near(queue, known)
            hint = f"; did you mean {guess}?" if guess else ""
            raise UsageError(f"{config.path} has no section [runner:{ini.printable(queue)}]{hint}")
        self._amqp = config.amqp
        self._queue = queue
        self._text = text
        self._name = own_queues(config.client.name, queue)["failed"]

    def table(self) -> list[str]:
        """Returns them as the lines of a table, the oldest first. They stay, in their order."""
        with self._sweep("shown") as (sweep, outlet):
            rows = [row(delivery) for delivery in each(sweep, outlet) if matches(delivery, self._text)]
        return lines([HEAD, *rows]) if rows else self._nothing(sweep)

    def retry(self) -> list[str]:
        """Puts them back on their queue, where they begin anew; returns a line that says how many."""
        moved = 0
        try:
            with self._sweep("put back") as (sweep, outlet):
                for delivery in each(sweep, outlet):
                    if matches(delivery, self._text):
                        sweep.move(delivery, self._queue, envelope.anew(delivery.properties, 1), outlet)
                        moved = sweep.moved
        except BrokerUnreachable as error:
            raise BrokerUnreachable(f"{moved} put back; {error}") from error
        if not sweep.looked:
            return self._nothing(sweep)
        return [f"{self._queue}: {moved} put back, {sweep.looked - moved} left in {self._name}"]

    @contextlib.contextmanager
    def _sweep(self, what: str) -> Iterator[tuple[Sweep, Outlet]]:
        """Has those that are there now taken, and given back if they are not moved."""
        try:
            connection = Connection(self._amqp, f"rbit (for {self._name})")
            outlet = Outlet(self._amqp, f"rbit (for {self._queue})", ALARM)
            with Sweep(connection, self._name, "failed message") as sweep:
                yield sweep, outlet
            outlet.close()
            connection.close()
        except BrokerRefused:
            raise
        except BrokerError as error:
            raise BrokerUnreachable(f"the messages in {self._name} cannot be {what}: {error}") from error

    def _nothing(self, sweep: Sweep) -> list[str]:
        return [f"{self._queue}: nothing has failed" + (f" with {self._text!r}" if sweep.looked else "")]


def each(sweep: Sweep, outlet: Outlet) -> Iterator[Delivery]:
    """Hands out the messages; one that was not moved then is put anew if it must not be given back once more."""
    for delivery in sweep:
        outlet.serve()
        moved = sweep.moved
        yield delivery
        if sweep.must_renew(delivery) and sweep.moved == moved:
            sweep.renew(delivery, outlet)


def facts_of(delivery: Delivery) -> Facts | None:
    """Returns what a parked message is about, if its body is a build request."""
    try:
        return decode.facts(decode.check(delivery.body))
    except BodyRefused:
        return None


def matches(delivery: Delivery, text: str) -> bool:
    """Whether a text is in the reason, the body, the message id or the package; case does not matter."""
    facts = facts_of(delivery) if text else None
    places = (header(delivery, "why"), delivery.body, delivery.properties.message_id, facts and facts.package)
    return not text or any(text.casefold() in words(place).casefold() for place in places)


def row(delivery: Delivery) -> tuple[str, ...]:
    """Returns a parked message as the cells of a table; '-' for what its headers do not say."""
    facts = facts_of(delivery)
    name = f"job {facts.job} {facts.package} {facts.version}" if facts else delivery.properties.message_id
    status, code = header(delivery, "status"), header(delivery, "exit-status")
    how = f"signal {-code}" if isinstance(code, int) and code < 0 else f"exit {words(code)}"
    cells = (
        moment(header(delivery, "failed-at")),
        header(delivery, "attempt"),
        status if code is None else f"{words(status)}, {how}",
        name,
        header(delivery, "why"),
    )
    shown = (None if cell is None else printable(" ".join(words(cell).split()), LONGEST_REASON) for cell in cells)
    return tuple("-" if cell is None else cell for cell in shown)


def lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows of a table as lines that fit the terminal, if there is one, or ``COLUMNS``."""
    widths = [min(LONGEST_CELL, max(map(len, column))) for column in zip(*rows, strict=True)]
    width = shutil.get_terminal_size((0, 0)).columns or sys.maxsize
    made = []
    for *cells, last in rows:
        start = [cell[:size].ljust(size) for cell, size in zip(cells, widths, strict=False)]
        left = width - len("  ".join((*start, "")))
        made.append("  ".join((*start, fitted(last, left)))[:width].rstrip())
    return made


def fitted(reason: str, width: int) -> str:
    """Returns a reason that fits a width; of one that is too long the end, and the beginning if there is room."""
    if len(reason) <= width:
        return reason
    beginning = f"{reason[:BEGINNING]} " if width >= 2 * BEGINNING else ""
    end = max(0, width - len(beginning) - len("... "))
    return f"{beginning}... {reason[len(reason) - end :]}"


def header(delivery: Delivery, name: str) -> object:
    """Returns a header of rbit's; None when there is none. It may be a stranger's and hold anything."""
    return (delivery.properties.headers or {}).get(envelope.PREFIX + name)


def words(value: object) -> str:
    """Returns any value as a text; '' for None."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def moment(seconds: object) -> str | None:
    """Returns seconds since 1970 as local time; None for what is none."""
    try:
        return datetime.fromtimestamp(int(words(seconds))).isoformat(" ")
    except (ValueError, OverflowError, OSError):
        return None
