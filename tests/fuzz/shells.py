"""Command lines with placeholders, and values from strangers in them; some are run by a real shell."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from hypothesis import strategies as st

from rbit import runners, template
from rbit.decode import Facts
from rbit.errors import CommandRefused, ConfigError
from rbit.message import Message
from rbit.runners import Command, RunnerSettings
from tests.fuzz.target import Target
from tests.fuzz.texts import CANARY, texts, utf8

PATIENCE = 300.0  # seconds, however busy the machine is
NAMES = tuple(template.PLACEHOLDERS)
# No lone parenthesis: a function that calls itself would fork without end.
TOKENS = [
    "%ID", "%ID", "%URI", "%QUEUE", "%%", "%", "%XY", "'", "'", '"', '"', "$(", ")", "`", "\\", "${x:-", "${x#",
    "}", "$((", "))", "eval ", "sh ", " -c ", "echo ", "printf ", "case a in a) ", ";; esac", "{ ", "; }",
    "cat <<E\n", "\nE\n", "<<'E'\n", "| sh", "&&", "\n", " ", " ", " # ", "$'", "$", "for i in a; do ", "done",
    "[[ ", "x=", "exec ", "trap ", "command ", "env ", "xargs ", "awk ", "sed ", "test ", "read ", ".", ":", "a",
    "-", "=", "*", "~", "\t", "\x1b", "ü",
]
commands = st.one_of(
    st.lists(st.sampled_from(TOKENS), min_size=1, max_size=14).map("".join), texts,
    st.tuples(st.sampled_from(TOKENS), st.integers(1, 400)).map(lambda pair: pair[0] * pair[1]),
)
# Places that keep a value as it is, each a word of the probe: {} stands for the placeholder.
PLACES = [
    "{}", '"{}"', "'{}'", "a{}b", "'a'{}\"b\"", '"$(printf %%s. {})"', "${{unset:-{}}}", '"${{unset:-{}}}"',
    "./{}", "\\{}", "\"`printf '%%s.' {}`\"", '"$(cat <<E\n{}.\nE\n)"',
]
GIVES = [
    "{}", "{}", "{}", "a{}b", "a{}b", "{}.", "{}", "{}", "./{}", "{}", "{}.", "{}.",
]
PROBE = "#!/bin/sh\nprintf '%s\\0' \"$@\" >>\"$PROBED\"\n"


def check_template(command: str) -> None:
    """A template is made of any text; no placeholder is left where the shell would see a value."""
    made = template.parse(command)
    for sentence in (*made.mistakes, *made.warnings):
        assert sentence and "\n" not in sentence, sentence
    assert made.names <= set(NAMES)
    for name in made.names:
        if not made.mistakes:
            assert f"${{RBIT_{name}}}" in made.text, made.text
    if not re.search("%[A-Z%]", command):
        assert made.text == command and not made.names
    # What is left of it, with other values in its place, is text of the user's alone.
    assert template.parse(command) == made


def _settings(command: str, settings: dict[str, str]) -> RunnerSettings:
    return RunnerSettings("q", f"shell!{command}", None, None, False, "park", 60.0, 0, 10, settings)


def check_values(case: tuple[str, dict[str, str], dict[str, str]]) -> None:
    """Values reach the environment of a command unchanged, or the job is refused; its text does not know them."""
    command, values, settings = case
    try:
        runner = runners.make(_settings(command, settings))
    except ConfigError as error:
        assert error.mistakes and all(mistake for mistake in error.mistakes)
        return
    facts = Facts(7, *(values[name] for name in ("ID", "VERSION", "ARCH", "SUITE", "DIST", "FORMAT", "URI")))
    try:
        plan = runner.prepare(Message(b"", values["QUEUE"]), facts)
    except CommandRefused as error:
        assert any("\0" in value or not _is_utf8(value) for value in values.values()), error
        return
    assert isinstance(plan, Command)
    assert list(plan.arguments) == ["/bin/sh", "-c", template.parse(command).text]
    for name, value in {**values, "JOB": "7"}.items():
        assert plan.environment[f"RBIT_{name}"] == value
    for key, value in settings.items():
        variable = "RBIT_SETTING_" + re.sub("[^A-Z0-9]", "_", key.upper())
        assert plan.environment[variable] == value
    assert all(re.fullmatch("RBIT_[A-Z0-9_]+", name) for name in plan.environment), plan.environment


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_ini(text: str) -> bool:
    return "\0" not in text and _is_utf8(text)


def _run(text: str, environment: dict[str, str], arguments: str) -> list[bytes]:
    """Run a command with /bin/sh; return what its probe was given. Nothing else may come of it."""
    with tempfile.TemporaryDirectory(prefix="rbit-fuzz-") as made:
        folder, work = Path(made), Path(made) / "work"
        work.mkdir()
        (folder / "probe").write_text(PROBE)
        (folder / "probe").chmod(0o755)
        variables = {**environment, "PATH": f"{folder}:{os.environ['PATH']}", "PROBED": str(folder / "probed")}
        ran = subprocess.run(
            ["/bin/sh", "-c", text], cwd=work, env=variables, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=PATIENCE, check=False,
        )
        made_files = os.listdir(work)
        assert made_files == [], f"{arguments}: {text!r} made {made_files}; {ran.stderr!r}"
        probed = folder / "probed"
        return probed.read_bytes().split(b"\0")[:-1] if probed.exists() else []


def check_arrival(case: tuple[list[int], str, str]) -> None:
    """In the places that keep a value it arrives unchanged, as part of one word, whatever it is."""
    places, value, other = case
    words = [PLACES[number].format("%ID" if number % 2 else "%URI") for number in places]
    try:
        plan = runners.make(_settings(f"probe {' '.join(words)}", {})).prepare(
            Message(b"", "q"), Facts(7, value, "v", "a", "s", "d", "f", other))
    except CommandRefused:
        assert "\0" in value + other
        return
    assert isinstance(plan, Command)
    found = _run(plan.arguments[2], dict(plan.environment), repr(case))
    expected = [GIVES[number].format(value if number % 2 else other).encode() for number in places]
    # A substitution drops the newlines at its end; here a dot is behind the value.
    assert found == expected, f"{found} {expected}"


def check_canary(case: tuple[str, str, str]) -> None:
    """Whatever the command is, no value is run."""
    command, value, other = case
    made = template.parse(command)
    if made.mistakes or not made.names or CANARY in command or "\0" in command + value + other:
        return
    environment = {variable: value if name == "ID" else other for name, variable in template.PLACEHOLDERS.items()}
    # First with values that mean nothing: what the text does by itself is not their doing.
    harmless = dict.fromkeys(environment, "x")
    try:
        _run(made.text, harmless, command)
    except (AssertionError, subprocess.TimeoutExpired):
        return
    _run(made.text, environment, repr(case))


soups = st.lists(st.sampled_from(TOKENS), min_size=2, max_size=12).map("".join)
values = utf8.map(lambda text: text[:2000])
VALUES = st.fixed_dictionaries({name: texts for name in NAMES if name != "JOB"})
TARGETS = [
    Target("templates of commands", commands, check_template, 120),
    Target("values for commands", st.tuples(
        st.one_of(commands.filter(_is_ini), st.just("probe %ID")), VALUES,
        st.dictionaries(utf8.filter(bool), utf8.filter(_is_ini), max_size=2),
    ), check_values, 60),
    Target("values in a real shell", st.tuples(
        st.lists(st.integers(0, len(PLACES) - 1), min_size=1, max_size=4), values, values), check_arrival, 15),
    Target("any command in a real shell", st.tuples(soups, values, values), check_canary, 25),
]
