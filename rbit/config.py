"""Reads rbit's configuration: the schema of the INI file, and its sections as typed settings.

Settings hold data and build nothing. This module must not know what a runner does with its command
or callable: whoever calls `read` brings the function that looks at that. Runs in the client's process.
"""

from __future__ import annotations

import configparser
import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rbit import ini
from rbit.errors import ConfigError
from rbit.ini import Document, Key


@dataclass(frozen=True)
class ClientSettings:
    """The section [rbit].

    Arguments:
        name: the client's name, a BuildBox in PyBit's web.
        polling_time: seconds between two polls.
        architecture, distribution, format, suites: the parts of PyBit's queue names; empty when not given.
        concurrency: jobs at once, from 1.
    """

    name: str
    polling_time: float
    architecture: str
    distribution: str
    format: str
    suites: tuple[str, ...]
    concurrency: int

    def queue_names(self) -> list[str]:
        """Return the queue that PyBit uses for each suite; none when a part of the names is missing."""
        if not (self.distribution and self.architecture and self.format):
            return []
        start = f"{self.distribution}_{self.architecture}"
        return [f"{start}_{suite}_{self.format}" for suite in dict.fromkeys(self.suites)]


@dataclass(frozen=True)
class AmqpSettings:
    """The section [amqp].

    Arguments:
        host, port, user, password, virtual_host: where RabbitMQ is and who asks.
        heartbeat: seconds, 1 to 65535.
        connect_timeout: seconds for which the first connection is tried.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    virtual_host: str
    heartbeat: int
    connect_timeout: float


@dataclass(frozen=True)
class PybitSettings:
    """The section [pybit].

    Arguments:
        url: of PyBit's web, http or https, without a slash at its end.
        user, password: for basic authentication; an empty user means none.
        timeout: seconds to connect, and seconds to wait for an answer.
    """

    url: str
    user: str
    password: str = field(repr=False)
    timeout: float


@dataclass(frozen=True)
class RunnerSettings:
    """One section [runner:QUEUE].

    Arguments:
        queue: the queue's name.
        runner: as written: ``python!package.module:callable`` or ``shell!command line``.
        timeout: seconds that a job may take; None: any time.
        concurrency: jobs of this queue at once; None: as many as [rbit] allows.
        unsafe_jsonpickle: bodies with classes of their own reach the job.
        settings: every key of the section as written, `runner` included; may hold secrets.
    """

    queue: str
    runner: str
    timeout: float | None
    concurrency: int | None
    unsafe_jsonpickle: bool
    settings: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Config:
    """A whole configuration without mistakes.

    Arguments:
        path: the file, as it was named.
        pybit: None when statuses go to the log only.
        runners: in the order of the file.
        warnings: one line for each oddity that is no mistake.
        logging: a parser with the logging sections, for ``logging.config.fileConfig``; None: there are none.
    """

    path: str
    client: ClientSettings
    amqp: AmqpSettings
    pybit: PybitSettings | None
    runners: tuple[RunnerSettings, ...]
    warnings: tuple[str, ...]
    logging: configparser.RawConfigParser | None = field(repr=False)


Examine = Callable[[RunnerSettings], list[str]]


def _default_name() -> str:
    return socket.gethostname().replace(".", "-")


def _short(text: str) -> str:
    # AMQP carries these names with their length in one byte.
    if not 1 <= len(text.encode()) <= 255:
        raise ValueError
    return text


def _heartbeat(text: str) -> int:
    if text.strip("0") == "" and text:
        raise ini.Unexpected("without heartbeats a dead connection would stay unnoticed")
    return ini.whole(1, 65535)(text)


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        if re.fullmatch(r"[^:/,\s]+:[0-9]+", text) or re.fullmatch(r"\[.*\]:[0-9]+", text):
            raise ini.Unexpected("the port has a key of its own, port") from error
    if not re.fullmatch(r"[\w.-]+", text):
        raise ValueError
    text.encode("idna")  # as the resolver will; raises UnicodeError, which is a ValueError
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\\]", text):
        raise ValueError
    if "@" in parts.netloc:
        raise ini.Unexpected("user and password have keys of their own")
    if "?" in text or "#" in text or parts.port == 0:
        raise ValueError
    return text.rstrip("/")


CLIENT_KEYS = (
    Key("name", ini.matching("[A-Za-z0-9_-]+"), "letters, digits, - and _", default=_default_name),
    Key("polling_time", ini.seconds, ini.SECONDS, default="60"),
    Key("architecture", ini.anything, "a name", default=""),
    Key("distribution", ini.anything, "a name", default=""),
    Key("format", ini.anything, "a name", default=""),
    Key("suites", ini.names, "names separated by commas", default="", lines=True),
    Key("concurrency", ini.whole(1, 1000), "a number from 1 to 1000", default="1"),
)
AMQP_KEYS = (
    Key("host", _host, "one host name or address", default="localhost"),
    Key("port", ini.whole(1, 65535), "a number from 1 to 65535", default="5672"),
    Key("user", _short, "a name of 1 to 255 bytes", default="guest"),
    Key("password", ini.anything, "one line", default="guest", secret=True),
    Key("virtual_host", _short, "a name of 1 to 255 bytes", default="/"),
    Key("heartbeat", _heartbeat, "a number of seconds from 1 to 65535", default="30"),
    Key("connect_timeout", ini.seconds, ini.SECONDS, default="60"),
)
PYBIT_KEYS = (
    Key("url", _url, "an http or https URL without user, query and fragment", required=True),
    Key("user", ini.anything, "one line", default=""),
    Key("password", ini.anything, "one line", default="", secret=True),
    Key("timeout", ini.seconds, ini.SECONDS, default="10"),
)
RUNNER = "python!package.module:callable or shell!command line"
RUNNER_KEYS = (
    Key("runner", ini.matching(".+"), RUNNER, required=True, lines=True),
    Key("timeout", ini.seconds, ini.SECONDS),
    Key("concurrency", ini.whole(1, 1000), "a number from 1 to 1000"),
    Key("unsafe_jsonpickle", ini.switch, "yes or no", default="no"),
)
# The keys of each section; the last entry stands for every section [runner:QUEUE].
SCHEMA = {"rbit": CLIENT_KEYS, "amqp": AMQP_KEYS, "pybit": PYBIT_KEYS, "runner:": RUNNER_KEYS}
OTHER_NAMES = {"vhost": "virtual_host", "virtualhost": "virtual_host", "username": "user"}
LOGGING = {"loggers": "logger_", "handlers": "handler_", "formatters": "formatter_"}


def read(path: str, examine: Examine | None = None) -> Config:
    """Read and check a configuration file.

    Arguments:
        path: the file; mistakes show it as it is given here.
        examine: returns what is wrong with the `runner` of a section, one text for each mistake.

    Raises ConfigError with all mistakes.
    """
    document = ini.read(path)
    _check_sections(document)
    for section in ("rbit", "amqp", "pybit"):
        document.refuse_unknown(section, SCHEMA[section], OTHER_NAMES)
    client = ClientSettings(**document.values("rbit", CLIENT_KEYS))
    amqp = AmqpSettings(**document.values("amqp", AMQP_KEYS))
    pybit = PybitSettings(**document.values("pybit", PYBIT_KEYS)) if "pybit" in document.sections else None
    runners = tuple(_runners(document, examine))
    logging = _logging(document)
    if document.mistakes:
        raise ConfigError(document.mistakes)
    return Config(path, client, amqp, pybit, runners, tuple(_warnings(document, client)), logging)


def _check_sections(document: Document) -> None:
    for section in document.sections:
        if section == "DEFAULT":
            document.mistake("not supported, expected each key in the section that it is for", section)
        elif not section.startswith(("runner:", *LOGGING.values())) and section not in (*SCHEMA, *LOGGING):
            head, _, rest = section.partition(":")
            guess = ini.near(head, ("rbit", "amqp", "pybit", "runner", *LOGGING))
            guess = f"runner:{ini.printable(rest) or 'QUEUE'}" if guess == "runner" else guess
            known = "expected [rbit], [amqp], [pybit], [runner:QUEUE] or logging sections"
            document.mistake(f"unknown section, {f'did you mean [{guess}]?' if guess else known}", section)
    for section in ("rbit", "amqp"):
        if section not in document.sections:
            document.mistake("missing, expected this section", section)


def _runners(document: Document, examine: Examine | None) -> Iterator[RunnerSettings]:
    for section, settings in document.sections.items():
        if not section.startswith("runner:"):
            continue
        queue = section.partition(":")[2]
        if not 1 <= len(queue.encode()) <= 255 or queue != queue.strip():
            document.mistake("expected runner:QUEUE, 1 to 255 bytes without blanks around them", section)
        elif queue.startswith("amq."):
            document.mistake("expected another queue name: the broker keeps amq. for itself", section)
        runner = RunnerSettings(queue=queue, settings=settings, **document.values(section, RUNNER_KEYS))
        if not runner.runner:
            continue
        if runner.unsafe_jsonpickle and not runner.runner.startswith("python!"):
            document.mistake("expected no, for only a python! runner decodes", section, "unsafe_jsonpickle")
        for text in examine(runner) if examine else ():
            document.mistake(text, section, "runner")
        yield runner


def _logging(document: Document) -> configparser.RawConfigParser | None:
    """Return the logging sections, after a look at what fileConfig would end with a KeyError for."""
    prefixes = tuple(LOGGING.values())
    names = [name for name in document.sections if name in LOGGING or name.startswith(prefixes)]
    if not names:
        return None
    for section, prefix in LOGGING.items():
        text = document.sections.get(section, {}).get("keys")
        if text is None:
            document.mistake("missing, expected names separated by commas", section, "keys")
            continue
        for name in ini.names(text):
            if prefix + name not in document.sections:
                document.mistake(f"missing, for [{section}] keys names it", prefix + name)
        if section == "loggers" and "root" not in ini.names(text):
            document.mistake("expected root among the names", section, "keys")
    return ini.parser_of({name: document.sections[name] for name in names})


def _warnings(document: Document, client: ClientSettings) -> Iterator[str]:
    names = tuple(key.name for key in RUNNER_KEYS)
    runners = [section for section in document.sections if section.startswith("runner:")]
    for section in runners:
        for key in document.sections[section]:
            # Any key is a legal setting, so only what looks very much like one of ours is worth a word.
            guess = "" if key in names else ini.near(key, names, 0.8)
            if guess:
                yield document.line(f"passed to the job as a setting; did you mean {guess}?", section, key)
    if not runners:
        yield document.line("missing, so there is no queue to work off", "runner:QUEUE")
    for queue in client.queue_names():
        if f"runner:{queue}" not in document.sections:
            yield document.line("missing, though [rbit] names this queue", f"runner:{queue}")
