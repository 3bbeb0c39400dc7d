"""A test of the metrics of a real client, read as Prometheus reads them. It runs in the process that tests."""

from __future__ import annotations

import requests
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.client_case import ClientCase
from tests.support.rbit_process import RbitProcess

LOOPBACK = "127.0.0.1:0"  # any port that is free


class MetricsCase(ClientCase):
    """A test of a client with metrics at ``self.url``."""

    def serve(self, runner: str, metrics: str = LOOPBACK, **more: object) -> RbitProcess:
        """Start a client with metrics. Arguments: the address; the others are those of ``start``."""
        # With a short one a machine that stands still for a moment loses the connection, which is an outage.
        more["amqp"] = {"heartbeat": 60, **more.get("amqp", {})}  # type: ignore[dict-item]
        rbit = self.start(runner, metrics=metrics, **more)  # type: ignore[arg-type]
        line = rbit.wait_for_line("metrics are at http://")
        self.url = line.split()[-1].removesuffix("/metrics")
        return rbit

    def families(self) -> dict[str, Metric]:
        """Ask for the metrics and return them by name."""
        answer = requests.get(f"{self.url}/metrics", timeout=30)
        self.assertEqual(answer.status_code, 200, answer.text)
        found = list(text_string_to_metric_families(answer.text))
        self.assertEqual(len(found), len({family.name for family in found}), answer.text)
        return {family.name: family for family in found}

    def value(self, sample: str, **labels: str) -> float | None:
        """Ask for the metrics and return one sample; None when there is none. Labels end in ``_``: ``for_``."""
        wanted = {name.rstrip("_"): label for name, label in labels.items()}
        found = [each.value for family in self.families().values() for each in family.samples
                 if each.name == sample and each.labels == wanted]
        self.assertLessEqual(len(found), 1)
        return found[0] if found else None

    def wait_for_value(self, value: float, sample: str, bound: float = 30.0, **labels: str) -> None:
        """Wait until a sample has a value."""
        self.wait_until(
            lambda: self.value(sample, **labels) == value, bound,
            lambda: f"{sample}{labels} to be {value}, not {self.value(sample, **labels)}",
        )

    def health(self) -> tuple[int, str]:
        """Return the status code and the text of ``/healthz``."""
        answer = requests.get(f"{self.url}/healthz", timeout=30)
        return answer.status_code, answer.text

    def wait_for_health(self, code: int, text: str, bound: float = 30.0) -> None:
        """Wait until ``/healthz`` answers with a status code, and with a text that matches an expression."""

        def is_so() -> bool:
            found, said = self.health()
            if found == code:
                self.assertRegex(said, text)
            return found == code

        self.wait_until(is_so, bound, lambda: f"{code}, not {self.health()}")
