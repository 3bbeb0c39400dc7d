"""Commands that are started without a shell: what a shell would have started, and no others."""

from __future__ import annotations

import os
import random
import subprocess
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from rbit import inherited, plain
from rbit.message import Message
from rbit.process import CommandProcess
from rbit.runners import Command
from rbit.tree import Tree
from tests.support.waiting import wait_until

SHOW = "#!/bin/sh\nprintf '<%s>' \"$@\"\n"
PIECES = [
    "a", "/b", "-c", "=", ":", "%", ",", "@", "+", " ", "  ", "\t", "'", "''", '"', "\\", "$x", "~", "*", "?",
    "[a]", "{a,b}", "#", "!", "&", ";", "|", "<", ">", "(", ")", "`", "\n", "^", "\u00e9", "'a b'", "'$x'", "'*'",
    "~/a", "x=~", "'a;b' ",
]
LEFT = [
    "", " ", "a", "echo a", "a=/b c", "-a/b", "+a/b", "a/b=c", "/a;", "/a &", "/a\n/b", "/a $b", "/a ~", "/a *",
    "/a 'b'c", '/a "b"', "/a \\b", "/a #b", "/a {b,c}", "/a !", "/a >b", "/a '\n'", "/a \u00e9", "/a '\u00e9'",
]
OTHERS = [["/bin/true"], ["/bin/bash", "-c", "/a"], ["/bin/sh", "-c", "/a", "b"], ["/bin/sh", "-ec", "/a"]]
PRINT = ["/bin/sh", "-c", "printenv PWD"]


def words(text: str) -> list[str] | None:
    """Return what a shell would start for a text."""
    return plain.words(["/bin/sh", "-c", text])


class WordsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch.object(plain, "near", lambda program: True))

    def test_path_and_plain_words_are_started_without_a_shell(self) -> None:
        for text, expected in (
            ("/bin/a", ["/bin/a"]),
            (" ./a -b  --c=d\te:f%g,h@i+j ", ["./a", "-b", "--c=d", "e:f%g,h@i+j"]),
            ("'/a b/c;' 'd $e' ''", ["/a b/c;", "d $e", ""]),
        ):
            with self.subTest(text):
                self.assertEqual(words(text), expected)

    def test_what_a_shell_may_have_more_to_do_with_is_left_to_it(self) -> None:
        for text in LEFT:
            with self.subTest(text):
                self.assertIsNone(words(text))
        for arguments in OTHERS:
            with self.subTest(arguments):
                self.assertIsNone(plain.words(arguments))

    def test_words_are_those_that_the_shell_passes_on(self) -> None:
        with TemporaryDirectory() as folder:
            show = Path(folder, "show it")
            show.write_text(SHOW, "ascii")
            show.chmod(0o755)
            rng = random.Random(1)
            found = 0
            while found < 200:
                text = f"'{show}' {''.join(rng.choices(PIECES, k=rng.randint(0, 5)))}"
                if (arguments := words(text)) is not None:
                    found += 1
                    with self.subTest(text):
                        self.assertEqual(output(arguments), output(["/bin/sh", "-c", text]))


def output(arguments: Sequence[str]) -> bytes:
    """Run a program and return what it has printed."""
    return subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout


class Recorder(Tree):
    """Keeps what it was asked to start."""

    def spawn(self, arguments: Sequence[str], environment: Mapping[str, str], *more: Any, **keys: Any) -> int:
        """Start it."""
        self.asked = arguments, keys
        return super().spawn(arguments, environment, *more, **keys)


class StartTest(unittest.TestCase):
    def setUp(self) -> None:
        self.tree = Recorder()
        self.addCleanup(self.tree.close)

    def test_command_is_started_without_a_shell_if_that_is_possible(self) -> None:
        self.enterContext(mock.patch.object(plain, "near", lambda program: True))
        command = Command(["/bin/sh", "-c", "/bin/sleep 1000"])
        process = CommandProcess(self.tree, command, Message(b"", "q"), print, print)
        self.addCleanup(lambda: [os.close(lines.fd) for lines in process._lines])
        self.assertEqual(self.tree.asked, (command.arguments, {"rather": ["/bin/sleep", "1000"]}))

    def test_first_program_that_can_be_started_is_started(self) -> None:
        with open(os.devnull, "r+b") as nothing:
            for rather in (["/bin/sleep", "1000"], ["/nonexistent"], ["/"], None):
                with self.subTest(rather):
                    expected = "sleep" if rather and len(rather) > 1 else "cat"
                    read, write = os.pipe()
                    try:
                        pid = self.tree.spawn(["/bin/cat"], {}, [read, nothing.fileno()], rather=rather)
                        name = Path(f"/proc/{pid}/comm")  # it is set a moment later
                        wait_until(lambda name=name, expected=expected: name.read_text().strip() == expected,
                                   what=expected)
                    finally:
                        os.close(read)
                        os.close(write)


class NearTest(unittest.TestCase):
    """Programs on a disk, and others, in memory: neither these nor those of another machine have a device."""

    def setUp(self) -> None:
        plain.near.cache_clear()
        self.addCleanup(plain.near.cache_clear)
        self.far = f"/proc/self/fd/{os.memfd_create('far')}"
        self.addCleanup(os.close, int(self.far.rpartition("/")[2]))
        Path(self.far).write_text("#!/bin/sh\n", "ascii")

    def near(self, first: str) -> bool:
        """Return whether a program with this first line counts as near."""
        with TemporaryDirectory(dir=Path(__file__).parent) as folder:
            program = Path(folder, "program")
            program.write_text(f"{first}\n:\n", "ascii")
            if not os.major(program.stat().st_dev):
                self.skipTest("the tests are on no disk")
            return plain.near(str(program))

    def test_program_on_a_disk_is_near_with_an_interpreter_on_a_disk(self) -> None:
        with TemporaryDirectory(dir=Path(__file__).parent) as folder:
            interpreter = Path(folder, "interpreter")
            interpreter.write_bytes(b"\x7fELF\xff")
            for first, expected in (
                (":", True), (f"#!{interpreter}", True), (f"#! {interpreter} -x", True), (f"#!{self.far}", False),
                ("#!/no/such/file", False), ("#!", False),
            ):
                with self.subTest(first):
                    self.assertEqual(self.near(first), expected)

    def test_program_that_names_itself_or_is_no_file_is_left_to_the_shell(self) -> None:
        with TemporaryDirectory(dir=Path(__file__).parent) as folder:
            itself, fifo = Path(folder, "itself"), Path(folder, "fifo")
            itself.write_text(f"#!{itself}\n", "ascii")
            os.mkfifo(fifo)
            for program in (itself, fifo, Path(folder)):
                with self.subTest(program.name):
                    self.assertFalse(plain.near(str(program)))

    def test_program_that_is_on_no_disk_or_nowhere_is_left_to_the_shell(self) -> None:
        self.assertFalse(plain.near(self.far))
        self.assertFalse(plain.near("/no/such/file"))
        self.assertIsNone(words(self.far))


class FolderTest(unittest.TestCase):
    def test_variable_with_the_folder_is_as_a_shell_sets_it(self) -> None:
        with TemporaryDirectory() as folder:
            here = Path(folder, "here")
            here.mkdir()
            Path(folder, "other").symlink_to(here)
            self.addCleanup(os.chdir, os.getcwd())
            os.chdir(here)
            for named in (str(here), f"{folder}/other", folder, f"{folder}/none", ".", "", None):
                with self.subTest(named), mock.patch.dict(os.environ):
                    os.environ.pop("PWD", None)
                    if named is not None:
                        os.environ["PWD"] = named
                    self.assertEqual(inherited.environment()["PWD"], output(PRINT).decode().strip())


if __name__ == "__main__":
    unittest.main()
