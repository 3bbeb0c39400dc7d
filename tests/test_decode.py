"""The check of untrusted bodies: what it refuses, what it lets through, and that nothing ever runs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
import unittest
from pathlib import Path
from typing import Any

from rbit import decode, models
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
                large = json.dumps([self.reduce, "x" * 1_200_000])
                self.refused(large.encode(encoding), "'py/function' is not allowed")
        self.assert_nothing_ran()

    def test_a_tag_is_seen_in_every_spelling(self) -> None:
        spelled = ("py\\/reduce", "\\u0070y/reduce", "p\\u0079/reduce", "py\\u002freduce", "py\\u002Freduce")
        keys = ("json:\\/\\/1", "\\u006aso\\u006e://1", "\\u006Ason:\\u002f/1", "js\\u006F\\u006E\\u003a//1")
        for key in spelled + keys + ("\\u0070\\u0079\\u002fx", "js\\u006f\\u006E\\u003A//1"):
            for filler in ("", "x" * 1_200_000):
                for encoding in ("utf-8", "utf-16"):
                    with self.subTest(key, large=bool(filler), encoding=encoding):
                        self.refused(f'["{filler}", {{"{key}": 1}}]'.encode(encoding), "is not allowed")

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
            for text in ("%s", "-%s", "[%s]", '{"py/object": "pybit.models.Arch", "id": %s}'):
                for encoding in ("utf-8", "utf-16"):
                    self.refused((text % ("7" * digits)).encode(encoding), "an integer of")
        self.refused(b'["' + b"x" * 1_200_000 + b'", ' + b"7" * 4301 + b"]", "4301 digits")
        self.assertLess(time.monotonic() - began, 20)

    def test_the_longest_integers_and_long_digits_in_strings_are_nothing_special(self) -> None:
        for body in (b"7" * 4300, b"-" + b"7" * 4300, b'"' + b"7" * 10_000_000 + b'"', b"1." + b"7" * 5000):
            self.assertIsNone(decode.check(body))


class RuleTest(BodyCase):
    def test_a_wrong_type_is_refused_in_every_attribute_of_every_model(self) -> None:
        checked = 0
        for wire, cls in models.MODELS.items():
            for field in dataclasses.fields(cls):
                for value in (1.5, float("nan"), float("inf"), [], {}, {"py/object": "pybit.models.Status"}):
                    with self.subTest(wire, field=field.name, value=value):
                        body = json.dumps({"py/object": wire, field.name: value}).encode()
                        self.refused(body, wire, field.name)
                        checked += 1
        self.assertGreater(checked, 300)

    def test_ids_must_be_integers(self) -> None:
        for place in ("job.id", "job.packageinstance.id", "job.packageinstance.arch.id", "transport.id"):
            for value in (True, "1", float("nan"), float("-inf"), 1.0):
                with self.subTest(place, value=value):
                    self.refused(changed(place, value), "id must be", "int, got")
        self.refused(changed("job.id", None), "id must be int, got None")
        self.assertIsNotNone(decode.check(changed("transport.id", None)))

    def test_names_must_be_strings_or_null(self) -> None:
        package = "job.packageinstance.package"
        for place in (f"{package}.name", f"{package}.version", "transport.uri", "transport.method", "web_host"):
            for value in (1, True, ["a"]):
                with self.subTest(place, value=value):
                    self.refused(changed(place, value), "must be null or str")
            self.assertIsNotNone(decode.check(changed(place, None)))

    def test_every_place_takes_its_own_class_only(self) -> None:
        places = ("job", "transport", *(f"job.packageinstance.{name}" for name in ("package", "arch", "suite")))
        for place in places:
            for value in ({"py/object": "pybit.models.Status", "id": 1, "name": "Done"}, "text", None, {"id": 1}):
                with self.subTest(place, value=value):
                    self.refused(changed(place, value), "must be")
        self.assertIsNotNone(decode.check(changed("job.buildclient", 4)))  # so in lists of jobs

    def test_what_is_tagged_must_be_an_object_at_the_top(self) -> None:
        for body in (b"[" + REQUEST + b"]", b'{"request": ' + REQUEST + b"}", b'{"py/id": 1}'):
            self.refused(body)

    def test_a_class_name_that_is_no_string_is_refused(self) -> None:
        for value in (1, None, [], {}, float("nan")):
            self.refused(json.dumps({"py/object": value}).encode(), "is not one of PyBit's")

    def test_a_key_that_would_hide_a_method_is_refused(self) -> None:
        for key in ("get_package", "toJson", "__class__", "__reduce_ex__", "default_factory"):
            self.refused(changed(key, "x"), f"{key} must be left out")

    def test_extra_plain_keys_are_tolerated(self) -> None:
        extra = {"a": [1, {"b": None}], "c": float("nan")}
        for key in ("extra", "", "__x", "\ud800", "caf\u00e9"):
            request = decode.build_request(changed(key, extra))
            self.assertEqual(request.get_package(), "col11406")
        self.assertEqual(vars(decode.build_request(changed("extra", extra)))["extra"]["a"], extra["a"])

    def test_a_lone_surrogate_crashes_nothing(self) -> None:
        body = changed("job.packageinstance.package.name", "\ud800\x00\n")
        self.assertEqual(decode.build_request(body).get_package(), "\ud800\x00\n")
        self.refused(changed("job.id", "\ud800\n"), r"got '\ud800\n'")
        self.refused(json.dumps({"py/\ud800\n": 1}).encode(), r"'py/\ud800\n' is not allowed")
        self.refused(json.dumps({"py/object": "\ud800" * 1000}).encode(), r"'\ud800")
        self.assertIsNone(decode.check('"\ud800"'.encode("utf-8", "surrogatepass")))


class ReferenceTest(BodyCase):
    def spare(self, spare: object, place: str, target: object) -> bytes:
        """Return the request with ``spare`` before all else and a reference to ``target`` at ``place``."""
        plain = json.loads(changed(place, {"py/id": target}))
        return json.dumps({"py/object": plain.pop("py/object"), "spare": spare, **plain}).encode()

    def test_a_reference_is_followed_also_for_the_facts(self) -> None:
        arch = {"py/object": "pybit.models.Arch", "id": 9, "name": "armel"}
        body = self.spare(arch, "job.packageinstance.arch", 1)
        self.assertEqual(decode.build_request(body).get_arch(), "armel")
        facts = decode.facts(decode.check(body))
        assert facts is not None
        self.assertEqual((facts.arch, facts.package), ("armel", "col11406"))

    def test_a_reference_to_the_wrong_class_is_refused(self) -> None:
        dist = {"py/object": "pybit.models.Dist", "id": 9, "name": "armel"}
        for spare in (dist, [], {"id": 9, "name": "armel"}):
            with self.subTest(spare=spare):
                self.refused(self.spare(spare, "job.packageinstance.arch", 1), "arch must be Arch", "by reference")
        self.refused(self.spare([dist], "job", 2), "job must be Job, got Dist by reference")

    def test_a_reference_to_nothing_is_refused(self) -> None:
        for target in (20, 10**6, 10**4000):
            self.refused(changed("job.buildclient", {"py/id": target}), "points at nothing")
        self.refused(self.spare(1, "job", 1), "points at nothing")

    def test_a_reference_must_be_a_positive_integer_and_stand_alone(self) -> None:
        for target in (0, -1, True, 1.0, float("nan"), float("inf"), "1", None, [], {}):
            with self.subTest(target=target):
                self.refused(changed("job.buildclient", {"py/id": target}), "py/id must")
        self.refused(changed("job.buildclient", {"py/id": 1, "a": 1}), "py/id must")
        self.refused(changed("job.packageinstance.package.name", {"py/id": 1}), "name must be")


class PassingTest(BodyCase):
    def test_every_capture_passes_and_decodes(self) -> None:
        self.assertGreater(len(CAPTURES), 15)
        for path in CAPTURES:
            with self.subTest(path.name):
                body = path.read_bytes()
                self.assertEqual(decode.check(body), json.loads(body))
                is_request = path.name.startswith("build_request")
                want = models.BuildRequest if is_request else models.CancelRequest
                self.assertIs(type(decode.decode(body)), want)
                self.assertEqual(decode.facts(decode.check(body)) is not None, is_request)

    def test_a_request_passes_in_every_encoding(self) -> None:
        for encoding in ENCODINGS:
            body = REQUEST.decode().encode(encoding)
            self.assertEqual(decode.build_request(body).get_package(), "col11406")

    def test_a_large_request_passes(self) -> None:
        body = changed("extra", "x" * 1_200_000)
        self.assertEqual(decode.build_request(body).get_package(), "col11406")

    def test_other_bodies_are_left_to_their_runner(self) -> None:
        bodies = (
            *(b"", b"\x00\xff\xfe", b"plain text", b'{"a": ', b'{"py/reduce": 1} and no JSON'),
            *(b"{}", b"[]", b"1", b"null", b"NaN", b'"py/reduce"', b'{"a": ["py/object", "json://"]}'),
            *(b'{"happy/object": 1, "Py/id": 2, "p y/": 3}', b"[" * 200 + b"]" * 200, b'{"id": NaN}'),
            *("\ufeff{}".encode(), b"\xef\xbb\xbf", b"\xff\xfe", b"\xff\xfe\x00\xd8", b'{"\xff": {"py/type": 1}}'),
            *(b"\x00\x00\x00", b"\xff" * 2_000_000, b"\x00" * 2_000_000, b"\xff\xfe" + b"\x00\xd8" * 1_000_000),
        )
        for body in bodies:
            with self.subTest(body[:40]):
                self.assertIsNone(decode.check(body))
                with self.assertRaisesRegex(BodyRefused, "no message of PyBit's"):
                    decode.decode(body)

    def test_a_large_body_without_tags_is_not_parsed(self) -> None:
        plain = b'[{"name": "value", "number": 12345}, "happy"],' * (8 * 1024 * 1024 // 46)
        for body in (b"[" + plain + b"1]", os.urandom(8 << 20)):
            tracemalloc.start()
            self.assertIsNone(decode.check(body))
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertLess(peak, 1 << 20)

    def test_a_normal_request_is_judged_in_no_time(self) -> None:
        count = 1000
        began = time.process_time()
        for _ in range(count):
            decode.facts(decode.check(REQUEST))
        self.assertLess((time.process_time() - began) / count, 0.001)


class CompleteTest(BodyCase):
    needed = ("job", "job.id", "job.packageinstance", "transport", "transport.uri")

    def test_an_incomplete_build_request_has_no_facts(self) -> None:
        names = "package package.name package.version arch suite suite.name distribution.name format.name"
        for place in (*self.needed, *(f"job.packageinstance.{name}" for name in names.split())):
            with self.subTest(place):
                body = changed(place)
                self.assertIsNone(decode.facts(decode.check(body)))
                self.assertIsInstance(decode.decode(body), models.BuildRequest)
                with self.assertRaisesRegex(BodyRefused, "incomplete"):
                    decode.build_request(body)

    def test_a_name_that_is_null_makes_it_incomplete(self) -> None:
        body = changed("job.packageinstance.package.name", None)
        self.assertIsNone(decode.facts(decode.check(body)))
        with self.assertRaisesRegex(BodyRefused, "incomplete"):
            decode.build_request(body)

    def test_a_uri_that_is_null_is_an_empty_value(self) -> None:
        facts = decode.facts(decode.check(changed("transport.uri", None)))
        assert facts is not None
        self.assertEqual(facts.uri, "")

    def test_another_model_is_no_build_request(self) -> None:
        body = (ROOT / "tests" / "captures" / "cancel_request.json").read_bytes()
        self.assertIsNone(decode.facts(decode.check(body)))
        with self.assertRaisesRegex(BodyRefused, "no build request, but a CancelRequest"):
            decode.build_request(body)
        self.assertIsNone(decode.facts(None))

    def test_the_facts_are_the_values_of_the_placeholders(self) -> None:
        facts = decode.facts(decode.check(REQUEST))
        assert facts is not None
        uri = "http://example.org/content/col11406?a=1&b=2"
        self.assertEqual(facts, decode.Facts(1, "col11406", "1.0", "any", "latex", "cnx", "pdf", uri))
        want = {"ID": "col11406", "VERSION": "1.0", "JOB": "1", "ARCH": "any", "SUITE": "latex", "DIST": "cnx"}
        self.assertEqual(facts.values, {**want, "FORMAT": "pdf", "URI": uri})


if __name__ == "__main__":
    unittest.main()
