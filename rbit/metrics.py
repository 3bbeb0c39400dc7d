"""A client's figures as metrics of Prometheus, and whether it is well, over HTTP.

The only importer of prometheus_client, which need not be installed. Works in the listener's thread.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from rbit import __version__
from rbit.errors import AddressTaken, ConfigError
from rbit.figures import BOUNDS, Figures
from rbit.listener import Listener, Page, shown

log = logging.getLogger("rbit")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # the form that each Prometheus reads
LIMITS = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")


def serve(path: str, address: tuple[str, int], figures: Figures) -> None:
    """Serves the figures of a client from now on, as long as the process lives.

    Arguments:
        path: the INI file, for what is said.
        address: where.
        figures: what.

    Errors: ConfigError when nobody can listen there; AddressTaken.
    """
    registry = CollectorRegistry()
    registry.register(Exhibit(figures))
    ProcessCollector(registry=registry)
    pages = {"/metrics": partial(metrics, registry), "/healthz": partial(health, figures)}
    try:
        listener = Listener(address, pages)
    except OSError as error:
        where = f"{path}: [rbit] metrics: cannot listen at {shown(*address)}"
        if error.errno == errno.EADDRINUSE:
            raise AddressTaken(f"{where}: another program does") from error
        raise ConfigError([f"{where}: {os.strerror(error.errno or 0)}"]) from error
    listener.start()
    log.info("metrics are at %s/metrics", listener.url)


def metrics(registry: CollectorRegistry) -> Page:
    """Returns the page of the metrics."""
    return Page(generate_latest(registry), CONTENT_TYPE)


def health(figures: Figures) -> Page:
    """Returns a page in one line that says whether the client is well."""
    trouble = figures.trouble
    status = HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK
    return Page(f"{trouble or 'ok'}\n".encode(), status=status)


class Exhibit(Collector):
    """Shows figures as metrics, as they are when they are asked for."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        figures = self._figures
        yield InfoMetricFamily("rbit_build", "The version of rbit.", {"version": __version__})
        yield from self._jobs()
        yield GaugeMetricFamily(
            "rbit_broker_last_answer_age_seconds", "Since something came from RabbitMQ: an answer or a heartbeat.",
            figures.silence,
        )
        yield CounterMetricFamily(
            "rbit_broker_reconnects", "How often the connection to RabbitMQ was made again.", figures.reconnects
        )
        yield CounterMetricFamily(
            "rbit_leases_renewed", "Leases of running jobs that were renewed.", figures.leases_renewed
        )
        waiting = GaugeMetricFamily("rbit_statuses_waiting", "Statuses that wait to be taken.", labels=["for"])
        waiting.add_metric(["rabbitmq"], figures.unpublished)
        if (untold := figures.untold) is not None:
            waiting.add_metric(["pybit"], untold)
        yield waiting
        yield CounterMetricFamily(
            "rbit_worker_restarts", "Python workers that took the place of another.", figures.workers_replaced
        )

    def _jobs(self) -> Iterator[Metric]:
        ended = CounterMetricFamily("rbit_jobs", "Runs of jobs that have ended.", labels=["queue", "status"])
        running = GaugeMetricFamily("rbit_jobs_running", "Jobs that run now.", labels=["queue"])
        taken = HistogramMetricFamily("rbit_job_duration_seconds", "How long runs of jobs took.", labels=["queue"])
        for queue, runs in self._figures.runs:
            for status, number in runs.ended.items():
                ended.add_metric([queue, status], number)
            sums = itertools.accumulate(runs.groups.copy())
            taken.add_metric([queue], [*zip(LIMITS, map(float, sums), strict=True)], runs.seconds)
        for queue, number in self._figures.running.items():
            running.add_metric([queue], number)
        yield from (ended, running, taken)
