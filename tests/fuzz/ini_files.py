"""INI files: right ones read as they were meant, and any others answered with mistakes that name the place."""

from __future__ import annotations

import contextlib
import os
import tempfile
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from rbit import config, runners
from rbit.errors import ConfigError
from rbit.schema import SCHEMA
from tests.fuzz.target import Target
from tests.fuzz.texts import is_harmless, texts

SECRET = "Xq7secretXq7"
RIGHT = f"""[rbit]
name = box
polling_time = 5
suites = a, b
[amqp]
host = a, b:1
user = bob
password = {SECRET}
[pybit]
url = http://web
password = {SECRET}
[runner:q]
runner = python!a:b
timeout = 3
api_key = {SECRET}
[runner:r]
runner = shell!echo %ID
    true
"""
LINES = RIGHT.splitlines()
KEYS = sorted({key.name for keys in SCHEMA.values() for key in keys if not key.name.endswith("_file")})
SECTIONS = [
    "rbit", "amqp", "pybit", "runner:q", "runner:r", "runner:", "DEFAULT", "loggers", "runner:amq.x", "rbti",
]
blanks = st.sampled_from(["", " ", "  ", "\t", " \x0b", "\u00a0"])
odd_lines = st.one_of(
    st.sampled_from(SECTIONS).map("[{}]".format), st.sampled_from(KEYS), texts.map("[{}]".format), texts,
    st.tuples(
        blanks, st.one_of(st.sampled_from(KEYS), texts), st.sampled_from(["=", ":", " = ", "", "=="]), texts,
    ).map("".join),
    st.sampled_from([
        f"password {SECRET}", f"pasword = {SECRET}", f" {SECRET}", f"password = {SECRET}", "x", "#", ";",
        f"password = {SECRET}\n  x", f"[amqp]\npassword = {SECRET}\n  x",
    ]),
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file in which some lines are others, more or gone, or the bytes are."""
    lines = list(LINES)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines)))
        lines[at : at + draw(st.integers(0, 2))] = draw(st.lists(odd_lines, max_size=2))
    text = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])).join(lines)
    if draw(st.integers(0, 4)) == 0:  # a character of a line is gone: the "=" of a password, perhaps
        at = draw(st.integers(0, max(0, len(text) - 1)))
        text = text[:at] + text[at + 1 :]
    data = draw(st.sampled_from(["", "\ufeff"])).encode() + text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at:]
    return data


@contextlib.contextmanager
def _file(data: bytes) -> Any:
    with tempfile.TemporaryDirectory(prefix="rbit-fuzz-") as made:
        (Path(made) / "rbit.ini").write_bytes(data)
        before = os.getcwd()
        os.chdir(made)
        try:
            yield
        finally:
            os.chdir(before)


def check_file(data: bytes) -> None:
    """A file is read, or each mistake is one line with its place; no password is shown."""
    with _file(data):
        try:
            read = config.read("rbit.ini", runners.mistakes)
        except ConfigError as error:
            assert error.mistakes
            for line in error.mistakes:
                assert line.startswith("rbit.ini: ") and len(line) > len("rbit.ini: "), line
                assert is_harmless(line) and "\n" not in line, line
                assert len(line) < 3000, len(line)
            said = "".join(traceback.format_exception(error))
            if _keeps_secrets(data):
                assert SECRET not in said, said
            return
    for warning in read.warnings:
        assert warning.startswith("rbit.ini: ") and "\n" not in warning, warning
        assert SECRET not in warning or not _keeps_secrets(data), warning
    assert SECRET not in repr(read) or not _keeps_secrets(data)
    for section in read.runners:
        assert runners.make(section) and 1 <= len(section.queue.encode()) <= 255
        assert section.settings["runner"] == section.runner


def _keeps_secrets(data: bytes) -> bool:
    """Whether passwords stand only on lines of their keys, in whatever spelling."""
    for line in data.decode("utf-8", "replace").replace("\r", "\n").split("\n"):
        if SECRET in line and not line.strip().startswith(("password", "pasword", "api_key")):
            return False
    return True


plain = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
seconds = st.one_of(st.integers(1, 2_000_000), st.floats(0.01, 1000).map(lambda value: round(value, 3)))
right = {
    "rbit": {
        "name": st.from_regex("[A-Za-z0-9_-]{1,20}", fullmatch=True), "polling_time": seconds,
        "architecture": plain, "concurrency": st.integers(1, 1000), "lease_after": seconds,
        "stop_timeout": seconds, "max_jobs_per_worker": st.integers(0, 10**9), "log_limit": st.integers(1, 10**6),
    },
    "amqp": {
        "port": st.integers(1, 65535), "user": plain, "heartbeat": st.integers(1, 65535), "virtual_host": plain,
        "queue_type": st.sampled_from(["classic", "quorum"]), "connect_timeout": seconds,
    },
    "runner:q": {
        "timeout": seconds, "concurrency": st.integers(1, 1000), "max_attempts": st.integers(0, 10**9),
        "on_failure": st.sampled_from(["park", "discard", "requeue"]), "retry_delay": st.integers(1, 2_000_000),
        "failed_max": st.integers(1, 10**9), "Größe %d": plain, "x;y#z": plain,
    },
}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Sections, keys and values that are right."""
    return {
        section: {key: draw(values) for key, values in keys.items() if draw(st.booleans())}
        for section, keys in right.items()
    }


def check_document(document: dict[str, dict[str, Any]]) -> None:
    """What is right is read as it was written, whatever the form of the file."""
    document = {section: dict(keys) for section, keys in document.items()}
    document["rbit"].setdefault("name", "box")
    document["runner:q"]["runner"] = "shell!true"
    lines = []
    for section, keys in document.items():
        lines += [f"[{section}]", "# x", ""]
        lines += [f"{key} {':='[len(key) % 2]} {value}" for key, value in keys.items()]
    with _file("\n".join(lines).encode()), mock.patch.dict(os.environ):
        if document["rbit"]["name"] == "q":
            return
        read = config.read("rbit.ini")
    for settings, section in ((read.client, "rbit"), (read.amqp, "amqp"), (read.runners[0], "runner:q")):
        for key, value in document[section].items():
            if hasattr(settings, key):
                assert getattr(settings, key) == value, (key, value)
    assert read.runners[0].settings == {key: str(value) for key, value in document["runner:q"].items()}


TARGETS = [
    Target("INI files", files(), check_file, 60),
    Target("right INI files", documents(), check_document, 20),
]
