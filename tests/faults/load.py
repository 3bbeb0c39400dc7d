"""Submits jobs: as many as keep the clients busy, with confirms, whatever becomes of the broker.

A message of which the broker did not say that it has it is not sent again: its job may run once, or never.
"""

from __future__ import annotations

import random
import threading
import time

import pika
import pika.exceptions

from tests.faults import jobs
from tests.faults.record import Record
from tests.support.cluster import Cluster
from tests.support.pybit_web import PybitWeb

BLOCKED = 5.0  # seconds that an alarm may hold a message up
LOOK = 0.2  # seconds between two looks at what the jobs have done


class Load(threading.Thread):
    """The thread. Nothing but its numbers is decided elsewhere.

    Arguments:
        cluster: where it submits, past every proxy.
        web: learns of build requests first, as PyBit does.
        record: where submissions are written down.
        seed: decides on the jobs.
        backlog: how many jobs may be submitted and not yet done.
    """

    def __init__(self, cluster: Cluster, web: PybitWeb, record: Record, seed: int, backlog: int) -> None:
        super().__init__(name="load", daemon=True)
        self._cluster = cluster
        self._web = web
        self._record = record
        self._chance = random.Random(f"load {seed}")
        self._backlog = backlog
        self._enough = threading.Event()
        self._connection: pika.BlockingConnection | None = None
        self._number = 0
        self._submitted: set[str] = set()

    def declare(self, quorum: bool) -> None:
        """Make the runners' queues."""
        connection = self._cluster.nodes[0].connect()
        arguments = {"x-queue-type": "quorum"} if quorum else {}
        for queue in jobs.QUEUES:
            connection.channel().queue_declare(queue, durable=True, arguments=arguments)
        connection.close()

    def finish(self, bound: float = 60.0) -> None:
        """Submit no more, and wait for the thread's end. Errors: AssertionError after the bound, in seconds."""
        self._enough.set()
        self.join(bound)
        assert not self.is_alive(), "a message is neither confirmed nor refused"

    def run(self) -> None:
        """Submit."""
        while not self._enough.wait(LOOK):
            done = {run.job for run in self._record.runs() if run.complete}
            for _ in range(self._backlog - len(self._submitted - done)):
                self._submit()
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _submit(self) -> None:
        self._number += 1
        order = jobs.order(self._number, self._chance)
        try:
            channel = self._open()
        except (pika.exceptions.AMQPError, OSError):
            time.sleep(LOOK)
            return
        if order.request is not None:
            self._web.add_job(order.request)
        try:
            channel.basic_publish("", order.queue, order.body, order.properties, mandatory=True)
        except (pika.exceptions.AMQPError, OSError) as error:
            self._record.note("not confirmed", job=order.job, request=order.request, why=repr(error))
            self._connection = None
        else:
            self._record.note("submitted", job=order.job, request=order.request)
            self._submitted.add(order.job)

    def _open(self) -> pika.adapters.blocking_connection.BlockingChannel:
        if self._connection is None or not self._connection.is_open:
            nodes = self._cluster.up or self._cluster.nodes
            parameters = nodes[self._number % len(nodes)].parameters()
            parameters.blocked_connection_timeout = BLOCKED
            parameters.socket_timeout = parameters.stack_timeout = BLOCKED
            self._connection = pika.BlockingConnection(parameters)
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
        return self._channel
