"""The check of untrusted bodies: what it refuses, what it lets through, and that nothing ever runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from rbit import decode
from rbit.errors import BodyRefused

ROOT = Path(__file__).resolve().parent.parent
CAPTURES = sorted(
    path for path in (ROOT / "tests" / "captures").glob("*.json") if not path.name.endswith(".properties.json")
)
REQUEST = (ROOT / "tests" / "captures" / "build_request.json").read_bytes()
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


def changed(place: str, value: object = ...) -> bytes:
    """Return the build request with ``value`` at ``place``, a path with dots; with nothing there by default."""
    plain: Any = json.loads(REQUEST)
    *way, last = place.split(".")
    node = plain
    for step in way:
        node = node[step]
    node[last] = value
    if value is ...:
        del node[last]
    return json.dumps(plain).encode()


class BodyCase(unittest.TestCase):
    def refused(self, body: bytes, *words: str) -> None:
        """Assert that every way in refuses ``body``, in one short line that holds ``words``."""
        for way in (decode.check, decode.decode, decode.build_request):
            with self.assertRaises(BodyRefused) as caught:
                way(body)
            reason = str(caught.exception)
            self.assertTrue(reason.isascii() and reason.isprintable(), reason)
            self.assertLess(len(reason), 220)
            for word in words:
                self.assertIn(word, reason)


class BombTest(BodyCase):
    """Each bomb would make a file if it went off."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.canary = Path(folder.name, "canary")
        self.command = f"touch {self.canary}"
        self.reduce = {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [self.command]}]}

    def bombs(self) -> dict[str, Any]:
        touch = [self.command]
        return {
            "reduce": self.reduce,
            "reduce with a type": {"py/reduce": [{"py/type": "os.system"}, {"py/tuple": touch}]},
            "newargs": {"py/object": "subprocess.Popen", "py/newargs": {"py/tuple": touch}},
            "newargsex": {"py/object": "subprocess.Popen", "py/newargsex": [[touch], {}]},
            "initargs": {"py/object": "subprocess.Popen", "py/initargs": [["touch", str(self.canary)]]},
            "newobj": {"py/reduce": ["py/newobj", {"py/type": "subprocess.Popen"}, touch]},
            "repr": {"py/repr": f"os/os.system('{self.command}')"},
            "state": {"py/object": "pybit.models.Arch", "py/state": {"id": 1}},
            "type": {"py/type": "os.system"},
            "function": {"py/function": "os.system"},
            "module": {"py/mod": "os/os.system"},
            "class": {"py/object": "os.system"},
            "class of rbit": {"py/object": "rbit.models.Arch", "id": 1, "name": "any"},
            "bytes": {"py/b64": "AAAA"},
            "set": {"py/set": [1]},
            "iterator": {"py/iterator": [1]},
            "old reference": {"py/ref": "/"},
            "unknown tag": {"py/": 1},
            "key": {"json://" + json.dumps(self.reduce): 1},
        }

    def assert_nothing_ran(self) -> None:
        self.assertFalse(self.canary.exists())

    def test_the_canary_sings_when_jsonpickle_gets_a_bomb_unchecked(self) -> None:
        # Without this the tests below could pass because their bombs are duds.
        for name in ("reduce", "reduce with a type", "key"):
            with self.subTest(name):
                body = json.dumps(self.bombs()[name])
                script = "import sys, jsonpickle; jsonpickle.decode(sys.argv[1], keys=True)"
                subprocess.run([sys.executable, "-c", script, body], timeout=30, check=True)
                self.assertTrue(self.canary.exists())
                self.canary.unlink()

    def test_every_bomb_is_refused_wherever_it_stands(self) -> None:
        for name, bomb in self.bombs().items():
            places = {
                "alone": json.dumps(bomb).encode(),
                "in a list": json.dumps([[bomb]]).encode(),
                "in plain JSON": json.dumps({"a": [{"b": bomb}]}).encode(),
                "in an attribute": changed("job.packageinstance.package.name", bomb),
                "in place of an object": changed("job.packageinstance.arch", bomb),
                "in an extra attribute": changed("transport.extra", [{"a": bomb}]),
                "beside the tag": json.dumps({**json.loads(REQUEST), **bomb}).encode(),
            }
            for place, body in places.items():
                with self.subTest(name, place=place):
                    self.refused(body)
        self.assert_nothing_ran()

    def test_a_bomb_is_refused_in_every_encoding(self) -> None:
        for encoding in ENCODINGS:
            with self.subTest(encoding):
                text = json.dumps(self.reduce)
                self.assertEqual(json.loads(text.encode(encoding)), self.reduce)
                self.refused(text.encode(encoding), "'py/function' is not allowed")
                large = json.dumps([self.reduce, "x" * 1_200_000]).encode(encoding)
                self.refused(large, f"the body has {len(large)} bytes with", "1048576")
        self.assert_nothing_ran()

    def test_a_tag_is_seen_in_every_spelling(self) -> None:
        spelled = ("py\\/reduce", "\\u0070y/reduce", "p\\u0079/reduce", "py\\u002freduce", "py\\u002Freduce")
        keys = ("json:\\/\\/1", "\\u006aso\\u006e://1", "\\u006Ason:\\u002f/1", "js\\u006F\\u006E\\u003a//1")
        for key in spelled + keys + ("\\u0070\\u0079\\u002fx", "js\\u006f\\u006E\\u003A//1"):
            for filler in ("", "x" * 1_200_000):
                for encoding in ("utf-8", "utf-16"):
                    with self.subTest(key, large=bool(filler), encoding=encoding):
                        reason = "with jsonpickle's tags; the limit" if filler else "is not allowed"
                        self.refused(f'["{filler}", {{"{key}": 1}}]'.encode(encoding), reason)

    def test_a_bomb_behind_a_duplicate_key_is_refused(self) -> None:
        bomb = json.dumps(self.reduce)
        for body in (
            f'{{"a": {bomb}, "a": 1}}',
            f'{{"py/object": {bomb}, "py/object": "pybit.models.Arch", "id": 1, "name": "any"}}',
            REQUEST.decode().replace('"timestamp"', f'"web_host": {bomb}, "timestamp"'),
        ):
            with self.subTest(body[:60]):
                self.refused(body.encode())
        self.assert_nothing_ran()

    def test_a_key_twice_is_refused_in_a_tagged_body_only(self) -> None:
        twice = REQUEST.replace(b'"name": "any"', b'"name": "any", "name": "any"')
        self.assertNotEqual(twice, REQUEST)
        self.refused(twice, "a key twice")
        self.refused(b'{"py/object": "pybit.models.Arch", "py/object": "pybit.models.Arch"}', "a key twice")
        self.assertIsNone(decode.check(b'{"a": 1, "a": 2}'))

    def test_deep_nesting_is_refused(self) -> None:
        for text in ("[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "[" * 100_000):
            self.refused(text.encode(), "nested too deeply")

    def test_nesting_that_jsonpickle_could_not_follow_is_refused(self) -> None:
        deep: Any = 1
        for _ in range(200):
            deep = [deep]
        self.refused(changed("extra", deep), "levels deep")
        self.refused(changed("extra", {"a": deep}), "levels deep")

    def test_integers_of_many_digits_are_refused_at_once(self) -> None:
        began = time.monotonic()
        for digits in (4301, 10_000_000):
            for text in ("%s", "-%s", "[%s]", '{"id": %s}', '["a \\"", %s, ""]'):
                for encoding in ("utf-8", "utf-16"):
                    self.refused((text % ("7" * digits)).encode(encoding), "an integer of")
        self.refused(b'["' + b"x" * 1_200_000 + b'", ' + b"7" * 4301 + b"]", "4301 digits")
        self.refused(b'{"py/object": "pybit.models.Arch", "id": ' + b"7" * 4301 + b"}", "4301 digits")
        self.assertLess(time.monotonic() - began, 20)

    def test_the_longest_integers_and_long_digits_in_strings_are_nothing_special(self) -> None:
        long = b"7" * 2_000_000
        for body in (
            *(b"7" * 4300, b"-" + b"7" * 4300, b'"' + long + b'"', b"1." + b"7" * 5000, b"[" + b"7" * 4300 + b"]"),
            *(b'["' + long + b'"]', b'["\\" ' + long + b' "]', b"[1." + long + b"]", b"[1e-" + long + b"]"),
            *(b"[" + long + b".5]", b"[" + long + b"E1]", b'{"a ' + long + b'": 1}'),
        ):
            with self.subTest(body[:20]):
                self.assertIsNone(decode.check(body))


if __name__ == "__main__":
    unittest.main()
