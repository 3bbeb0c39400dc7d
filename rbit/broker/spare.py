"""Loads pika without its adapter for asyncio, which rbit does not use.

pika loads that whenever it is loaded itself, and with it asyncio: two megabytes, and a part of each start's time.
Whoever imports the adapter by its name gets it all the same.
"""

from __future__ import annotations

import sys
from types import ModuleType

ADAPTER = "pika.adapters.asyncio_connection"


def load() -> None:
    """Loads pika, if nobody has."""
    if "pika" in sys.modules:
        return
    sys.modules[ADAPTER] = empty = ModuleType(ADAPTER)
    vars(empty)["__getattr__"] = lambda name: None  # whatever pika wants of it
    try:
        import pika  # noqa: F401, PLC0415 - see above
    finally:
        del sys.modules[ADAPTER]


load()
