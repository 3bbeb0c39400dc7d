"""What one ``python!`` job changes in its worker does not reach the next one."""

from __future__ import annotations

import json
import signal
import unittest

from rbit.job import Outcome
from rbit.slot import Slot
from tests.support.case import BrokerCase
from tests.support.rbit_process import RbitProcess
from tests.support.slots import SlotCase

JOBS = '''
import json, os, resource, signal, subprocess, sys, threading, _thread

def state():
    mask = os.umask(0)
    os.umask(mask)
    return {
        "umask": mask, "folder": os.getcwd(), "environment": os.environ.get("LEFT"),
        "file size": resource.getrlimit(resource.RLIMIT_FSIZE), "nice": os.nice(0),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE), "blocked": sorted(signal.pthread_sigmask(0, ())),
        "term": str(signal.getsignal(signal.SIGTERM)), "timer": signal.getitimer(signal.ITIMER_REAL)[1],
        "int": str(signal.getsignal(signal.SIGINT)),
        "threads": len(sys._current_frames()), "processors": sorted(os.sched_getaffinity(0)),
        "stdout": sys.stdout is sys.__stdout__, "environ": type(os.environ).__name__,
        "given": sorted(subprocess.run(["printenv"], stdout=subprocess.PIPE).stdout.decode().splitlines()),
    }

def job(message, set_status, settings):
    code = message.body.decode()
    if code != "look":
        exec(code, globals())
        return
    with open("seen", "a") as file:
        print(json.dumps([os.getpid(), state()]), file=file)
'''

RAW = '''
import _thread, threading

def leave():
    here, gone = threading.Event(), threading.Event()
    _thread.start_new_thread(lambda: (here.set(), gone.wait()), ())
    here.wait()
'''


class SurroundingsTest(BrokerCase):
    def run_between(self, code: str, **files: str) -> tuple[RbitProcess, bool]:
        """Run code as a job between two that look; return the run, and whether one worker ran them all."""
        queue = self.queue_name()
        for body in ("look", code, "look"):
            self.publish(queue, body)
        text = self.ini({queue: {"runner": "python!jobs:job"}})
        written = {f"{name}.py": content for name, content in files.items()}
        rbit = self.rbit(text, "--once", files={"jobs.py": JOBS, **written})
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        seen = rbit.folder / "seen"
        (before, first), (after, second) = (json.loads(line) for line in seen.read_text().splitlines())
        self.assertEqual(first, second, rbit.output)
        seen.unlink()
        return rbit, before == after

    def test_what_can_be_undone_is_undone_and_the_worker_goes_on(self) -> None:
        for code in (
            "os.umask(0o077)",
            "os.chdir('/')",
            "os.environ['LEFT'] = 'x'",
            "del os.environ['PATH']",
            "os.putenv('PATH', '/left')",
            "os.unsetenv('PATH')",
            "sys.stdout = open('other', 'w')",
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
            "signal.signal(signal.SIGINT, signal.SIG_IGN)",
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
            "signal.setitimer(signal.ITIMER_REAL, 1000, 1000)",
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))",
        ):
            with self.subTest(code):
                _, same = self.run_between(code)
                self.assertTrue(same)

    def test_what_may_need_more_rights_to_undo_does_not_reach_the_next_job(self) -> None:
        for code in ("os.nice(5)", "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"):
            with self.subTest(code):
                self.run_between(code)

    def test_worker_is_replaced_when_its_job_left_what_cannot_be_undone(self) -> None:
        for code in (
            "threading.Thread(target=threading.Event().wait).start()",
            "threading.Thread(target=threading.Event().wait, daemon=True).start()",
            "import raw; raw.leave()",
            "os.environ = dict(os.environ)",
            "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]) if os.cpu_count() > 1 else os.close(0)",
            "import subprocess; child = subprocess.Popen(['sleep', '1000'])",
        ):
            with self.subTest(code):
                _, same = self.run_between(code, raw=RAW)
                self.assertFalse(same)

    def test_alarm_of_a_job_that_has_ended_kills_nothing(self) -> None:
        # The second job waits longer than the alarm of the first would take.
        queue = self.queue_name()
        for body in ("signal.setitimer(signal.ITIMER_REAL, 0.3)", "import time; time.sleep(1)"):
            self.publish(queue, body)
        rbit = self.rbit(self.ini({queue: {"runner": "python!jobs:job"}}), "--once", files={"jobs.py": JOBS})
        self.assertEqual(rbit.wait(60), 0, rbit.output)

    def test_what_a_module_sets_on_its_import_stays(self) -> None:
        queue = self.queue_name()
        module = ("import os, signal\nos.environ['LEFT'] = 'import'\nos.umask(0o027)\n"
                  "signal.signal(signal.SIGINT, signal.SIG_IGN)\nfrom jobs import job\n")
        for _ in range(2):
            self.publish(queue, "look")
        rbit = self.rbit(
            self.ini({queue: {"runner": "python!setter:job"}}), "--once",
            files={"jobs.py": JOBS, "setter.py": module})
        self.assertEqual(rbit.wait(60), 0, rbit.output)
        for line in (rbit.folder / "seen").read_text().splitlines():
            state = json.loads(line)[1]
            self.assertEqual((state["environment"], state["umask"]), ("import", 0o027))
            self.assertEqual(state["int"], str(signal.SIG_IGN))

    def test_job_with_multiprocessing_ends_at_once_and_leaves_nothing(self) -> None:
        helper = "def double(n):\n    return 2 * n\n"
        for method in ("spawn", "forkserver"):
            with self.subTest(method):
                code = (
                    "import multiprocessing, doubling\n"
                    f"with multiprocessing.get_context({method!r}).Pool(1) as pool:\n"
                    "    assert pool.map(doubling.double, [1, 2]) == [2, 4]\n    pool.close()\n    pool.join()"
                )
                queue = self.queue_name()
                for _ in range(2):
                    self.publish(queue, code)
                rbit = self.rbit(self.ini({queue: {"runner": "python!jobs:job"}}), "--once",
                                 files={"jobs.py": JOBS, "doubling.py": helper})
                self.assertEqual(rbit.wait(60), 0, rbit.output)
                if method == "spawn":
                    self.assertNotIn("ended what it had left running", rbit.output)


class ImportTest(SlotCase):
    """What a module does on its import, and jobs of several modules in one worker."""

    jobs = """
def looks(message, set_status, settings):
    touch(message.body.decode(), f"{os.environ.get('LEFT')} {os.getpid()}")
"""

    def look(self, slot: Slot, function: str, number: int) -> list[str]:
        """Run a job; return its variable LEFT and its process id."""
        self.begin(slot, f"python!{function}", f"seen{number}")
        self.assertEqual(self.outcome(slot), Outcome("Done"))
        return (self.folder / f"seen{number}").read_text().split()

    def test_what_a_module_sets_on_its_import_stays_also_if_a_later_job_imports_it(self) -> None:
        self.write("setter", "import os\nos.environ['LEFT'] = 'import'\nfrom jobs import looks\n")
        self.write("lazy", "def __getattr__(name):\n    import setter\n    return getattr(setter, name)\n")
        for module in ("setter", "lazy"):
            with self.subTest(module):
                slot = self.slot()
                functions = ("jobs:looks", f"{module}:looks", "jobs:looks")
                seen = [self.look(slot, function, number) for number, function in enumerate(functions)]
                self.assertEqual([variable for variable, _ in seen], ["None", "import", "import"])
                self.assertEqual(len({pid for _, pid in seen}), 1)

    def test_thread_that_a_module_starts_between_two_jobs_does_not_spoil_the_worker(self) -> None:
        self.write("threaded", """
import threading
from jobs import looks, touch, wait_for

def wait():
    wait_for("go")
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    touch("gone")
    threading.Event().wait()

threading.Thread(target=wait, daemon=True).start()
""")
        slot = self.slot()
        first = self.look(slot, "threaded:looks", 1)
        (self.folder / "go").touch()
        self.wait_for("gone")
        self.assertEqual([self.look(slot, "threaded:looks", number) for number in (2, 3)], [first, first])


if __name__ == "__main__":
    unittest.main()
