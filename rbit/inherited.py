"""What the processes of jobs inherit of rbit's environment: all but what is meant for rbit alone.

Knows nothing of what a job gets besides. Used in the client.
"""

from __future__ import annotations

import os

from rbit.files import CREDENTIALS

PREFIX = "RBIT_"  # variables that rbit sets for a job; a job must not inherit those of an outer one
OF_SERVICE = (  # of systemd, for the process that it has started; see systemd.exec(5)
    CREDENTIALS, "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
    "INVOCATION_ID", "SYSTEMD_EXEC_PID", "MAINPID", "MANAGERPID", "PIDFILE", "JOURNAL_STREAM", "LOG_NAMESPACE",
    "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY", "CONFIGURATION_DIRECTORY",
    "FDSTORE", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE",
)
_hidden = set(OF_SERVICE)


def hide(variable: str) -> None:
    """From now on no process of a job gets this variable."""
    _hidden.add(variable)


def environment() -> dict[str, str]:
    """Returns the variables that a process of a job may have."""
    return {key: value for key, value in os.environ.items() if not key.startswith(PREFIX) and key not in _hidden}
