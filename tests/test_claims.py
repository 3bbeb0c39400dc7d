"""Whose message a delivery is, on real deliveries in this process."""

from __future__ import annotations

import time
import unittest
from dataclasses import replace
from unittest.mock import patch

from rbit import claims, envelope
from rbit.broker import Connection, Delivery, Queue
from rbit.claims import Claims
from rbit.config import RunnerSettings
from rbit.job import Job
from rbit.message import Settled
from rbit.runners import make
from tests.support.case import BrokerCase
from tests.support.settings import amqp_settings
from tests.support.slots import SilentFeed

TOKEN = "0123456789abcdef" * 2
SECTION = RunnerSettings("q", "shell!true", None, None, False, "park", 60.0, 0, 10, {})


class ClaimsTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.claims = Claims("bob-villa", 60.0)
        self.queue = self.declare(self.queue_name())
        self.source = self.connect()

    def connect(self) -> Queue:
        amqp = amqp_settings(self.node.port)
        self.connection = Connection(amqp, "test")
        self.addCleanup(self.connection.close)
        return Queue(self.connection, self.queue)

    def get(self) -> Delivery:
        self.wait_until(lambda: self.depth(self.queue) > 0, what="a message")
        delivery = self.source.get()
        assert delivery is not None
        return delivery

    def redelivered(self) -> Delivery:
        """Take a message as it comes when another client gave it back."""
        self.get().requeue()
        delivery = self.get()
        self.assertTrue(delivery.redelivered)
        return delivery

    def job(self, delivery: Delivery) -> Job:
        made = Job(delivery, replace(SECTION, queue=self.queue), make(SECTION), 1, SilentFeed())
        self.claims.add(made)
        return made

    def settle(self, job: Job) -> None:
        job.delivery.ack(self.claims.note_of(job.delivery, job))
        self.claims.settled(job, back=False)

    def lose(self) -> None:
        """Break the connection, as the client sees it."""
        self.connection.close()
        self.claims.doubt(self.source.doubtful())
        self.source = self.connect()

    def test_message_whose_delivery_was_lost_belongs_to_its_job(self) -> None:
        self.publish(self.queue, "a")
        job = self.job(self.get())
        self.lose()
        delivery = self.get()
        self.assertIs(self.claims.owner(delivery), job)
        self.assertIsNone(self.claims.take(job, delivery))
        self.assertIs(job.delivery, delivery)

    def test_second_message_of_the_same_body_does_not_belong_to_a_job_that_has_its_own(self) -> None:
        for _ in range(2):
            self.publish(self.queue, "a")
        job = self.job(self.get())
        delivery = self.redelivered()
        self.assertIsNone(self.claims.owner(delivery))
        self.assertFalse(self.claims.absorbs(delivery))
        self.assertFalse(job.delivery.lost)

    def test_message_is_known_once_whose_ack_is_in_doubt(self) -> None:
        for _ in range(3):
            self.publish(self.queue, "a", message_id="m")
        self.settle(self.job(self.get()))
        self.lose()  # right after the ack
        first, second = self.redelivered(), self.redelivered()
        self.assertTrue(self.claims.absorbs(first))
        self.assertFalse(self.claims.absorbs(second), "one job may stand for one message only")

    def test_message_without_a_name_is_rather_run_twice_than_another_not_at_all(self) -> None:
        for _ in range(2):
            self.publish(self.queue, "a")
        self.settle(self.job(self.get()))
        self.lose()
        self.assertFalse(self.claims.absorbs(self.redelivered()))

    def test_ack_of_an_unnamed_original_in_doubt_lets_another_like_it_be_run(self) -> None:
        for _ in range(2):
            self.publish(self.queue, "a")
        job = self.job(self.get())
        job.leases = 1
        superseded = self.give_lease(job)
        assert superseded is not None
        superseded.ack(self.claims.note_of(superseded, job))
        self.lose()  # right after the ack, which the broker has
        self.assertFalse(self.claims.absorbs(self.redelivered()))

    def test_name_is_remembered_for_an_hour_and_a_message_without_one_for_minutes(self) -> None:
        for name, least, most in (("m", 3590, 3600), (None, 50, 60)):
            with self.subTest(name):
                self.publish(self.queue, "a", message_id=name)
                job = self.job(self.get())
                job.leases = 1
                self.lose()
                self.give_lease(job, message_id=name)
                self.settle(job)
                until = self.claims._surplus._once[job.identity][0][0] - time.monotonic()
                self.assertTrue(least < until <= most, until)
                self.bodies(self.queue)

    def test_original_is_expected_as_long_as_the_job_takes(self) -> None:
        self.claims = claims.Claims("bob-villa", 0.1)
        for _ in range(2):
            self.publish(self.queue, "a")
        job = self.job(self.get())
        job.leases = 1
        self.lose()
        self.give_lease(job)
        time.sleep(0.3)  # as a long job, whose slot is the only one
        self.assertTrue(self.claims.absorbs(self.redelivered()))
        self.assertFalse(self.claims.absorbs(self.redelivered()))

    def test_message_that_is_one_too_many_is_expected_again_when_its_ack_fails(self) -> None:
        for name, known in (("m", True), (None, False)):
            with self.subTest(name):
                self.publish(self.queue, "a", message_id=name)
                job = self.job(self.get())
                job.leases = 1
                self.lose()
                self.give_lease(job, message_id=name)
                extra = self.claims.absorbs(original := self.redelivered())
                assert extra is not None
                self.assertEqual(extra.note.key is not None, known, "in doubt only what has a name is remembered")
                self.claims.expect(extra)
                self.assertTrue(self.claims.absorbs(original))
                original.ack()
                self.settle(job)

    def test_lease_is_given_up_that_cannot_be_found_however_often_it_was_looked_for_before(self) -> None:
        self.publish(self.queue, "a")
        job = self.job(self.get())
        job.leases, job.awaited = 1, True
        self.lose()
        self.asked(9)
        self.claims.take(job, self.get())
        self.asked(20)
        self.assertFalse(job.awaited)

    def test_lost_lease_is_not_replaced_by_another_message_of_the_same_body(self) -> None:
        for _ in range(2):
            self.publish(self.queue, "a")
        job = self.job(self.get())
        job.lease = job.leases = 1
        self.lose()
        self.assertIsNone(self.claims.owner(self.redelivered()))

    def test_message_that_is_not_redelivered_is_new(self) -> None:
        self.publish(self.queue, "a", message_id="m")
        self.settle(self.job(self.get()))
        self.lose()
        self.publish(self.queue, "a", message_id="m")
        self.assertFalse(self.claims.absorbs(self.get()))

    def test_leased_message_that_was_put_back_is_new(self) -> None:
        self.publish(self.queue, "a", message_id="m")
        job = self.job(self.get())
        job.leases = 1
        job.delivery.requeue()
        self.claims.settled(job, back=True)
        delivery = self.get()
        self.assertTrue(delivery.redelivered)
        self.assertFalse(self.claims.absorbs(delivery), "or it would be acknowledged and never run")

    def test_copy_for_another_attempt_is_not_taken_for_the_message_that_was_settled(self) -> None:
        self.publish(self.queue, "a", message_id="m")
        job = self.job(self.get())
        job.leases = 1
        self.settle(job)
        properties = envelope.anew(job.properties, 2)
        self.publish(self.queue, "a", message_id="m", headers=properties.headers)
        self.assertFalse(self.claims.absorbs(self.redelivered()))

    def test_copy_that_was_published_twice_is_run_once(self) -> None:
        self.publish(self.queue, "a")
        properties = envelope.anew(self.get().properties, 2)
        for _ in range(3):  # as when the connection breaks before the confirm
            self.publish(self.queue, "a", headers=properties.headers)
        job = self.job(self.get())
        second = self.get()
        self.assertIs(self.claims.owner(second), job)
        self.assertIs(self.claims.take(job, second), second)
        self.settle(job)
        self.assertTrue(self.claims.absorbs(self.get()))

    def test_original_that_was_lost_before_its_lease_came_is_known_once(self) -> None:
        for _ in range(2):
            self.publish(self.queue, "a", message_id="m")
        job = self.job(self.get())
        job.leases = 1
        self.lose()
        self.give_lease(job)
        self.settle(job)
        first, second = self.redelivered(), self.redelivered()
        self.assertIsNone(self.claims.owner(first))
        self.assertTrue(self.claims.absorbs(first))
        self.assertFalse(self.claims.absorbs(second), "the same message, sent once more, is another job")

    def test_message_like_that_of_a_leased_job_is_new_when_another_client_gave_it_back(self) -> None:
        for _ in range(3):
            self.publish(self.queue, "a", message_id="m")
        job = self.job(self.get())
        job.leases = 1
        superseded = self.give_lease(job)
        assert superseded is not None
        superseded.ack(self.claims.note_of(superseded, job))
        while_it_runs = self.redelivered()
        self.assertIsNone(self.claims.owner(while_it_runs))
        self.assertFalse(self.claims.absorbs(while_it_runs))
        self.settle(job)
        self.assertFalse(self.claims.absorbs(self.redelivered()))

    def test_message_with_other_headers_is_another_one(self) -> None:
        self.publish(self.queue, "a", headers={"file": "one"})
        self.job(self.get())
        self.lose()
        self.bodies(self.queue)
        self.publish(self.queue, "a", headers={"file": "two"})
        self.assertIsNone(self.claims.owner(self.redelivered()))

    def test_empty_message_id_is_no_name(self) -> None:
        for _ in range(2):
            self.publish(self.queue, "a", message_id="")
        self.settle(self.job(self.get()))
        self.lose()
        self.assertFalse(self.claims.absorbs(self.redelivered()))

    def test_headers_that_rbit_does_not_write_are_no_lease(self) -> None:
        for headers in (
            {"x-rbit-job": "t" * 32, "x-rbit-lease": 1}, {"x-rbit-job": TOKEN * 1000, "x-rbit-lease": 1},
            {"x-rbit-job": TOKEN, "x-rbit-lease": 2 * envelope.LARGEST}, {"x-rbit-copy": "c" * 100_000},
        ):
            with self.subTest(str(headers)[:60]):
                self.publish(self.queue, "a", headers=headers)
                tag = envelope.tag_of(self.get().properties)
                self.assertEqual((tag.job, tag.lease, tag.copy), (None, 0, None))

    def test_original_of_a_lease_that_an_earlier_process_left_is_known_once(self) -> None:
        for _ in range(2):
            headers = {"CC": [], "x": 1}
            self.publish(self.queue, "a", message_id="m", headers=headers, delivery_mode=1, expiration="60000")
        original = self.get()
        properties = envelope.copy(original.properties, 300.0, job=TOKEN, lease=1)
        self.publish(lease := self.declare(self.queue_name("lease")), "a", **vars(properties))
        self.lose()  # as when that process was killed
        left = Queue(self.connection, lease, self.queue).get()
        assert left is not None
        self.job(left)
        first, second = self.redelivered(), self.redelivered()
        self.assertIsNone(self.claims.owner(first))
        self.assertTrue(self.claims.absorbs(first))
        self.assertFalse(self.claims.absorbs(second))

    def test_queues_of_doubtful_acks_are_looked_at_once_more_before_the_end(self) -> None:
        self.publish(self.queue, "a", message_id="m")
        self.settle(self.job(self.get()))
        self.assertFalse(self.claims.unsettled)
        self.lose()  # right after the ack
        self.assertTrue(self.claims.unsettled)
        self.assertEqual(self.claims.to_search(), [])
        self.claims.search_anew(once_more=True)
        for _ in range(2):  # until the look has come to its end
            self.assertEqual(self.claims.to_search(), [self.queue])
        self.claims.looked_at(self.queue)
        self.assertEqual((self.claims.to_search(), self.claims.unsettled), ([], False))

    def test_lease_with_the_largest_number_is_run_as_a_new_message(self) -> None:
        self.publish(self.queue, "a", headers={"x-rbit-job": TOKEN, "x-rbit-lease": envelope.LARGEST})
        job = self.job(self.get())
        self.assertEqual((job.lease, job.leases), (0, 0))
        self.assertNotEqual(job.token, TOKEN)

    def test_message_is_looked_for_three_times_where_others_wait_and_for_ever_among_leases(self) -> None:
        self.publish(self.queue, "a")
        job = self.job(self.get())
        job.leases = 1
        self.lose()
        asked = self.asked(20)
        self.assertEqual(asked.count(self.queue), 3)
        self.assertEqual(asked[:2], [self.queue, f"rbit.lease.bob-villa.{self.queue}"], "the original first")
        self.assertEqual(len(asked), 23)
        self.claims.search_anew()
        self.assertNotIn(self.queue, self.asked(20))
        self.claims.search_anew(once_more=True)
        self.assertEqual(self.asked(20).count(self.queue), 1)

    def test_lease_is_looked_for_in_its_queue_only_until_it_is_over(self) -> None:
        self.publish(self.queue, "a")
        job = self.job(self.get())
        job.lease = job.leases = 1
        self.lose()
        self.assertNotIn(self.queue, self.asked(20))
        job.lease_ends = 0.0
        self.claims.search_anew()
        self.assertIn(self.queue, self.asked(1))

    def test_hour_of_an_ended_job_counts_from_the_loss_of_its_delivery(self) -> None:
        self.publish(self.queue, "a")
        job = self.job(self.get())
        job.ended_at = time.monotonic()
        with patch.object(claims, "REMEMBERED", 0.2):
            time.sleep(0.3)  # the hour is over since its end
            self.lose()
            self.asked(1)
            self.assertEqual(self.claims.forget(), [])
            self.wait_until(self.claims.forget, what="an hour since the loss")

    def test_stop_waits_for_a_lost_message_without_a_lease_until_the_broker_has_put_it_back(self) -> None:
        self.claims = Claims("bob-villa", 0.5)
        self.publish(self.queue, "a")
        job = self.job(self.get())
        self.lose()
        self.assertEqual(self.asked(1), [self.queue])
        self.claims.looked_at(self.queue)
        job.ended_at = time.monotonic()
        self.claims.search_anew(once_more=True)
        self.assertEqual(self.asked(2), [self.queue])
        self.claims.looked_at(self.queue)
        self.assertLessEqual(job.search_at, job.lost_at + 0.5, "the next look is when it is back")
        time.sleep(0.6)
        self.assertEqual(self.claims.forget(), [], "not looked for since it is back")
        self.assertEqual(self.asked(1), [self.queue])
        self.assertEqual(self.claims.forget(), [], "that look failed")
        self.assertEqual(self.asked(1), [self.queue])
        self.claims.looked_at(self.queue)
        self.assertEqual(self.claims.forget(), [job])

    def test_job_that_waits_for_its_first_lease_is_given_up_when_that_is_over(self) -> None:
        self.publish(self.queue, "a")
        job = self.job(self.get())
        job.leases, job.awaited, job.lease_ends = 1, True, time.monotonic() + 60
        self.lose()
        self.asked(3)
        self.assertEqual(self.claims.forget(), [])
        job.lease_ends = 0.0
        job.begun = True
        self.assertEqual(self.claims.forget(), [])
        job.begun = False
        self.assertEqual(self.claims.forget(), [job])

    def is_absorbed(self, passed: bool) -> bool:
        """Have a job lose its unnamed original to another client; return whether one like it is absorbed later."""
        self.claims = Claims("bob-villa", 0.2)
        self.publish(self.queue, "a")
        job = self.job(self.get())
        self.lose()
        self.get().ack(Settled(self.queue, None))  # another client's
        self.give_lease(job)
        self.claims.passed(self.queue, None)  # too early: it may not be back
        time.sleep(0.3)
        if passed:
            self.claims.passed(self.queue, None)
        self.publish(self.queue, "a")
        return self.claims.absorbs(self.redelivered()) is not None

    def test_original_without_a_name_that_is_not_back_in_time_is_expected_no_more(self) -> None:
        self.assertFalse(self.is_absorbed(passed=True))

    def test_original_without_a_name_is_expected_as_long_as_nobody_could_look(self) -> None:
        self.assertTrue(self.is_absorbed(passed=False))

    def test_stop_waits_for_the_lease_of_an_ended_job(self) -> None:
        self.claims = Claims("bob-villa", 0.5)
        self.publish(self.queue, "a")
        job = self.job(self.get())
        self.give_lease(job)
        job.leases = 1
        self.lose()
        self.asked(1)
        job.ended_at = time.monotonic()
        time.sleep(0.6)
        self.claims.search_anew(once_more=True)
        self.asked(1)
        self.assertEqual(self.claims.forget(), [])

    def asked(self, times: int) -> list[str]:
        """Return the queues of so many looks, without the waits between them."""
        found = []
        for _ in range(times):
            for job in self.claims.jobs:
                job.search_at = 0.0
            found += self.claims.to_search()
        return found

    def give_lease(self, job: Job, message_id: str | None = None) -> Delivery | None:
        """Have the first lease of a job come; return the delivery that it replaces."""
        headers = {"x-rbit-job": job.token, "x-rbit-lease": 1}
        lease = self.declare(self.queue_name("lease"))
        self.publish(lease, job.message.body, headers=headers, message_id=message_id)
        found = Queue(self.connection, lease, self.queue).get()
        assert found is not None
        self.assertIs(self.claims.owner(found), job)
        return self.claims.take(job, found)

    def test_of_two_leases_of_a_job_the_newer_is_kept(self) -> None:
        for number in (2, 1, 3):
            headers = {"x-rbit-job": TOKEN, "x-rbit-lease": number}
            self.publish(self.queue, "a", headers=headers)
        job = self.job(self.get())
        older, newer = self.get(), self.get()
        held = job.delivery
        self.assertIs(self.claims.owner(older), job)
        self.assertIs(self.claims.take(job, older), older)
        self.assertIs(self.claims.take(job, newer), held)
        self.assertEqual((job.delivery, job.lease), (newer, 3))


if __name__ == "__main__":
    unittest.main()
