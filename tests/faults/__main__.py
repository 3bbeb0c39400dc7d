"""The long runs: ``python -m tests.faults --minutes M --seed S [--cluster]``.

The exit status is 0 when the promise is kept, else 1; then the folder with all logs is kept.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.harness import CLIENTS, Setting, run
from tests.faults.schedule import draw
from tests.support.node import missing_reason


def main() -> int:
    """Run the harness as the command line says; return the exit status."""
    made = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    made.add_argument("--minutes", type=float, default=20.0, help="how long faults happen (default: 20)")
    made.add_argument("--seed", type=int, default=int(time.time()), help="decides on all (default: the time)")
    made.add_argument("--cluster", action="store_true", help="three nodes and quorum queues instead of one node")
    made.add_argument("--classic", action="store_true",
                      help="the clients' own queues are classic ones; a killed broker may lose jobs then")
    made.add_argument("--keep", action="store_true", help="keep the folder with all logs, whatever comes out")
    options = made.parse_args()
    if reason := missing_reason():
        print(f"faults: {reason}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all is ended that was started
    folder = Path(tempfile.mkdtemp(prefix="rbit-faults-"))
    seconds = options.minutes * 60
    faults = draw(options.seed, seconds, CLIENTS)
    print(f"faults: seed {options.seed}, {options.minutes:g} minutes, logs in {folder}", flush=True)
    setting = Setting(folder, faults, seconds, options.seed, nodes=3 if options.cluster else 1,
                      own_quorum=not options.classic)
    ledger = run(setting, lambda line: print(f"faults: {line}", flush=True))
    for proof in ledger.proofs:
        print(f"exception: {proof}")
    for failure in ledger.failures:
        print(f"FAILURE: {failure}")
    where = f"{'cluster' if options.cluster else 'one node'}{', classic queues' if options.classic else ''}"
    print(f"\nseed {options.seed}, {options.minutes:g} minutes, {where}")
    print(ledger.table())
    if not ledger.failures and not options.keep:
        shutil.rmtree(folder)
    elif ledger.failures:
        print(f"\nThe promise is not kept; the logs are in {folder}")
    return 1 if ledger.failures else 0


if __name__ == "__main__":
    sys.exit(main())
