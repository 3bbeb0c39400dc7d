"""Publishing, with confirms, on a connection of its own; what is missing of rbit's own is made first."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPChannelError, AMQPError, ChannelClosedByBroker

from rbit.broker import wire
from rbit.broker.burst import Burst, Sending, not_taken
from rbit.broker.connection import SERVED, open_connection, reason
from rbit.broker.forms import Form, Topic, other_type
from rbit.broker.queue import NOT_FOUND, is_missing
from rbit.errors import BrokerUnreachable, ConnectionLost, PublishFailed, Unroutable
from rbit.message import Properties
from rbit.settings import AmqpSettings

log = logging.getLogger("rbit.broker")

NOT_MADE = "with declare = no in [amqp] rbit makes none; rbit CONFIG --definitions shows how to make it"

PRECONDITION_FAILED = 406  # reply code of AMQP 0-9-1
OTHER_TYPE = "arg 'type'"  # what RabbitMQ says to that code when an exchange that is there is of another type


class Outlet:
    """A connection of its own for publishing, with confirms.

    Arguments:
        amqp, name, blocked: as of ``open_connection``.
        on_alarm: called with what the broker says when an alarm blocks this connection, in the middle of a
            publish that hangs then.

    Errors: those of ``open_connection``.

    Attributes:
        serve_every: seconds between two calls of ``serve`` at most, if nothing is published.
    """

    def __init__(
        self, amqp: AmqpSettings, name: str, blocked: float, on_alarm: Callable[[str], None] = lambda reason: None
    ) -> None:
        self.serve_every = SERVED * amqp.heartbeat
        self._declares = amqp.declare
        self._connection, _ = open_connection(amqp, name, blocked)
        wire.on_blocked(self._connection, on_alarm)  # the blocking connection would call it after the publish
        self._nowhere = f"rbit.probe.{secrets.token_hex(8)}"  # no queue has this name
        self._there: set[str | tuple[str, str]] = set()  # what of rbit's own is known to exist
        try:
            self._burst = Burst(self._connection)
        except (AMQPError, OSError) as error:
            self.close()
            raise BrokerUnreachable(reason(error)) from error

    def renew(self) -> None:
        """Goes on after a PublishFailed, which may have closed the channel. Errors: ConnectionLost."""
        self._there.clear()
        with translated(""):
            if not self._burst.is_open:
                self._burst = Burst(self._connection)

    def probe(self) -> None:
        """Returns when the broker takes messages. Errors: PublishFailed if it refuses any; ConnectionLost.

        An alarm stops whoever publishes, and what was being published comes through when it is over, long
        after its sender gave up and sent it again. So a message that no queue takes goes ahead; one without
        a body would not be stopped (seen).
        """
        self.publish(Sending(self._nowhere, b"?", Properties(), mandatory=False, name="the default exchange"))

    def room(self, properties: Properties) -> int:
        """Returns how many bytes properties leave in their frame.

        Below 0 they cannot be published: the broker would end the connection.
        """
        header = pika.frame.Header(0, 0, pika.BasicProperties(**vars(properties)))
        return wire.frame_max(self._connection) - len(header.marshal())

    def publish(self, sending: Sending) -> None:
        """Publishes a message and waits until the broker has it.

        Errors: Unroutable when no queue takes it; another PublishFailed when the broker refuses it or did not
        confirm; ConnectionLost when the connection broke, and then the broker may or may not have it.
        """
        (failure,) = self.publish_all([sending])
        if failure is not None:
            raise failure

    def publish_all(self, sendings: Sequence[Sending]) -> list[PublishFailed | None]:
        """Publishes messages at once; as ``Burst.publish``. Errors: ConnectionLost."""
        with translated(""):
            failures = self._burst.publish(sendings)
        return [self._explained(failure, sending) for failure, sending in zip(failures, sendings, strict=True)]

    def _explained(self, failure: PublishFailed | None, sending: Sending) -> PublishFailed | None:
        if self._declares or sending.exchange or not isinstance(failure, Unroutable):
            return failure
        return Unroutable(f"there is no queue {sending.key}; {NOT_MADE}", refused=True)

    def ensure(self, form: Form | Topic) -> None:
        """Makes what is missing of rbit's own, if it may. Errors: PublishFailed, ConnectionLost."""
        if not self._declares:
            return
        if isinstance(form, Form):
            self._ensure_queue(form)
        elif (form.name, form.key) not in self._there:
            self._ensure_topic(form)
            self._there.add((form.name, form.key))
        elif form.queue is not None:
            self._bind(form, form.queue)

    def _ensure_topic(self, form: Topic) -> None:
        with translated(form.name):
            if not self._is_there(lambda passive: self._declare_topic(form, passive)):
                log.info("exchange %s is created", form.name)
            elif form.strict:
                self._compare_topic(form)
        if form.queue is not None:
            self._ensure_queue(form.queue)
            with translated(form.queue.name), self._other_channel() as channel:
                channel.queue_bind(form.queue.name, form.name, form.key)

    def _bind(self, form: Topic, queue: Form) -> None:
        """Makes sure that the queue is still bound: a publish does not tell, if another one takes the message."""
        try:
            with translated(queue.name):
                self._burst.bind(queue.name, form.name, form.key)
        except PublishFailed as error:
            if not is_missing(error):
                raise
            self.renew()
            self._ensure_topic(form)
            self._there.add((form.name, form.key))

    def _declare_topic(self, form: Topic, passive: bool) -> None:
        with self._other_channel() as channel:
            channel.exchange_declare(form.name, form.type, passive=passive, durable=True)

    def _compare_topic(self, form: Topic) -> None:
        try:
            self._declare_topic(form, passive=False)
        except ChannelClosedByBroker as error:
            if error.reply_code == PRECONDITION_FAILED and OTHER_TYPE in str(error.reply_text):
                raise PublishFailed(
                    f"the exchange {form.name} was made by somebody else, and its messages would go elsewhere; "
                    f"please delete it: {reason(error)}", refused=True
                ) from error

    def _ensure_queue(self, form: Form) -> None:
        if form.name in self._there:
            return
        with translated(form.name):
            if self._is_there(lambda passive: self._declare(form, passive)):
                self._compare(form)
            else:
                log.info("queue %s is created", form.name)
        self._there.add(form.name)

    @staticmethod
    def _is_there(declare: Callable[[bool], None]) -> bool:
        """Makes what is missing; returns whether it was there.

        Arguments:
            declare: declares it, passively if its argument is True. That comes first: any existing one will do.
        """
        try:
            declare(True)
        except ChannelClosedByBroker as error:
            if error.reply_code != NOT_FOUND:
                raise
            declare(False)
            return False
        return True

    def _declare(self, form: Form, passive: bool) -> None:
        with self._other_channel() as channel:
            channel.queue_declare(form.name, passive=passive, durable=True, arguments=form.arguments)

    def _compare(self, form: Form) -> None:
        """Looks whether an existing queue serves. Errors: PublishFailed when its messages would not return."""
        said = self._refusal(form.name, form.arguments) if form.arguments else None
        if said is None:
            return
        # One of the other type will do, as after a change of the configuration.
        if form.returns and self._refusal(form.name, other_type(form.arguments)) is not None:
            raise PublishFailed(
                f"the queue {form.name} was made by somebody else, and its messages would not come back to "
                f"{form.arguments['x-dead-letter-routing-key']}; please delete it: {said}"
            )
        log.warning("queue %s has other settings and stays as it is: %s", form.name, said)

    def _refusal(self, name: str, arguments: dict[str, Any]) -> str | None:
        """Returns what the broker says against a declaration; None when it fits the queue that is there."""
        try:
            self._declare(Form(name, arguments), passive=False)
        except ChannelClosedByBroker as error:
            if error.reply_code != PRECONDITION_FAILED:  # it says nothing about the queue
                raise
            return str(error.reply_text)
        return None

    @contextlib.contextmanager
    def _other_channel(self) -> Iterator[BlockingChannel]:
        # What the broker refuses closes a channel.
        channel = self._connection.channel()
        try:
            yield channel
        finally:
            if channel.is_open:
                channel.close()

    def serve(self) -> None:
        """Serves heartbeats. Errors: ConnectionLost."""
        with translated(""):
            self._connection.process_data_events(time_limit=0)

    def close(self) -> None:
        """Closes the connection."""
        with contextlib.suppress(AMQPError, OSError):
            self._connection.close()


@contextlib.contextmanager
def translated(queue: str) -> Iterator[None]:
    """Turns what pika raises inside into PublishFailed, or ConnectionLost."""
    try:
        yield
    except AMQPChannelError as error:
        raise not_taken(queue, reason(error), refused=True) from error
    except (AMQPError, OSError) as error:
        raise ConnectionLost(reason(error)) from error
