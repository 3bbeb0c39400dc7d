"""The jobs: what they run, and the messages that ask for them.

Each run is written down at its start and at its end by one write to an append-only file, and said on
standard output, so that rbit's log tells which of its messages is which job.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pika

CAPTURE = json.loads((Path(__file__).parent.parent / "captures" / "build_request.json").read_bytes())
PYTHON, SHELL, BUILD = "faults-python", "faults-shell", "faults-build"
QUEUES = (PYTHON, SHELL, BUILD)

MODULE = '''
import json, os, time
import rbit

def note(what, job, settings):
    line = f"{what} {job} {settings['client']} {os.getpid()} {time.time():.3f}\\n"
    file = os.open(settings["runs"], os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)

def work(job, seconds, settings):
    note("start", job, settings)
    print(f"run {job}", flush=True)
    time.sleep(seconds)

def plain(message, set_status, settings):
    order = json.loads(message.body)
    work(order["job"], order["seconds"], settings)
    if order["blocked"] and f"blocked {order['job']} " not in open(settings["runs"]).read():
        note("blocked", order["job"], settings)
        raise rbit.Blocked("not yet")
    note("end", order["job"], settings)

def build(message, set_status, settings):
    package = message.build_request().job.packageinstance.package
    work(package.name, float(package.version), settings)
    note("end", package.name, settings)
'''

SCRIPT = """\
read -r job seconds || :
note() { echo "$1 $job CLIENT $$ $(date +%s.%N)" >>RUNS; }
note start
echo "run $job"
sleep "$seconds"
note end
"""


@dataclass(frozen=True)
class Order:
    """A message that asks for a job.

    Attributes:
        job: the job's name, which no other has.
        queue, body, properties: the message.
        request: PyBit's id of the job, if it is a build request.
    """

    job: str
    queue: str
    body: bytes
    properties: pika.BasicProperties
    request: int | None = None


def files(client: str, runs: Path) -> dict[str, str]:
    """Return the job code for a client's folder, by file name."""
    return {"jobs.py": MODULE, "job.sh": SCRIPT.replace("CLIENT", client).replace("RUNS", str(runs))}


def sections(client: str, runs: Path) -> dict[str, dict[str, object]]:
    """Return the runner sections: whatever a fault ends is tried again, soon."""
    common = {"on_failure": "requeue", "retry_delay": 1, "client": client, "runs": runs}
    runners = {PYTHON: "python!jobs:plain", SHELL: "shell!sh job.sh", BUILD: "python!jobs:build"}
    return {f"runner:{queue}": {"runner": runner, **common} for queue, runner in runners.items()}


def order(number: int, chance: random.Random) -> Order:
    """Return the message of a job of 0.2 to 8 seconds: one of three kinds.

    Arguments:
        number: of the job, from 1.
        chance: decides on everything else.
    """
    seconds = round(chance.uniform(0.2, 2) if chance.random() < 0.6 else chance.uniform(2, 8), 2)
    queue = chance.choice(QUEUES)
    job = f"{queue.removeprefix('faults-')}{number}"
    if queue == PYTHON:
        body = json.dumps({"job": job, "seconds": seconds, "blocked": chance.random() < 0.1}).encode()
        return Order(job, queue, body, pika.BasicProperties(delivery_mode=2, message_id=job))
    if queue == SHELL:  # known by its body only
        return Order(job, queue, f"{job} {seconds}\n".encode(), pika.BasicProperties(delivery_mode=2))
    request = json.loads(json.dumps(CAPTURE))
    request["job"]["id"] = number
    request["job"]["packageinstance"]["package"] |= {"name": job, "version": str(seconds)}
    properties = pika.BasicProperties(delivery_mode=2, content_encoding="UTF-8")
    return Order(job, queue, json.dumps(request).encode(), properties, number)
