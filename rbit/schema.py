"""The schema of the INI file: the keys of each section, what their values must look like, and their defaults.

Knows nothing of what follows from a value, nor of how two of them go together. Used by ``rbit.config``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from rbit import ini
from rbit.ini import Key
from rbit.settings import LONGEST_NAME


def _short(text: str) -> str:
    # AMQP carries these names with their length in one byte.
    if not 1 <= len(text.encode()) <= LONGEST_NAME:
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


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[(.+:.*)\]|([^:]+)):([0-9]{1,5})", text)
    if match is None:
        raise ValueError
    return str(ipaddress.ip_address(match[1] or match[2])), ini.whole(0, 65535)(match[3])


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


FILE = "the name of a file"
VARIABLE = "the name of an environment variable"
SWITCH = "yes or no"
DELAY = "a number of seconds from 1 to 2000000"
CLIENT_KEYS = (
    Key(
        "name",
        ini.matching("[A-Za-z0-9_-]+"),
        "letters, digits, - and _",
        default=lambda: socket.gethostname().replace(".", "-"),
    ),
    Key("polling_time", ini.seconds, ini.SECONDS, default="60"),
    Key("delivery", ini.matching("poll|push"), "poll or push", default="poll"),
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
    Key("log_dir", ini.matching(".+"), "a folder"),
    Key("log_limit", ini.whole(1, 10**6), "a number of megabytes from 1 to 1000000", default="50"),
    Key("log_keep_days", ini.whole(0, 36500), "a number of days from 0 to 36500", default="30"),
    Key("metrics", _address, "an IP address and a port as in 127.0.0.1:9467 or [::1]:9467"),
)
# What becomes of messages: in [rbit] for all queues, in a runner's section for that one.
FATE_KEYS = (
    Key("on_failure", ini.matching("park|discard|requeue"), "park, discard or requeue", default="park"),
    Key("retry_delay", _delay, DELAY, default="60"),
    Key("max_attempts", ini.whole(0, 10**9), "a number from 0 to 1000000000", default="0"),
    Key("failed_max", ini.whole(1, 10**9), "a number from 1 to 1000000000", default="10000"),
)
PASSWORD = "guest"  # of a new RabbitMQ's user, for connections from the same host
# Of both sections below. The names of the first two are not shown: somebody may have written the password there.
ACCESS_KEYS = (
    Key("password_file", ini.matching(".+"), FILE, secret=True),
    Key("password_env", ini.matching("[A-Za-z_][A-Za-z0-9_]*"), VARIABLE, secret=True),
    Key("ca_file", ini.matching(".+"), FILE),
    Key("cert_file", ini.matching(".+"), FILE),
    Key("key_file", ini.matching(".+"), FILE),
    Key("verify", ini.switch, SWITCH, default="yes"),
)
AMQP_KEYS = (
    Key("host", _hosts, "HOST or HOST:PORT, or some of them separated by commas", default="localhost"),
    Key("port", ini.whole(1, 65535), "a number from 1 to 65535"),
    Key("user", _short, "a name of 1 to 255 bytes", default="guest"),
    Key("password", ini.anything, "one line", default=PASSWORD, secret=True),
    *ACCESS_KEYS,
    Key("ssl", ini.switch, SWITCH, default="no"),
    Key("virtual_host", _short, "a name of 1 to 255 bytes", default="/"),
    Key("heartbeat", _heartbeat, "a whole number of seconds from 1 to 65535", default="30"),
    Key("connect_timeout", ini.seconds, ini.SECONDS, default="60"),
    Key("declare", ini.switch, SWITCH, default="yes"),
    Key("queue_type", ini.matching("classic|quorum"), "classic or quorum", default="classic"),
)
PYBIT_KEYS = (
    Key("url", _url, "an http or https URL without user, query and fragment", required=True),
    Key("user", ini.anything, "one line", default=""),
    Key("password", ini.anything, "one line", default="", secret=True),
    *ACCESS_KEYS,
    Key("timeout", ini.seconds, ini.SECONDS, default="10"),
    Key("gate_timeout", ini.seconds, ini.SECONDS, default="3"),
)
RUNNER = "python!package.module:callable or shell!command line"
RUNNER_KEYS = (
    Key("runner", ini.matching(".+"), RUNNER, required=True, lines=True),
    Key("timeout", ini.seconds, ini.SECONDS),
    Key("concurrency", ini.whole(1, 1000), "a number from 1 to 1000"),
    Key("unsafe_jsonpickle", ini.switch, SWITCH, default="no"),
)
# The keys of each section; the last entry stands for every section [runner:QUEUE].
SCHEMA = {
    "rbit": (*CLIENT_KEYS, *FATE_KEYS),
    "amqp": AMQP_KEYS,
    "pybit": PYBIT_KEYS,
    "runner:": (*RUNNER_KEYS, *FATE_KEYS),
}
OTHER_NAMES = {"vhost": "virtual_host", "virtualhost": "virtual_host", "username": "user", "tls": "ssl"}
