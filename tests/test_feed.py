"""Statuses on the exchange ``rbit.status``, on a real broker: what is published, who gets it, who may not."""

from __future__ import annotations

import json
import logging
import secrets
import time
import unittest
from typing import Any
from unittest import mock

from rbit.feed import Feed
from rbit.publisher import Publisher
from rbit.status import Updates
from rbit.update import Update, parse
from tests.support.case import BrokerCase
from tests.support.proxy import Proxy
from tests.support.settings import amqp_settings

FIELDS = {"job", "queue", "client", "status", "message", "time", "attempt", "final"}


class FeedCase(BrokerCase):
    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch("rbit.publisher.wait_after", lambda *_: 0.1)
        patch.start()
        self.addCleanup(patch.stop)
        self.client = f"client-{secrets.token_hex(4)}"
        self.own = f"rbit.status.{self.client}"
        self.addCleanup(self.channel.queue_delete, self.own)
        self.jobs = self.queue_name()
        self.arrived = 0
        self.told = False

    def feed(self, to_pybit: bool = True, quorum: bool = False, user: str = "guest", port: int = 0) -> Feed:
        """Return what publishes for a client."""
        amqp = amqp_settings(port or self.node.port, 60, user)
        publisher = Publisher(amqp, "test")
        publisher.start()
        self.addCleanup(publisher.join, 30.0)
        self.addCleanup(publisher.close)
        self.publisher = publisher
        return Feed(self.client, publisher, self.arrive if to_pybit else None, quorum)

    def arrive(self) -> None:
        self.arrived += 1

    def updates(self, feed: Feed, job: int | None = 1, answers: Any = "m") -> Updates:
        first = Update(job, self.jobs, feed.client, "", "", 0.0, 3)
        return Updates("a job", first, answers, feed.publish, feed.to_pybit)

    def work_off(self, updates: Updates) -> None:
        """Report Building twice and Done, and wait until all is published."""
        updates.set_status("Building")
        updates.set_status("Building", "half \u2713")
        updates.finish("Done", "", True, lambda: setattr(self, "told", True))
        self.wait_until(lambda: self.told, what="the statuses")

    def follow(self, key: str) -> str:
        """Bind a queue of our own; return it."""
        self.channel.exchange_declare("rbit.status", "topic", durable=True)
        queue = str(self.channel.queue_declare("", exclusive=True).method.queue)
        self.channel.queue_bind(queue, "rbit.status", key)
        return queue

    def messages(self, queue: str) -> list[tuple[Any, Any, dict[str, Any]]]:
        """Take all out of a queue; return the deliveries, the properties and the JSON."""
        found = []
        while (got := self.channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append((got[0], got[1], json.loads(got[2])))
        return found

class FeedTest(FeedCase):
    def test_update_is_the_documented_json_with_its_properties_and_key(self) -> None:
        queue = self.follow("#")
        self.work_off(self.updates(self.feed()))
        delivery, properties, said = self.messages(queue)[1]
        self.assertEqual(set(said), FIELDS)
        self.assertLess(abs(said.pop("time") - time.time()), 600.0)
        self.assertEqual(said, {
            "job": 1, "queue": self.jobs, "client": self.client, "status": "Building", "message": "half \u2713",
            "attempt": 3, "final": False,
        })
        self.assertEqual((delivery.exchange, delivery.routing_key), ("rbit.status", f"{self.jobs}.Building"))
        self.assertEqual((properties.content_type, properties.delivery_mode), ("application/json", 2))
        self.assertEqual((properties.correlation_id, properties.app_id), ("m", "rbit"))
        self.assertLess(abs(properties.timestamp - time.time()), 600.0)
        self.assertEqual(len(properties.message_id), 32)

    def test_exchange_is_durable_and_of_type_topic_and_the_queue_too(self) -> None:
        for quorum in (False, True):
            self.channel.queue_delete(self.own)
            self.told = False
            self.work_off(self.updates(self.feed(quorum=quorum)))
            self.channel.exchange_declare("rbit.status", "topic", durable=True)
            arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000} if quorum else {}
            self.channel.queue_declare(self.own, durable=True, arguments=arguments)

    def test_follower_gets_each_once_and_pybits_queue_the_transitions(self) -> None:
        queues = self.follow("#"), self.follow(f"{self.jobs}.*"), self.follow("*.Done")
        self.work_off(self.updates(self.feed()))
        everything, of_jobs, done, own = map(self.messages, (*queues, self.own))
        for found in (everything, of_jobs):
            self.assertEqual([said["status"] for _, _, said in found], ["Building", "Building", "Done"])
            self.assertEqual(len({properties.message_id for _, properties, _ in found}), 3)
        self.assertEqual([said["final"] for _, _, said in done], [True])
        self.assertEqual([said["status"] for _, _, said in own], ["Building", "Done"])
        for _, properties, _ in (*everything, *own):
            self.assertNotIn("BCC", properties.headers or {})
        self.assertEqual(self.arrived, 2)

    def test_client_gets_its_own_updates_only(self) -> None:
        other = f"client-{secrets.token_hex(4)}"
        self.addCleanup(self.channel.queue_delete, f"rbit.status.{other}")
        feed = self.feed()
        for client, job in ((other, 8), (self.client, 9)):
            self.told = False
            self.work_off(self.updates(Feed(client, self.publisher, self.arrive, False), job))
        self.assertEqual([said["job"] for _, _, said in self.messages(self.own)], [9, 9])
        self.assertEqual([said["job"] for _, _, said in self.messages(f"rbit.status.{other}")], [8, 8])
        self.assertTrue(feed.to_pybit)

    def test_queue_that_is_deleted_is_made_again_for_the_next_status(self) -> None:
        updates = self.updates(self.feed())
        self.work_off(updates)
        self.channel.queue_delete(self.own)
        self.told = False
        with self.assertLogs("rbit", logging.INFO) as logged:
            self.work_off(updates)
        self.assertIn(f"INFO:rbit.broker:queue {self.own} is created", logged.output)
        self.assertEqual([said["status"] for _, _, said in self.messages(self.own)], ["Building", "Done"])

    def test_queue_that_is_deleted_is_made_again_though_somebody_follows(self) -> None:
        followed = self.follow("#")
        updates = self.updates(self.feed())
        for _ in range(2):
            self.channel.queue_delete(self.own)
            self.told = False
            self.work_off(updates)
            self.assertEqual([said["status"] for _, _, said in self.messages(self.own)], ["Building", "Done"])
        self.assertEqual(len(self.messages(followed)), 6)

    def test_binding_that_is_gone_is_made_again_though_somebody_follows(self) -> None:
        updates = self.updates(self.feed())
        self.work_off(updates)
        self.messages(self.own)
        for number in range(2):
            if number:
                self.channel.exchange_delete("rbit.status")
            else:
                self.channel.queue_unbind(self.own, "rbit.status", f"to.{self.client}")
            followed = self.follow("#")
            self.told = False
            self.work_off(updates)
            self.assertEqual([said["status"] for _, _, said in self.messages(self.own)], ["Building", "Done"])
            self.assertEqual(len(self.messages(followed)), 3)

    def test_full_queue_of_a_follower_holds_nothing_up(self) -> None:
        full = self.queue_name()
        self.declare(full, x_max_length=1, x_overflow="reject-publish")
        self.channel.exchange_declare("rbit.status", "topic", durable=True)
        self.channel.queue_bind(full, "rbit.status", "#")
        followed = self.follow("#")
        with self.assertLogs("rbit.client", logging.WARNING) as logged:
            self.work_off(self.updates(self.feed()))
        for queue, expected in ((followed, ["Building", "Building", "Done"]), (self.own, ["Building", "Done"])):
            # A refused one may be in the client's own queue twice; the pump tells PyBit of one by its id.
            statuses = {one.message_id: said["status"] for _, one, said in self.messages(queue)}
            self.assertEqual(list(statuses.values()), expected)
        self.assertIn("a copy for the exchange rbit.status is given up", logged.output[0])
        self.work_off(self.updates(self.feed(to_pybit=False)))  # nor one that is not for PyBit

    def test_exchange_of_another_type_is_not_used_and_pybit_is_told_all_the_same(self) -> None:
        self.channel.exchange_delete("rbit.status")
        self.channel.exchange_declare("rbit.status", "fanout", durable=True)
        self.addCleanup(self.channel.exchange_delete, "rbit.status")
        other = self.queue_name()
        self.declare(other)
        self.channel.queue_bind(other, "rbit.status")
        with self.assertLogs("rbit.client", logging.WARNING) as logged:
            self.work_off(self.updates(self.feed()))
        self.assertEqual([said["status"] for _, _, said in self.messages(self.own)], ["Building", "Done"])
        self.assertEqual(self.depth(other), 0)
        self.assertRegex(logged.output[0], "exchange rbit.status was made by somebody else, .*; please delete it")

    def test_without_pybit_there_is_no_queue_and_followers_get_all_the_same(self) -> None:
        queue = self.follow("#")
        self.work_off(self.updates(self.feed(to_pybit=False)))
        self.assertEqual([said["status"] for _, _, said in self.messages(queue)], ["Building", "Building", "Done"])
        self.assertEqual((self.depth(self.own), self.arrived), (-1, 0))

    def test_without_followers_statuses_are_no_trouble(self) -> None:
        with self.assertNoLogs("rbit", logging.WARNING):
            self.work_off(self.updates(self.feed(to_pybit=False), job=None))

    def test_names_that_are_long_or_strange_are_published_all_the_same(self) -> None:
        queue = self.follow("#")
        updates = self.updates(self.feed(), answers=b"\xff")
        updates.set_status("\u00df" * 200, "\x00\udcff" + "x" * 300_000)
        self.work_off(updates)
        delivery, properties, said = self.messages(queue)[0]
        self.assertEqual(delivery.routing_key, f"{self.jobs}.{'ß' * 200}".encode()[:255].decode("utf-8", "ignore"))
        self.assertEqual((properties.correlation_id, len(said["message"])), (b"\xff", 300_002))

    def test_confirm_that_is_lost_has_the_update_published_again_under_the_same_id(self) -> None:
        with Proxy(self.node.port) as proxy:
            updates = self.updates(self.feed(port=proxy.port))
            self.work_off(updates)
            self.messages(self.own)
            self.told = False
            proxy.hold_after("the last one")
            updates.finish("Failed", "the last one", True, lambda: setattr(self, "told", True))
            self.wait_until(lambda: self.depth(self.own) == 1 and proxy.holds, what="the update, unconfirmed")
            self.assertFalse(self.told)
            proxy.cut()
            proxy.release()
            self.wait_until(lambda: self.told, what="the confirm")
        found = self.messages(self.own)
        self.assertEqual(len(found), 2, "the pump tells PyBit of one of them")
        self.assertEqual(len({properties.message_id for _, properties, _ in found}), 1)

    def test_body_says_what_the_update_was(self) -> None:
        update = Update(None, "q", "c", "Done", "\udcff", 1.5, 2, True)
        self.assertEqual(parse(update.body), update)


class RefusedTest(FeedCase):
    """A user who may not make or use the exchange."""

    def setUp(self) -> None:
        super().setUp()
        self.user = f"user-{secrets.token_hex(4)}"
        self.node.ctl("add_user", self.user, self.user)
        self.addCleanup(self.node.ctl, "delete_user", self.user)

    def allow(self, pattern: str) -> None:
        self.node.ctl("set_permissions", self.user, pattern, pattern, pattern)

    def test_refused_status_that_is_not_for_pybit_is_given_up(self) -> None:
        self.allow("^$")
        self.channel.exchange_delete("rbit.status")
        with self.assertLogs("rbit.client", logging.WARNING) as logged:
            self.work_off(self.updates(self.feed(to_pybit=False, user=self.user)))
        self.assertRegex(logged.output[0], "a copy for the exchange rbit.status is given up, as RabbitMQ did not")
        self.assertLessEqual(len(logged.output), 2)

    def test_status_for_pybit_needs_no_right_to_the_exchange(self) -> None:
        self.channel.exchange_declare("rbit.status", "topic", durable=True)
        followed = self.follow("#")
        self.allow(r"^rbit\.status\.|^amq\.default$")
        with self.assertLogs("rbit.client", logging.WARNING) as logged:
            self.work_off(self.updates(self.feed(user=self.user)))
        self.assertEqual([said["status"] for _, _, said in self.messages(self.own)], ["Building", "Done"])
        self.assertEqual((self.messages(followed), self.arrived), ([], 2))
        self.assertRegex(logged.output[0], "rbit.status is given up, .*refused for user.*; see rabbitmqctl")

    def test_refused_status_for_pybit_is_held_until_it_is_published(self) -> None:
        self.allow("^$")
        updates = self.updates(self.feed(user=self.user))
        with self.assertLogs("rbit.client", logging.WARNING) as logged:
            updates.set_status("Building")
            updates.finish("Done", "", True, lambda: setattr(self, "told", True))
            self.wait_until(lambda: len(logged.output) >= 2, what="two refusals")
        self.assertRegex(logged.output[0], "a copy for the exchange rbit.status is given up, as RabbitMQ")
        self.assertRegex(logged.output[1], f"a copy for the queue {self.own} is tried again, as RabbitMQ")
        self.assertTrue(updates.owed and not self.told)
        self.allow(".*")
        self.wait_until(lambda: self.told, 60, "the statuses")
        self.assertEqual([said["status"] for _, _, said in self.messages(self.own)], ["Building", "Done"])

    def test_status_for_pybit_that_is_refused_until_the_stop_is_owed(self) -> None:
        self.allow("^$")
        updates = self.updates(self.feed(user=self.user))
        with self.assertLogs("rbit", logging.WARNING) as logged:
            updates.set_status("Building")
            self.wait_until(lambda: logged.output, what="a refusal")
            self.publisher.close()
            self.publisher.join(30.0)
        self.assertTrue(updates.owed)
        self.assertIn("the status Building was not published before the stop", logged.output[-1])


if __name__ == "__main__":
    unittest.main()
