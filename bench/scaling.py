"""``python -m bench.scaling``: rbit clients on a cluster of three RabbitMQ nodes, with one quorum queue.

All of it is on one machine, so jobs sleep: it shows how jobs are shared out and what a client costs, and not how
much three brokers can do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

from bench import looks
from bench.place import BenchError, Place, place
from bench.sides import Rbit
from tests.support.node import NodeError

RUNNER = "python!bench.code.sleep:sleep"
SLOTS = 2
SECOND = 1.0  # seconds that a job takes
READY_BOUND = 120.0  # seconds until each client has run a job
SETTLED = 3.0  # seconds after that, before anything counts
COLUMNS = ("name", "channels", "recv_oct", "send_oct")


class Crowd:
    """Clients that work off one queue. Arguments: where; the queue; ``push`` or ``poll``."""

    def __init__(self, where: Place, queue: str, delivery: str) -> None:
        self.clients: list[Rbit] = []
        self._where = where
        self._queue = queue
        self._delivery = delivery

    def join(self) -> Rbit:
        """Starts one more client."""
        client = Rbit(
            self._where, self._delivery, slots=SLOTS, runner=RUNNER, queues=[self._queue], poll_time=1.0,
            client=f"client-{len(self.clients) + 1}",
        )
        self.clients.append(client)
        client.start()
        return client

    def counts(self) -> list[int]:
        """Returns how many jobs each client has begun."""
        return [client.done for client in self.clients]

    def rate(self, seconds: float) -> tuple[float, list[int]]:
        """Returns the jobs per second of all, and how many each has begun, in so many seconds."""
        before, began = self.counts(), time.monotonic()
        time.sleep(seconds)
        each = [after - count for after, count in zip(self.counts(), before, strict=True)]
        return sum(each) / (time.monotonic() - began), each


@contextlib.contextmanager
def crowd(where: Place, size: int, delivery: str, seconds: float) -> Iterator[Crowd]:
    """Has so many clients at work on a queue that holds more than they can do. Errors: BenchError."""
    queue = where.new_queue()
    where.declare([queue])
    made = Crowd(where, queue, delivery)
    try:
        where.send(queue, int((size + 1) * SLOTS / SECOND * (seconds + 60)))
        for _ in range(size):
            made.join()
        deadline = time.monotonic() + READY_BOUND
        while not all(made.counts()):
            if time.monotonic() > deadline:
                raise BenchError(f"of {size} clients some ran nothing: {made.counts()}")
            time.sleep(0.1)
        time.sleep(SETTLED)
        yield made
    finally:
        for client in made.clients:
            client.close()
        where.delete([queue])


def connections(where: Place) -> dict[str, list[int]]:
    """Returns, of each client, its connections, its channels, and the bytes that came from and went to it."""
    found: dict[str, list[int]] = {}
    for node in where.cluster.nodes:
        lines = node.ctl("list_connections", "client_properties", *COLUMNS[1:], "--silent").splitlines()
        for line in lines:
            *properties, channels, came, went = line.split("\t")
            name = next((word for word in "".join(properties).split('"') if word.startswith("rbit ")), None)
            if name is not None:
                sums = found.setdefault(name.split(" (")[0], [0, 0, 0, 0])
                for place_, value in enumerate((1, int(channels), int(came), int(went))):
                    sums[place_] += value
        break  # each node tells of all
    return found


def share(where: Place, sizes: list[int], delivery: str, seconds: float) -> None:
    """Prints a line for each number of clients."""
    print(f"delivery = {delivery}, {SLOTS} slots a client, jobs of {SECOND:g} s, {seconds:g} s:", flush=True)
    for size in sizes:
        with crowd(where, size, delivery, seconds) as clients:
            before, done = connections(where), sum(clients.counts())
            rate, each = clients.rate(seconds)
            after, jobs = connections(where), sum(clients.counts()) - done
            memory = sum(looks.pss(client.pids) for client in clients.clients) / size
            sent, got = (
                sum(after[name][column] - before[name][column] for name in before) / max(1, jobs)
                for column in (2, 3)
            )
            ours = after["rbit client-1"]
            print(
                f"  clients {size}: {rate:.2f} jobs/s of {size * SLOTS / SECOND:.0f} possible; each {min(each)} "
                f"to {max(each)} jobs, least/most {min(each) / max(each):.2f}; a client: {memory:.0f} MB, "
                f"{ours[0]} connections, {ours[1]} channels; a job: {sent:.0f} bytes to the broker, {got:.0f} "
                "from it", flush=True,
            )


def change(where: Place, delivery: str, seconds: float) -> None:
    """Prints what happens when a third client joins two, when one is stopped, and when one is killed."""
    with crowd(where, 2, delivery, seconds * 4) as clients:
        print(f"delivery = {delivery}, a client joins two and one leaves:", flush=True)
        print(f"  two: {clients.rate(seconds)[0]:.2f} jobs/s", flush=True)
        began = time.monotonic()
        third = clients.join()
        third.wait(1)
        print(f"  a third joins: its first job after {time.monotonic() - began:.1f} s", flush=True)
        print(f"  three: {clients.rate(seconds)[0]:.2f} jobs/s", flush=True)
        began = time.monotonic()
        third.stop()
        print(f"  it is stopped: its jobs have ended, and it is gone, after {time.monotonic() - began:.1f} s")
        print(f"  two: {clients.rate(seconds)[0]:.2f} jobs/s", flush=True)
        second = clients.clients[1]
        os.kill(second.pid, signal.SIGKILL)
        rate, each = clients.rate(seconds)
        print(f"  one is killed: {rate:.2f} jobs/s, {each[0]} jobs of the one left in {seconds:g} s", flush=True)


def main() -> int:
    """Measures what the command line says; returns 0, or 1 if it cannot be done."""
    made = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    made.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8], help="default: 1 2 4 8")
    made.add_argument("--seconds", type=float, default=30.0, help="that each number is looked at (default: 30)")
    made.add_argument("--nodes", type=int, default=3, help="of RabbitMQ (default: 3)")
    made.add_argument("--delivery", nargs="+", choices=("push", "poll"), default=["push", "poll"])
    given = made.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all is ended that was started
    try:
        with place(1, given.nodes) as where:
            for delivery in given.delivery:
                share(where, given.clients, delivery, given.seconds)
                change(where, delivery, given.seconds)
    except (BenchError, NodeError) as error:
        print(f"scaling: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
