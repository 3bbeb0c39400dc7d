"""PyBit's message classes on rbit's side, and their JSON.

It must not know how a body gets here, nor whether a body may be trusted: ``rbit.decode`` judges that
before ``restore`` is called. Used in the client and in its workers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from rbit.errors import BodyRefused

MODULE = "pybit.models"

_Model = TypeVar("_Model", bound="_Jsonable")
_decoder: list[Callable[[bytes], object]] = []


def load_jsonpickle() -> Any:
    """Return the library, which is slow to load; the client needs it never."""
    import jsonpickle  # type: ignore[import-untyped] # noqa: PLC0415 - see above

    return jsonpickle


def encode(obj: object) -> bytes:
    """Return ``obj`` as PyBit writes it: jsonpickle's form, one line of ASCII JSON.

    The standard library writes the JSON, so that the same object gives the same bytes on every machine.
    """
    jsonpickle = load_jsonpickle()
    return json.dumps(jsonpickle.Pickler(keys=False).flatten(obj)).encode("ascii")


def restore(plain: object) -> object:
    """Return the objects that ``plain`` describes.

    It must be plain JSON that ``rbit.decode.check`` approved: anything else may run code here.
    """
    jsonpickle = load_jsonpickle()
    return jsonpickle.Unpickler(keys=False, on_missing="ignore").restore(plain, classes=dict(MODELS))


def set_decoder(decoder: Callable[[bytes], object]) -> None:
    """Name the safe decode that ``fromJson`` uses.

    Arguments:
        decoder: turns a body into an object or raises ``BodyRefused``. ``rbit.decode`` names its own when
            it is imported, for it stands above this module, which therefore cannot import it.
    """
    _decoder[:] = [decoder]


class _Jsonable:
    """Gives the models their two JSON methods."""

    def toJson(self) -> str:  # noqa: N802 - PyBit's spelling, which job code calls
        """Return this object as PyBit's JSON."""
        return encode(self).decode("ascii")

    @classmethod
    def fromJson(cls: type[_Model], text: str | bytes) -> _Model:  # noqa: N802 - PyBit's spelling
        """Return the object of this class that ``text`` describes.

        Raises:
            BodyRefused: ``text`` holds something else, or something that must not be decoded.
            RuntimeError: ``rbit.decode`` was never imported in this process.
        """
        if not _decoder:
            raise RuntimeError("fromJson needs the safe decode: import rbit.decode first")
        found = _decoder[0](text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        if not isinstance(found, cls):
            raise BodyRefused(f"expected a {cls.__name__}, got a {type(found).__name__}")
        return found


@dataclass(eq=False)
class Package(_Jsonable):
    """A package in one version."""

    id: int
    version: str
    name: str


@dataclass(eq=False)
class _Named(_Jsonable):
    """What most of PyBit's tables have."""

    id: int
    name: str


class Arch(_Named):
    """An architecture, such as ``any``."""


class Suite(_Named):
    """A suite, such as ``latex``."""


class Dist(_Named):
    """A distribution, such as ``cnx``."""


class Format(_Named):
    """A package format, such as ``pdf``."""


class BuildEnv(_Named):
    """A build environment."""


class BuildD(_Named):
    """A build client, as PyBit registers it."""


class Status(_Named):
    """A status that a job can have, such as ``Building``."""


@dataclass(eq=False)
class SuiteArch(_Jsonable):
    """An architecture that a suite is built for."""

    id: int
    suite: Suite
    arch: Arch
    master_weight: int = 0


@dataclass(eq=False)
class Transport(_Jsonable):
    """Where the source of a package comes from: free text in each attribute; ``id`` is None on the wire."""

    id: int | None
    method: str
    uri: str
    vcs_id: str


@dataclass(eq=False)
class PackageInstance(_Jsonable):
    """A package for one architecture, suite, distribution and format."""

    id: int
    package: Package
    arch: Arch
    build_env: BuildEnv | None
    suite: Suite
    distribution: Dist
    format: Format
    master: bool = True


@dataclass(eq=False)
class Job(_Jsonable):
    """One job; ``id`` is its number at PyBit, ``buildclient`` who builds it (in lists a bare id)."""

    id: int
    packageinstance: PackageInstance
    buildclient: BuildD | int | None = None


@dataclass(eq=False)
class JobHistory(_Jsonable):
    """One status that a job had; ``time`` is local to the PyBit web, without a zone."""

    job_id: int
    status: str | None
    buildclient: str | None
    time: str


@dataclass(eq=False)
class TaskComplete(_Jsonable):
    """How a task of PyBit's own client ended."""

    success: bool
    message: str


class _OfJob(_Jsonable):
    """What all requests share."""

    job: Job

    def get_job_id(self) -> int:
        """Return the job's number at PyBit."""
        return self.job.id


@dataclass(eq=False)
class _Request(_OfJob):
    """A request with nothing but its job."""

    job: Job
    web_host: str


class CommandRequest(_Request):
    """A command to a build client; ``web_host`` is ``host:port`` and not to be trusted."""


class CancelRequest(_Request):
    """Asks a build client to cancel a job; ``web_host`` is ``host:port`` and not to be trusted."""


class StatusRequest(_Request):
    """Asks a build client for its status; ``web_host`` is ``host:port`` and not to be trusted."""


@dataclass(eq=False)
class BuildRequest(_OfJob):
    """Asks for a build; ``timestamp`` is in whole seconds since the epoch, or None when never stamped."""

    job: Job
    transport: Transport
    web_host: str
    timestamp: int | None = None

    def get_package(self) -> str:
        """Return the package's name."""
        return self.job.packageinstance.package.name

    def get_version(self) -> str:
        """Return the package's version."""
        return self.job.packageinstance.package.version

    def get_arch(self) -> str:
        """Return the architecture's name."""
        return self.job.packageinstance.arch.name

    def get_suite(self) -> str:
        """Return the suite's name."""
        return self.job.packageinstance.suite.name

    def get_dist(self) -> str:
        """Return the distribution's name."""
        return self.job.packageinstance.distribution.name

    def get_format(self) -> str:
        """Return the format's name."""
        return self.job.packageinstance.format.name

    def get_buildenv(self) -> str | None:
        """Return the build environment's name, or None when there is no such environment."""
        # jsonpickle calls no constructor: an attribute that the sender left out is not there.
        environment = getattr(self.job.packageinstance, "build_env", None)
        return None if environment is None else environment.name

    def get_buildstamp(self) -> int | None:
        """Return the timestamp, in seconds since the epoch, or None when the request was never stamped."""
        return self.timestamp

    def stamp_request(self) -> None:
        """Set the timestamp to now."""
        self.timestamp = int(time.time())


_CLASSES: tuple[type, ...] = (
    *(Arch, BuildD, BuildEnv, BuildRequest, CancelRequest, CommandRequest, Dist, Format, Job, JobHistory),
    *(Package, PackageInstance, Status, StatusRequest, Suite, SuiteArch, TaskComplete, Transport),
)
#: Wire name, such as ``pybit.models.Job``, to the class that stands for it here.
MODELS: Mapping[str, type] = MappingProxyType({f"{MODULE}.{cls.__name__}": cls for cls in _CLASSES})
# jsonpickle writes a class as module and name, and PyBit reads ``pybit.models``. It is set here, for in the
# body of a class ``dataclass`` would look for a module of that name.
for _cls in _CLASSES:
    _cls.__module__ = MODULE
