"""Reads rbit's configuration: the sections of the INI file as typed settings.

This module must not know what a runner does with its command
or callable: whoever calls `read` brings the function that looks at that. Runs in the client's process.
"""

from __future__ import annotations

import configparser
import ipaddress
import os
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlsplit

from rbit import access, ini
from rbit.errors import ConfigError
from rbit.ini import Document
from rbit.schema import AMQP_KEYS, CLIENT_KEYS, FATE_KEYS, OTHER_NAMES, PASSWORD, PYBIT_KEYS, RUNNER_KEYS, SCHEMA
from rbit.settings import (
    LONGEST_NAME,
    AmqpSettings,
    ClientSettings,
    Config,
    PybitSettings,
    RunnerSettings,
    own_queues,
)

__all__ = ["AmqpSettings", "ClientSettings", "Config", "PybitSettings", "RunnerSettings", "read"]

Examine = Callable[[RunnerSettings], Iterable[str]]  # see `read`
Ask = Callable[[AmqpSettings, list[str]], list[str]]

PORT, TLS_PORT = 5672, 5671
LEASE_PARTS = 5  # lease_renew is this part of lease_ttl
LEASE_LEAST_PARTS = 3  # a renewal that fails once must not let the lease run out
LOGGING = {"loggers": "logger_", "handlers": "handler_", "formatters": "formatter_"}


def read(path: str, examine: Examine | None = None, ask: Ask | None = None) -> Config:
    """Read and check a configuration file.

    Arguments:
        path: the file; mistakes show it as it is given here.
        examine: returns what is wrong with the `runner` of a section, one text for each mistake. That is gone
            through when all sections were examined and `ask` has returned: it may take its time until then.
        ask: gets the section [amqp], if it has no mistakes, and names of queues; returns what is wrong with it.

    Raises ConfigError with all mistakes, and with the warnings.
    """
    document = ini.read(path)
    _check_sections(document)
    for section in ("rbit", "amqp", "pybit"):
        document.refuse_unknown(section, SCHEMA[section], OTHER_NAMES)
    client = _client(document)
    amqp = _amqp(document)
    pybit = _pybit(document) if "pybit" in document.sections else None
    examined = [*_runners(document, examine, client.name or "")]
    _check_default_queue(document, client)
    logging = _logging(document)
    if ask and document.faulty.isdisjoint({"", "amqp"}):
        queues = [runner.queue for section, runner, _ in examined if section not in document.faulty]
        for text in ask(amqp, [*queues, client.default_queue] if client.default_queue else queues):
            document.mistake(text, "amqp")
    for section, _, texts in examined:
        for text in texts:
            document.mistake(text, section, "runner")
    warnings = [*_warnings(document, client)]
    warnings += access.warnings(document, {"amqp": amqp.tls, "pybit": pybit.tls if pybit else None}, PASSWORD)
    if document.mistakes:
        raise ConfigError(document.mistakes, tuple(warnings))
    runners = tuple(runner for _, runner, _ in examined)
    return Config(path, client, amqp, pybit, runners, tuple(warnings), logging)


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
    if values["log_dir"] is not None:
        values["log_dir"] = os.path.join(os.path.dirname(document.path), values["log_dir"])
    return ClientSettings(**values)


def _amqp(document: Document) -> AmqpSettings:
    values = document.values("amqp", AMQP_KEYS)
    wanted = values.pop("ssl")
    values["port"] = values["port"] or (TLS_PORT if wanted else PORT)
    password = access.secret(document, "amqp", values)
    tls = access.protection(document, "amqp", values, wanted is not False, "ssl = yes")
    return AmqpSettings(password=password, tls=tls, **values)


def _pybit(document: Document) -> PybitSettings:
    values = document.values("pybit", PYBIT_KEYS)
    wanted = values["url"] is None or urlsplit(values["url"]).scheme == "https"
    password = access.secret(document, "pybit", values)
    tls = access.protection(document, "pybit", values, wanted, "https in url")
    return PybitSettings(password=password, tls=tls, **values)


def _runners(
    document: Document, examine: Examine | None, name: str
) -> Iterator[tuple[str, RunnerSettings, Iterable[str]]]:
    """Yield each section with its settings, and what `examine` has returned."""
    # A key that [rbit] has and the section has not counts for the section.
    fate = document.values("rbit", FATE_KEYS)
    for section, settings in document.sections.items():
        if not section.startswith("runner:"):
            continue
        queue = section.partition(":")[2]
        if not 1 <= len(queue.encode()) <= LONGEST_NAME or queue != queue.strip():
            document.mistake("expected runner:QUEUE, 1 to 255 bytes without blanks around them", section)
        elif queue.startswith("amq."):
            document.mistake("expected another queue name: the broker keeps amq. for itself", section)
        for kind in ("lease", "retry"):
            if (other := f"runner:{own_queues(name, queue)[kind]}") in document.sections:
                document.mistake(f"expected another name: rbit keeps messages of {queue} in this queue", other)
        if queue and queue == name:
            document.mistake(f"expected a name that no queue has, got {name!r} as in [{section}]", "rbit", "name")
        longest = max(own_queues(name, queue).values(), key=len)
        if len(longest.encode()) > LONGEST_NAME >= len(queue.encode()):
            document.mistake(f"expected a shorter name: that of its queue {longest} is over 255 bytes", section)
        own = document.values(section, FATE_KEYS)
        values = {key: own[key] if key in settings else value for key, value in fate.items()}
        values.update(document.values(section, RUNNER_KEYS))
        runner = RunnerSettings(queue=queue, settings=settings, **values)
        if not runner.runner:
            continue
        if runner.unsafe_jsonpickle and runner.runner.startswith("shell!"):
            document.mistake("expected no, for a shell! runner decodes nothing", section, "unsafe_jsonpickle")
        yield section, runner, examine(runner) if examine else ()


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
    if client.metrics and not ipaddress.ip_address(client.metrics[0]).is_loopback:
        yield document.line("whoever can reach this address can read the names of the queues", "rbit", "metrics")
    if not runners:
        yield document.line("missing, so there is no queue to work off", "runner:QUEUE")
    for queue in client.queue_names():
        if f"runner:{queue}" not in document.sections:
            yield document.line("missing, though [rbit] names this queue", f"runner:{queue}")
