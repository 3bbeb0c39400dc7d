"""What rbit needs on RabbitMQ: the least rights of its user, and the queues that must be there if it makes none.

Used by ``rbit --definitions``, and in the client's main thread, which says what is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rbit.broker import EXCHANGE, NOT_MADE, Connection, Form, Queue, keeping, of_type, returning
from rbit.errors import QueueUnavailable
from rbit.settings import Config, own_queues, pump_queue, turn_queue
from rbit.submission import parts_of
from rbit.update import EXCHANGE as STATUSES
from rbit.update import OWN_QUEUE

DEFAULT = "amq.default"  # what RabbitMQ calls the default exchange where it is about rights
COMMANDS_STAY = 3600  # seconds that a request to cancel waits for its client; as long as it is remembered
SPECIAL = re.compile(r"[][\\^$.|?*+(){}]")


@dataclass(frozen=True)
class Rights:
    """Names of queues and exchanges. Attributes: those to configure, to write, and to read."""

    configure: tuple[str, ...]
    write: tuple[str, ...]
    read: tuple[str, ...]

    @property
    def patterns(self) -> tuple[str, str, str]:
        """The regular expressions that ``rabbitmqctl set_permissions`` takes: configure, write, read."""
        return pattern(self.configure), pattern(self.write), pattern(self.read)


def pattern(names: Iterable[str]) -> str:
    """Returns the regular expression that fits these names and no other."""
    escaped = [SPECIAL.sub(r"\\\g<0>", name) for name in names]
    return f"^({'|'.join(escaped)})$" if escaped else "^$"


def rights(config: Config) -> Rights:
    """Returns what the user of a client needs."""
    name = config.client.name
    queues = [section.queue for section in config.runners]
    own = [own_queues(name, queue) for queue in queues]
    bound = [queue for queue in queues if parts_of(queue)]
    to_pybit = [OWN_QUEUE + name] if config.pybit else []
    pump = [pump_queue(name)] if config.pybit else []
    default = [config.client.default_queue] if config.client.default_queue else []
    turn = [turn_queue(queue) for queue in default]
    if not config.amqp.declare:
        fetched = [name for names in own for name in (names["lease"], names["failed"])]
        return Rights((), (DEFAULT, STATUSES), (name, *queues, *fetched, *to_pybit, *pump, *default, *turn))
    worked = [*queues, *(other for names in own for other in names.values())]
    return Rights(
        (name, EXCHANGE, *worked, STATUSES, *to_pybit, *pump, *default, *turn),
        (name, *bound, DEFAULT, STATUSES, *to_pybit, *default),
        (name, EXCHANGE, *worked, *([STATUSES] if to_pybit else []), *to_pybit, *default),
    )


def queues(config: Config) -> list[Form]:
    """Returns the queues that must be there for a client that makes none."""
    name, quorum = config.client.name, config.amqp.queue_type == "quorum"
    made = [Form(name, {"x-message-ttl": COMMANDS_STAY * 1000})]
    for section in config.runners:
        own = own_queues(name, section.queue)
        made += [
            Form(section.queue, {}),
            returning(own["retry"], section.queue, quorum, expires=False),
            keeping(own["failed"], section.failed_max, quorum),
            returning(own["lease"], section.queue, quorum, expires=False),  # nobody would make it again
        ]
    if config.pybit:
        made += [Form(OWN_QUEUE + name, of_type(quorum)), Form(pump_queue(name), {})]
    if default := config.client.default_queue:
        made += [Form(default, of_type(quorum)), Form(turn_queue(default), {})]
    return made


def text(config: Config) -> list[str]:
    """Returns what ``rabbitmqctl import_definitions`` takes, as lines of JSON.

    It holds the rights of the user, and, for a client that makes none, the queues, exchanges and bindings.
    """
    vhost = config.amqp.virtual_host
    configure, write, read = rights(config).patterns
    grant = {"user": config.amqp.user, "configure": configure, "write": write, "read": read}
    made: dict[str, list[dict[str, Any]]] = {"permissions": [grant]}
    if not config.amqp.declare:
        default = config.client.default_queue
        kinds = {EXCHANGE: "direct", STATUSES: "topic"} | ({default: "fanout"} if default else {})
        keys = {config.client.name: config.client.name} | {
            section.queue: ".".join(parts) for section in config.runners if (parts := parts_of(section.queue))
        }
        bindings = [(EXCHANGE, queue, key) for queue, key in keys.items()]
        bindings += [(default, default, "")] if default else []
        lasting = {"durable": True, "auto_delete": False}
        made["queues"] = [{"name": form.name, **lasting, "arguments": form.arguments} for form in queues(config)]
        made["exchanges"] = [
            {"name": name, "type": kind, **lasting, "internal": False, "arguments": {}}
            for name, kind in kinds.items()
        ]
        kind = {"destination_type": "queue", "arguments": {}}
        made["bindings"] = [
            {"source": source, "destination": queue, "routing_key": key, **kind} for source, queue, key in bindings
        ]
    return json.dumps(
        {kind: [{"vhost": vhost, **entry} for entry in entries] for kind, entries in made.items()}, indent=2
    ).splitlines()


class Missing:
    """Says which queues are missing that rbit may not make, each once until it is there.

    Arguments:
        config: says which must be there.
    """

    def __init__(self, config: Config) -> None:
        self._names = [] if config.amqp.declare else [form.name for form in queues(config)]
        self._said: set[str] = set()

    def look(self, connection: Connection) -> list[str]:
        """Returns a line for each that is newly found to be missing. Errors: ConnectionLost."""
        missing = {name for name in self._names if self._is_missing(connection, name)}
        new = [name for name in self._names if name in missing - self._said]
        self._said = missing
        return [f"there is no queue {name}; {NOT_MADE}" for name in new]

    @staticmethod
    def _is_missing(connection: Connection, name: str) -> bool:
        queue = Queue(connection, name)
        try:
            return queue.count() is None
        except QueueUnavailable:  # whoever uses it says so
            return False
        finally:
            queue.close()
