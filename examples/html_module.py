"""Reads an HTML file into the chapters and pictures of a book; used by ``html_to_epub``.

It knows HTML, nothing of books' files and nothing of queues. It runs in a worker process of rbit. A chapter
begins at each ``h2``; what stands before the first one becomes a chapter with the file's title. What a book
cannot hold (scripts, forms, sound, links to files that are not in it) is left out.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import lxml.html
from lxml import etree

from rbit import Failed

XHTML = "http://www.w3.org/1999/xhtml"
SVG = "http://www.w3.org/2000/svg"
MATHML = "http://www.w3.org/1998/Math/MathML"
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"

CONTAINERS = frozenset({"body", "main", "article", "section", "header", "div"})  # may hold several chapters
UNWANTED_ELEMENTS = frozenset(
    "audio base button canvas embed form iframe input link meta noscript object script select source style "
    "template textarea video".split()
)
UNWANTED_ATTRIBUTES = frozenset(  # of HTML before 5, which no book may have; and what leads out of the book
    "align bgcolor border cellpadding cellspacing hspace valign vspace longdesc ping srcset sizes target".split()
)
PICTURES = {"image/gif": "gif", "image/jpeg": "jpg", "image/png": "png", "image/svg+xml": "svg"}
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass
class Chapter:
    """One file of the book."""

    title: str
    name: str
    body: etree._Element = field(default_factory=lambda: etree.Element(f"{{{XHTML}}}body", nsmap={None: XHTML}))


@dataclass
class Picture:
    """A picture of the book."""

    name: str
    kind: str  # media type
    content: bytes


@dataclass
class Module:
    """What an HTML file holds."""

    title: str
    authors: list[str]
    language: str
    chapters: list[Chapter] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)  # by the address in the HTML


def read_module(source: Path) -> Module:
    """Reads an HTML file. Errors: rbit.Failed when it is empty or a picture cannot be put into a book."""
    root = parse(source)
    body = root.find(f"{{{XHTML}}}body")
    if body is None or not (len(body) or words(body)):
        raise Failed(f"source: {source.name} has no text")
    authors = [
        " ".join(meta.get("content", "").split())
        for meta in root.iter(f"{{{XHTML}}}meta")
        if meta.get("name", "").lower() == "author"
    ]
    language = root.get("lang") or root.get(XML_LANG) or ""
    module = Module(
        title=words(root.find(f"{{{XHTML}}}head/{{{XHTML}}}title")) or source.stem,
        authors=[name for name in authors if name],
        language=language if LANGUAGE.fullmatch(language) else "und",
    )
    clean(body)
    places = split(body, module)
    for chapter in module.chapters:
        take_pictures(chapter.body, module.pictures, source.parent)
        mend_links(chapter.body, places)
    return module


def parse(source: Path) -> etree._Element:
    """Returns the root of an HTML file, its elements in the namespaces that they have in XHTML."""
    content = source.read_bytes()
    try:
        # HTML that is well-formed XML keeps its formulas and drawings exactly as they are.
        root = etree.fromstring(content, etree.XMLParser(resolve_entities=False, no_network=True))
        if root.tag == f"{{{XHTML}}}html":
            return root
    except etree.XMLSyntaxError:
        pass
    try:
        root = lxml.html.document_fromstring(content, parser=lxml.html.HTMLParser(encoding=encoding(content)))
    except etree.LxmlError as error:
        raise Failed(f"source: {source.name} is no HTML: {error}") from error
    name_elements(root, XHTML)
    return root


def encoding(content: bytes) -> str | None:
    """Returns UTF-8 when the bytes are; None leaves it to lxml, which would read a bare UTF-8 as Latin-1."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return "utf-8"


def name_elements(element: etree._Element, namespace: str) -> None:
    """Puts elements, which lxml's HTML parser leaves without one, into their namespaces."""
    if isinstance(element.tag, str):
        namespace = {"svg": SVG, "math": MATHML}.get(element.tag, namespace)
        element.tag = f"{{{namespace}}}{element.tag}"
        for name in [name for name in element.attrib if ":" in name or name == "xmlns"]:
            del element.attrib[name]
        if namespace == SVG and "viewbox" in element.attrib:
            element.set("viewBox", element.attrib.pop("viewbox"))
    for child in element:
        name_elements(child, namespace)


def local(element: etree._Element) -> str:
    """Returns the name of an HTML element; '' for one of SVG or MathML and for a comment."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) and tag.startswith(f"{{{XHTML}}}") else ""


def words(element: etree._Element | None) -> str:
    """Returns the text of an element on one line."""
    return "" if element is None else " ".join("".join(element.itertext()).split())


def clean(body: etree._Element) -> None:
    """Removes what would make a book invalid or active, comments, and ids that stand there twice."""
    ids: set[str] = set()
    for element in list(body.iter()):
        if not isinstance(element.tag, str) or local(element) in UNWANTED_ELEMENTS:
            replace(element, "")
            continue
        if element.get("id", "") in ids:
            element.attrib.pop("id", None)
        ids.add(element.get("id", ""))
        for name in list(element.attrib):
            if name.startswith(("on", "data-")) or (local(element) and name in UNWANTED_ATTRIBUTES):
                del element.attrib[name]


def replace(element: etree._Element, text: str) -> None:
    """Puts a text in the place of an element; what stood behind the element stays."""
    parent, before = element.getparent(), element.getprevious()
    text += element.tail or ""
    if parent is None:
        return
    if before is None:
        parent.text = (parent.text or "") + text
    else:
        before.tail = (before.tail or "") + text
    parent.remove(element)


def split(body: etree._Element, module: Module) -> dict[str, str]:
    """Moves what stands in a body into chapters; returns where each id has gone, as an address in the book."""
    places: dict[str, str] = {}
    for element, ids in list(pieces(body, [])):
        if local(element) == "h2" or not module.chapters:
            number = len(module.chapters) + 1
            title = words(element) if local(element) == "h2" else module.title
            module.chapters.append(Chapter(title or f"Chapter {number}", f"chapter-{number:03}.xhtml"))
        chapter = module.chapters[-1]
        chapter.body.append(element)
        if ids and not element.get("id"):
            element.set("id", ids[0])
        for within in element.iter():
            if within.get("id"):
                places[within.get("id")] = f"{chapter.name}#{within.get('id')}"
        for gone in ids:
            places[gone] = f"{chapter.name}#{element.get('id')}"
    return places


def pieces(container: etree._Element, ids: list[str]) -> Iterator[tuple[etree._Element, list[str]]]:
    """Yields the elements of a container; containers with chapters of their own are taken apart.

    Each element comes with the ids of the containers that began just before it and are no more.
    """
    if (container.text or "").strip():
        container.insert(0, paragraph(container.text))
    for child in list(container):
        if holds_chapter(child):
            yield from pieces(child, [*ids, child.get("id")] if child.get("id") else ids)
            if (child.tail or "").strip():
                yield paragraph(child.tail), []
        else:
            yield child, ids
        ids = []


def paragraph(text: str) -> etree._Element:
    """Returns a paragraph for text that stood bare in a container."""
    element = etree.Element(f"{{{XHTML}}}p")
    element.text = text
    return element


def holds_chapter(element: etree._Element) -> bool:
    """Whether a chapter begins inside an element that may be taken apart."""
    return local(element) in CONTAINERS and any(local(sub) == "h2" or holds_chapter(sub) for sub in element)


def mend_links(body: etree._Element, places: Mapping[str, str]) -> None:
    """Lets links inside the HTML lead to the right chapter, and removes those to files beside it."""
    for link in body.iter(f"{{{XHTML}}}a"):
        address = link.attrib.pop("href", "")
        if address.startswith("#"):
            address = places.get(urllib.parse.unquote(address[1:]), "")
        elif urllib.parse.urlsplit(address).scheme not in ("http", "https", "mailto"):
            address = ""
        if address:
            link.set("href", address)


def take_pictures(body: etree._Element, pictures: dict[str, Picture], folder: Path) -> None:
    """Collects the pictures of a chapter; one that lies on the web is replaced by its description."""
    for image in list(body.iter(f"{{{XHTML}}}img")):
        address = image.get("src", "")
        if urllib.parse.urlsplit(address).scheme in ("http", "https") or not address:
            replace(image, image.get("alt", ""))
            continue
        if address not in pictures:
            kind, content = embedded(address) if address.startswith("data:") else beside(address, folder)
            if kind not in PICTURES:
                raise Failed(f"a book cannot hold the picture {address:.60}: it is neither {', '.join(PICTURES)}")
            pictures[address] = Picture(f"picture-{len(pictures) + 1:03}.{PICTURES[kind]}", kind, content)
        image.set("src", pictures[address].name)


def embedded(address: str) -> tuple[str, bytes]:
    """Returns the media type and the content of a picture in a ``data:`` address."""
    kind, _, content = address.removeprefix("data:").partition(",")
    plain = urllib.parse.unquote_to_bytes(content)
    try:
        return kind.partition(";")[0], base64.b64decode(plain) if kind.endswith(";base64") else plain
    except binascii.Error as error:
        raise Failed(f"the picture {address:.60} is damaged: {error}") from error


def beside(address: str, folder: Path) -> tuple[str, bytes]:
    """Returns the media type and the content of a picture beside the HTML file, or in a folder below it."""
    path = (folder / urllib.parse.unquote(urllib.parse.urlsplit(address).path)).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise Failed(f"there is no picture {address:.60} beside the HTML file")
    return mimetypes.guess_type(path.name)[0] or "", path.read_bytes()
