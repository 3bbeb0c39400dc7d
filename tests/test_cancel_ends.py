"""Cancel requests beside the end of the client, and for jobs that have failed."""

from __future__ import annotations

import signal
import unittest

from rbit.broker import Connection
from rbit.presence import Presence
from tests.support.client_case import NAME, ClientCase, notes
from tests.support.proxy import Proxy
from tests.support.settings import amqp_settings


class StoppedTest(ClientCase):
    def test_stop_waits_until_the_cancelled_status_of_a_job_elsewhere_is_published(self) -> None:
        job = self.submit()
        self.channel.queue_purge(self.queue)
        with Proxy(self.node.port) as proxy:
            rbit = self.start("record", amqp={"port": proxy.port})
            self.wait_until(self.has_name, what="the name")
            target, proxy.target = proxy.target, 1  # no new connection for the publisher
            self.ask_to_cancel(job)
            rbit.wait_for_line("is not here")
            rbit.signal(signal.SIGTERM)
            rbit.wait_for_line("stopping")
            tried = proxy.accepted
            self.wait_until(lambda: proxy.accepted >= tried + 2, what="two more tries")
            proxy.target = target
            self.assertEqual(rbit.wait(), 0, rbit.output)
        self.wait_for_statuses(job, "Waiting", "Cancelled")

    def test_requests_that_have_come_are_obeyed_though_the_connection_is_lost(self) -> None:
        with Proxy(self.node.port) as proxy:
            amqp = amqp_settings(proxy.port, 60)
            connection = Connection(amqp, "test")
            self.addCleanup(connection.close)
            presence = Presence(NAME, 10.0)
            presence.begin()
            self.assertTrue(presence.claim(connection))
            for text in ("a", "b"):
                self.command(text)
            self.wait_until(lambda: connection.wait(0.1) or len(presence._come) == 2, what="both")
            proxy.cut()
            presence.begin()
            bodies = [command[0] for command in iter(presence.command, None) if command]
            self.assertEqual(bodies, [b"a", b"b"])

    def test_requests_are_acknowledged_once_they_are_obeyed(self) -> None:
        rbit = self.start("record")
        self.wait_until(self.has_name, what="the name")
        for job in range(50, 350):
            self.ask_to_cancel(job)
        self.wait_until(lambda: rbit.output.count("is not here") == 300, what="all of them")
        self.wait_until(lambda: self.unacked(NAME) == 0, what="their acknowledgement")
        self.assertEqual(rbit.stop(), 0, rbit.output)


class AgainTest(ClientCase):
    def test_job_that_has_failed_and_is_put_back_can_be_cancelled(self) -> None:
        job = self.submit()
        rbit = self.start("shell!echo run %JOB >>ran; test -e fixed || exit 1; until [ -e go ]; do sleep .1; done")
        self.wait_for_statuses(job, "Waiting", "Building", "Failed")
        self.wait_until(lambda: self.depth(f"{self.queue}.failed") == 1, what="the parked message")
        (rbit.folder / "fixed").touch()
        other = self.submit(1)
        self.wait_for_note(rbit, f"run {other}")
        text = (rbit.folder / "rbit.ini").read_text()
        self.assertEqual(self.rbit(text, "--retry-failed", self.queue).wait(), 0)
        self.ask_to_cancel(job)
        self.wait_for_statuses(job, "Waiting", "Building", "Failed", "Cancelled")
        (rbit.folder / "go").touch()
        self.wait_for_ack()
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual(notes(rbit), [f"run {job}", f"run {other}"])

    def test_request_for_a_local_job_that_is_not_here_is_not_told_to_pybit(self) -> None:
        self.follow()
        rbit = self.start("record")
        self.wait_until(self.has_name, what="the name")
        self.ask_to_cancel(7, headers={"x-rbit-local": True})
        self.assertEqual(self.last_update(7)["status"], "Cancelled")
        self.assertEqual(rbit.stop(), 0, rbit.output)
        self.assertEqual([request.path for request in self.web.requests if "/job" in request.path], [])


if __name__ == "__main__":
    unittest.main()
