"""Starts a RabbitMQ to play with: ``make node`` runs it from a checkout.

The node is on 127.0.0.1 and a free port, with a folder of its own. It goes on until Ctrl+C, and is gone then with
all that was in it. What it prints goes into an INI file.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

sys.path.insert(0, str(ROOT))  # the node is in tests.support, which is not installed

from tests.support.node import NodeError, PrivateNode  # noqa: E402


def main() -> int:
    """Runs the node until it ends or a signal comes; returns 0 in the latter case."""
    # Like Ctrl+C, a SIGTERM or the end of the terminal must not leave the node behind; nor a SIGINT, where a shell
    # had it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        print("Starting a RabbitMQ node (about 10 seconds) ...", flush=True)
        with PrivateNode() as node:
            print("It runs until Ctrl+C. For an INI file:\n")
            print(f"[amqp]\nhost = 127.0.0.1\nport = {node.port}\nuser = {node.user}\npassword = {node.password}")
            print(flush=True)
            while node.runs:
                time.sleep(1.0)
            print("node: it has ended by itself; its data is removed", file=sys.stderr)
    except NodeError as error:
        print(f"node: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nThe node has ended, its data is removed.")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
