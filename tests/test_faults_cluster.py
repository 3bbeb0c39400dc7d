"""A cluster of three nodes with quorum queues, whose leaders are killed under load."""

from __future__ import annotations

import json
import unittest

from tests.faults.schedule import EACH_KIND_OF_A_CLUSTER
from tests.test_faults import FaultsCase


class ClusterFaultsTest(FaultsCase):
    def test_no_job_is_lost_and_none_runs_twice_when_the_leader_of_a_queue_is_killed(self) -> None:
        folder = self.run_faults(EACH_KIND_OF_A_CLUSTER, 30, nodes=3, jobs=8)
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        self.assertEqual([event["known"] for event in events if event["what"] == "leader"], [True] * 3)
        self.assertEqual(sum(event["what"] == "broker killed" for event in events), 2)


if __name__ == "__main__":
    unittest.main()
