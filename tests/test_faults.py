"""Real clients, a real broker, one fault of each kind: no job is lost, none under a lease runs twice unexplained.

And the ledger that says so: it finds what is lost, and takes no exception without its proof.
"""

from __future__ import annotations

import shutil
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path

from tests.faults import ledger
from tests.faults.evidence import ClientLog, Evidence, Log, read_log, seconds
from tests.faults.harness import Setting, run
from tests.faults.record import Event, Run
from tests.faults.schedule import EACH_KIND, EACH_KIND_OF_A_CLUSTER, KINDS, Fault, draw
from tests.support.case import require_broker


class FaultsCase(unittest.TestCase):
    """Runs the harness; a test that fails keeps the folder with all logs, and names it."""

    def run_faults(self, faults: list[Fault], seconds: float, nodes: int, jobs: int) -> Path:
        """Run faults, and expect the promise to be kept for at least so many jobs; return the folder."""
        require_broker(self)
        folder = Path(tempfile.mkdtemp(prefix="rbit-faults-"))
        found = run(Setting(folder, faults, seconds, seed=1, nodes=nodes))
        text = "\n".join([*found.failures, found.table(), *found.proofs, f"logs in {folder}"])
        self.assertEqual(found.failures, [], text)
        self.assertGreaterEqual(found.rows["jobs with a complete run"], jobs, text)
        self.assertGreaterEqual(found.rows["jobs under a lease"], jobs // 2, text)
        self.addCleanup(shutil.rmtree, folder)
        return folder


class FaultsTest(FaultsCase):
    def test_no_job_is_lost_and_none_runs_twice_whatever_fails(self) -> None:
        self.assertEqual({fault.kind for fault in EACH_KIND}, set(KINDS))
        folder = self.run_faults(EACH_KIND, 47, nodes=1, jobs=12)
        events = (folder / "events.jsonl").read_text()
        for what in ("client killed", "worker killed", "broker killed", "broker shut down", "alarm over",
                     "pybit down over", "pybit slow over", "reachable", "cut", "forget"):
            self.assertIn(f'"what": "{what}"', events)


class ScheduleTest(unittest.TestCase):
    def test_same_seed_gives_the_same_faults(self) -> None:
        self.assertEqual(draw(1, 600, 3), draw(1, 600, 3))
        self.assertNotEqual(draw(1, 600, 3), draw(2, 600, 3))

    def test_long_run_has_every_kind_of_fault(self) -> None:
        for seed in range(5):
            self.assertEqual({fault.kind for fault in draw(seed, 1200, 3)}, set(KINDS))

    def test_cluster_loses_the_leader_under_load(self) -> None:
        self.assertIn("kill broker", {fault.kind for fault in EACH_KIND_OF_A_CLUSTER})


class LedgerTest(unittest.TestCase):
    """Two complete runs of job x, at c1 from 100 to 105 and at c2 from 110 to 112, with this and that known."""

    def ledger(self, *events: Event, log: Log | None = None, runs: Sequence[Run] = (),
               statuses: Sequence[str] = ("Done",), connected: Sequence[float] = (90,),
               lost: Sequence[float] = (), closed: Sequence[float] = ()) -> ledger.Ledger:
        submitted = Event(99, "submitted", {"job": "x", "request": 1})
        jobs = {"x": log or Log(published=[101], held=[101])}
        logs = {"c1": ClientLog(jobs, list(connected), [*lost, *closed], list(closed))}
        both = [Run("x", "c1", 7, 100, 105, "end"), Run("x", "c2", 8, 110, 112, "end")]
        return ledger.make(
            Evidence([submitted, *events], logs, ttl=8), list(runs) or both, {1: list(statuses)}, {"q": 0}
        )

    def assert_excepted(self, found: ledger.Ledger, why: str) -> None:
        self.assertEqual(found.failures, [])
        self.assertEqual(found.rows[f"  {ledger.EXCEPTIONS[why]}"], 1, found.table())
        self.assertEqual(len(found.proofs), 1)

    def test_second_run_that_nothing_explains_is_a_failure(self) -> None:
        found = self.ledger()
        self.assertEqual(len(found.failures), 1)
        self.assertEqual(found.rows["  UNEXPLAINED"], 1)

    def test_lost_job_is_a_failure(self) -> None:
        found = self.ledger(runs=[Run("x", "c1", 7, 100)])
        self.assertEqual(found.rows["lost"], 1)
        self.assertIn("x is lost", found.failures)

    def test_message_left_is_a_failure(self) -> None:
        found = ledger.make(Evidence([], {}, 8), [], {}, {"q.failed": 1})
        self.assertEqual(found.failures, ["1 messages are left in q.failed"])

    def test_young_job_whose_connection_was_lost_has_a_column_of_its_own(self) -> None:
        log = Log(published=[101])
        for what, client in (("cut", "c1"), ("forget", "c1"), ("unreachable", "*")):
            self.assert_excepted(self.ledger(Event(102, what, {"client": client}), log=log), "young")
        down = Event(102, "broker shut down", {"before": 101.9})
        self.assert_excepted(self.ledger(down, log=log, lost=[102]), "young")
        for lost in ([], [101.8], [117.1]):
            self.assertTrue(self.ledger(down, log=log, lost=lost).failures, "it was connected to another node")
        for before, at in ((99.8, 100.1), (109.9, 111)):  # at some moment of it
            down = Event(at, "broker shut down", {"before": before})
            self.assert_excepted(self.ledger(down, log=log, lost=[at]), "young")
        down = Event(111, "broker shut down", {"before": 110.1})
        self.assertTrue(self.ledger(down, log=log, lost=[111]).failures)
        self.assertTrue(self.ledger(log=log).failures, "its connection was there")
        acked = Log(acked=[105.1])
        self.assert_excepted(self.ledger(Event(105.3, "cut", {"client": "c1"}), log=acked), "young")
        self.assertTrue(self.ledger(Event(106, "cut", {"client": "c1"}), log=acked).failures, "after its ack")
        for at, client in ((98.9, "c1"), (110.1, "c1"), (102, "c2")):
            self.assertTrue(self.ledger(Event(at, "cut", {"client": client}), log=log).failures, (at, client))

    def test_job_is_young_from_the_moment_that_its_message_is_taken(self) -> None:
        log = Log(published=[101], taken=[98])
        for at in (97.8, 98.5):
            self.assert_excepted(self.ledger(Event(at, "cut", {"client": "c1"}), log=log), "young")
        self.assertTrue(self.ledger(Event(97.6, "cut", {"client": "c1"}), log=log).failures)

    def test_moment_of_the_taking_is_read_from_the_log(self) -> None:
        lines = """
            00,000 INFO connected to RabbitMQ at 127.0.0.1:1
            01,000 DEBUG q message #1: taken
            02,000 DEBUG q message #2: taken once more
            03,000 INFO q job 5: Building
            04,000 INFO q job 5: run a
            05,000 INFO q message m: Building
            06,000 INFO q message m: run b
            07,000 DEBUG q message #3: taken
            08,000 INFO connected to RabbitMQ at 127.0.0.1:1
            09,000 DEBUG q message #1: taken
            10,000 INFO q message c: Building
            11,000 INFO q message c: run c
        """.split("\n")[1:-1]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "log")
            path.write_text("".join(f"2026-01-01 00:00:{line.strip()}\n" for line in lines), encoding="utf-8")
            jobs = read_log(path).jobs
        zero = seconds("2026-01-01 00:00:00,000")
        self.assertEqual({name: [at - zero for at in log.taken] for name, log in jobs.items()},
                         {"a": [1], "b": [2], "c": [9]})

    def test_lease_that_is_first_held_after_a_lost_connection_has_a_column_of_its_own(self) -> None:
        cut = Event(102, "cut", {"client": "c1"})
        self.assert_excepted(self.ledger(cut, log=Log(published=[101], again=[104], held=[104])), "handover")
        self.assertTrue(self.ledger(cut, log=Log(published=[101], again=[104], held=[101, 104])).failures)

    def test_connection_that_broke_with_the_first_ack_on_its_way_counts_as_no_lease_yet(self) -> None:
        self.assert_excepted(self.ledger(Event(101.2, "cut", {"client": "c1"})), "handover")
        for at, client in ((101.4, "c1"), (101.2, "c2")):
            self.assertTrue(self.ledger(Event(at, "cut", {"client": client})).failures)

    def test_connection_that_a_cluster_closed_explains_only_while_a_node_of_it_is_down(self) -> None:
        log = Log(published=[101], again=[104], held=[104])
        down = Event(98, "broker killed", {"node": "a", "before": 97.9})
        up = Event(103, "broker started", {"node": "a"})
        self.assert_excepted(self.ledger(down, up, log=log, closed=[102]), "handover")
        other = Event(101.9, "broker started", {"node": "a"})
        for events, closed in (((down, up), []), ((down, up), [104.5]), ((down, other), [102]), ((up,), [102])):
            self.assertTrue(self.ledger(*events, log=log, closed=closed).failures, (events, closed))

    def test_lost_original_and_its_lease_may_each_be_run_but_no_third_message(self) -> None:
        runs = [Run("x", "c1", 7, 100), Run("x", "c2", 8, 103, 105, "end"), Run("x", "c1", 9, 108, 109, "end")]
        log = Log(published=[101], again=[104], held=[104])
        self.assert_excepted(self.ledger(Event(100.5, "forget", {"client": "c1"}), log=log, runs=runs), "handover")
        more = [*runs, Run("x", "c1", 9, 111, 112, "end")]
        found = self.ledger(Event(100.5, "forget", {"client": "c1"}), log=log, runs=more)
        self.assertEqual(found.rows["  UNEXPLAINED"], 1)

    def test_ack_into_a_dead_connection_is_none_until_the_client_is_connected_again(self) -> None:
        log = Log(published=[101], held=[101], acked=[104])
        silent, killed = Event(103, "unreachable", {"client": "c1"}), Event(106, "client killed", {"client": "c1"})
        self.assert_excepted(self.ledger(silent, killed, log=log), "killed")
        self.assertTrue(self.ledger(killed, log=log).failures, "acknowledged before the kill")
        self.assertTrue(self.ledger(silent, killed, log=log, connected=[90, 103.5]).failures, "and so here")

    def test_killed_client_explains_only_while_it_has_the_message(self) -> None:
        killed = Event(104, "client killed", {"client": "c1"})
        self.assert_excepted(self.ledger(killed), "killed")
        for at, client in ((98.9, "c1"), (111, "c1"), (104, "c2")):
            self.assertTrue(self.ledger(Event(at, "client killed", {"client": client})).failures, (at, client))
        self.assertTrue(self.ledger(killed, log=Log(held=[101], acked=[103])).failures)

    def test_run_that_was_killed_explains_only_the_one_after_it(self) -> None:
        first = Run("x", "c1", 7, 100)
        killed = Event(104, "worker killed", {"client": "c1", "pid": 7})
        runs = [first, Run("x", "c1", 8, 106, 108, "end"), Run("x", "c2", 9, 110, 112, "end")]
        log = Log(published=[101, 107], held=[101, 107], acked=[104.2, 108.1])
        self.assertEqual(self.ledger(killed, log=log, runs=runs[:2]).failures, [])
        self.assertEqual(self.ledger(killed, log=log, runs=runs).rows["  UNEXPLAINED"], 1)

    def test_chain_of_runs_is_followed_back_to_the_complete_one(self) -> None:
        runs = [Run("x", "c1", 7, 100, 105, "end"), Run("x", "c2", 8, 110), Run("x", "c2", 9, 115, 117, "end")]
        self.assertEqual(self.ledger(runs=runs).rows["  UNEXPLAINED"], 1)
        killed = Event(104, "client killed", {"client": "c1"})
        self.assert_excepted(self.ledger(killed, runs=runs), "killed")

    def test_killed_worker_explains_only_its_own_run(self) -> None:
        self.assert_excepted(self.ledger(Event(104, "worker killed", {"client": "c1", "pid": 7})), "killed")
        self.assertTrue(self.ledger(Event(104, "worker killed", {"client": "c1", "pid": 9})).failures)

    def test_silence_explains_only_when_the_lease_ran_out_in_it(self) -> None:
        def silence(begin: float, end: float, client: str = "c1") -> list[Event]:
            return [Event(begin, "unreachable", {"client": client}), Event(end, "reachable", {"client": client})]

        self.assert_excepted(self.ledger(*silence(102, 109.5)), "out of reach")
        self.assert_excepted(self.ledger(*silence(102, 109.5, "*")), "out of reach")
        for begin, end, client in ((102, 108.9, "c1"), (109.1, 109.9, "c1"), (102, 109.5, "c2")):
            self.assertTrue(self.ledger(*silence(begin, end, client)).failures)
        self.assertTrue(self.ledger(*silence(102, 109.5), log=Log([101], [101], [101.5])).failures)

    def test_lease_before_the_last_counts_when_its_ack_may_have_been_on_its_way(self) -> None:
        silence = Event(102, "unreachable", {"client": "c1"}), Event(109.8, "reachable", {"client": "c1"})
        for held in (101.95, 102.05):
            log = Log(published=[101, 101.9], held=[101, held])
            self.assert_excepted(self.ledger(*silence, log=log), "out of reach")
        early = Log(published=[101, 101.5], held=[101, 101.6])
        self.assert_excepted(self.ledger(*silence, log=early), "out of reach")  # the last one was over too
        short = Event(102, "unreachable", {"client": "c1"}), Event(109.2, "reachable", {"client": "c1"})
        self.assert_excepted(self.ledger(*short, log=log), "out of reach")
        self.assertTrue(self.ledger(*short, log=early).failures)

    def test_stop_explains_only_when_rabbitmq_took_nothing_until_the_end_of_the_client(self) -> None:
        mine = {"client": "c1"}
        stop = Event(104, "client stopped", mine), Event(108, "client ended", mine)
        alarm = Event(103, "alarm", {}), Event(109, "alarm over", {})
        away = Event(105, "unreachable", {"client": "*"}), Event(108.5, "reachable", {"client": "*"})
        for reason in (alarm, away):
            self.assert_excepted(self.ledger(*stop, *reason), "not taken")
        self.assertTrue(self.ledger(*stop).failures)
        self.assertTrue(self.ledger(*alarm).failures)
        self.assertTrue(self.ledger(*stop, Event(103, "alarm", {}), Event(107, "alarm over", {})).failures)
        self.assertTrue(self.ledger(*stop, *alarm, log=Log([101], [101], [106])).failures, "it was acknowledged")

    def test_killed_broker_explains_only_within_a_second_of_the_ack(self) -> None:
        log = Log(published=[101], held=[101], acked=[105.5])
        killed = Event(106.5, "broker killed", {"before": 106.4})
        self.assert_excepted(self.ledger(killed, log=log), "ack forgotten")
        self.assertTrue(self.ledger(Event(106.7, "broker killed", {"before": 106.6}), log=log).failures)

    def test_last_status_that_pybit_does_not_have_is_a_failure_also_if_its_client_was_ended(self) -> None:
        one = [Run("x", "c1", 7, 100, 105, "end")]
        killed = Event(105.5, "client killed", {"client": "c1"})
        for statuses in (["Building"], ["Building", "Done", "Building"]):
            self.assertEqual(len(self.ledger(killed, runs=one, statuses=statuses).failures), 1)
        self.assertEqual(self.ledger(killed, runs=one, statuses=["Building", "Done"]).failures, [])


if __name__ == "__main__":
    unittest.main()
