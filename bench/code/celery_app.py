"""Celery's job and settings; as a program, what publishes for it."""

from __future__ import annotations

import time

from celery import Celery

from bench.code import feeding
from bench.code.stamp import stamp

app = Celery("bench", broker=feeding.url())
app.conf.update(
    accept_content=["json"],
    task_acks_late=True,
    task_default_queue=feeding.queue(),
    task_ignore_result=True,
    task_serializer="json",
    worker_send_task_events=False,
)


def noop(body: str) -> None:
    """Does what each job does."""
    stamp()


task = app.task(name="noop")(noop)


def main() -> None:
    """Publishes what standard input asks for."""
    body = feeding.body().decode()

    def publish() -> int:
        began = time.monotonic_ns()
        task.delay(body)
        return began

    feeding.serve(publish)


if __name__ == "__main__":
    main()
