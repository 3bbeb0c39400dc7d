"""The errors that rbit raises, and the exit statuses of its commands.

This is the lowest floor: it knows nothing of the rest. It is used in the client and in its workers.
"""

from __future__ import annotations

# Exit statuses of the ``rbit`` command; the numbers are those of sysexits(3).
EXIT_OK = 0
EXIT_JOBS_FAILED = 1  # with --once: a job did not end Done
EXIT_USAGE = 64
# The broker could not be reached at the start, or at all by --list-failed, --retry-failed; or a port is taken.
EXIT_UNAVAILABLE = 69
EXIT_INTERNAL = 70
EXIT_OUTPUT = 74  # what an option such as --check has to say could not be written
EXIT_REFUSED = 77  # the broker refused the user, the password or the virtual host; or TLS with it cannot be
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130  # rbit-submit was ended by a signal


class RbitError(Exception):
    """Root of every error that rbit raises by intent."""


class ConfigError(RbitError):
    """Raised when the configuration holds mistakes.

    Arguments:
        mistakes: one sentence for each mistake, each naming file, section and key; at least one.
        warnings: what else is to be said of the configuration.
    """

    def __init__(self, mistakes: list[str], warnings: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes
        self.warnings = warnings


class UsageError(RbitError):
    """Raised when the command line is wrong; the message says how, in words."""


class AddressTaken(RbitError):
    """Raised when another program listens where rbit is to listen."""


class BodyRefused(RbitError):
    """Raised when a message's body must not reach jsonpickle, or is no body that PyBit sends."""


class JobEnded(RbitError):
    """Base of what job code raises to end with a status of its choice.

    Arguments:
        why: the status message; any object, shown by ``str()``.
    """

    status = "Failed"

    def __init__(self, why: object = "") -> None:
        super().__init__(why)


class Failed(JobEnded):
    """Raised by a job to end as Failed; what becomes of its message then is for the configuration to say."""

    status = "Failed"


class Blocked(JobEnded):
    """Raised by a job to end as Blocked: its message is tried again later."""

    status = "Blocked"


class BrokerError(RbitError):
    """Base of everything that can go wrong between rbit and RabbitMQ."""


class BrokerUnreachable(BrokerError):
    """Raised when no connection to the broker can be made now; a later try may succeed."""


class NameTaken(BrokerUnreachable):
    """Raised when the client's name is taken on the broker.

    Arguments:
        by_queue: whether an ordinary queue has it, and not another client.
    """

    def __init__(self, by_queue: bool, text: str = "") -> None:
        super().__init__(text)
        self.by_queue = by_queue


class BrokerRefused(BrokerError):
    """Raised when the broker refuses the user, the password or the virtual host, or TLS with it cannot be."""


class NodeRefused(BrokerRefused):
    """Raised when TLS with one node of the broker fails, and would fail again."""


class ConnectionLost(BrokerError):
    """Raised when an open connection to the broker broke; unsettled deliveries will come back."""


class QueueUnusable(ConnectionLost):
    """Raised when the broker broke the connection because of one queue, and would do so again.

    Arguments:
        queue: its name.
        why: what the broker said.
    """

    def __init__(self, queue: str, why: str) -> None:
        super().__init__(f"{queue}: {why}")
        self.queue = queue


class QueueUnavailable(BrokerError):
    """Raised when the broker refuses an operation on one queue; other queues are not affected."""


class DeliveryLost(BrokerError):
    """Raised when a delivery cannot be settled any more, for its channel is gone."""


class PublishFailed(BrokerError):
    """Raised when the broker did not confirm a published message.

    Arguments:
        text: why, in words.
        refused: whether it is certain that the broker has no copy.
    """

    def __init__(self, text: str, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class Unroutable(PublishFailed):
    """Raised when no queue takes a published message; it is certain that the broker has no copy."""


class WorkerError(RbitError):
    """Raised when a slot's processes cannot do what was asked; the message says why, in words."""


class StartUnknown(WorkerError):
    """Raised when nobody can say whether a program was started; it must not be started again."""


class CommandRefused(RbitError):
    """Raised when a message's values cannot be given to a command; its job is Failed."""


class RunnerBroken(RbitError):
    """Raised when the runner of a processor fails on a message; its job is Failed.

    Arguments:
        text: why, in one line.
        traceback: of what it raised, for the log; may be ''.
    """

    def __init__(self, text: str, traceback: str = "") -> None:
        super().__init__(text)
        self.traceback = traceback
