"""Shows rbit at work: ``make demo`` runs it from a checkout.

It starts a RabbitMQ node of its own on 127.0.0.1, puts a PyBit build request on each of three queues, runs
the real ``rbit`` command with rbit.ini.example on them, and says what became of each. The node is gone
afterwards; what was made stays in build/demo. It knows rbit from the outside only: its command and its log.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "demo"
REQUEST = ROOT / "tests" / "captures" / "build_request.json"  # as a real PyBit sent it
BOUND = 120.0  # seconds that rbit may take
EXCHANGE = "pybit"

sys.path.insert(0, str(ROOT))  # the node is in tests.support, which is not installed

import pika  # noqa: E402

from tests.support.node import NodeError, PrivateNode  # noqa: E402


@dataclass(frozen=True)
class Order:
    """One build request of the demo.

    Arguments:
        job: PyBit's id of the job.
        queue: where it goes: distribution, architecture, suite and format, joined by ``_``.
        package: the package's name.
        makes: the file that the job is to make, or None.
    """

    job: int
    queue: str
    package: str
    makes: str | None

    @property
    def route(self) -> str:
        """The routing key that PyBit uses for the queue."""
        return self.queue.replace("_", ".")

    def body(self) -> bytes:
        """Returns the message, made of one that a real PyBit sent."""
        request: dict[str, Any] = json.loads(REQUEST.read_bytes())
        instance = request["job"]["packageinstance"]
        request["job"]["id"] = instance["id"] = self.job
        instance["package"]["name"] = self.package
        request["transport"]["uri"] = f"http://example.org/content/{self.package}"
        parts = zip(("distribution", "arch", "suite", "format"), self.queue.split("_"), strict=True)
        for attribute, name in parts:
            instance[attribute]["name"] = name
        return json.dumps(request).encode()


ORDERS = (
    Order(1, "ccap_any_latex_completezip", "col11406", None),
    Order(2, "cnx_any_html_epub", "simple-harmonic-motion", "simple-harmonic-motion.epub"),
    Order(3, "cnx_any_html_zip", "simple-harmonic-motion", "simple-harmonic-motion.zip"),
)


def main() -> int:
    """Runs the demo; returns 0 when all jobs ended Done and their files are there."""
    # Like Ctrl+C, a SIGTERM must not leave the node behind; nor a SIGINT, where a shell had it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        print("Starting a RabbitMQ node of the demo's own (about 10 seconds) ...", flush=True)
        with PrivateNode() as node:
            prepare(node.port)
            send(node)
            status, log = run()
        print("The node has ended, its data is removed.")
    except (NodeError, TimeoutError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped; the node has ended, its data is removed", file=sys.stderr)
        return 130
    return report(status, log)


def prepare(port: int) -> None:
    """Makes a fresh folder with the examples and their configuration, for a broker on ``port``."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name in ("my_worker.py", "html_to_epub.py", "html_module.py", "module.html"):
        shutil.copy(ROOT / "examples" / name, FOLDER)
    text = (ROOT / "rbit.ini.example").read_text("utf-8")
    # The example without its port would lead to the broker of this machine, if it has one.
    text, found = re.subn(r"(?m)^host = localhost\nport = 5672$", f"host = 127.0.0.1\nport = {port}", text)
    if found != 1:
        raise SystemExit("demo: rbit.ini.example has no lines `host = localhost` and `port = 5672`")
    (FOLDER / "rbit.ini").write_text(text, encoding="utf-8")


def send(node: PrivateNode) -> None:
    """Puts the build requests on their queues as PyBit does: exchange, queue and binding, then the message."""
    connection = node.connect()
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare(EXCHANGE, "direct", durable=True)
        for order in ORDERS:
            channel.queue_declare(order.queue, durable=True)
            channel.queue_bind(order.queue, EXCHANGE, order.route)
            properties = pika.BasicProperties(delivery_mode=2, content_encoding="UTF-8")
            channel.basic_publish(EXCHANGE, order.route, order.body(), properties, mandatory=True)
    finally:
        connection.close()
    print(f"Put {len(ORDERS)} PyBit build requests on their queues.")


def run() -> tuple[int, list[str]]:
    """Runs rbit until the queues are empty; returns its exit status and its log."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ.get('PATH', os.defpath)}"}
    print(f"In {FOLDER.relative_to(ROOT)}: rbit rbit.ini --once\n", flush=True)
    log: list[str] = []
    rbit = subprocess.Popen(
        [str(scripts / "rbit"), "rbit.ini", "--once"],
        cwd=FOLDER,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    signal.signal(signal.SIGALRM, time_is_up)
    signal.setitimer(signal.ITIMER_REAL, BOUND)
    try:
        assert rbit.stdout is not None
        for line in rbit.stdout:
            print(f"  {line}", end="", flush=True)
            log.append(line)
        return rbit.wait(), log
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        end(rbit)


def time_is_up(number: int, frame: object) -> None:
    """Ends the wait for rbit."""
    raise TimeoutError(f"rbit took more than {BOUND:g} s")


def end(rbit: subprocess.Popen[str]) -> None:
    """Ends an rbit that still runs: two signals stop it with its jobs."""
    for _ in range(2):
        if rbit.poll() is None:
            rbit.terminate()
            try:
                rbit.wait(2.0)
            except subprocess.TimeoutExpired:
                continue
    try:
        rbit.wait(15.0)
    except subprocess.TimeoutExpired:
        rbit.kill()
        rbit.wait()


def report(status: int, log: list[str]) -> int:
    """Prints what became of each job and what was made; returns the exit status of the demo."""
    good = status == 0
    row = "{:<27} {:>3}  {:<23} {}".format
    print(f"\n{row('queue', 'job', 'package', 'final status')}")
    for order in ORDERS:
        statuses = re.findall(rf"{order.queue} job {order.job}: ([A-Z][a-z]+)(?=:|$)", "".join(log), re.MULTILINE)
        last = statuses[-1] if statuses else "none"
        good = good and last == "Done"
        print(row(order.queue, order.job, order.package, last))
    print(f"\nMade in {FOLDER.relative_to(ROOT)}:")
    for name in filter(None, (order.makes for order in ORDERS)):
        path = FOLDER / name
        good = good and path.is_file()
        print(f"  {name:<30} {f'{path.stat().st_size:,} bytes' if path.is_file() else 'missing'}")
    if not good:
        print(f"\ndemo: not everything was built; rbit ended with status {status}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
