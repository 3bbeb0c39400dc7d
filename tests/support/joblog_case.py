"""Test cases with the real command that writes job logs.

It runs in the process that tests.
"""

from __future__ import annotations

import re

from tests.support.case import BrokerCase
from tests.support.rbit_process import RbitProcess, rbit_command

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
ENTRY = re.compile(rf"({STAMP}) (stdout|stderr|status|rbit) +(.*)")
JOBS = '''
import glob, os, sys, time
import rbit

def logged():
    return "".join(open(path).read() for path in glob.glob("logs/*/*/*.log"))

def wait_for(text):
    """Waits until a text is in a job log, or in a folder."""
    while text not in logged() and not os.path.exists(text):
        time.sleep(0.01)

def speak(message, set_status, settings):
    print("to stdout", flush=True)
    wait_for("to stdout")
    print("to stderr \\x1b[31m\\u2028", file=sys.stderr, flush=True)
    wait_for("to stderr")
    set_status("Building", "half\\nway")
    wait_for("half")
    print("after it", flush=True)
    raise ValueError("no paper")

def hold(message, set_status, settings):
    print("begun", flush=True)
    wait_for("begun")
    open("held", "w").close()
    wait_for("go")
    print("went on", flush=True)

def blocked(message, set_status, settings):
    raise rbit.Blocked("not yet")
'''


class LogCase(BrokerCase):
    """A test of a client whose job logs are in the folder ``logs`` of its own."""

    def client(self, runner: str, *arguments: str, dirs: tuple[str, ...] = ("logs",), queue: str | None = None,
               keys: dict[str, object] | None = None, command: str = "", **rbit: object) -> RbitProcess:
        """Start a client.

        Arguments:
            runner: of the queue; a function of JOBS or ``shell!...``.
            arguments: of the command.
            dirs: folders that are made before.
            queue: instead of the test's own.
            keys: further keys of the runner's section.
            command: a shell command that is given the words of rbit's; '' runs that alone.
            rbit: further keys of [rbit].
        """
        target = runner if runner.startswith("shell!") else f"python!jobs:{runner}"
        section = {"runner": target, **(keys or {})}
        text = self.ini({queue or self.queue_name(): section}, rbit={"log_dir": "logs", **rbit})
        files = {"jobs.py": JOBS, "rbit.ini": text, **{f"{name}/.keep": "" for name in dirs}}
        whole = command or 'exec "$@"'
        words = [whole, "sh", *rbit_command(), "rbit.ini", *arguments]
        return self.rbit(None, *words, files=files, command=("sh", "-c"))

    def once(self, runner: str, body: bytes | str = "x", status: int = 0, message_id: str = "m",
             **more: object) -> RbitProcess:
        """Send a message and have it worked off with ``--once``; for the arguments see ``client``."""
        queue = str(more.get("queue") or self.queue_name())
        self.publish(queue, body, message_id=message_id)
        rbit = self.client(runner, "--once", **more)  # type: ignore[arg-type]
        self.assertEqual(rbit.wait(60), status, rbit.output)
        return rbit


def logs(rbit: RbitProcess) -> dict[str, str]:
    """Return the job logs: their texts by their paths without the day."""
    found = sorted((rbit.folder / "logs").rglob("*.log"))
    return {f"{path.parent.parent.name}/{path.name}": path.read_text("utf-8") for path in found}


def entries(text: str) -> list[tuple[str, str]]:
    """Return what is below the head of a log: the kind and the text of each line, without the seconds it took."""
    found = []
    for line in text.partition("\n\n")[2].splitlines():
        match = ENTRY.fullmatch(line)
        kind, said = match.groups()[1:] if match else ("", line)
        found.append((kind, re.sub(r"after \d+\.\d{3} s", "after N s", said)))
    return found
