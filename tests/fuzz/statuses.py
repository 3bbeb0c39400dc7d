"""What jobs print and report, through real pipes and sockets to the log; and statuses from the broker."""

from __future__ import annotations

import json
import logging
import math
import os
import selectors
import socket
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rbit import update as updates
from rbit.broker import Delivery
from rbit.errors import BodyRefused
from rbit.feed import Feed
from rbit.job import Job, Outcome
from rbit.joblog import JobLogs
from rbit.jsonlog import Objects
from rbit.message import FINAL, STATUSES, Properties
from rbit.output import LONGEST_LINE, Lines, Tail, printable, visible
from rbit.process import PACKET, CommandProcess
from rbit.publisher import Publisher
from rbit.report import Report
from rbit.runners import make
from rbit.settings import LONGEST_NAME, RunnerSettings
from rbit.update import Update
from rbit.worker import LONGEST_MESSAGE, Reports
from tests.fuzz.bodies import bodies
from tests.fuzz.target import Target
from tests.fuzz.texts import is_harmless, texts, utf8
from tests.support.settings import amqp_settings

SECTION = RunnerSettings("q", "shell!true", None, None, False, "park", 60.0, 0, 10, {"runner": "shell!true"})
RUNNER = make(SECTION)
names = st.one_of(st.sampled_from(sorted(STATUSES)), texts, st.just("x" * 300))


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _Feed(Feed):
    """Keeps what is published."""

    def __init__(self) -> None:
        super().__init__("box", Publisher(amqp_settings(1), "fuzz"), None, False)
        self.published: list[Update] = []

    def publish(self, update: Update, to_pybit: bool, answers: str | None, done: Any) -> None:
        self.published.append(update)
        done(True)


def check_texts(text: str) -> None:
    """What is shown has no control characters, and says which there were."""
    shown = visible(text)
    assert is_harmless(shown) and visible(shown) == shown
    if is_harmless(text):
        assert shown == text
    line = printable(text, 50)
    assert line.isprintable() and len(line) == len(text[:50])
    raw = text.encode("utf-8", "surrogatepass")
    assert printable(raw).isprintable()
    tail = Tail(3, 20)
    for part in text.split("\n"):
        tail.add(part)
    assert len(tail.text()) <= 20 and tail.text().count("\n") <= 2


def check_lines(case: tuple[list[bytes], bool]) -> None:
    """What comes out of a pipe, in whatever pieces it was written, is what was written, line by line."""
    pieces, ended = case
    read, write = os.pipe()
    got: list[str] = []
    lines = Lines(read, got.append)
    try:
        for piece in pieces:
            os.write(write, piece)
            lines.read()
        if ended:
            os.close(write)
        lines.drain()
    finally:
        if not ended:
            os.close(write)
        with selectors.DefaultSelector() as selector:
            lines.close(selector)
    whole = b"".join(pieces)
    expected = [line.rstrip(b"\r").decode("utf-8", "backslashreplace") for line in whole.split(b"\n")]
    if not whole.split(b"\n")[-1]:
        expected.pop()
    if all(len(line) <= LONGEST_LINE for line in whole.split(b"\n")):
        assert got == expected, (got, expected)
    else:
        assert "".join(got) == "".join(expected)
        assert all(len(line.encode("utf-8", "backslashreplace")) <= 4 * LONGEST_LINE for line in got)


def check_report(case: tuple[str, str | None, list[tuple[str, str]], list[str], str, int]) -> None:
    """Whatever a job says, each line of the logs is harmless, and each update is as it was said."""
    queue, message_id, said, printed, why, number = case
    unused: Any = None
    properties = Properties(message_id=message_id)
    feed, records = _Feed(), _Records()
    log = logging.getLogger("rbit")
    level = log.level
    log.addHandler(records)
    log.setLevel(logging.DEBUG)
    try:
        with tempfile.TemporaryDirectory(prefix="rbit-fuzz-") as folder:
            delivery = Delivery(queue, 1, b"x", properties, False, unused, unused)
            job = Job(delivery, SECTION, RUNNER, number, feed)
            report = Report(job, None, JobLogs(folder, 1, 0))
            for name, message in said:
                report.set_status(name, message)
            for line in printed:
                report.line("stdout", line)
            report.end(Outcome("Failed", visible(why), f"Traceback\n{why}"))
            report.close()
            [path] = Path(folder).rglob("*.log")
            written = path.read_text("utf-8")
    finally:
        log.setLevel(level)
        log.removeHandler(records)
    form = Objects()
    for record in records.records:
        text = record.getMessage()
        assert is_harmless(text), text
        _, *more = text.split("\n")
        assert all(line.startswith("    ") for line in more) or record.name == "rbit.output", text
        [line] = form.format(record).split("\n")
        json.loads(line, parse_constant=_no_constant).get("message")
        assert line.isascii()
    assert is_harmless(written), written
    _, _, entries = written.partition("\n\n")
    assert all(line[:1] == " " or line[:2] == "20" for line in entries.splitlines()), entries
    accepted = [(name, visible(text)) for name, text in said if name.isprintable() and len(name) <= 255]
    assert [(update.status, update.message) for update in feed.published] == accepted
    for update in feed.published:
        assert updates.parse(update.body) == update
        assert len(update.key.encode()) <= LONGEST_NAME
        json.loads(update.body, parse_constant=_no_constant)
    times = [update.time for update in feed.published]
    assert times == sorted(set(times))


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def check_status_line(line: str) -> None:
    """A line on RBIT_STATUS_FD is a status and its message, or nothing; the last final one counts."""
    got: list[tuple[str, str]] = []
    process = object.__new__(CommandProcess)
    process._set_status = lambda name, text: got.append((name, text))
    process._final = None
    process._on_status_line(line)
    words = line.strip().split(" ", 1)
    assert got == ([(words[0], words[1] if len(words) > 1 else "")] if words[0] else [])
    assert process._final == (got[0] if got and got[0][0] in FINAL else None)


class _Mute:
    def __str__(self) -> str:
        raise ValueError


def check_worker(case: tuple[Any, Any]) -> None:
    """What a Python job reports comes to the client in one packet that it can read."""
    status, message = case
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(10)
        reports = Reports(theirs)
        try:
            reports.set_status(status, message)
        except ValueError:
            assert not isinstance(status, str) or not status.strip() or not status.encode(
                "utf-8", "backslashreplace")[:LONGEST_MESSAGE].strip()
            return
        packet = ours.recv(PACKET + 1)
    assert len(packet) <= PACKET
    answer = json.loads(packet)
    assert set(answer) == {"status", "message"} and answer["status"].strip() == answer["status"] != ""
    for value, shown, strip in ((status, answer["status"], True), (message, answer["message"], False)):
        assert len(shown.encode()) <= LONGEST_MESSAGE
        if isinstance(value, str) and len(value) < 1000 and _is_whole(value):
            assert shown == (value.strip() if strip else value)


def _is_whole(text: str) -> bool:
    return not any(0xD800 <= ord(char) < 0xE000 for char in text)


fields = {
    "job": st.one_of(st.none(), st.integers()), "queue": texts, "client": texts, "status": names, "message": texts,
    "time": st.one_of(st.floats(), st.integers()), "attempt": st.integers(), "final": st.booleans(),
}
strange = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), texts, st.lists(st.none(), max_size=1),
    st.just({}), st.sampled_from([10**400, -(10**400), float("inf"), float("nan")]),
)


@st.composite
def published(draw: st.DrawFn) -> bytes:
    """The body of an update, in which some fields are odd, more or missing; or any other body."""
    if draw(st.integers(0, 5)) == 0:
        return draw(bodies())
    plain = {name: draw(values) for name, values in fields.items()}
    for name in draw(st.sets(st.sampled_from([*fields, "more"]), max_size=2)):
        plain[name] = draw(strange)
    for name in draw(st.sets(st.sampled_from(list(fields)), max_size=1)) if draw(st.booleans()) else ():
        del plain[name]
    return json.dumps(plain).encode()


def check_update(body: bytes) -> None:
    """A status from the broker is one of a client's, all fields of their types, or refused in one line."""
    try:
        found = updates.parse(body)
    except BodyRefused as error:
        assert "no status of a client" in str(error) and str(error).isprintable() and len(str(error)) < 300, error
        return
    assert found.job is None or type(found.job) is int
    assert all(type(text) is str for text in (found.queue, found.client, found.status, found.message))
    assert type(found.time) in (int, float) and math.isfinite(found.time), found.time
    assert type(found.attempt) is int and type(found.final) is bool
    assert updates.parse(found.body) == found
    assert len(found.key.encode()) <= LONGEST_NAME
    properties = found.properties(True, "x")
    assert type(properties.timestamp) is int


pieces = st.lists(st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\n", b"\r\n", b"a" * (LONGEST_LINE - 1), "ü".encode() * 9000, b"\xff", b"\x1b"]),
), max_size=5)
objects = st.one_of(
    texts, st.integers(), st.none(), st.builds(_Mute), st.just("ü" * 20_000), st.just("\x01" * 70_000),
)
lines = texts.map(lambda text: text.replace("\n", ""))
queues = utf8.filter(lambda name: name.isprintable() and 0 < len(name.encode()) < 256)
TARGETS = [
    Target("texts that are shown", texts, check_texts, 60),
    Target("lines of output", st.tuples(pieces, st.booleans()), check_lines, 40),
    Target("reports of jobs", st.tuples(
        queues, st.one_of(st.none(), utf8), st.lists(st.tuples(names, utf8), max_size=4),
        st.lists(lines, max_size=3), texts, st.integers(1, 10**6),
    ), check_report, 40),
    Target("lines of statuses", texts, check_status_line, 20),
    Target("statuses of Python jobs", st.tuples(objects, objects), check_worker, 30),
    Target("statuses from RabbitMQ", published(), check_update, 60),
]
