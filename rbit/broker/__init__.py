"""RabbitMQ, and the only importer of pika: every pika failure becomes an error of rbit's at this border.

A connection and what hangs on it belong to the thread that uses them, but for its bell. Knows
nothing of jobs.
"""

from rbit.broker import spare  # noqa: F401 # isort: skip - it goes before all that import pika
from rbit.broker.burst import Sending
from rbit.broker.connection import Connection
from rbit.broker.copies import Copy
from rbit.broker.forms import DELIVERIES, Form, Topic, keeping, of_type, returning
from rbit.broker.inflow import Inflow
from rbit.broker.outlet import NOT_MADE, Outlet
from rbit.broker.private import PrivateQueue, is_connected, prepare_exchange
from rbit.broker.queue import EXCHANGE, Delivery, Queue, is_missing
from rbit.broker.subscription import Published, Subscription

__all__ = [
    "DELIVERIES", "EXCHANGE", "NOT_MADE", "Connection", "Copy", "Delivery", "Form", "Inflow", "Outlet",
    "PrivateQueue", "Published", "Queue", "Sending", "Subscription", "Topic", "is_connected", "is_missing",
    "keeping", "of_type", "prepare_exchange", "returning",
]
