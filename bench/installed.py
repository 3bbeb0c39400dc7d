"""An installation of rbit as its users have it: what each command loads depends on how it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

FILES = ("setup.py", "pyproject.toml", "README.rst", "LICENSE.txt")


def installed(root: Path, folder: Path) -> Path:
    """Installs a copy of a checkout into a virtual environment; returns the path of its Python.

    ``make setup`` installs the checkout itself, for which Python loads more at each start. All other packages are
    found where they are installed already.

    Arguments:
        root: the checkout.
        folder: is made, for everything.

    Errors: CalledProcessError, after what went wrong was printed.
    """
    source, wheels, home = folder / "source", folder / "wheels", folder / "venv"
    shutil.copytree(root / "rbit", source / "rbit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(root / name, source)
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)])
    _run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", *map(str, wheels.iterdir())])
    there = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    Path(there, "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return python


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)
