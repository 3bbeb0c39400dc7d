"""The literal blocks of README.rst and of documents by their names, and a test case that runs them.

A block's name stands in a comment before it: ``.. example: NAME``. It runs in the process that tests.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path

import docutils.core
from docutils import nodes

from tests.support.case import BrokerCase

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = ("README.rst", "docs/tutorial.rst", "docs/processors.rst", "docs/rights.rst", "docs/security.rst")
TEXTS = tuple((ROOT / name).read_text("utf-8") for name in DOCUMENTS)
README, TUTORIAL, PROCESSORS, RIGHTS, SECURITY = TEXTS
PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
COVERED: set[str] = set()


def read() -> tuple[dict[str, str], list[str]]:
    """Return the named literal blocks, and the first lines of those without a name."""
    strict = {"report_level": 2, "halt_level": 2}
    documents = [docutils.core.publish_doctree(text, settings_overrides=strict) for text in TEXTS]
    named: dict[str, str] = {}
    nameless = []
    for block in [block for document in documents for block in document.findall(nodes.literal_block)]:
        siblings = block.parent.children
        before = siblings[siblings.index(block) - 1]
        name = re.fullmatch(r"example: (.+)", before.astext()) if isinstance(before, nodes.comment) else None
        if name is None or name[1] in named:
            nameless.append(block.astext().splitlines()[0])
        else:
            named[name[1]] = block.astext() + "\n"
    return named, nameless


BLOCKS, NAMELESS = read()


def example(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a test the blocks of these names as arguments."""
    COVERED.update(names)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def with_blocks(case: unittest.TestCase) -> None:
            missing = [name for name in names if name not in BLOCKS]
            case.assertEqual(missing, [], "there is no such example any more")
            test(case, *(BLOCKS[name] for name in names))

        return with_blocks

    return decorate


def commands(block: str) -> list[str]:
    """Return the command lines of a block, without their ``$``."""
    lines = block.splitlines()
    assert all(line.startswith("$ ") for line in lines), block
    return [line.removeprefix("$ ") for line in lines]


class ReadmeCase(BrokerCase):
    """A test that runs examples, whose queues have the names of the README, on the private node."""

    def queue(self, name: str) -> str:
        """Declare a queue of the README, empty, and delete it after the test."""
        for made in (name, f"{name}.retry", f"{name}.failed"):
            self.channel.queue_delete(made)
            self.addCleanup(self.channel.queue_delete, made)
        self.channel.queue_declare(name, durable=True)
        return name

    def here(self, text: str) -> str:
        """Return an example with the private node in the place of the reader's RabbitMQ."""
        return text.replace("localhost", "127.0.0.1").replace("5672", str(self.node.port))

    def folder(self, **files: str) -> Path:
        """Return a new folder with these files; ``__`` in a name stands for a dot."""
        folder = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        self.addCleanup(shutil.rmtree, folder)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
        return folder

    def run_line(self, line: str, folder: Path, expected: int = 0) -> str:
        """Run a command line as a reader would, with rbit's environment active; return its output."""
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=folder, env={**os.environ, "PATH": PATH},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120.0,
            check=False,
        )
        self.assertEqual(done.returncode, expected, f"{line}\n{done.stdout}")
        return done.stdout

    def once(self, block: str, expected: int = 0, **files: str) -> tuple[str, Path]:
        """Run ``rbit --once`` on a block that has runner sections only; return its output and the folder."""
        folder = self.folder(rbit__ini=self.ini({}) + block, **files)
        return self.run_line("rbit rbit.ini --once", folder, expected), folder
