"""How a Python process of rbit's own is started for job code.

Knows only the command line. Used in the client.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# "-m" would put the current folder first on the path, where a json.py of the user's would hide Python's own.
# The worker adds the folder itself, once all that it needs is imported. "-P" is not in Python 3.10.
PROGRAM = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; home = sys.argv.pop(1); "
    "home in sys.path or sys.path.append(home); from rbit.worker import main; sys.exit(main())"
)
HOME = str(Path(__file__).resolve().parent.parent)  # where the package is


def worker(*arguments: str) -> Sequence[str]:
    """Returns the command line of ``rbit.worker`` with these arguments."""
    return [sys.executable, "-c", PROGRAM, HOME, *arguments]
