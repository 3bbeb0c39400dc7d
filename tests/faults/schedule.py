"""Which fault happens when, to whom and for how long: by a seed, or the short fixed list of the tests."""

from __future__ import annotations

import random
from dataclasses import dataclass

# How long each kind of fault lasts, in seconds, from and to; and how often it is drawn.
KINDS: dict[str, tuple[float, float, int]] = {
    "kill client": (0.2, 3.0, 4),  # until it is started again
    "kill worker": (0.0, 0.0, 4),
    "restart client": (0.2, 2.0, 3),
    "end jobs and restart client": (0.2, 2.0, 2),
    "restart broker": (0.0, 1.0, 1),
    "kill broker": (0.0, 1.0, 1),
    "reload client": (0.5, 4.0, 3),  # until it has all of its queues again
    "cut": (0.0, 0.0, 4),
    "forget": (0.0, 0.0, 3),
    "silence": (1.0, 6.0, 3),
    "long silence": (41.0, 45.0, 1),
    "pybit down": (1.0, 8.0, 2),
    "pybit slow": (1.0, 8.0, 2),
    "alarm": (2.0, 6.0, 1),
}
PAUSE = (1.0, 5.0)  # seconds between two faults, from and to
OF_CLIENTS = frozenset({
    "kill client", "kill worker", "restart client", "end jobs and restart client", "reload client", "cut",
    "forget", "silence", "long silence",
})


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        at: seconds after the beginning.
        kind: a key of KINDS.
        client: the number of the client that it happens to, from 0; 0 when it is not a client's.
        seconds: how long it lasts.
    """

    at: float
    kind: str
    client: int = 0
    seconds: float = 0.0


def draw(seed: int, seconds: float, clients: int) -> list[Fault]:
    """Return the faults of a run, the same for the same arguments.

    Arguments:
        seed: decides.
        seconds: how long the run is to last.
        clients: how many there are.
    """
    chance = random.Random(f"faults {seed}")
    kinds, weights = list(KINDS), [weight for *_, weight in KINDS.values()]
    found = []
    at = 3.0
    while at < seconds:
        kind = chance.choices(kinds, weights)[0]
        low, high, _ = KINDS[kind]
        client = chance.randrange(clients)
        found.append(Fault(at, kind, client if kind in OF_CLIENTS else 0, round(chance.uniform(low, high), 1)))
        at = round(at + chance.uniform(*PAUSE), 1)
    return found


# One of each kind: first what happens to clients, then, while these go on, what happens to all.
EACH_KIND = [
    Fault(3, "long silence", 0, 41),
    Fault(3.5, "kill worker", 1),
    Fault(5, "cut", 1),
    Fault(6, "pybit down", 0, 4),
    Fault(7, "kill client", 2, 1),
    Fault(9, "silence", 2, 4),
    Fault(10, "forget", 1),
    Fault(11, "pybit slow", 0, 3),
    Fault(13, "restart client", 2, 0.5),
    Fault(15, "end jobs and restart client", 1, 0.5),
    Fault(16, "alarm", 0, 3),
    Fault(17, "reload client", 1, 3),
    Fault(28, "restart broker"),  # when no client stops: a stop waits 10 s for a broker, and then gives up
    Fault(40, "kill broker"),
]
# The same for a cluster, where a killed node is the leader of a queue, and what is left goes on.
EACH_KIND_OF_A_CLUSTER = [
    Fault(3, "kill broker", 0, 1),
    Fault(5, "cut", 1),
    Fault(6, "kill client", 2, 1),
    Fault(8, "kill worker", 0),
    Fault(9, "silence", 1, 4),
    Fault(10, "restart broker", 0, 1),
    Fault(20, "kill broker", 0, 1),
]
