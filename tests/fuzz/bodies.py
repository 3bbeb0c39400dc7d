"""Bodies of messages: JSON with jsonpickle's tags anywhere, PyBit's own with anything in them, and no JSON."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from rbit import commands, decode, default_queue, models, scan, submission
from rbit.errors import BodyRefused
from tests.fuzz.target import Target
from tests.fuzz.texts import CANARY, is_harmless, texts, utf8

CAPTURES = Path(__file__).parent.parent / "captures"
REAL = [path.read_bytes() for path in sorted(CAPTURES.glob("*_request*.json")) if "properties" not in path.name]
KEYS = [
    "py/object", "py/id", "py/reduce", "py/function", "py/type", "py/repr", "py/tuple", "py/set", "py/state",
    "py/ref", "py/newargs", "py/newargsex", "py/initargs", "py/seq", "py/iterator", "py/bytes", "py/b64",
    "json://x", "py/\n", 'py/"x', "json://\\", "py/", "py", "default_factory", "__class__", "__dict__",
    "__init__", "toJson", "id", "name", "job", "packageinstance", "uri", "transport", "package", "version",
    "arch", "suite", "distribution", "format", "web_host", "buildclient",
]
VALUES = [
    *models.MODELS, "os.system", "posix.system", "builtins.eval", "subprocess.Popen", "collections.defaultdict",
    f"touch {CANARY}", {"py/function": "os.system"}, {"py/tuple": [f"touch {CANARY}"]},
    [{"py/type": "os.system"}], {"py/id": 1}, {"py/id": 0}, {"py/id": 99}, {"py/object": "os.system"}, "py/\n",
    'py/"x":', -1, 0, 1, 2**70, 1.5, True, None, "", [], {},
]
leaves = st.one_of(st.sampled_from(VALUES), texts, st.integers(), st.floats(), st.none(), st.booleans())
keys = st.one_of(st.sampled_from(KEYS), texts)
trees = st.recursive(leaves, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4),
), max_leaves=8)


@st.composite
def _changed(draw: st.DrawFn) -> Any:
    """A message of PyBit's in which some places hold something else."""
    plain = json.loads(draw(st.sampled_from(REAL)))
    for _ in range(draw(st.integers(0, 3))):
        node = plain
        while True:
            inside = [child for child in node.values() if isinstance(child, dict)]
            if not inside or draw(st.integers(0, 3)) == 0:
                break
            node = draw(st.sampled_from(inside))
        node[draw(st.one_of(st.sampled_from(list(node)), keys) if node else keys)] = copy.deepcopy(draw(trees))
    return plain


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bytes that are more or less JSON."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=60))
    text = json.dumps(draw(_changed() if kind > 3 else trees), ensure_ascii=draw(st.booleans()))
    if kind == 1:  # a key twice, an escape, a piece that is missing
        at, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        pieces = ["", text[at:end] * 2, '"py/object":"x",', "\\u0070", '"', "{", "1" * 5000]
        text = text[:at] + draw(st.sampled_from(pieces)) + text[end:]
    if kind == 2:
        spelled = ["\\u0070y/", "p\\u0079/", "py\\/", "\\u0070\\u0079\\u002F"]
        text = text.replace("py/", draw(st.sampled_from(spelled)))
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be"]))
    return text.encode(encoding, "surrogatepass")


def _parsed(body: bytes) -> tuple[Any, list[str]]:
    """Return what json.loads makes of a body, and all keys, also those that are hidden. Errors: ValueError."""
    found: list[str] = []

    def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend(key for key, _ in pairs)
        return dict(pairs)

    return json.loads(body, object_pairs_hook=take), found


def _all(root: object) -> set[type]:
    """Return the types of all that an object holds."""
    stack, types, seen = [root], set(), set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        types.add(type(node))
        stack += node if isinstance(node, list) else node.values() if isinstance(node, dict) else \
            vars(node).values() if hasattr(node, "__dict__") else ()
    return types


def check(body: bytes) -> None:
    """What has a tag that PyBit has not is refused in one short line, and nothing else becomes an object."""
    try:
        parsed, found = _parsed(body)
        is_json = True
    except RecursionError:
        return
    except ValueError:
        parsed, found, is_json = None, [], False
    tagged = [key for key in found if key.startswith(("py/", "json://"))]
    try:
        plain = decode.check(body)
    except BodyRefused as error:
        assert tagged or not is_json, "refused without a reason"
        said = str(error)
        assert said.isprintable() and said.isascii() and len(said) < 400, said
        for use in (decode.decode, decode.build_request, commands.cancelled):
            _refuses(use, body)
        assert default_queue.queue_of(body) is None and submission.job_in(body) is None
        return
    assert (plain is not None) == bool(tagged), tagged
    if plain is None:
        _refuses(decode.decode, body)
        return
    assert set(tagged) <= {"py/object", "py/id"} and plain == parsed
    assert len(found) == len(_keys(parsed)), "a hidden key"
    restored = decode.decode(body)
    types = _all(restored)
    assert types <= {*models.MODELS.values(), dict, list, str, int, float, bool, type(None)}, types
    facts = decode.facts(plain)
    try:
        request = decode.build_request(body)
    except BodyRefused:
        assert facts is None
    else:
        assert facts is not None
        assert facts.values == {
            "JOB": str(request.get_job_id()), "ID": request.get_package(), "VERSION": request.get_version(),
            "ARCH": request.get_arch(), "SUITE": request.get_suite(), "DIST": request.get_dist(),
            "FORMAT": request.get_format(), "URI": request.transport.uri or "",
        }
        assert all(type(value) is str for value in facts.values.values())
    try:
        wanted = commands.cancelled(body)
    except BodyRefused:
        wanted = None
    assert wanted is None or (type(wanted.job) is int and is_harmless(wanted.queue)), wanted


def _keys(parsed: Any) -> list[str]:
    stack, keys = [parsed], []
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            keys += node
            stack += node.values()
        elif isinstance(node, list):
            stack += node
    return keys


def _refuses(use: Any, body: bytes) -> None:
    try:
        use(body)
    except BodyRefused:
        return
    raise AssertionError(f"{use.__name__} takes it")


# A tag that is a key in one spelling or another, or only looks like one.
escaped = st.dictionaries(
    st.sampled_from(["py/\n", 'py/"x', "json://\\", "a", 'a"py/', "\\"]),
    st.sampled_from(["py/\n", 'py/"x":', "json://\\", '":', "\\", 1]), max_size=2,
).map(lambda plain: json.dumps(plain).encode())


def check_large(body: bytes) -> None:
    """A body that is too large to be parsed is judged by the same rules."""
    try:
        _, found = _parsed(body)
    except RecursionError:
        return
    except ValueError as error:
        if "integer string conversion" not in str(error):
            return
        _refuses(decode.check, body)
        return
    tagged = any(key.startswith(("py/", "json://")) for key in found)
    with mock.patch.object(decode, "_LARGE", 0):
        if tagged:
            _refuses(decode.check, body)
        else:
            assert decode.check(body) is None
    text = scan.json_text(body)
    if text is not None:
        assert scan.has_key(text, "py/", "json://") == tagged


@st.composite
def _numbers(draw: st.DrawFn) -> tuple[bytes, int]:
    """A JSON text with long numbers in it, and the digits of the first integer of more than 5; 0 for none."""
    pieces, first = [], 0
    for _ in range(draw(st.integers(1, 4))):
        digits = draw(st.integers(1, 14))
        kind = draw(st.sampled_from(["{}", "-{}", "{}.5", "{}e3", "0.{}", "1e{}", '"{}"', '"\\\\{}"', '"a\\"{}"']))
        pieces.append(kind.format("7" * digits))
        if kind in ("{}", "-{}") and digits > 5 and not first:
            first = digits
    between = draw(st.sampled_from([",", " ,\n"]))
    return f"[{between.join(pieces)}]".encode(), first


def check_numbers(case: tuple[bytes, int]) -> None:
    """The first integer that is too long is found, and nothing else is taken for one."""
    text, first = case
    assert scan.long_integer(text, 5) == first


request_parts = st.tuples(*[utf8.filter(lambda text: text != "")] * 4)


def check_request(case: tuple[tuple[str, str, str, str], int, str, str, str]) -> None:
    """What rbit-submit makes is read as it was meant, whatever stands in it."""
    parts, job, package, version, uri = case
    made = submission.build_request("q", parts, submission.Build(job, package, version, uri), "h:1")
    facts = decode.facts(decode.check(made.body))
    distribution, arch, suite, form = parts
    assert facts == decode.Facts(job, package, version, arch, suite, distribution, form, uri)
    assert models.encode(decode.decode(made.body)) == made.body
    wanted = commands.cancelled(submission.cancel_request(parts, job, "client", "h:1"))
    assert wanted is not None and wanted.job == job
    assert wanted.queue in ("", f"{distribution}_{arch}_{suite}_{form}")


requests = st.tuples(request_parts, st.integers(1, 2**63 - 1), utf8, utf8, utf8)
TARGETS = [
    Target("bodies", bodies(), check, 150),
    Target("large bodies", st.one_of(bodies(), escaped), check_large, 60),
    Target("long numbers in bodies", _numbers(), check_numbers, 40),
    Target("build and cancel requests", requests, check_request, 30),
]
