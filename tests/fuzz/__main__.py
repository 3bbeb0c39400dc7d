"""The long run: ``python -m tests.fuzz --cases N --seed S``.

The exit status is 0 when all is as it must be, else 1; then the smallest case is shown.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.fuzz.target import PATIENCE, run
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run the targets as the command line says; return the exit status."""
    made = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    made.add_argument("--cases", type=int, default=100_000, help="how many, of all targets (default: 100000)")
    made.add_argument("--seed", type=int, default=int(time.time()), help="decides on all (default: the time)")
    made.add_argument("--only", default="", metavar="NAME", help="targets with this in their names")
    options = made.parse_args()
    chosen = [target for target in TARGETS if options.only in target.name]
    whole = sum(target.share for target in chosen)
    print(f"fuzz: seed {options.seed}, {options.cases} cases", flush=True)
    tried, began, failed = 0, time.monotonic(), []
    for target in chosen:
        start = time.monotonic()
        try:
            count = run(target, -(-options.cases * target.share // whole), options.seed, PATIENCE)
        except Exception as error:  # noqa: BLE001 - the other targets are tried, too
            traceback.print_exception(error, limit=-8)
            failed.append(target.name)
            print(f"{target.name:<28} FAILED after {time.monotonic() - start:7.1f} s", flush=True)
            continue
        tried += count
        print(f"{target.name:<28} {count:>8} cases {time.monotonic() - start:7.1f} s", flush=True)
    print(f"{'all':<28} {tried:>8} cases {time.monotonic() - began:7.1f} s; seed {options.seed}")
    print(f"failed: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
