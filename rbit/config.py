"""Reads rbit's configuration: the schema of the INI file, and its sections as typed settings.

This module must not know what a runner does with its command
or callable: whoever calls `read` brings the function that looks at that. Runs in the client's process.
"""

from __future__ import annotations

import configparser
import ipaddress
import re
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from rbit import ini
from rbit.errors import ConfigError
from rbit.ini import Document, Key
from rbit.settings import AmqpSettings, ClientSettings, Config, PybitSettings, RunnerSettings, own_queues

__all__ = ["AmqpSettings", "ClientSettings", "Config", "PybitSettings", "RunnerSettings", "read"]


Examine = Callable[[RunnerSettings], list[str]]  # see `read`
Ask = Callable[[AmqpSettings, list[str]], list[str]]


def _short(text: str) -> str:
    # AMQP carries these names with their length in one byte.
    if not 1 <= len(text.encode()) <= 255:
        raise ValueError
    return text


def _queue(text: str) -> str:
    if text.startswith("amq."):
        raise ini.Unexpected("the broker keeps amq. for itself")
    return _short(text)


def _heartbeat(text: str) -> int:
    if text.strip("0") == "" and text:
        raise ini.Unexpected("without heartbeats a dead connection would stay unnoticed")
    return ini.whole(1, 65535)(text)


def _hosts(text: str) -> tuple[tuple[str, int | None], ...]:
    found = tuple(_host(part) for part in ini.names(text))
    if not found or "\n" in text:
        raise ValueError
    return found


def _host(text: str) -> tuple[str, int | None]:
    host, port = text, None
    if match := re.fullmatch(r"\[(.*)\](?::([0-9]{1,5}))?|([^:]+):([0-9]{1,5})", text):
        host = match[1] or match[3]
        port = ini.whole(1, 65535)(match[2] or match[4]) if match[2] or match[4] else None
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        if not re.fullmatch(r"[\w.-]+", host):
            raise
    host.encode("idna")  # as the resolver will; raises UnicodeError, which is a ValueError
    return host, port


def _delay(text: str) -> float:
    if (value := ini.seconds(text)) < 1:
        raise ValueError
    return value


def _lease_ttl(text: str) -> float:
    # A third of it, the longest time between two renewals, stays below RabbitMQ's limit of 30 minutes.
    if (value := _delay(text)) > 3600:
        raise ValueError
    return value


def _from_zero(text: str) -> float:
    return 0.0 if re.fullmatch(r"0+(\.0*)?", text) else ini.seconds(text)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\\]", text):
        raise ValueError
    if "@" in parts.netloc:
        raise ini.Unexpected("user and password have keys of their own")
    if "?" in text or "#" in text or parts.port == 0:
        raise ValueError
    return text.rstrip("/")


DELAY = "a number of seconds from 1 to 2000000"
CLIENT_KEYS = (
    Key(
        "name",
        ini.matching("[A-Za-z0-9_-]+"),
        "letters, digits, - and _",
        default=lambda: socket.gethostname().replace(".", "-"),
    ),
    Key("polling_time", ini.seconds, ini.SECONDS, default="60"),
    Key("architecture", ini.anything, "a name", default=""),
    Key("distribution", ini.anything, "a name", default=""),
    Key("format", ini.anything, "a name", default=""),
    Key("suites", ini.names, "names separated by commas", default="", lines=True),
    Key("concurrency", ini.whole(1, 1000), "a number from 1 to 1000", default="1"),
    Key("lease_after", _from_zero, "a number of seconds from 0 to 2000000", default="10"),
    Key("lease_ttl", _lease_ttl, "a number of seconds from 1 to 3600", default="300"),
    Key("lease_renew", ini.seconds, ini.SECONDS),
    Key("stop_timeout", ini.seconds, ini.SECONDS),
    Key("max_jobs_per_worker", ini.whole(0, 10**9), "a number from 0 to 1000000000", default="0"),
    Key("worker_idle", ini.seconds, ini.SECONDS, default="300"),
    Key("default_queue", _queue, "a queue name of 1 to 255 bytes"),
)
# What becomes of messages: in [rbit] for all queues, in a runner's section for that one.
FATE_KEYS = (
    Key("on_failure", ini.matching("park|discard|requeue"), "park, discard or requeue", default="park"),
    Key("retry_delay", _delay, DELAY, default="60"),
    Key("max_attempts", ini.whole(0, 10**9), "a number from 0 to 1000000000", default="0"),
    Key("failed_max", ini.whole(1, 10**9), "a number from 1 to 1000000000", default="10000"),
)
AMQP_KEYS = (
    Key("host", _hosts, "HOST or HOST:PORT, or some of them separated by commas", default="localhost"),
    Key("port", ini.whole(1, 65535), "a number from 1 to 65535", default="5672"),
    Key("user", _short, "a name of 1 to 255 bytes", default="guest"),
    Key("password", ini.anything, "one line", default="guest", secret=True),
    Key("virtual_host", _short, "a name of 1 to 255 bytes", default="/"),
    Key("heartbeat", _heartbeat, "a whole number of seconds from 1 to 65535", default="30"),
    Key("connect_timeout", ini.seconds, ini.SECONDS, default="60"),
    Key("queue_type", ini.matching("classic|quorum"), "classic or quorum", default="classic"),
)
PYBIT_KEYS = (
    Key("url", _url, "an http or https URL without user, query and fragment", required=True),
    Key("user", ini.anything, "one line", default=""),
    Key("password", ini.anything, "one line", default="", secret=True),
    Key("timeout", ini.seconds, ini.SECONDS, default="10"),
    Key("gate_timeout", ini.seconds, ini.SECONDS, default="3"),
)
RUNNER = "python!package.module:callable or shell!command line"
RUNNER_KEYS = (
    Key("runner", ini.matching(".+"), RUNNER, required=True, lines=True),
    Key("timeout", ini.seconds, ini.SECONDS),
    Key("concurrency", ini.whole(1, 1000), "a number from 1 to 1000"),
    Key("unsafe_jsonpickle", ini.switch, "yes or no", default="no"),
)
# The keys of each section; the last entry stands for every section [runner:QUEUE].
SCHEMA = {
    "rbit": (*CLIENT_KEYS, *FATE_KEYS),
    "amqp": AMQP_KEYS,
    "pybit": PYBIT_KEYS,
    "runner:": (*RUNNER_KEYS, *FATE_KEYS),
}
OTHER_NAMES = {"vhost": "virtual_host", "virtualhost": "virtual_host", "username": "user"}
LEASE_PARTS = 5  # lease_renew is this part of lease_ttl
LEASE_LEAST_PARTS = 3  # a renewal that fails once must not let the lease run out
NAME_LIMIT = 255  # bytes; AMQP carries a queue's name with its length in one byte
LOGGING = {"loggers": "logger_", "handlers": "handler_", "formatters": "formatter_"}


def read(path: str, examine: Examine | None = None, ask: Ask | None = None) -> Config:
    """Read and check a configuration file.

    Arguments:
        path: the file; mistakes show it as it is given here.
        examine: returns what is wrong with the `runner` of a section, one text for each mistake.
        ask: gets the section [amqp], if it has no mistakes, and names of queues; returns what is wrong with it.

    Raises ConfigError with all mistakes.
    """
    document = ini.read(path)
    _check_sections(document)
    for section in ("rbit", "amqp", "pybit"):
        document.refuse_unknown(section, SCHEMA[section], OTHER_NAMES)
    client = _client(document)
    amqp = AmqpSettings(**document.values("amqp", AMQP_KEYS))
    pybit = PybitSettings(**document.values("pybit", PYBIT_KEYS)) if "pybit" in document.sections else None
    runners = tuple(_runners(document, examine, client.name or ""))
    _check_default_queue(document, client)
    logging = _logging(document)
    if ask and document.faulty.isdisjoint({"", "amqp"}):
        queues = [runner.queue for runner in runners]
        for text in ask(amqp, [*queues, client.default_queue] if client.default_queue else queues):
            document.mistake(text, "amqp")
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


def _client(document: Document) -> ClientSettings:
    values = document.values("rbit", CLIENT_KEYS)
    ttl, renew = values["lease_ttl"], values["lease_renew"]
    if ttl is not None:
        values["lease_renew"] = renew = renew or ttl / LEASE_PARTS
        if renew > ttl / LEASE_LEAST_PARTS:
            expected = f"expected at most a third of lease_ttl, {ttl / LEASE_LEAST_PARTS:g} s here, got {renew:g}"
            document.mistake(expected, "rbit", "lease_renew")
    return ClientSettings(**values)


def _runners(document: Document, examine: Examine | None, name: str) -> Iterator[RunnerSettings]:
    # A key that [rbit] has and the section has not counts for the section.
    fate = document.values("rbit", FATE_KEYS)
    for section, settings in document.sections.items():
        if not section.startswith("runner:"):
            continue
        queue = section.partition(":")[2]
        if not 1 <= len(queue.encode()) <= 255 or queue != queue.strip():
            document.mistake("expected runner:QUEUE, 1 to 255 bytes without blanks around them", section)
        elif queue.startswith("amq."):
            document.mistake("expected another queue name: the broker keeps amq. for itself", section)
        for kind in ("lease", "retry"):
            if (other := f"runner:{own_queues(name, queue)[kind]}") in document.sections:
                document.mistake(f"expected another name: rbit keeps messages of {queue} in this queue", other)
        if queue and queue == name:
            document.mistake(f"expected a name that no queue has, got {name!r} as in [{section}]", "rbit", "name")
        longest = max(own_queues(name, queue).values(), key=len)
        if len(longest.encode()) > NAME_LIMIT >= len(queue.encode()):
            document.mistake(f"expected a shorter name: that of its queue {longest} is over 255 bytes", section)
        own = document.values(section, FATE_KEYS)
        values = {key: own[key] if key in settings else value for key, value in fate.items()}
        values.update(document.values(section, RUNNER_KEYS))
        runner = RunnerSettings(queue=queue, settings=settings, **values)
        if not runner.runner:
            continue
        if runner.unsafe_jsonpickle and not runner.runner.startswith("python!"):
            document.mistake("expected no, for only a python! runner decodes", section, "unsafe_jsonpickle")
        for text in examine(runner) if examine else ():
            document.mistake(text, section, "runner")
        if section not in document.faulty:
            yield runner


def _check_default_queue(document: Document, client: ClientSettings) -> None:
    name = client.default_queue
    queues = [section.partition(":")[2] for section in document.sections if section.startswith("runner:")]
    own = {other: queue for queue in queues for other in own_queues(client.name or "", queue).values()}
    if name is None:
        return
    if name in queues:
        expected = f"expected a queue without a section, got {name!r} as in [runner:{name}]"
    elif name == client.name:
        expected = f"expected a name that no client has, got {name!r} as in name"
    elif name in own:
        expected = f"expected another name: rbit keeps messages of {own[name]} in this queue"
    elif name.startswith("rbit."):
        expected = "expected another name: rbit keeps rbit. for itself"
    elif name == "pybit":
        expected = "expected another name: PyBit's exchange has this one"
    else:
        return
    document.mistake(expected, "rbit", "default_queue")


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
    names = tuple(key.name for key in SCHEMA["runner:"])
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
