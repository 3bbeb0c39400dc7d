"""What rbit's user may do on RabbitMQ: the least rights with which everything in a configuration works.

Knows nothing of connections. Used by ``rbit --definitions``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rbit.broker import EXCHANGE
from rbit.settings import Config, own_queues, pump_queue, turn_queue
from rbit.submission import parts_of
from rbit.update import EXCHANGE as STATUSES
from rbit.update import OWN_QUEUE

DEFAULT = "amq.default"  # what RabbitMQ calls the default exchange where it is about rights
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
    worked = [other for queue in queues for other in (queue, *own_queues(name, queue).values())]
    bound = [queue for queue in queues if parts_of(queue)]
    to_pybit = [OWN_QUEUE + name] if config.pybit else []
    pump = [pump_queue(name)] if config.pybit else []
    default = [config.client.default_queue] if config.client.default_queue else []
    turn = [turn_queue(queue) for queue in default]
    return Rights(
        (name, EXCHANGE, *worked, STATUSES, *to_pybit, *pump, *default, *turn),
        (name, *bound, DEFAULT, STATUSES, *to_pybit, *default),
        (name, EXCHANGE, *worked, *([STATUSES] if to_pybit else []), *to_pybit, *default),
    )


def text(config: Config) -> list[str]:
    """Returns what ``rabbitmqctl import_definitions`` takes, as lines of JSON."""
    amqp = config.amqp
    configure, write, read = rights(config).patterns
    made: dict[str, Any] = {
        "permissions": [
            {"user": amqp.user, "vhost": amqp.virtual_host, "configure": configure, "write": write, "read": read}
        ],
    }
    return json.dumps(made, indent=4).splitlines()
