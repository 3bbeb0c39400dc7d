"""PyBit's classes: their JSON, their methods, and the module that job code finds in a worker."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
import warnings
from collections.abc import Mapping
from pathlib import Path

from rbit import decode, models
from rbit.errors import BodyRefused

ROOT = Path(__file__).resolve().parent.parent
CAPTURES = sorted(
    path for path in (ROOT / "tests" / "captures").glob("*.json") if not path.name.endswith(".properties.json")
)
REQUEST = ROOT / "tests" / "captures" / "build_request.json"


def in_a_child(script: str, *arguments: str, **files: str) -> str:
    """Run ``script`` in a fresh Python and return what it printed.

    Arguments:
        arguments: its ``sys.argv[1:]``.
        files: modules to put in front of its path; a ``__`` in a name is a ``/``.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder, *name.split("__")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
            # A package needs its file to be more than a namespace.
            (path.parent / "__init__.py").touch()
        path_list = [folder, str(ROOT), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path_list))},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout.strip()


def content(thing: object, *ignored: str) -> object:
    """Return what a model holds, all the way down, so that two models can be compared.

    Arguments:
        ignored: attributes to leave out wherever they stand.
    """
    if type(thing) not in models.MODELS.values():
        return thing
    held = {name: content(value, *ignored) for name, value in vars(thing).items() if name not in ignored}
    return type(thing).__name__, held


def a_request() -> models.BuildRequest:
    """Return the request of ``build_request.json``, made by hand."""
    instance = models.PackageInstance(
        id=1,
        package=models.Package(id=1, version="1.0", name="col11406"),
        arch=models.Arch(id=3, name="any"),
        build_env=None,
        suite=models.Suite(id=4, name="latex"),
        distribution=models.Dist(id=2, name="cnx"),
        format=models.Format(id=2, name="pdf"),
        master=True,
    )
    uri = "http://example.org/content/col11406?a=1&b=2"
    return models.BuildRequest(
        job=models.Job(id=1, packageinstance=instance),
        transport=models.Transport(id=None, method="git", uri=uri, vcs_id="abc123"),
        web_host="127.0.0.1:8098",
    )


class JsonTest(unittest.TestCase):
    def test_every_capture_gives_the_same_json_back(self) -> None:
        self.assertGreater(len(CAPTURES), 15)
        for path in CAPTURES:
            with self.subTest(path.name):
                body = path.read_bytes()
                self.assertEqual(json.loads(models.encode(decode.decode(body))), json.loads(body))

    def test_build_request_gives_the_same_bytes_back(self) -> None:
        self.assertEqual(models.encode(decode.decode(REQUEST.read_bytes())), REQUEST.read_bytes())

    def test_a_request_made_by_hand_gives_the_bytes_that_pybit_sends(self) -> None:
        self.assertEqual(models.encode(a_request()), REQUEST.read_bytes())

    def test_captures_of_both_jsonpickles_on_python_2_decode_to_equal_objects(self) -> None:
        old = [path for path in CAPTURES if path.name.endswith(".py27-jsonpickle040.json")]
        self.assertGreater(len(old), 3)
        for path in old:
            with self.subTest(path.name):
                newer = path.with_name(path.name.replace("040", "072"))
                # They were captured one after the other, so the database gave them other numbers.
                one, two = (content(decode.decode(each.read_bytes()), "id") for each in (path, newer))
                self.assertEqual(one, two)

    def test_the_same_request_from_python_2_and_python_3_decodes_to_equal_objects(self) -> None:
        # The two webs that sent them had each a port of its own, and one was asked a second time.
        for version, ignored in (("040", ("web_host", "id")), ("072", ("web_host",))):
            old = REQUEST.with_name(f"build_request.py27-jsonpickle{version}.json").read_bytes()
            self.assertNotEqual(list(json.loads(old)), list(json.loads(REQUEST.read_bytes())))
            one, two = (content(decode.decode(body), *ignored) for body in (old, REQUEST.read_bytes()))
            self.assertEqual(one, two)

    def test_from_json_undoes_to_json_for_every_model(self) -> None:
        request = a_request()
        instance, suite = request.job.packageinstance, request.job.packageinstance.suite
        things = [
            *(request, request.job, request.transport, instance, instance.package, instance.arch, suite),
            *(instance.distribution, instance.format, models.BuildEnv(1, "e"), models.BuildD(4, "bob-villa")),
            *(models.Status(1, "Done"), models.SuiteArch(1, suite, models.Arch(3, "any"), 2)),
            models.JobHistory(1, None, None, "None"),
            models.TaskComplete(True, "built"),
            *(kind(request.job, "host:80") for kind in (models.CancelRequest, models.CommandRequest)),
            models.StatusRequest(request.job, "host:80"),
        ]
        self.assertEqual({type(thing) for thing in things}, set(models.MODELS.values()))
        for thing in things:
            with self.subTest(type(thing).__name__):
                self.assertEqual(content(type(thing).fromJson(thing.toJson())), content(thing))

    def test_from_json_refuses_a_bomb_and_another_class(self) -> None:
        for text in ('{"py/type": "os.system"}', models.Arch(1, "any").toJson(), "no JSON"):
            with self.subTest(text), self.assertRaises(BodyRefused):
                models.Suite.fromJson(text)

    def test_an_object_that_stands_twice_is_written_once_and_restored_as_one(self) -> None:
        request = a_request()
        vars(request)["spare"] = request.job.packageinstance
        body = models.encode(request)
        self.assertIn(b'"spare": {"py/id": 2}', body)
        back = decode.build_request(body)
        self.assertIs(vars(back)["spare"], back.job.packageinstance)

    def test_text_outside_ascii_and_a_lone_surrogate_survive(self) -> None:
        for name in ("caf\u00e9", "\U0001f600", "\ud800"):
            with self.subTest(ascii(name)):
                body = models.Arch(1, name).toJson()
                self.assertTrue(body.isascii())
                self.assertEqual(models.Arch.fromJson(body).name, name)
                self.assertEqual(models.Arch.fromJson(body.replace(json.dumps(name), f'"{name}"')).name, name)

    def test_neither_way_lets_a_deprecation_warning_out(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertEqual(models.encode(decode.decode(REQUEST.read_bytes())), REQUEST.read_bytes())


class MethodsTest(unittest.TestCase):
    def test_a_build_request_tells_what_it_is_about(self) -> None:
        request = decode.build_request(REQUEST.read_bytes())
        told = (request.get_job_id(), request.get_package(), request.get_version(), request.get_arch())
        self.assertEqual(told, (1, "col11406", "1.0", "any"))
        self.assertEqual((request.get_suite(), request.get_dist(), request.get_format()), ("latex", "cnx", "pdf"))
        self.assertIsNone(request.get_buildenv())

    def test_a_build_environment_is_told_by_name(self) -> None:
        body = (REQUEST.parent / "build_request.with_buildenv.json").read_bytes()
        self.assertEqual(decode.build_request(body).get_buildenv(), "wheezy")

    def test_what_a_sender_left_out_is_none(self) -> None:
        plain = json.loads(REQUEST.read_bytes())
        del plain["timestamp"], plain["job"]["packageinstance"]["build_env"]
        request = decode.build_request(json.dumps(plain).encode())
        self.assertIsNone(request.get_buildstamp())
        self.assertIsNone(request.get_buildenv())

    def test_a_stamped_request_has_the_time_in_whole_seconds(self) -> None:
        request = a_request()
        self.assertIsNone(request.get_buildstamp())
        before = int(time.time())
        request.stamp_request()
        stamp = request.get_buildstamp()
        self.assertIs(type(stamp), int)
        assert stamp is not None
        self.assertTrue(before <= stamp <= time.time())
        self.assertEqual(decode.build_request(models.encode(request)).get_buildstamp(), stamp)

    def test_a_cancel_request_tells_its_job(self) -> None:
        request = models.CancelRequest.fromJson((REQUEST.parent / "cancel_request.json").read_bytes())
        self.assertEqual(request.get_job_id(), 10)


PROVIDE = "import json, sys, jsonpickle; from rbit.finder import provide_pybit_models as provide; provide();"
BODY = "body = open(sys.argv[1], 'rb').read();"


class ProvideTest(unittest.TestCase):
    def child(self, script: str, files: Mapping[str, str] | None = None) -> str:
        return in_a_child(PROVIDE + BODY + script, str(REQUEST), **(files or {}))

    def test_jsonpickle_gives_a_build_request_with_all_its_methods(self) -> None:
        script = (
            "r = jsonpickle.decode(body); r.stamp_request();"
            "print(type(r).__module__, r.get_package(), r.get_version(), r.get_arch(), r.get_suite(),"
            "r.get_dist(), r.get_format(), r.get_job_id(), r.get_buildenv(), r.get_buildstamp() > 0)"
        )
        self.assertEqual(self.child(script), "pybit.models col11406 1.0 any latex cnx pdf 1 None True")

    def test_jsonpickle_without_it_gives_no_object(self) -> None:
        # The tests above show something only where no PyBit is installed.
        script = f"import sys, jsonpickle; {BODY} print(type(jsonpickle.decode(body)).__name__)"
        self.assertEqual(in_a_child(script, str(REQUEST)), "dict")

    def test_job_code_can_import_every_model_and_encode_it(self) -> None:
        script = (
            "import pybit.models, rbit.models; from pybit.models import Transport;"
            "assert all(getattr(pybit.models, n.split('.')[-1]) is c for n, c in rbit.models.MODELS.items());"
            "print(jsonpickle.encode(Transport(id=None, method='git', uri='u', vcs_id='')))"
        )
        want = '{"py/object": "pybit.models.Transport", "id": null, "method": "git", "uri": "u", "vcs_id": ""}'
        self.assertEqual(self.child(script), want)

    def test_a_real_pybit_goes_before_it(self) -> None:
        files = {"pybit__models": "class BuildRequest:\n    def get_package(self): return 'from the real one'\n"}
        self.assertEqual(self.child("print(jsonpickle.decode(body).get_package())", files), "from the real one")

    def test_another_package_of_that_name_is_left_alone_and_gets_the_models(self) -> None:
        script = "import pybit.other; print(pybit.other.KEPT, jsonpickle.decode(body).get_package())"
        self.assertEqual(self.child(script, {"pybit__other": "KEPT = 'kept'"}), "kept col11406")

    def test_what_is_no_part_of_pybit_models_is_still_missing(self) -> None:
        script = (
            "import importlib\n"
            "for name in ('pybit.other', 'pybitten', 'pybit.models.deeper'):\n"
            "    try: importlib.import_module(name)\n"
            "    except ModuleNotFoundError: print('missing', end=' ')"
        )
        self.assertEqual(in_a_child(f"{PROVIDE}\n{script}"), "missing missing missing")

    def test_a_second_call_changes_nothing_and_the_finder_stands_last(self) -> None:
        script = (
            "provide(); print([type(f).__name__ for f in sys.meta_path].count('Finder'),"
            "type(sys.meta_path[-1]).__name__)"
        )
        self.assertEqual(self.child(script), "1 Finder")

    def test_jsonpickle_is_loaded_when_it_is_needed_and_limited_then(self) -> None:
        script = (
            "import sys; from rbit.finder import provide_pybit_models as provide; provide();"
            "from rbit import decode; before = 'jsonpickle' in sys.modules;"
            f"{BODY} print(before, decode.decode(body).get_package(), end=' ');"
            "import jsonpickle; print(jsonpickle.backend.json._backend_names)"
        )
        self.assertEqual(in_a_child(script, str(REQUEST)), "False col11406 ['json']")

    def test_modules_of_the_job_are_no_part_of_jsonpickle(self) -> None:
        script = (
            "import os, sys; sys.path[:] = [path for path in sys.path if path not in ('', os.getcwd())];"
            "from rbit.finder import provide_pybit_models as provide; provide(); sys.path.insert(0, os.getcwd());"
            f"{BODY} import jsonpickle; print(type(jsonpickle.decode(body)).__name__);"
            "import mine; print(mine.WORD)"
        )
        names = ("jsonpickle", "decimal", "uuid", "platform", "email", "zipfile", "simplejson", "yaml")
        files = dict.fromkeys(names, "raise RuntimeError('mine')") | {"mine": "WORD = 'found'"}
        self.assertEqual(in_a_child(script, str(REQUEST), **files).split(), ["BuildRequest", "found"])

    def test_jsonpickle_keeps_the_standard_parser_only(self) -> None:
        self.assertEqual(self.child("print(jsonpickle.backend.json._backend_names)"), "['json']")

    def test_a_parser_that_stands_in_front_is_removed(self) -> None:
        # jsonpickle prefers a simplejson that it finds, and would ask this one first.
        parser = "def loads(text): return 'not checked'\ndef dumps(thing, **options): return 'not ours'\n"
        files = {"simplejson": parser}
        script = "print(type(jsonpickle.decode(body)).__name__, jsonpickle.encode([1]))"
        before = in_a_child(f"import sys, jsonpickle; {BODY} {script}", str(REQUEST), **files)
        self.assertEqual(before, "str not ours")
        self.assertEqual(self.child(script, files), "BuildRequest [1]")
        ours = "from rbit.models import Arch, encode; print(encode(Arch(1, 'any')) == b'not ours')"
        self.assertEqual(in_a_child(ours, **files), "False")

    @unittest.skipUnless(importlib.util.find_spec("yaml"), "PyYAML is not installed")
    def test_yaml_is_not_tried_with_what_json_refuses(self) -> None:
        bomb = "{'py/type': 'os.system',}"  # YAML, and no JSON
        script = "import sys, jsonpickle; print(jsonpickle.decode(sys.argv[1]))"
        self.assertIn("system", in_a_child(script, bomb))
        self.assertIsNone(decode.check(bomb.encode()))
        after = f"{PROVIDE}\ntry: print(jsonpickle.decode(sys.argv[1]))\nexcept ValueError: print('refused')"
        self.assertEqual(in_a_child(after, bomb), "refused")

    def test_from_json_without_the_safe_decode_says_so(self) -> None:
        script = (
            "from rbit.models import Arch\ntry: Arch.fromJson('{}')\nexcept RuntimeError as error: print(error)"
        )
        self.assertIn("import rbit.decode", in_a_child(script))


if __name__ == "__main__":
    unittest.main()
