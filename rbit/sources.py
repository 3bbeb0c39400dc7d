"""The queues that are asked for messages: those of the runners, and those of the leases of their jobs.

Keeps them over connections, and knows what to do when the broker refuses one. Decides nothing about
messages. Used in the client's main thread.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Collection, Iterable
from functools import partial

from rbit.broker import Connection, Delivery, Inflow, Queue
from rbit.errors import QueueUnavailable, QueueUnusable
from rbit.message import Settled
from rbit.repeats import worth_saying
from rbit.rota import Rota
from rbit.settings import own_queues

log = logging.getLogger("rbit.client")


class Sources:
    """The queues.

    Arguments:
        names: of the runners' queues.
        client: the client's name, which the names of the lease queues hold.
        rota: their turns; it is told what was found empty, refused, or gone, and what has come.
    """

    def __init__(self, names: Iterable[str], client: str, rota: Rota) -> None:
        self._names = list(names)
        self._client = client
        self._rota = rota
        self._connection: Connection | None = None
        self._queues: dict[str, Queue] = {}
        self._leaving: set[str] = set()  # were taken away, and may still be needed for jobs that are here
        self._inflows: dict[str, Inflow] = {}  # of those that send their messages
        self._failures: dict[str, int] = {}  # how often the broker refused a queue, in a row
        self._unusable: set[str] = set()  # queues that would break each connection
        self._doubtful: list[Settled] = []

    @property
    def ready(self) -> bool:
        """Whether they can be asked."""
        return self._connection is not None

    @property
    def refused(self) -> bool:
        """Whether the broker has refused one of them, and not let it be read since."""
        return bool(self._failures or self._unusable)

    @property
    def unproven(self) -> bool:
        """Whether acknowledgements were sent of which no answer shows yet that the broker has them."""
        return any(queue.unproven for queue in self._queues.values())

    def prepare(self, connection: Connection) -> None:
        """Looks at every queue on a new connection. Errors: ConnectionLost."""
        self._connection = connection
        self._queues = {name: Queue(connection, name) for name in self._names}
        self._rota.ask_again()
        for name in list(self._queues):
            self._prepare(name)

    def change(self, names: Iterable[str]) -> None:
        """Has these queues asked from now on, and no others. Errors: ConnectionLost.

        Arguments:
            names: of the runners' queues.
        """
        before, self._names = self._names, [name for name in names if name not in self._unusable]
        for name in set(before) - set(self._names):
            self._rota.remove(name)
            self._rota.remove(own_queues(self._client, name)["lease"])
            self._failures.pop(name, None)
        self._leaving = self._leaving.union(before).difference(self._names)
        added = [name for name in self._names if name not in before]
        for name in added:
            self._rota.add(name)
        if self._connection is not None:
            for name in added:
                self._queues.setdefault(name, Queue(self._connection, name))
            for name in added:
                self._prepare(name)

    def tend(self, used: Collection[str]) -> None:
        """Closes the queues that were taken away, once they are not used any more. Errors: ConnectionLost.

        Arguments:
            used: the queues of all jobs that are here: their messages are settled where they were got, and looked
                for there after a lost connection.
        """
        if self._connection is None:
            return
        for origin in self._leaving.difference(used):
            for queue in [queue for queue in self._queues.values() if queue.origin == origin]:
                queue.close()  # only then it is forgotten, for else its acknowledgements are in doubt
                del self._queues[queue.name]
                self._inflows.pop(queue.name, None)
                self._failures.pop(queue.name, None)
            self._leaving.discard(origin)
        for name in set(used).difference(self._queues, self._unusable):
            self._queues[name] = Queue(self._connection, name)
            self._look_for_leases(name)

    def add_leases(self, name: str) -> None:
        """Has the lease queue of a queue asked too, for there is one now."""
        lease = own_queues(self._client, name)["lease"]
        if self._connection is not None and lease not in self._unusable:
            self._queues.setdefault(lease, Queue(self._connection, lease, name))
            if name in self._names:
                self._rota.add(lease)

    def origin(self, name: str) -> str:
        """Returns the queue that the messages of one of the queues belong to."""
        return self._queues[name].origin

    def get(self, name: str, prefetch: int = 0, ahead: int = 0, used: bool = False) -> Delivery | None:
        """Takes a message; None when there is none, or the broker refuses the queue. Errors: ConnectionLost.

        Arguments:
            name: of the queue.
            prefetch: how many may be sent and not be settled, if it is to send its messages; then one that has
                come is taken, and the rota is told what comes later. 0: it is asked for one.
            ahead: how many more; if there are any it sends them at once, else only once it was found empty.
            used: whether some of these are of jobs that have ended, so it is asked for one besides.
        """
        queue = self._queues.get(name)
        if queue is None:
            return None
        try:
            if self._failures.get(name) and name in self._names:
                with contextlib.suppress(QueueUnavailable):
                    queue.prepare()
            delivery = self._flow(queue, prefetch, ahead, used) if prefetch else queue.get()
        except QueueUnavailable as error:
            self._refused(queue, error)
            return None
        finally:
            self._doubtful += queue.doubtful()
        if self._failures.pop(name, 0):
            log.info("the queue %s can be read again", name)
        if delivery is None and prefetch:
            self._rota.sends(name)
        elif delivery is None:
            self._rota.found_empty(name)
        return delivery

    def _flow(self, queue: Queue, prefetch: int, ahead: int, used: bool) -> Delivery | None:
        assert self._connection is not None
        if queue.name not in self._inflows:
            first = queue.get()  # for only this refuses a stream, which is no queue of jobs
            self._inflows[queue.name] = Inflow(self._connection, queue, partial(self._rota.came, queue.name))
            if first is not None:
                return first
        inflow = self._inflows[queue.name]
        # A consumer takes several requests to begin, and is sent more messages than there may be slots for.
        if not (ahead or inflow.is_open) and (delivery := inflow.take() or queue.get()):
            return delivery
        inflow.begin(prefetch + ahead)
        return inflow.take() or (queue.get() if used else None)

    def sort(self, known: Callable[[Delivery], bool]) -> None:
        """Looks at what the queues have sent since the last call. Arguments: as of ``Inflow.sort``."""
        for inflow in self._inflows.values():
            inflow.sort(known)

    def stem(self, name: str, back: Callable[[Delivery], bool]) -> None:
        """Has a queue send no more; as ``Inflow.end``. Errors: ConnectionLost."""
        with contextlib.suppress(QueueUnavailable):  # then it sends no more either
            self._inflows[name].end(back)
        self._rota.came(name)

    @property
    def flowing(self) -> dict[str, float]:
        """The queues that send their messages, or have; with the seconds that the oldest one waits to be taken."""
        found = {name: inflow.waited for name, inflow in self._inflows.items()}
        return {name: waited for name, waited in found.items() if waited or self._inflows[name].is_open}

    def is_lease(self, name: str) -> bool:
        """Whether a queue is one of leases."""
        return self._queues[name].is_lease

    def sends(self, name: str) -> bool:
        """Whether a queue sends its messages at the moment."""
        return name in self._inflows and self._inflows[name].is_open

    @property
    def due(self) -> float:
        """time.monotonic() when ``prove`` has something to do."""
        return min((queue.due for queue in self._queues.values() if queue.acks), default=math.inf)

    def prove(self, at_once: bool) -> None:
        """Makes sure of the acknowledgements so far. Errors: ConnectionLost.

        Arguments:
            at_once: whether that is done now, and not only when the next messages would have done it.
        """
        for queue in self._queues.values():
            with contextlib.suppress(QueueUnavailable):  # its next get says so
                queue.prove(0.0) if at_once else queue.prove()

    def doubtful(self) -> list[Settled]:
        """Returns, once, what was acknowledged and may come again all the same."""
        found, self._doubtful = self._doubtful, []
        return found

    def lose(self, error: Exception) -> None:
        """Notes that the connection broke, and that it is closed."""
        if isinstance(error, QueueUnusable):
            log.error("the queue %s; it is left alone until rbit is started again", error)
            self._unusable.add(error.queue)
            if error.queue in self._names:
                self._names.remove(error.queue)
            self._rota.remove(error.queue)
        for queue in list(self._queues.values()):
            self._doubtful += queue.doubtful()
            if queue.is_lease:
                self._rota.remove(queue.name)
        for name in self._inflows:
            self._rota.came(name)
        self._queues.clear()
        self._inflows.clear()
        self._connection = None

    def _prepare(self, name: str) -> None:
        try:
            self._queues[name].prepare()
        except QueueUnavailable as error:  # it may be readable all the same
            log.warning("the broker refuses to prepare the queue %s", error)
        self._look_for_leases(name)

    def _look_for_leases(self, name: str) -> None:
        assert self._connection is not None
        lease = own_queues(self._client, name)["lease"]
        looked = Queue(self._connection, lease)
        try:
            if looked.count() is not None:
                self.add_leases(name)
        except QueueUnavailable as error:
            log.warning("the broker refuses the queue %s", error)
            self.add_leases(name)  # it may be there
        finally:
            looked.close()

    def _refused(self, queue: Queue, error: QueueUnavailable) -> None:
        self._failures[queue.name] = failures = self._failures.get(queue.name, 0) + 1
        if worth_saying(failures):
            log.error("the broker refuses the queue %s; it is tried again at each poll", error)
        self._rota.hold(queue.name)
