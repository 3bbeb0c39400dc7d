"""How the Python processes of rbit's own are started.

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
# As a module, for what that is compiled to is kept. Its folder is the last on the path: Python's own go first.
KEEPER = "import sys; sys.path.append(sys.argv.pop(1)); from keeper import main; main()"
PACKAGE = Path(__file__).resolve().parent
HOME = str(PACKAGE.parent)  # where it is


def worker(*arguments: str) -> Sequence[str]:
    """Returns the command line of ``rbit.worker`` with these arguments."""
    return [sys.executable, "-c", PROGRAM, HOME, *arguments]


def keeper(*arguments: str) -> Sequence[str]:
    """Returns the command line of ``rbit.keeper`` with these arguments; nothing else of rbit is loaded."""
    return [sys.executable, "-I", "-S", "-c", KEEPER, str(PACKAGE), *arguments]
