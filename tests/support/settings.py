"""Settings for tests of single parts, which no INI file is needed for. It knows nothing of unittest."""

from __future__ import annotations

from rbit.secret import Secret
from rbit.settings import AmqpSettings, PybitSettings


def amqp_settings(port: int, heartbeat: int = 30, user: str = "guest") -> AmqpSettings:
    """Return what connects to a node on 127.0.0.1, as a user whose password is its name."""
    return AmqpSettings((("127.0.0.1", None),), port, user, Secret(user), "/", heartbeat, 60.0, "classic")


def pybit_settings(
    url: str, user: str = "admin", timeout: float = 10.0, gate_timeout: float = 3.0
) -> PybitSettings:
    """Return what connects to a stand-in for PyBit."""
    return PybitSettings(url, user, Secret("pass"), timeout, gate_timeout)
