"""The check of untrusted bodies, and the safe way from a body to PyBit's objects.

It never runs jsonpickle over a body that it has not approved, and it knows nothing of queues, settings
or processes. It runs in the client, in a slot's thread before each job, and in the workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple, get_args, get_type_hints

from rbit import models, scan
from rbit.errors import BodyRefused

_LARGE = 1 << 20  # bytes; a larger body is never parsed here. PyBit's messages have less than 1000
_DIGITS = 4300  # at most in one integer; newer Pythons have this limit too, 3.10.0 to 3.10.6 take hours
_DEPTH = 50  # levels of lists and objects in a PyBit message, which itself has four
_TAGS = ("py/", "json://")  # beginnings of jsonpickle's keys
_SHOWN = 60  # characters of a stranger's text in a reason


class _Rule(NamedTuple):
    """What one attribute of a model may hold."""

    types: frozenset[type]
    wire: str | None  # the class that a tagged object must have here; None: no object may stand here
    words: str


def _rules(cls: type) -> dict[str, _Rule]:
    """Return the rules for a model's attributes: its type hints, but a string or a flag may be null too."""
    # jsonpickle sets attributes by any key: one could hide a method, and default_factory is special to it.
    rules = {name: _Rule(frozenset(), None, "left out") for name in (*dir(cls), "default_factory")}
    for name, hint in get_type_hints(cls, vars(models)).items():
        types = {*(get_args(hint) or (hint,)), *({type(None)} if hint in {str, bool} else ())}
        wire = next((f"pybit.models.{kind.__name__}" for kind in types if kind in _CLASSES), None)
        words = " or ".join(sorted(kind.__name__ for kind in types)).replace("NoneType", "null")
        rules[name] = _Rule(frozenset(types - _CLASSES), wire, words)
    return rules


_CLASSES = frozenset(models.MODELS.values())
# Types are compared exactly: a bool is no int here, and no attribute is a float (NaN and Infinity are some).
_RULES = {wire: _rules(cls) for wire, cls in models.MODELS.items()}


def _integer(text: str) -> int:
    if len(text) > _DIGITS and len(text) > _DIGITS + text.startswith("-"):
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _show(value: object) -> str:
    """Return a short form of ``value`` in printable ASCII, whatever a stranger put into it."""
    if isinstance(value, (dict, list)):
        return f"a {type(value).__name__}"
    shown = ascii(value[:_SHOWN] if isinstance(value, str) else value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."


class _Walk:
    """What one parse saw. The parser hands over every JSON object, the innermost first.

    So nothing here recurses, and what a duplicate key hides from the result is seen too. A complaint waits for
    the end of the parse: a body that turns out to be no JSON is not judged.
    """

    __slots__ = ("complaint", "doubled", "loose", "references", "tagged")

    def __init__(self) -> None:
        self.complaint = ""  # the first one
        self.doubled = False  # an object had a key twice
        self.loose = False  # something stands outside the places that the rules name
        self.references = False
        self.tagged = False

    def complain(self, why: str) -> None:
        self.complaint = self.complaint or why

    def take(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        node = dict(pairs)
        self.doubled |= len(node) != len(pairs)
        name = node.get("py/object")
        rules = _RULES.get(name) if type(name) is str else None
        if rules is not None and "py/id" not in node:
            self.take_object(node, rules)
            return node
        for key in node:
            self.take_key(key)
        if "py/id" in node:
            self.take_reference(node)
        elif "py/object" in node:
            self.complain(f"the class {_show(name)} is not one of PyBit's")
        else:
            self.loose = True
        return node

    def take_key(self, key: str) -> None:
        if key.startswith(_TAGS):
            self.tagged = True
            if key not in {"py/object", "py/id"}:
                self.complain(f"the key {_show(key)} is not allowed")

    def take_reference(self, node: dict[str, Any]) -> None:
        target, self.references = node["py/id"], True
        if len(node) != 1 or type(target) is not int or target < 1:
            self.complain(f"py/id must stand alone and be a positive integer, got {_show(target)}")

    def take_object(self, node: dict[str, Any], rules: dict[str, _Rule]) -> None:
        name = node["py/object"]
        for key, value in node.items():
            rule, kind = rules.get(key), type(value)
            if rule is None:  # no attribute of a model begins as a tag does
                self.take_key(key)
                self.loose = self.loose or kind is dict or kind is list
                continue
            if kind is dict and rule.wire is not None:
                fits = value.get("py/object") == rule.wire or "py/id" in value
            else:
                fits = kind in rule.types
            if not fits:
                self.complain(f"{name}: {key} must be {rule.words}, got {_show(value)}")


def check(body: bytes) -> dict[str, Any] | None:
    """Judge a message's body.

    Arguments:
        body: as it came from the queue, of any size. It is read as ``json.loads`` reads bytes, UTF-16 and
            UTF-32 included, which is how ``jsonpickle.decode`` reads it after ``provide_pybit_models``.

    Returns:
        None when any runner may have it: it is no JSON, or JSON without jsonpickle's tags. Otherwise the plain
        JSON of a PyBit object with no class but PyBit's; attributes may be missing or more than PyBit's.

    Raises:
        BodyRefused: it holds tags and is no such object or over 1 MiB, or cannot be parsed safely; in one
            short line.
    """
    if len(body) > _LARGE:
        _check_large(body)
        return None
    walk = _Walk()
    try:
        plain = json.loads(body, object_pairs_hook=walk.take, parse_int=_integer)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    except RecursionError as error:
        raise BodyRefused("the body is nested too deeply to be parsed") from error
    except (ValueError, MemoryError) as error:
        raise BodyRefused(f"the body cannot be parsed: {str(error)[:100] or type(error).__name__}") from error
    if not walk.tagged:
        return None
    if walk.complaint:
        raise BodyRefused(f"the body is no message of PyBit's: {walk.complaint}")
    if not isinstance(plain, dict) or "py/object" not in plain:
        raise BodyRefused("the body holds jsonpickle's tags, but is not itself one of PyBit's objects")
    if walk.doubled:
        raise BodyRefused("the body holds jsonpickle's tags and a key twice in one object")
    if walk.loose or walk.references:
        _survey(plain)
    if walk.references:
        _verify(models.restore(plain))
    return plain


def _check_large(body: bytes) -> None:
    """Refuse a large body that holds tags or too long an integer; it takes no memory to speak of."""
    text = scan.json_text(body)
    if text is None:
        return
    if scan.has_key(text, *_TAGS):
        raise BodyRefused(f"the body has {len(body)} bytes with jsonpickle's tags; the limit is {_LARGE}")
    if digits := scan.long_integer(text, _DIGITS):
        raise BodyRefused(f"the body cannot be parsed: an integer of {digits} digits")


def _survey(plain: dict[str, Any]) -> None:
    """Refuse references that point at nothing before them, and nesting that jsonpickle cannot follow."""
    containers = 0  # jsonpickle numbers lists and objects, references not, in the order of the text
    stack: list[tuple[Any, int]] = [(plain, 1)]
    while stack:
        node, depth = stack.pop()
        if not isinstance(node, (dict, list)):
            continue
        if depth > _DEPTH:
            raise BodyRefused(f"the body is nested more than {_DEPTH} levels deep")
        if isinstance(node, dict) and "py/id" in node:
            if node["py/id"] >= containers:
                raise BodyRefused(f"py/id {_show(node['py/id'])} points at nothing")
            continue
        containers += 1
        children = node.values() if isinstance(node, dict) else node
        stack.extend((child, depth + 1) for child in reversed(children))


def _verify(root: object) -> None:
    """Refuse a model that holds the wrong class where a reference ended."""
    stack: list[Any] = [root]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in seen or type(node) not in {dict, list, *_CLASSES}:
            continue
        seen.add(id(node))
        if isinstance(node, list):
            stack.extend(node)
            continue
        attributes = node if isinstance(node, dict) else vars(node)
        stack.extend(attributes.values())
        rules = _RULES.get(f"pybit.models.{type(node).__name__}", {})
        for name in attributes.keys() & rules.keys():
            kind, rule = type(attributes[name]), rules[name]
            if kind not in rule.types and models.MODELS.get(rule.wire or "") is not kind:
                raise BodyRefused(f"{name} must be {rule.words}, got {kind.__name__} by reference")


def decode(body: bytes) -> object:
    """Return the object of PyBit's that a body holds.

    Raises:
        BodyRefused: ``check`` refuses the body, or it holds no such object.
    """
    plain = check(body)
    if plain is None:
        raise BodyRefused("the body is no message of PyBit's: it is no JSON, or holds no tagged object")
    return models.restore(plain)


models.set_decoder(decode)


def build_request(body: bytes) -> models.BuildRequest:
    """Return the build request that a body holds.

    Raises:
        BodyRefused: ``decode`` refuses the body, it holds another object, or a name is missing or null.
    """
    request = decode(body)
    if not isinstance(request, models.BuildRequest):
        raise BodyRefused(f"the body is no build request, but a {type(request).__name__}")
    if _gather(request, getattr) is None:
        raise BodyRefused("the build request is incomplete: a name, the version or the job's number is missing")
    return request


@dataclass(frozen=True)
class Facts:
    """What a build request is about. ``job`` is the job's number at PyBit; ``uri`` may be empty."""

    job: int
    package: str
    version: str
    arch: str
    suite: str
    distribution: str
    format: str
    uri: str

    @property
    def values(self) -> dict[str, str]:
        """The names of a shell command's placeholders, without the percent sign, and their values."""
        names = ("JOB", "ID", "VERSION", "ARCH", "SUITE", "DIST", "FORMAT", "URI")
        return dict(zip(names, map(str, vars(self).values()), strict=True))


_OF_INSTANCE = ("package.name", "package.version", "arch.name", "suite.name", "distribution.name", "format.name")
_PLACES = ("job.id", *(f"job.packageinstance.{place}" for place in _OF_INSTANCE), "transport.uri")
_PATHS = [place.split(".") for place in _PLACES]  # to the attributes of Facts, in their order


def facts(plain: dict[str, Any] | None) -> Facts | None:
    """Return what a build request is about; None when ``plain``, as ``check`` gave it, is no complete one."""
    if plain is None or plain["py/object"] != "pybit.models.BuildRequest":
        return None
    # What is not in its place may be referred to from there: jsonpickle can follow that.
    return _gather(plain, getitem) or _gather(models.restore(plain), getattr)


def _gather(root: Any, step: Callable[[Any, str], Any]) -> Facts | None:
    try:
        *names, uri = [reduce(step, path, root) for path in _PATHS]
    except (AttributeError, KeyError):
        return None
    return None if None in names else Facts(*[*names, uri or ""])
