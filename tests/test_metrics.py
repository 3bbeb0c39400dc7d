"""The metrics of a client: what is counted, what is shown, and what is not."""

from __future__ import annotations

import configparser
import re
import unittest

import requests
import yaml

import rbit
from rbit.figures import BOUNDS, ENDS
from tests.support.client_case import JOBS, NAME
from tests.support.metrics_case import MetricsCase
from tests.support.processes import free_port
from tests.support.pump_case import PumpCase
from tests.support.rbit_process import RbitProcess
from tests.support.readme import README, example

MORE = JOBS + '''
class Odd(rbit.Failed):
    status = "Odd one"

def odd(message, set_status, settings):
    set_status("Strange", "for once")
    raise Odd("never heard of")

def dies(message, set_status, settings):
    os._exit(3)

def uploads(message, set_status, settings):
    set_status("Uploaded", "elsewhere")
'''


class MetricsTest(MetricsCase):
    jobs = MORE

    def run_each(self, **runners: str) -> tuple[RbitProcess, dict[str, str]]:
        """Have a job of each runner worked off; return rbit, and the queues by the names of the arguments."""
        queues = {name: self.queue_name(name) for name in runners}
        sections = {queues[name]: {"runner": target} for name, target in runners.items()}
        rbit = self.serve("hold", queues=sections)
        for queue in queues.values():
            self.publish(queue, f"body of {queue}")
        return rbit, queues

    def test_jobs_are_counted_by_queue_and_by_how_they_end(self) -> None:
        expected = {
            "done": ("python!jobs:brief", "Done"), "uploaded": ("python!jobs:uploads", "Uploaded"),
            "failed": ("shell!exit 2", "Failed"), "blocked": ("shell!exit 75", "Blocked"),
            "odd": ("python!jobs:odd", "other"), "dead": ("python!jobs:dies", "Failed"),
        }
        _, queues = self.run_each(**{name: runner for name, (runner, _) in expected.items()})
        for name, (_, status) in expected.items():
            self.wait_for_value(1, "rbit_jobs_total", queue=queues[name], status=status)
        families = self.families()
        counted = {(each.labels["queue"], each.labels["status"]): each.value
                   for each in families["rbit_jobs"].samples}
        known = [self.queue, *queues.values()]
        self.assertEqual(set(counted), {(queue, status) for queue in known for status in ENDS})
        self.assertEqual(sum(counted.values()), len(expected))
        taken = {(each.name.rpartition("_")[2], each.labels["queue"], each.labels.get("le")): each.value
                 for each in families["rbit_job_duration_seconds"].samples}
        for name in ("done", "uploaded", "failed", "blocked", "dead"):
            queue = queues[name]
            self.assertEqual((taken["count", queue, None], taken["bucket", queue, "+Inf"]), (1, 1))
            total = taken["sum", queue, None]
            self.assertTrue(0 < total < 60, total)
            for bound in BOUNDS:
                self.assertEqual(taken["bucket", queue, f"{bound:g}"], total <= bound)
        self.assertEqual(taken["count", self.queue, None], 0)
        self.publish(queues["done"], "needs a new worker")
        self.wait_for_value(2, "rbit_jobs_total", queue=queues["done"], status="Done")
        self.assertEqual(self.value("rbit_worker_restarts_total"), 1)

    def test_job_that_runs_is_shown_and_counted_once_it_is_cancelled(self) -> None:
        process = self.serve("hold")
        job = self.submit()
        self.wait_for_note(process, f"start {job}")
        self.wait_for_value(1, "rbit_jobs_running", queue=self.queue)
        self.web.cancel(job)
        self.wait_for_value(1, "rbit_jobs_total", queue=self.queue, status="Cancelled")
        self.wait_for_value(0, "rbit_jobs_running", queue=self.queue)
        self.assertEqual(self.value("rbit_job_duration_seconds_count", queue=self.queue), 1)

    def test_each_metric_is_as_the_readme_lists_it_and_those_of_the_process_are_there(self) -> None:
        self.serve("brief")
        families = self.families()
        found = {f"{name}_total" if family.type == "counter" else name:
                 {label for each in family.samples for label in each.labels} - {"le"}
                 for name, family in families.items() if not name.startswith("process_")}
        listed = re.findall(r"(?m)^``(rbit_\w+)(?:\{(.*)\})?`` ", README)
        self.assertEqual(found, {name: set(labels.split(",")) - {""} for name, labels in listed})
        self.assertEqual(families["rbit_job_duration_seconds"].type, "histogram")
        self.assertTrue(all(family.documentation for family in families.values()))
        self.assertEqual(self.value("rbit_build_info", version=rbit.__version__), 1)
        self.assertGreater(self.value("process_resident_memory_bytes") or 0, 1 << 20)
        for kind in ("rabbitmq", "pybit"):
            self.assertEqual(self.value("rbit_statuses_waiting", for_=kind), 0)

    @example("metrics rbit.ini", "metrics prometheus.yml")
    def test_prometheus_asks_where_the_ini_file_says(self, ini: str, scrape: str) -> None:
        parser = configparser.ConfigParser()
        parser.read_string(ini)
        address = parser["rbit"]["metrics"]
        self.assertEqual(parser["rbit"]["name"], NAME)
        [job] = yaml.safe_load(scrape)["scrape_configs"]
        self.assertEqual(job["static_configs"], [{"targets": [address]}])
        self.serve("brief", f"{address.partition(':')[0]}:{free_port()}")
        # Where Prometheus asks if nothing else is said.
        self.assertEqual(requests.get(f"{self.url}/metrics", timeout=30).status_code, 200)

    def test_leases_are_counted_once_they_are_renewed(self) -> None:
        process = self.serve("hold", lease_after=0.1, lease_renew=0.2)
        job = self.submit()
        self.wait_until(lambda: (self.value("rbit_leases_renewed_total") or 0) >= 3, what="renewals")
        (process.folder / f"go-{job}").touch()
        self.wait_for_value(1, "rbit_jobs_total", queue=self.queue, status="Done")
        before = self.value("rbit_leases_renewed_total")
        second = self.queue_name("second")
        self.assertEqual(process.stop(), 0, process.output)
        waits = {"runner": "shell!until test -e go; do sleep 0.05; done"}
        process = self.serve("brief", queues={second: waits}, lease_after=0.1)
        self.publish(second, "x")
        lease = f"rbit.lease.{NAME}.{second}"
        self.wait_until(lambda: self.unacked(lease) == 1, what="the first lease")
        (process.folder / "go").touch()
        self.wait_for_value(1, "rbit_jobs_total", queue=second, status="Done")
        self.assertEqual((self.value("rbit_leases_renewed_total"), (before or 0) >= 3), (0, True))

    def test_worker_that_was_ended_as_idle_is_not_counted_as_restarted(self) -> None:
        process = self.serve("brief", worker_idle=0.2)
        for number in (1, 2):
            self.submit(number)
            self.wait_for_value(number, "rbit_jobs_total", queue=self.queue, status="Done")
            self.wait_until(lambda: not process.left_over(), what="the end of the idle worker")
        self.assertEqual(self.value("rbit_worker_restarts_total"), 0)

    def test_statuses_wait_for_pybit_while_it_is_down(self) -> None:
        self.serve("brief")
        self.wait_for_health(200, "^ok\n$")
        self.web.die()
        for job in (1, 2, 3):
            self.request(job)
        # The pump learns of what has come meanwhile when it tries again.
        self.wait_for_value(6, "rbit_statuses_waiting", 60, for_="pybit")
        self.web.come_back()
        self.wait_for_value(0, "rbit_statuses_waiting", 60, for_="pybit")

    def test_statuses_wait_for_rabbitmq_under_an_alarm(self) -> None:
        process = self.serve("hold", to_pybit=False)
        self.request(1)
        self.wait_for_note(process, "start 1")
        self.wait_for_value(0, "rbit_statuses_waiting", for_="rabbitmq")
        self.addCleanup(self.node.ctl, "set_vm_memory_high_watermark", "0.4")
        self.node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        self.wait_until(lambda: "block" in self.node.ctl("list_connections", "state"), what="the alarm to strike")
        (process.folder / "go-1").touch()
        self.wait_for_value(1, "rbit_jobs_total", queue=self.queue, status="Done")
        self.assertEqual(self.value("rbit_statuses_waiting", for_="rabbitmq"), 1)
        self.assertIsNone(self.value("rbit_statuses_waiting", for_="pybit"))
        self.assertEqual(self.health(), (200, "ok\n"))
        self.node.ctl("set_vm_memory_high_watermark", "0.4")
        self.wait_for_value(0, "rbit_statuses_waiting", for_="rabbitmq")

    def test_nothing_secret_is_shown(self) -> None:
        _, queues = self.run_each(secret="shell!echo hush-hush; exit 2")
        self.wait_for_value(1, "rbit_jobs_total", queue=queues["secret"], status="Failed")
        text = "".join(f"{each} {family.documentation}" for family in self.families().values()
                       for each in family.samples)
        self.assertIn(queues["secret"], text)
        for secret in ("hush", "body of", "guest", "pass", "echo", "exit 2", "127.0.0.1"):
            self.assertNotIn(secret, text)


class WaitingTest(PumpCase):
    def test_status_that_went_back_into_the_queue_waits_too(self) -> None:
        self.patch("rbit.pump.wait_after", lambda failures: 1000.0)
        self.web.die()
        self.put(1, "Building", "Done")
        pump = self.pump()
        self.wait_until(lambda: any("PyBit does not answer" in each.getMessage() for each in self.logged))
        self.wait_until(lambda: pump.waiting == 2, what=lambda: f"2 to wait, not {pump.waiting}")


if __name__ == "__main__":
    unittest.main()
