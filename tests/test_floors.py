"""The table of floors in docs/design.rst: who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import unittest
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "rbit"

FLOORS = (
    {"errors", "files", "folders", "steps"},
    {"secret", "tls", "bell"},
    {
        "models", "shell_text", "output", "ini", "settings", "keeper", "rota", "repeats", "scan",
        "surroundings", "surplus", "logs", "start", "stop", "cancels", "console", "inherited", "clipped",
        "jsonlog", "notify", "listener", "events", "tokens",
    },
    {"access", "arguments", "changes", "decode", "finder", "schema", "template", "joblog"},
    {"config", "message"},
    {"broker", "envelope", "tree", "update", "runners", "worker", "front"},
    {"publisher", "process", "link", "presence", "sources", "status", "held", "web", "submission", "watch",
     "sender", "sweep"},
    {"feed", "caller", "definitions"},
    {"job", "teller"},
    {"gate", "claims", "fate", "default_queue", "pump", "report"},
    {"slot", "leases", "commands"},
    {"settlement", "crew"},
    {"intake", "reload", "figures"},
    {"client", "check", "failed", "metrics"},
    {"command", "submit"},
    {"cli"},
)
FLOOR = {module: number for number, floor in enumerate(FLOORS) for module in floor}

# Outside libraries, and the only modules that may load them.
ONLY = {"pika": {"broker"}, "requests": {"web"}, "urllib3": {"web"}, "psutil": set(), "jsonpickle": {"models"},
        "pythonjsonlogger": {"jsonlog"}, "prometheus_client": {"metrics"}}


def module_of(path: Path) -> str:
    """Return the name of a file's module, or of the package inside rbit that it belongs to."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> list[tuple[str, int]]:
    """Return the modules that a file imports, each with its column."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.col_offset) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "rbit":
                found += [(f"rbit.{alias.name}", node.col_offset) for alias in node.names]
            else:
                found.append((node.module, node.col_offset))
    return found


class FloorsTest(unittest.TestCase):
    files = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")

    def test_every_module_has_a_floor(self) -> None:
        self.assertEqual({module_of(path) for path in self.files}, set(FLOOR))

    def test_imports_run_downward_only(self) -> None:
        checked = 0
        for path in self.files:
            own = module_of(path)
            for name, _ in imports(path):
                parts = name.split(".")
                if parts[0] == "rbit" and len(parts) > 1 and parts[1] in FLOOR and parts[1] != own:
                    checked += 1
                    self.assertLess(FLOOR[parts[1]], FLOOR[own], f"{own} imports {parts[1]}")
        self.assertGreater(checked, 30)

    def test_keeper_imports_nothing_of_rbit(self) -> None:
        names = [name for name, _ in imports(PACKAGE / "keeper.py")]
        self.assertEqual([name for name in names if name.startswith("rbit")], [])

    def test_pika_is_loaded_without_asyncio_which_it_can_have_later(self) -> None:
        script = (
            "import sys, rbit.broker; print('pika' in sys.modules, 'asyncio' in sys.modules)\n"
            "from pika.adapters.asyncio_connection import AsyncioConnection; print(AsyncioConnection.__name__)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.split(), ["True", "False", "AsyncioConnection"])

    def test_no_import_inside_a_function_but_in_the_command(self) -> None:
        inside = {module_of(path) for path in self.files for name, column in imports(path)
                  if column and name.startswith("rbit")}
        self.assertEqual(inside, {"command"})

    def test_libraries_are_imported_at_their_border_only(self) -> None:
        for path in self.files:
            for name, _ in imports(path):
                library = name.split(".")[0]
                if library in ONLY:
                    self.assertIn(module_of(path), ONLY[library], f"{path.name} imports {library}")

    def test_design_document_holds_the_same_table(self) -> None:
        text = (PACKAGE.parent / "docs" / "design.rst").read_text("utf-8")
        fields = dict(re.findall(r"^:([0-9]+): (.*?)(?=^:|\n\n)", text, re.DOTALL | re.MULTILINE))
        found = {int(number): set(re.findall("``(.*?)``", field)) for number, field in fields.items()}
        self.assertEqual(found, dict(enumerate(FLOORS)))


if __name__ == "__main__":
    unittest.main()
