"""The pump while PyBit or RabbitMQ is dead, slow, silent or cut off, and when it is back."""

from __future__ import annotations

import logging
import threading
import time
import unittest

import requests

from rbit.message import Answer, Entry
from tests.support.proxy import Proxy
from tests.support.pump_case import PumpCase, Refusing


class PybitOutageTest(PumpCase):
    def put_all(self) -> None:
        for job in (1, 2, 3):
            self.put(job, "Building", "Done")

    def wait_for_all(self) -> None:
        for job in (1, 2, 3):
            self.wait_for(job, "Building", "Done")
        self.wait_for_empty_queue()

    def test_updates_wait_in_the_queue_while_pybit_is_dead_and_arrive_in_order_when_it_is_back(self) -> None:
        self.web.die()
        self.put_all()
        self.pump()
        line = self.wait_for_line("PyBit does not answer")
        self.assertRegex(line, rf"Connection refused\); statuses that wait for it in {self.own}: 6$")
        self.wait_until(lambda: len(self.lines()) >= 3, what="more tries")
        self.web.come_back()
        self.wait_for_all()
        self.assertEqual(sum("PyBit answers again" in line for line in self.lines(logging.INFO)), 1)

    def test_gateways_and_redirects_are_outages(self) -> None:
        for job, code in enumerate((502, 503, 504), 1):
            self.web.fail_next(4, code)
            pump = self.pump()
            self.put(job, "Building", "Done")
            pump.wake()
            self.wait_for(job, "Building", "Done")
            self.wait_for_line(f"PyBit does not answer (HTTP status {code})")
            pump.close(10.0)
        self.assertEqual([line for line in self.lines() if "dropped" in line], [])

    def test_redirect_loses_nothing_and_says_where_to(self) -> None:
        self.web.redirect("http://127.0.0.1:1/new")
        pump = self.pump()
        self.put(1, "Building", "Done")
        pump.wake()
        self.wait_for_line("the url in [pybit] redirects to 'http://127.0.0.1:1/new', put that there")
        self.assertEqual(self.tries(1, "Done"), 0, "it must not overtake the first")
        pump.close(10.0)
        self.assertEqual(self.depth(self.own), 2)

    def test_hanging_pybit_is_asked_again_after_the_timeout_and_gets_all_in_order(self) -> None:
        self.web.hang()
        self.put_all()
        self.pump(timeout=0.3)
        self.wait_for_line("PyBit does not answer (no answer within 0.3 s)")
        self.web.die()  # what it was asked so far is lost
        self.web.come_back()
        self.wait_for_all()

    def test_pybit_that_takes_updates_and_never_answers_in_time_gets_each_once(self) -> None:
        rows: dict[int, list[str]] = {1: [], 2: [], 3: []}

        def takes(job: int, status: str) -> Answer:
            rows[job].append(status)
            return Answer(None, "no answer within 5 s")

        front = Refusing(takes)
        front.last = lambda job: (Answer(200, ""), Entry((rows[job] or ["Waiting"])[-1], self.client))  # type: ignore
        self.put_all()
        self.pump(front=front)
        self.wait_for_empty_queue()
        self.assertEqual(rows, {job: ["Building", "Done"] for job in (1, 2, 3)})

    def test_status_that_pybit_has_of_another_client_is_told_all_the_same(self) -> None:
        self.running.add(1)
        form = {"status": "Building", "client": "another"}
        requests.put(f"{self.web.url}/job/1", form, auth=("admin", "pass"), timeout=10)
        self.web.die()
        self.put(1, "Building")
        self.pump()
        self.wait_for_line("PyBit does not answer")
        self.web.come_back()
        self.wait_for(1, "Building", "Building")

    def late(self, statuses: tuple[str, ...], entry: Entry) -> list[tuple[int, str]]:
        """Put statuses of job 1 that are a minute old; return what is told to a PyBit that has this last entry."""
        front = Refusing(lambda job, status: None)
        front.last = lambda job: (Answer(200, ""), entry)  # type: ignore[method-assign]
        self.put(1, *statuses, at=time.time() - 60.0)
        pump = self.pump(front=front)
        self.wait_until(pump.caught_up.is_set, what="the end")
        self.wait_for_empty_queue()
        pump.close(10.0)
        return front.told

    def test_late_status_of_a_run_that_another_client_has_followed_is_not_told(self) -> None:
        for entry in (Entry("Building", "another"), Entry("Done", "another"), Entry("Cancelled", None)):
            self.assertEqual(self.late(("Building", "Waiting"), entry), [], entry)
            self.assertEqual(self.late(("Blocked", "Failed"), entry), [(1, "Failed")], entry)
        self.wait_for_line("job 1: PyBit has Done by now, so it is not told of the status Building")

    def test_late_status_that_nobody_has_followed_is_told(self) -> None:
        expected = [(1, "Building"), (1, "Waiting")]
        for entry in (Entry("Waiting", None), Entry("Blocked", self.client), Entry(None, None)):
            self.assertEqual(self.late(("Building", "Waiting"), entry), expected, entry)

    def test_late_status_of_a_job_that_runs_here_is_told_whoever_had_it_before(self) -> None:
        self.running.add(1)
        self.assertEqual(self.late(("Building",), Entry("Building", "another")), [(1, "Building")])

    def test_slow_pybit_gets_each_once(self) -> None:
        self.web.slow(0.3)
        self.put_all()
        self.pump()
        self.wait_for_all()

    def test_answer_that_comes_after_nobody_waits_counts_and_is_the_only_one_under_way(self) -> None:
        self.patch("rbit.caller.LONGEST_CALL", 0.3)
        under_way, most = [0], [0]

        def slowly(job: int, status: str) -> None:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            time.sleep(1.0)
            under_way[0] -= 1

        front = Refusing(lambda job, status: None, slowly)
        self.put(1, "Building", "Done")
        self.pump(front=front)
        self.wait_until(lambda: len(front.told) >= 2, what="both")
        self.wait_for_empty_queue()
        self.assertEqual(front.told, [(1, "Building"), (1, "Done")])
        self.assertEqual(most, [1])

    def test_heartbeats_go_on_while_pybit_hangs(self) -> None:
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        front = Refusing(lambda job, status: None, lambda *_: go_on.wait())
        self.put(1, "Building")
        with Proxy(self.node.port) as proxy:
            self.pump(proxy.port, heartbeat=2, front=front)
            self.wait_until(lambda: front.told, what="the call")
            began = time.monotonic()  # the broker closes a connection that is silent for that long
            self.wait_until(lambda: time.monotonic() - began > 7.0, what="three heartbeats")
            self.assertEqual((self.unacked(self.own), proxy.accepted), (1, 1), "the connection lives")
            go_on.set()
            self.wait_for_empty_queue()
            self.assertEqual((front.told, proxy.accepted), ([(1, "Building")], 1))


class HoldTest(PumpCase):
    """Nothing is held for longer than a minute; here 3 seconds."""

    def setUp(self) -> None:
        super().setUp()
        self.patch("rbit.held.LONGEST_HOLD", 3.0)
        for module in ("caller", "pump"):
            self.patch(f"rbit.{module}.LONGEST_CALL", 1.0)

    def test_update_at_which_pybit_fails_goes_back_and_is_taken_again(self) -> None:
        self.patch("rbit.teller.wait_after", lambda failures: 0.1 if failures < 3 else 60.0)
        front = Refusing(lambda job, status: Answer(500, ""))
        given_back: list[float] = []
        pump = self.pump(front=front)
        give_back = pump._give_back
        pump._give_back = lambda queue: (  # type: ignore[method-assign]
            given_back.append(time.monotonic()) or give_back(queue)  # type: ignore[func-returns-value]
        )
        self.put(1, "Building", "Done")
        began = time.monotonic()
        pump.wake()
        self.wait_until(lambda: len(given_back) == 3, what="three times back")
        for before, after in zip([began, *given_back], given_back, strict=False):
            self.assertGreater(after - before, 1.9)

    def test_all_that_goes_back_keeps_its_order_in_either_type_of_queue(self) -> None:
        self.patch("rbit.teller.TRIES", 1000)
        statuses = [f"{name} {number}" for number in range(25) for name in ("Building", "Blocked")]
        for arguments in ({}, {"x-queue-type": "quorum"}):
            self.channel.queue_delete(self.own)
            self.channel.queue_declare(self.own, durable=True, arguments=arguments)
            failing = threading.Event()
            failing.set()
            front = Refusing(lambda job, _: Answer(500, "") if job < 3 and failing.is_set() else None)  # noqa: B023
            for status in statuses:
                for job in (1, 2):
                    self.put(job, status)
            pump = self.pump(front=front)
            self.wait_until(lambda: self.depth(self.own) == 0 and not pump._hand.is_empty, what="all held")  # noqa: B023
            self.wait_until(lambda: self.depth(self.own) > 0, what="some given back")
            failing.clear()
            pump.wake()
            self.wait_until(lambda: len(front.told) == 100, what="all of them")  # noqa: B023
            for job in (1, 2):
                self.assertEqual([status for told, status in front.told if told == job], statuses)
            pump.close(10.0)

    def test_update_whose_call_hangs_goes_back_before_the_minute_is_over(self) -> None:
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        front = Refusing(lambda job, status: None, lambda *_: go_on.wait())
        self.put(1, "Building")
        self.pump(front=front)
        self.wait_until(lambda: front.told, what="the call")
        self.wait_for_line("PyBit does not answer (no answer within 1 s)")
        self.wait_until(lambda: self.depth(self.own) == 1, what="the update in its queue")
        go_on.set()
        self.wait_for_empty_queue()
        self.assertEqual(front.told, [(1, "Building")], "its answer came late, and counted")

    def test_look_at_the_history_and_a_later_update_take_no_longer_than_is_left(self) -> None:
        front = Refusing(lambda job, status: Answer(500, ""))
        slow = threading.Event()
        front.last = lambda job: (slow.wait() and Answer(200, ""), None)  # type: ignore[method-assign]
        self.addCleanup(slow.set)
        self.put(1, "Building", "Done")
        self.pump(front=front)
        self.wait_for_line("trying again")
        self.wait_until(lambda: self.depth(self.own) == 2, what="both in the queue")


class BrokerOutageTest(PumpCase):
    def test_connection_that_is_cut_in_the_middle_of_a_call_doubles_nothing(self) -> None:
        self.web.slow(1.0, "/job/1")
        self.put(1, "Building", "Done")
        with Proxy(self.node.port) as proxy:
            self.pump(proxy.port)
            self.wait_until(lambda: self.tries(1) > 0, what="the call")
            proxy.cut()
            self.wait_for(1, "Building", "Done")
            self.wait_for_empty_queue()
            self.assertEqual((self.tries(1), proxy.accepted), (2, 2))

    def test_call_that_begins_as_the_connection_is_found_lost_is_not_made_twice(self) -> None:
        self.patch("rbit.teller.wait_after", lambda failures: 1.0)
        self.web.fail_next(1, 500, "^/job/1$")
        with Proxy(self.node.port) as proxy:
            self.put(1, "Building", "Done")
            pump = self.pump(proxy.port)
            self.wait_for_line("trying again")
            self.web.slow(2.0, "^/job/[12]$")
            self.put(2, "Building")
            pump.wake()
            self.wait_until(lambda: self.tries(2) > 0, what="the call about the other job")
            proxy.cut()  # and when it is over, job 1 is due
            self.wait_until(lambda: self.tries(1) > 1, what="the call about job 1")
            self.web.slow(0)
            self.wait_for(1, "Building", "Done")
            self.wait_for_empty_queue()
        self.assertEqual((self.statuses(1), self.statuses(2)), (["Building", "Done"], ["Building"]))
        self.assertNotIn("a fault in rbit", "\n".join(self.lines()))

    def test_acknowledgement_that_is_lost_doubles_nothing(self) -> None:
        self.web.slow(1.0, "/job/1")
        self.put(1, "Building")
        with Proxy(self.node.port) as proxy:
            pump = self.pump(proxy.port)
            self.wait_until(lambda: self.tries(1) > 0, what="the call")
            proxy.hold(f"rbit {self.client} (pump)", answers=False)
            self.wait_until(lambda: self.statuses(1), what="the status")
            self.wait_until(lambda: proxy.holds, what="an acknowledgement under way")
            proxy.cut()
            self.put(1, "Done")
            pump.wake()
            self.wait_for(1, "Building", "Done")
            self.wait_for_empty_queue()
        self.assertEqual(self.tries(1), 2)

    def test_updates_arrive_when_the_broker_is_reached_at_last(self) -> None:
        self.put(1, "Building", "Done")
        with Proxy(self.node.port) as proxy:
            target, proxy.target = proxy.target, 1
            self.pump(proxy.port)
            self.wait_for_line(f"statuses for PyBit wait in the queue {self.own}: ")
            proxy.target = target
            self.wait_for(1, "Building", "Done")


if __name__ == "__main__":
    unittest.main()
