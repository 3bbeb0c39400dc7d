"""What is installed with rbit, and what its metadata say. Packages are built from a copy of the checkout."""

from __future__ import annotations

import configparser
import email
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile
from email.message import Message
from pathlib import Path

import docutils.core

import rbit

ROOT = Path(__file__).resolve().parent.parent
LICENSE = (ROOT / "LICENSE.txt").read_text("utf-8")


class PackagesTest(unittest.TestCase):
    folder: Path
    wheel: zipfile.ZipFile
    sdist: set[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        copy = cls.folder / "checkout"
        unwanted = (".git", ".venv", ".*_cache", "build", "dist", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*unwanted))
        # First the source distribution, then the wheel from it: so that one is complete, too.
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(cls.folder)]
        done = subprocess.run(
            [*command, str(copy)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise AssertionError(f"the packages cannot be built:\n{done.stdout}")
        cls.wheel = zipfile.ZipFile(next(cls.folder.glob("*.whl")))
        cls.addClassCleanup(cls.wheel.close)
        with tarfile.open(next(cls.folder.glob("*.tar.gz"))) as archive:
            cls.sdist = {name.partition("/")[2] for name in archive.getnames()}

    def entry(self, name: str) -> str:
        """Return a file of the wheel's metadata."""
        path = next(path for path in self.wheel.namelist() if path.endswith(f".dist-info/{name}"))
        return self.wheel.read(path).decode("utf-8")

    @property
    def metadata(self) -> Message:
        return email.message_from_string(self.entry("METADATA"))

    def test_the_version_is_the_same_everywhere(self) -> None:
        self.assertEqual(self.metadata["Version"], rbit.__version__)
        changes = (ROOT / "CHANGES.rst").read_text("utf-8")
        newest = re.search(r"(?m)^(\d+\.\d+\.\d+)\n-+$", changes)
        assert newest is not None
        self.assertEqual(newest[1], rbit.__version__)

    def test_the_wheel_needs_exactly_four_packages(self) -> None:
        needed = [line for line in self.metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
        names = sorted(re.split(r"[^\w-]", line)[0] for line in needed)
        self.assertEqual(names, ["jsonpickle", "pika", "requests"])
        self.assertEqual(self.metadata["Requires-Python"], ">=3.10")

    def test_no_extra_takes_the_package_pybit_of_the_index(self) -> None:
        names = {re.split(r"[^\w-]", line)[0].lower() for line in self.metadata.get_all("Requires-Dist", [])}
        self.assertNotIn("pybit", names)
        self.assertLessEqual({"examples", "json", "test"}, set(self.metadata.get_all("Provides-Extra", [])))

    def test_the_commands_are_functions_of_the_cli_and_the_processors_classes_of_runners(self) -> None:
        points = configparser.ConfigParser()
        points.read_string(self.entry("entry_points.txt"))
        commands = {"rbit": "rbit.cli:main", "rbit-submit": "rbit.cli:submit"}
        self.assertEqual(dict(points["console_scripts"]), commands)
        own = {"python": "rbit.runners.python:PythonRunner", "shell": "rbit.runners.shell:ShellRunner"}
        self.assertEqual(dict(points["rbit.runners"]), own)

    def test_the_wheel_holds_every_module_of_rbit_and_nothing_else(self) -> None:
        installed = {name for name in self.wheel.namelist() if ".dist-info/" not in name}
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / "rbit").rglob("*.py")}
        self.assertEqual(installed, modules | {"rbit/py.typed"})

    def test_the_source_distribution_holds_what_the_checks_need(self) -> None:
        wanted = {
            ".ci/run", "CHANGES.rst", "LICENSE.txt", "Makefile", "README.rst", "docs/design.rst",
            "docs/processors.rst", "docs/rights.rst", "docs/security.rst", "docs/tutorial.rst",
            "examples/demo.py", "examples/module.html", "examples/supervisor/rbit.conf",
            "examples/systemd/rbit@.service", "pyproject.toml", "rbit.ini.example", "setup.py",
            "tests/__init__.py", "tests/captures/build_request.json", "tests/support/node.py",
        }
        self.assertEqual(wanted - self.sdist, set())
        self.assertFalse([name for name in self.sdist if name.endswith(".pyc")])

    def test_the_license_goes_along(self) -> None:
        self.assertEqual(self.metadata["License-Expression"] or self.metadata["License"], "AGPL-3.0-only")
        path = next(name for name in self.wheel.namelist() if name.endswith("LICENSE.txt"))
        self.assertEqual(self.wheel.read(path).decode("utf-8"), LICENSE)

    def test_the_description_is_the_readme_and_renders(self) -> None:
        self.assertEqual(self.metadata["Description-Content-Type"], "text/x-rst")
        text = self.metadata.get_payload()
        self.assertIn("Five minutes with a queue of your own", str(text))
        for name in ("README.rst", "CHANGES.rst", "docs/design.rst"):
            with self.subTest(name):
                # Raises SystemMessage for anything that would not render.
                text = (ROOT / name).read_text("utf-8")
                docutils.core.publish_string(text, settings_overrides={"halt_level": 2})


class LicenseTest(unittest.TestCase):
    def test_the_license_is_the_whole_text_of_the_agpl_3(self) -> None:
        self.assertTrue(LICENSE.startswith("GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007\n"))
        self.assertGreater(len(LICENSE), 33_000)
        sections = [int(number) for number in re.findall(r"(?m)^(\d+)\. [A-Z]", LICENSE)]
        self.assertEqual(sections, list(range(18)))
        for part in ("Remote Network Interaction", "END OF TERMS AND CONDITIONS", "How to Apply These Terms"):
            self.assertIn(part, LICENSE)


if __name__ == "__main__":
    unittest.main()
