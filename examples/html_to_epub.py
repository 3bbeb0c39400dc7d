"""A runner that makes an EPUB 3 book of one HTML file, with EbookLib (``pip install rbit[examples]``).

Its section in the INI file::

    [runner:cnx_any_html_epub]
    runner = python!html_to_epub:main
    source = module.html
    deposit_location = .

It knows books, nothing of queues; ``html_module`` beside it reads the HTML. It runs in a worker process of
rbit. Valid HTML 5 gives a valid book.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ebooklib import epub
from html_module import MATHML, SVG, XHTML, XML_LANG, Chapter, Module, read_module
from lxml import etree

from rbit import Failed

FILE_NAME = re.compile(r"\w[\w.+~-]*")
LONGEST_NAME = 200  # bytes; file systems take 255, and the ending needs some

STYLE = """
body { line-height: 1.4; margin: 0 4%; }
figure { margin: 1em 0; text-align: center; }
svg, img { max-width: 100%; }
table { border-collapse: collapse; margin: 1em auto; }
td, th { border: 1px solid #888; padding: 0.2em 0.6em; }
"""


def main(message: Any, set_status: Callable[..., None], settings: Mapping[str, str]) -> None:
    """Makes ``PACKAGE.epub`` of the HTML file, named after the package in the build request.

    Arguments:
        message: the message with a PyBit build request.
        set_status: tells PyBit and the log what is going on.
        settings: ``source``, the HTML file, and ``deposit_location``, the folder for the book (the current
            folder when it is missing).

    Errors: rbit.Failed with the reason, when the source or the folder is missing, the package's name is no
    file name, or the HTML holds a picture that cannot be put into the book.
    """
    request = message.build_request()
    target = target_path(request.get_package(), settings)
    source = source_path(settings)
    set_status("Building", f"reading {source.name}")
    module = read_module(source)
    book = make_book(module, f"{request.get_package()} {request.get_version()}", set_status)
    save(book, target)
    set_status("Done", f"{target.name}: {len(module.chapters)} chapters, {target.stat().st_size} bytes")


def target_path(package: str, settings: Mapping[str, str]) -> Path:
    """Returns where the book goes. A package's name comes from strangers: it must not lead elsewhere."""
    if not FILE_NAME.fullmatch(package or "") or len(package.encode()) > LONGEST_NAME:
        raise Failed(f"the package name {package!r:.80} cannot be a file name")
    folder = Path(settings.get("deposit_location", "."))
    if not folder.is_dir():
        raise Failed(f"deposit_location: there is no folder {folder}")
    return folder / f"{package}.epub"


def source_path(settings: Mapping[str, str]) -> Path:
    """Returns the HTML file of the setting ``source``."""
    if "source" not in settings:
        raise Failed("the setting `source` is missing; it names the HTML file")
    source = Path(settings["source"])
    if not source.is_file():
        raise Failed(f"source: there is no file {source}")
    return source


class Page(epub.EpubHtml):
    """A chapter whose bytes go into the book as they are: EbookLib's own would spoil drawings."""

    def __init__(self, chapter: Chapter, language: str) -> None:
        super().__init__(uid=Path(chapter.name).stem, file_name=chapter.name, title=chapter.title, lang=language)
        root = etree.Element(f"{{{XHTML}}}html", nsmap={None: XHTML})
        root.set("lang", language)
        root.set(XML_LANG, language)
        head = etree.SubElement(root, f"{{{XHTML}}}head")
        etree.SubElement(head, f"{{{XHTML}}}title").text = chapter.title
        etree.SubElement(head, f"{{{XHTML}}}link", rel="stylesheet", type="text/css", href="style.css")
        root.append(chapter.body)
        kinds = {"mathml": f"{{{MATHML}}}math", "svg": f"{{{SVG}}}svg"}
        self.properties = [name for name, tag in kinds.items() if next(root.iter(tag), None) is not None]
        self.content = etree.tostring(root, encoding="utf-8", xml_declaration=True, doctype="<!DOCTYPE html>")

    def get_content(self, default: bytes | None = None) -> bytes:
        """Returns the file's bytes."""
        return bytes(self.content)


def make_book(module: Module, identity: str, set_status: Callable[..., None]) -> epub.EpubBook:
    """Returns the book of a module; the same identity gives the same identifier."""
    book = epub.EpubBook()
    book.set_identifier(uuid.uuid5(uuid.NAMESPACE_URL, identity).urn)
    book.set_title(module.title)
    book.set_language(module.language)
    for number, author in enumerate(module.authors, start=1):
        book.add_author(author, uid=f"author-{number}")
    book.add_item(epub.EpubItem("style", "style.css", "text/css", STYLE.encode()))
    for picture in module.pictures.values():
        book.add_item(epub.EpubItem(Path(picture.name).stem, picture.name, picture.kind, picture.content))
    for number, chapter in enumerate(module.chapters, start=1):
        set_status("Building", f"chapter {number} of {len(module.chapters)}: {chapter.title}")
        page = Page(chapter, module.language)
        book.add_item(page)
        book.toc.append(page)
    book.add_item(epub.EpubNcx())
    book.add_item(epub.EpubNav())
    book.spine = ["nav", *book.toc]
    return book


def save(book: epub.EpubBook, target: Path) -> None:
    """Writes a book; whoever looks at ``target`` sees the whole of it or nothing."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    options = {"raise_exceptions": True, "epub3_pages": False, "mtime": datetime.now(timezone.utc)}
    try:
        epub.write_epub(str(part), book, options)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
