"""What README.rst and the tutorial say, beside what the code says; and that a test covers each example in them.

It runs in the testing process; rbit is the real command.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from rbit import errors, message, template
from tests import (  # noqa: F401 - they cover examples
    test_declare,
    test_default_queue,
    test_metrics,
    test_processors,
    test_readme,
    test_rights,
    test_tls,
    test_tutorial,
)
from tests.support.readme import (
    BLOCKS,
    COVERED,
    NAMELESS,
    PATH,
    README,
    ROOT,
    SECURITY,
    TEXTS,
    TUTORIAL,
    commands,
    example,
)


def sentences(text: str) -> set[str]:
    """Return the sentences of a text, each in one line; literal blocks are left out."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if not part.startswith("    ")]
    return {" ".join(part.split()) for paragraph in paragraphs for part in re.split(r"(?<=[.:;])\s", paragraph)}


class TextTest(unittest.TestCase):
    def test_every_literal_block_is_covered_by_a_test(self) -> None:
        self.assertEqual(NAMELESS, [], "blocks without a comment `.. example: NAME` of their own before them")
        self.assertEqual(set(BLOCKS) - COVERED, set())

    def test_only_what_a_command_prints_is_wider_than_120_columns(self) -> None:
        literal = {line.strip() for block in BLOCKS.values() for line in block.splitlines()}
        long = [line for line in "".join(TEXTS).splitlines() if len(line) > 120]
        self.assertEqual([line for line in long if line.strip() not in literal], [])

    def test_each_test_that_a_claim_about_security_names_is_there(self) -> None:
        named = set(re.findall(r"``(test_\w+)``", SECURITY))
        there = {name for path in (ROOT / "tests").glob("test_*.py")
                 for name in re.findall(r"(?m)^    def (test_\w+)", path.read_text("utf-8"))}
        self.assertGreater(len(named), 20)
        self.assertEqual(named - there, set())

    def test_no_sentence_of_the_readme_is_in_the_tutorial(self) -> None:
        both = sentences(README) & sentences(TUTORIAL)
        self.assertEqual({sentence for sentence in both if len(sentence.split()) > 5}, set())

    @example("usage", "submit usage")
    def test_the_usage_names_the_options_of_the_commands(self, usage: str, submit: str) -> None:
        for text, name in ((usage, "rbit"), (submit, "rbit-submit")):
            command = str(Path(sys.executable).with_name(name))
            shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
            options = re.compile(r"--[a-z-]+(?: [A-Z]+)?")
            *lines, last = text.splitlines()
            self.assertTrue(all(line.startswith(f"{name} CONFIG ") for line in lines), text)
            self.assertEqual(last, f"{name} --version")
            helped = " ".join(shown.split("\n\n")[0].split())
            self.assertEqual(set(options.findall(" ".join(lines))), set(options.findall(helped)) - {"--version"})
            shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
            self.assertRegex(shown, rf"^{name} \d+\.\d+\.\d+$")

    def test_the_exit_statuses_are_those_of_the_code(self) -> None:
        table = README[README.index("status  meaning") :].split("\n\n")[0]
        shown = {int(number) for number in re.findall(r"(?m)^(\d+)  ", table)}
        self.assertEqual(shown, {value for name, value in vars(errors).items() if name.startswith("EXIT_")})

    def test_the_placeholders_and_the_statuses_are_those_of_the_code(self) -> None:
        shown = dict(re.findall(r"(?m)^%([A-Z]+) .* (RBIT_[A-Z]+)$", README))
        self.assertEqual(shown, dict(template.PLACEHOLDERS))
        names = re.search(r"The names are PyBit's: ([^.]+)\.", README)
        assert names is not None
        self.assertEqual(set(names[1].split(", ")), message.STATUSES)

    @example("set-up")
    def test_the_commands_are_those_of_the_makefile(self, lines: str) -> None:
        if shutil.which("make") is None:
            self.skipTest("make is missing")
        # They are run by test_examples, and by whoever runs this; here it is enough that they lead there.
        ends = {"make demo": "examples/demo.py", "make test": "-m tests"}
        self.assertEqual(commands(lines), list(ends))
        ends["make node"] = "examples/node.py"
        # Nothing of a make that runs this test may reach the one in it.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        for line, last in ends.items():
            planned = subprocess.run(
                [*line.split(), "-n"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
            )
            self.assertTrue(planned.stdout.rstrip().endswith(last), planned.stdout)

    @example("install")
    def test_rbit_is_installed_from_a_checkout(self, lines: str) -> None:
        if os.environ.get("CI") != "true":
            self.skipTest("it takes packages from the package index; run with CI=true")
        home = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        self.addCleanup(shutil.rmtree, home)
        unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, home / "checkout", ignore=unwanted)
        script = "set -e\n" + "\n".join(commands(lines))
        done = subprocess.run(
            ["/bin/sh", "-c", script], cwd=home / "checkout", env={**os.environ, "HOME": str(home), "PATH": PATH},
            capture_output=True, text=True, timeout=300.0, check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"(?m)^rbit \d+\.\d+\.\d+$")

    @example("development")
    def test_the_checks_for_developers_are_those_of_the_whole_check(self, lines: str) -> None:
        whole = (ROOT / ".ci" / "run").read_text("utf-8") + (ROOT / "Makefile").read_text("utf-8")
        whole = whole.replace('"$BIN/ruff"', ".venv/bin/ruff").replace('"$BIN/mypy"', ".venv/bin/mypy")
        whole = whole.replace("$(VENV)", ".venv")
        *checks, last = commands(lines)
        for line in checks:
            self.assertRegex(whole, rf"(?m)^\s*{re.escape(line)}$")
        self.assertEqual(last, ".ci/run")
        self.assertTrue(os.access(ROOT / ".ci" / "run", os.X_OK))


if __name__ == "__main__":
    unittest.main()
