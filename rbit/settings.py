"""A configuration as typed values: data only, nothing is read or built here.

Used in the client's process by every module that is given a part of it.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field

from rbit.secret import Secret
from rbit.tls import Tls

LONGEST_NAME = 255  # bytes; AMQP carries the name of a queue, and a routing key, with its length in one byte


@dataclass(frozen=True)
class ClientSettings:
    """The section [rbit].

    Arguments:
        name: the client's name, a BuildBox in PyBit's web.
        polling_time: seconds between two polls.
        delivery: how messages come: "poll": they are asked for one by one; "push": the broker sends them.
        architecture, distribution, format, suites: the parts of PyBit's queue names; empty when not given.
        concurrency: jobs at once, from 1.
        lease_after: seconds that a job runs before its message is leased; 0: before it starts.
        lease_ttl: seconds that a leased message stays away from its queue when its client is gone.
        lease_renew: seconds between two renewals of a lease, at most a third of lease_ttl.
        stop_timeout: seconds after which the first stop signal acts as the second; None: never.
        max_jobs_per_worker: a worker is replaced after so many jobs; 0: never.
        worker_idle: seconds without a job after which a slot's processes are ended.
        default_queue: where build requests are collected for which there is no queue yet; None: nowhere.
        log_dir: the folder in which each run of a job gets a log; None: no such logs.
        log_limit: how long one of them may become, in millions of bytes.
        log_keep_days: how many days old they become; 0: any number.
        metrics: the address and the port where metrics are served; None: nowhere.
    """

    name: str
    polling_time: float
    delivery: str
    architecture: str
    distribution: str
    format: str
    suites: tuple[str, ...]
    concurrency: int
    lease_after: float
    lease_ttl: float
    lease_renew: float
    stop_timeout: float | None
    max_jobs_per_worker: int
    worker_idle: float
    default_queue: str | None
    log_dir: str | None
    log_limit: int
    log_keep_days: int
    metrics: tuple[str, int] | None

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
        host: the nodes of a cluster in the order in which they are tried, each with its port if it has its own.
        port: of the others.
        user, password, virtual_host: who asks, and for what.
        heartbeat: seconds, 1 to 65535.
        connect_timeout: seconds for which the first connection is tried.
        queue_type: ``classic`` or ``quorum``: the type of the durable queues of rbit's own.
        tls: None for none.
        declare: whether queues and exchanges may be made, and bound.
    """

    host: tuple[tuple[str, int | None], ...]
    port: int
    user: str
    password: Secret
    virtual_host: str
    heartbeat: int
    connect_timeout: float
    queue_type: str
    tls: Tls | None = None
    declare: bool = True

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """The hosts with their ports."""
        return [(host, port or self.port) for host, port in self.host]

    @property
    def where(self) -> str:
        """The nodes in words."""
        return ", ".join(f"{host}:{port}" for host, port in self.nodes)


@dataclass(frozen=True)
class PybitSettings:
    """The section [pybit].

    Arguments:
        url: of PyBit's web, http or https, without a slash at its end.
        user, password: for basic authentication; an empty user means none.
        timeout: seconds to connect, and seconds to wait for an answer.
        gate_timeout: seconds that PyBit has to say, before a job starts, what it knows of it.
        tls: None for http.
    """

    url: str
    user: str
    password: Secret
    timeout: float
    gate_timeout: float
    tls: Tls | None = None


@dataclass(frozen=True)
class RunnerSettings:
    """One section [runner:QUEUE].

    Arguments:
        queue: the queue's name.
        runner: as written: ``python!package.module:callable`` or ``shell!command line``.
        timeout: seconds that a job may take; None: any time.
        concurrency: jobs of this queue at once; None: as many as [rbit] allows.
        unsafe_jsonpickle: bodies with classes of their own reach the job.
        on_failure: ``park``, ``discard`` or ``requeue``: what happens to the message of a Failed job.
        retry_delay: seconds before a message is tried again.
        max_attempts: runs of a message before it is Failed for good; 0: no limit.
        failed_max: messages that QUEUE.failed holds; the oldest are dropped.
        settings: every key of the section as written, `runner` included; may hold secrets.
    """

    queue: str
    runner: str
    timeout: float | None
    concurrency: int | None
    unsafe_jsonpickle: bool
    on_failure: str
    retry_delay: float
    max_attempts: int
    failed_max: int
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


def own_queues(name: str, queue: str) -> dict[str, str]:
    """Return the names of rbit's own queues for a queue: of its leases, retries and parked failures.

    Arguments:
        name: the client's name.
        queue: the queue that is worked off.
    """
    return {"lease": f"rbit.lease.{name}.{queue}", "retry": f"{queue}.retry", "failed": f"{queue}.failed"}


def pump_queue(name: str) -> str:
    """Return the name of the queue that only one pump of a client has. Arguments: the client's name."""
    return f"rbit.pump.{name}"


def turn_queue(queue: str) -> str:
    """Return the name of the queue that only who goes through a default queue has. Arguments: its name."""
    return f"rbit.pass.{queue}".encode()[:LONGEST_NAME].decode("utf-8", "ignore")
