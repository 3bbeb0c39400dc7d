"""rbit, with a look at what CPU each of its threads has taken: ``python -m bench.code.threads INI``.

Ten times a second it writes the nanoseconds of each, by its name, as JSON, into the file ``threads`` beside the
INI file.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from rbit import cli

STEP = 0.1  # seconds


def look(file: Path) -> None:
    """Writes again and again."""
    new = file.with_suffix(".new")
    while True:
        spent: Counter[str] = Counter()
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                with contextlib.suppress(OSError):  # it has ended
                    path = Path(f"/proc/self/task/{thread.native_id}/schedstat")
                    spent[thread.name] += int(path.read_text("ascii").split()[0])
        new.write_text(json.dumps(spent), "ascii")
        new.replace(file)
        time.sleep(STEP)


if __name__ == "__main__":
    threading.Thread(target=look, args=[Path(sys.argv[1]).with_name("threads")], daemon=True).start()
    sys.exit(cli.main(sys.argv[1:]))
