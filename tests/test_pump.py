"""The pump carries statuses to PyBit in order; what PyBit refuses for good is dropped and holds up nobody."""

from __future__ import annotations

import json
import logging
import threading
import unittest

from rbit.broker import of_type
from rbit.message import Answer
from rbit.pump import LOOK_EVERY
from tests.support.pump_case import PumpCase, Refusing


class OrderTest(PumpCase):
    def test_updates_arrive_in_order_with_the_clients_name_and_leave_the_queue(self) -> None:
        sent = ("Building", "Blocked", "Waiting", "Building", "Done")
        self.put(1, *sent)
        self.pump()
        self.wait_for(1, *sent)
        self.assertEqual({client for _, client in self.web.history(1)[1:]}, {self.client})
        self.wait_for_empty_queue()

    def test_update_that_comes_later_arrives_at_once_when_the_pump_is_told_of_it(self) -> None:
        pump = self.pump()
        self.put(1, "Building")
        self.wait_for(1, "Building")
        for status in ("Blocked", "Building", "Done"):
            self.put(1, status)
            pump.wake()
            self.wait_until(lambda: self.statuses(1)[-1] == status, 9.0, status)  # noqa: B023

    def test_missing_queue_is_looked_for_until_it_is_there(self) -> None:
        self.channel.queue_delete(self.own)
        pump = self.pump()
        self.wait_until(lambda: self.client in self.web.buildds, what="the start")
        self.put(1, "Done")
        pump.wake()
        self.wait_for(1, "Done")
        self.assertEqual(self.lines(), [])

    def test_junk_in_the_queue_is_dropped_with_its_content_and_holds_up_nothing(self) -> None:
        whole = {
            "job": 1, "queue": "q", "client": "c", "status": "Done", "message": "", "time": 0, "attempt": 1,
            "final": True,
        }
        junk = [
            b"", b"\xff\x00", b"null", b"[]", b"{}", b"[" * 100_000, b'{"job": 1, "status": "Done"}',
            *(json.dumps(whole | {key: value}).encode() for key, value in (
                ("job", "1"), ("job", True), ("job", 1.5), ("status", None), ("status", ["Done"]), ("time", "x"),
                ("time", 10**400), ("time", float("nan")), ("status", "\ud800"), ("final", 1),
            )),
        ]
        for body in junk:
            self.publish(self.own, body)
        self.put(1, "Done")
        self.pump()
        self.wait_for(1, "Done")
        self.wait_for_empty_queue()
        dropped = [line for line in self.lines(logging.ERROR) if "a message is dropped" in line]
        self.assertEqual(len(dropped), len(junk))
        self.assertIn('{"job": 1, "status": "Done"}', dropped[6])
        self.assertEqual(self.tries(1), 1)

    def test_updates_that_nobody_gave_a_message_id_are_told_all_and_dropped_alone(self) -> None:
        self.put(99, "Building", message_id=None)
        self.put(1, "Building", "Done", message_id=None)
        self.pump()
        self.wait_for(1, "Building", "Done")
        self.wait_for_empty_queue()

    def test_pybit_is_caught_up_with_once_nothing_is_held_any_more(self) -> None:
        self.patch("rbit.teller.TRIES", 1000)
        go_on = threading.Event()
        front = Refusing(lambda job, status: None if job > 1 or go_on.is_set() else Answer(500, ""))
        self.put(1, "Building", "Cancelled")
        self.put(2, "Building")
        pump = self.pump(front=front)
        self.wait_until(lambda: front.told, what="the other job's")
        self.wait_until(lambda: self.depth(self.own) == 0 and len(self.lines()) > 0, what="all to be taken")
        self.assertFalse(pump.caught_up.wait(1.0))
        go_on.set()
        self.assertTrue(pump.caught_up.wait(LOOK_EVERY * 0.8), "it looks at once, and not the next time")
        self.assertEqual(front.told, [(2, "Building"), (1, "Building"), (1, "Cancelled")])

    def test_update_that_was_published_twice_is_told_once(self) -> None:
        self.put(1, "Building", message_id="a")
        self.put(1, "Building", message_id="a")
        self.put(1, "Done", message_id="b")
        pump = self.pump()
        self.wait_for(1, "Building", "Done")
        self.put(1, "Done", message_id="b")
        pump.wake()
        self.wait_for_empty_queue()
        self.assertEqual(self.tries(1), 2)

    def test_updates_that_a_quorum_queue_has_shuffled_arrive_in_order(self) -> None:
        self.channel.queue_delete(self.own)
        self.channel.queue_declare(self.own, durable=True, arguments=of_type(quorum=True))
        self.put(1, "Building", "Blocked")
        self.put(2, "Building")
        self.put(1, "Waiting", "Building", "Done")
        self.put(2, "Done")
        with self.node.connect() as connection:
            channel = connection.channel()
            tags = [channel.basic_get(self.own)[0].delivery_tag for _ in range(6)]
            for tag in reversed(tags):  # as a lost connection may do it
                channel.basic_nack(tag)
            self.wait_until(lambda: self.depth(self.own) == 7, what="all of them back")
        first = json.loads(self.channel.basic_get(self.own)[2])
        self.assertEqual(first["status"], "Done", "they are shuffled")
        self.channel.basic_recover(requeue=True)
        self.wait_until(lambda: self.depth(self.own) == 7, what="all of them back")
        self.pump()
        self.wait_for(1, "Building", "Blocked", "Waiting", "Building", "Done")
        self.wait_for(2, "Building", "Done")
        self.wait_for_empty_queue()

    def test_two_pumps_of_one_name_never_mix_up_the_order(self) -> None:
        self.web.slow(0.3)
        first = self.pump()
        self.wait_until(lambda: self.client in self.web.buildds, what="the first pump")
        second = self.pump()
        self.wait_for_line("another client of this name has it")
        self.put(1, "Building", "Done")
        first.wake()
        second.wake()
        self.wait_for(1, "Building", "Done")
        first.close(10.0)
        self.put(2, "Done")
        self.wait_for(2, "Done")


class RefusalTest(PumpCase):
    def test_update_that_pybit_refuses_is_dropped_at_once_with_its_content(self) -> None:
        for code in (400, 401, 404, 405, 410):
            with self.subTest(code):
                job = code
                self.web.add_job(job)
                self.web.fail_next(2, code)  # the first may be the registration
                self.put(job, "Building", "Blocked", "Done")
                pump = self.pump()
                self.wait_until(lambda: self.statuses(job)[-1:] == ["Done"], what="the others")  # noqa: B023
                self.wait_for_empty_queue()
                pump.close(10.0)
                self.assertEqual(self.tries(job), 3)
                line = self.wait_for_line(f"builds job {job}: PyBit refused the status Building with {code}")
                self.assertIn(f'; it is dropped: {{"job": {job}, "queue": "builds", ', line)

    def test_update_of_an_unknown_job_is_tried_five_times_while_others_go_on(self) -> None:
        self.put(99, "Building", "Done")
        self.put(2, "Building", "Done")
        self.pump()
        self.wait_for(2, "Building", "Done")
        self.wait_for_empty_queue()
        self.assertEqual((self.tries(99, "Building"), self.tries(99, "Done")), (5, 5))
        refused = [line for line in self.lines(logging.ERROR) if "it is dropped" in line]
        self.assertEqual(len(refused), 2)
        self.assertIn("the status Building with 500: 5 times; PyBit knows no job 99", refused[0])
        self.assertIn('"job": 99', refused[0])

    def test_unknown_job_is_dropped_though_nothing_else_is_taken(self) -> None:
        self.put(99, "Building")
        self.pump()
        self.wait_for_line("5 times; PyBit knows no job 99")
        self.wait_for_empty_queue()

    def test_unknown_status_name_is_dropped_after_five_tries_once_others_are_taken(self) -> None:
        self.put(1, "Frobnicating")
        pump = self.pump()
        self.wait_until(lambda: self.tries(1) > 5, what="more than five tries")
        self.assertFalse(self.depth(self.own) == 0 and self.hands_are_empty(), "it may be PyBit's fault")
        self.put(2, "Done")
        pump.wake()
        self.wait_for(2, "Done")
        self.assertIn("times, while it takes other updates; it is dropped: {", self.wait_for_line("is dropped"))
        self.wait_for_empty_queue()

    def test_lone_unknown_status_name_is_dropped_for_the_next_one_of_its_job(self) -> None:
        self.put(1, "Frobnicating")
        pump = self.pump()
        self.wait_until(lambda: self.tries(1) > 5, what="more than five tries")
        self.put(1, "Done")
        pump.wake()
        self.wait_for(1, "Done")
        self.wait_for_empty_queue()
        self.assertIn("again and again, but takes a later one of its job", self.wait_for_line("is dropped"))

    def test_several_unknown_status_names_in_a_row_hold_up_no_final_status(self) -> None:
        self.put(1, "Frobnicating", "Polishing", "Shipping", "Done")
        self.pump()
        self.wait_for(1, "Done")
        self.wait_for_empty_queue()
        for name in ("Frobnicating", "Polishing", "Shipping"):
            self.assertGreaterEqual(self.tries(1, name), 5)
        self.assertEqual(sum("is dropped" in line for line in self.lines()), 3)

    def test_job_with_more_unknown_status_names_than_are_held_holds_up_no_other(self) -> None:
        self.patch("rbit.held.MOST_HELD", 20)
        self.patch("rbit.teller.wait_after", lambda failures: 600.0)
        self.put(1, *(f"Step{number}" for number in range(50)))
        self.put(2, "Building", "Done")
        self.put(1, "Done")
        self.pump()
        self.wait_for(2, "Building", "Done")
        dropped = [line for line in self.lines(logging.ERROR) if "others wait; it is dropped" in line]
        self.assertGreater(len(dropped), 25)

    def test_full_hand_uses_up_no_tries_of_a_known_status(self) -> None:
        self.patch("rbit.held.MOST_HELD", 20)
        self.patch("rbit.teller.wait_after", lambda failures: 600.0)
        front = Refusing(lambda job, status: Answer(500, "") if job == 1 else None)
        self.put(1, "Building", *["Waiting", "Building"] * 15)
        self.put(2, "Building")
        pump = self.pump(front=front)
        self.wait_for_line("trying again")
        self.wait_until(lambda: pump._hand.is_full, what="a full hand")
        self.wait_until(lambda: pump._stuck, what="nothing to be done")
        failures = pump._hand.failures(next(iter(pump._hand._lanes.values()))[0])
        self.assertEqual((failures.count, front.told), (1, []))

    def test_what_is_new_is_not_held_up_by_what_fails_again_and_again(self) -> None:
        self.patch("rbit.teller.wait_after", lambda failures: 0.0)
        self.patch("rbit.teller.TRIES", 10**6)
        front = Refusing(lambda job, status: Answer(500, "") if job == 1 else None)
        self.put(1, "Building")
        for status in ("Building", "Done"):
            self.put(2, status)
        self.pump(front=front)
        self.wait_until(lambda: len(front.told) == 2, what="the other job")

    def test_refused_one_between_two_that_fail_is_dropped_once(self) -> None:
        codes = {"Frobnicating": 500, "Malformed": 400}
        front = Refusing(lambda job, status: Answer(codes[status], "") if status in codes else None)
        self.put(1, "Frobnicating", "Malformed", "Done")
        self.pump(front=front)
        self.wait_until(lambda: front.told == [(1, "Done")], what="the last one")
        self.wait_for_empty_queue()
        self.assertEqual(sum("is dropped" in line for line in self.lines()), 2)

    def test_pybit_that_fails_at_everything_for_a_while_loses_nothing(self) -> None:
        tries = []

        def fail(job: int, status: str) -> Answer | None:
            # When it recovers between a status and the next one of its job, it is taken to refuse the first.
            tries.append(status)
            return Answer(500, "") if len(tries) < 50 or "Building" not in tries[49:] else None

        front = Refusing(fail)
        for job in (1, 2, 3):
            self.put(job, "Building", "Done")
        self.pump(front=front)
        self.wait_until(lambda: len(front.told) == 6, what="all of them")
        self.assertGreaterEqual(len(self.lines()), 6)  # failures number 1, 2, 4, 8, 16 and 32
        for job in (1, 2, 3):
            self.assertEqual([status for told, status in front.told if told == job], ["Building", "Done"])
        self.assertEqual([line for line in self.lines() if "is dropped" in line], [])

    def test_poisoned_update_holds_up_nobody_whatever_pybit_answers(self) -> None:
        for code, words in ((500, ""), (502, ""), (None, "no answer within 5 s"), (302, "elsewhere")):
            with self.subTest(code):
                poisoned = Answer(code, words)
                front = Refusing(lambda job, status: poisoned if job == 1 else None)  # noqa: B023
                pump = self.pump(front=front)
                self.put(1, "Building", "Done")
                pump.wake()
                self.wait_for_line("job 1" if code == 500 else "does not answer")
                for job in (2, 3):
                    self.put(job, "Building", "Done")
                pump.wake()
                self.wait_until(lambda: len(front.told) >= 4, what="the others")  # noqa: B023
                self.assertEqual(front.told[:4], [(2, "Building"), (2, "Done"), (3, "Building"), (3, "Done")])
                pump.close(10.0)
                self.channel.queue_purge(self.own)

    def test_error_of_a_library_ends_neither_the_pump_nor_the_order(self) -> None:
        left = [1]

        def raise_once(job: int, status: str) -> None:
            if left:
                left.clear()
                raise ZeroDivisionError

        self.patch("threading.excepthook", lambda _: None)
        front = Refusing(raise_once)
        self.put(1, "Building", "Done")
        self.pump(front=front)
        self.wait_until(lambda: front.told == [(1, "Building"), (1, "Done")], what="both")
        self.wait_for_empty_queue()


if __name__ == "__main__":
    unittest.main()
