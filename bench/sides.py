"""rbit and what it is measured beside, each with two processes for jobs and the settings that suit it best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.place import BODY, ROOT, Place
from bench.side import Side

SCRIPT = ROOT / "bench" / "code" / "stamp.sh"
PYTHON = "python!bench.code.noop:noop"
SHELL = f"shell!'{SCRIPT}'"


class Rbit(Side):
    """rbit; its log, with the level INFO, goes to a file.

    Arguments:
        slots: jobs at once.
        delivery: ``push`` or ``poll``.
        runner: of each queue.
        poll_time: seconds.
        client: the client's name.
    """

    name = "rbit"

    def __init__(
        self, place: Place, delivery: str = "push", *, slots: int = 2, runner: str = PYTHON,
        queues: int | Sequence[str] = 1, poll_time: float = 60.0, body: Path = BODY, client: str = "bench",
    ) -> None:
        super().__init__(place, queues, body)
        node = place.node
        hosts = ", ".join(f"127.0.0.1:{each.port}" for each in place.cluster.nodes)
        sections = [f"[runner:{queue}]\nrunner = {runner}\n" for queue in self.queues]
        self.ini = self.folder / "rbit.ini"
        self.ini.write_text(
            f"[rbit]\nname = {client}\nconcurrency = {slots}\n"
            f"delivery = {delivery}\npolling_time = {poll_time:g}\n"
            f"[amqp]\nhost = {hosts}\nuser = {node.user}\npassword = {node.password}\n"
            f"queue_type = {place.queue_type}\n" + "".join(sections), encoding="utf-8",
        )
        self.ini.chmod(0o600)

    @property
    def command(self) -> list[str]:
        """The real command."""
        return [str(self.place.python.with_name("rbit")), str(self.ini)]


class Bare(Side):
    """A loop of basic_get and basic_ack with pika, in one process; it does no work, and ends by itself.

    Arguments:
        count: how many messages it takes.
    """

    name = "bare pika loop"

    def __init__(self, place: Place, count: int) -> None:
        super().__init__(place)
        self._count = count

    @property
    def command(self) -> list[str]:
        """The loop."""
        return [str(self.place.python), "-m", "bench.code.bare", str(self._count)]

    def wait(self, count: int) -> None:
        """Waits for its end, which is its second stamp."""
        super().wait(2)

    def rate(self, count: int) -> float:
        """Returns messages per second, from the first to the last."""
        first, last = self.stamps()
        return (self._count - 1) / (last - first)


class Celery(Side):
    """Celery: two prefork processes, acknowledged late, no results, no events.

    Arguments:
        chatty: whether the worker tells other workers of itself, and listens to them, as it does by default.
    """

    name = "Celery"
    publisher = "bench.code.celery_app"

    def __init__(self, place: Place, queues: int | Sequence[str] = 1, chatty: bool = False) -> None:
        super().__init__(place, queues)
        self._alone = [] if chatty else ["--without-gossip", "--without-mingle", "--without-heartbeat"]

    @property
    def command(self) -> list[str]:
        """The worker."""
        return [
            str(self.place.python), "-m", "celery", "-A", "bench.code.celery_app", "worker", "--pool", "prefork",
            "--concurrency", "2", "--queues", ",".join(self.queues), "--loglevel", "ERROR",
            "--hostname", f"{self.queues[0]}@%h", *self._alone,
        ]


class Dramatiq(Side):
    """Dramatiq: two processes. Arguments: threads of each; Dramatiq's default is 8."""

    publisher = "bench.code.dramatiq_app"

    def __init__(self, place: Place, threads: int) -> None:
        super().__init__(place)
        self.name = f"Dramatiq, {threads} thread{'s' if threads > 1 else ''}"
        self._threads = threads

    @property
    def command(self) -> list[str]:
        """The workers."""
        return [
            str(self.place.python), "-m", "dramatiq", "--processes", "2", "--threads", str(self._threads),
            "--skip-logging", "bench.code.dramatiq_app",
        ]

    def close(self) -> None:
        """Ends it, and removes its queues for delayed and for dead messages too."""
        super().close()
        self.place.delete(f"{queue}.{ending}" for queue in self.queues for ending in ("DQ", "XQ"))


class Lines:
    """The stamps of those whose job is the script."""

    stamps_folder: Path

    @property
    def done(self) -> int:
        """How many jobs have run."""
        return len(self.stamps())

    def stamps(self) -> list[float]:
        """Returns the seconds since the machine was started of each job so far, in order."""
        path = self.stamps_folder / "lines"
        return sorted(map(float, path.read_text("ascii").splitlines())) if path.exists() else []


class RbitShell(Lines, Rbit):
    """rbit with the script as its job, sent by RabbitMQ. Arguments: jobs at once."""

    def __init__(self, place: Place, slots: int) -> None:
        super().__init__(place, slots=slots, runner=SHELL)


class AmqpConsume(Lines, Side):
    """amqp-consume of amqp-tools, written in C: one message after the other."""

    name = "amqp-consume"

    @property
    def command(self) -> list[str]:
        """The command, without a limit of messages on their way."""
        return ["amqp-consume", "--url", self.place.node.url, "--queue", self.queues[0], str(SCRIPT)]
