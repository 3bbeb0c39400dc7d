"""The check of untrusted bodies: its rules for PyBit's objects, and what passes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import tracemalloc
import unittest

from rbit import decode, models
from rbit.errors import BodyRefused
from tests.test_decode import CAPTURES, ENCODINGS, REQUEST, ROOT, BodyCase, changed


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

    def test_a_request_of_a_mebibyte_passes_and_a_larger_one_is_refused(self) -> None:
        body = changed("extra", "x" * (1 << 19))
        self.assertEqual(decode.build_request(body).get_package(), "col11406")
        self.refused(changed("extra", "x" * (1 << 20)), "bytes with jsonpickle's tags; the limit is 1048576")

    def test_a_large_body_that_holds_no_tag_as_a_key_passes(self) -> None:
        filler = '"' + "x" * 1_200_000 + '"'
        for text in (
            *('["py/object", %s]', '{"a": "py/object", "b": %s}', r'["a \"py/object\": 1", %s]'),
            *('["a", "py/a\\\\", %s]', '{"Py/id": 1, "happy/": 2, "JSON://": %s}', '["py/object"   , %s]'),
            *('py/object {"py/object": 1} %s', '"py/object": %s', "%s"),
        ):
            with self.subTest(text):
                self.assertIsNone(decode.check((text % filler).encode()))
                self.assertIsNone(decode.check((text % filler).encode("utf-16")))
        for text in ('{"py/a\\"": %s}', '{"py/a\\\\"  :%s}', '{"py/a\\n\\"b\\\\": %s}', ' \n[{"py/"\n: %s}] '):
            with self.subTest(text):
                self.refused((text % filler).encode(), "jsonpickle's tags")

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

    def test_a_large_body_is_not_parsed(self) -> None:
        plain = b'[{"name": "value", "number": 12345}, "happy"],' * (8 * 1024 * 1024 // 46)
        tagged = b'[{"py/object": "pybit.models.Arch", "id": 1}, ' + plain + b"1]"
        for body in (b"[" + plain + b"1]", os.urandom(8 << 20), tagged, b"[" + plain + b"7" * 5000 + b"]"):
            tracemalloc.start()
            with contextlib.suppress(BodyRefused):
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
