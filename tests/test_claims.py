"""Whose message a delivery is, on real deliveries in this process."""

from __future__ import annotations

import unittest
from dataclasses import replace

from rbit import envelope
from rbit.broker import Connection, Delivery, Queue
from rbit.claims import Claims
from rbit.config import RunnerSettings
from rbit.job import Job
from rbit.runners import make
from rbit.settings import AmqpSettings
from tests.support.case import BrokerCase

SECTION = RunnerSettings("q", "shell!true", None, None, False, "park", 60.0, 0, 10, {})


class ClaimsTest(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        self.claims = Claims("bob-villa", 60.0)
        self.queue = self.declare(self.queue_name())
        self.source = self.connect()

    def connect(self) -> Queue:
        amqp = AmqpSettings((("127.0.0.1", None),), self.node.port, "guest", "guest", "/", 30, 60.0, "classic")
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
        made = Job(delivery, replace(SECTION, queue=self.queue), make(SECTION), 1)
        self.claims.jobs.append(made)
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

    def test_original_of_a_leased_job_that_was_settled_is_known(self) -> None:
        for _ in range(2):
            self.publish(self.queue, "a", message_id="m")
        job = self.job(self.get())
        job.leases = 1
        self.settle(job)
        self.assertTrue(self.claims.absorbs(self.redelivered()))

    def test_of_two_leases_of_a_job_the_newer_is_kept(self) -> None:
        for number in (2, 1, 3):
            headers = {"x-rbit-job": "token", "x-rbit-lease": number}
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
