"""What the stand-in for PyBit keeps: names, packages, build clients, jobs and their statuses, also as JSON.

The JSON has the keys, and their order, of what a real one sent. It knows neither HTTP nor RabbitMQ; whoever
uses it holds a lock. It runs in threads of the process that tests.
"""

from __future__ import annotations

import datetime
import html
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("Waiting", "Blocked", "Cancelled", "Building", "Failed", "Uploaded", "Done")
FINISHED = {"Done", "Uploaded", "Cancelled"}
PARTS = {  # of a PackageInstance, with their classes
    "arch": "Arch", "build_env": "BuildEnv", "suite": "Suite", "distribution": "Dist", "format": "Format",
}

Model = dict[str, Any]
Transport = dict[str, "str | None"]  # method, uri, vcs_id; None for a field that was not sent


class PybitError(Exception):
    """Raised where PyBit raises: it answers 500."""


@dataclass
class Job:
    """A job; ``rows`` are its statuses, oldest first, each with the client sent with it and its time."""

    id: int
    package: Model  # a PackageInstance
    transport: Transport | None = None  # as the database has it: escaped; None when it could not be stored
    client: str | None = None
    rows: list[tuple[str, str | None, str]] = field(default_factory=list)

    @property
    def status(self) -> str | None:
        """Its last status; None when its rows were deleted."""
        return self.rows[-1][0] if self.rows else None

    @property
    def unfinished(self) -> bool:
        """Whether PyBit counts it as unfinished; a failed one is, one without a status is not."""
        return bool(self.rows) and self.status not in FINISHED


@dataclass
class Build:
    """What is to be built, as a form names it; None for a field that was not sent.

    ``arches`` is one string, tested by substring; ``build_env`` None takes every build environment.
    """

    dist: str | None
    arches: str | None
    suite: str | None
    format: str | None
    package: str | None
    version: str | None
    build_env: str | None = None


def model(kind: str, /, **fields: object) -> Model:
    """Return an object of ``pybit.models`` as jsonpickle writes it."""
    return {"py/object": f"pybit.models.{kind}", **fields}


def escaped(value: str) -> str:
    """Return a form value as PyBit stores it: with & < > and the double quote escaped for HTML."""
    return html.escape(value, quote=False).replace('"', "&quot;")


class Database:
    """The tables of PyBit, with the names that the captures have: cnx, any, latex, pdf.

    Attributes:
        jobs: by id; ``in_order`` gives them in the order of their ids.
        buildds: the ids of the build clients by name.
        blacklist: names of packages of which no job is made.
    """

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.buildds: dict[str, int] = {}
        self.blacklist: set[str] = set()
        self._names = {
            "Dist": {"cnx": 2}, "Arch": {"any": 3}, "Suite": {"latex": 4}, "Format": {"pdf": 2}, "BuildEnv": {},
        }
        self._built: dict[str, list[tuple[str | None, str]]] = {"latex": [(None, "any")]}  # by suite
        self._packages: dict[tuple[str, str], int] = {}
        self._instances: dict[int, Model] = {}

    def register(self, dist: str, arch: str, suite: str, format: str, build_env: str | None = None) -> None:
        """Make names known, and have the suite built for the arch; what is known already stays."""
        kinds = {"Dist": dist, "Arch": arch, "Suite": suite, "Format": format, "BuildEnv": build_env}
        for kind, name in kinds.items():
            if name is not None:
                _id_of(self._names[kind], name)
        self._build(suite, build_env, arch)

    def named(self, kind: str, name: str | None) -> Model:
        """Return an Arch, Suite, Dist, Format or BuildEnv; PybitError when the name is not known."""
        if name not in self._names[kind]:
            raise PybitError(f"no {kind} is called {name!r}")
        return model(kind, id=self._names[kind][name], name=name)

    def arches(self, build: Build) -> list[tuple[str | None, str]]:
        """Return the pairs of build environment and arch to build for; none when nothing fits.

        Errors:
            PybitError: no arches were sent.
        """
        if build.arches is None:
            raise PybitError("no architecture_list")
        pairs = [
            (env, arch) for env, arch in self._built.get(build.suite or "", [])
            if build.build_env in {None, env}
        ]
        if "any" in build.arches:
            return pairs
        if "all" in build.arches:
            firsts: dict[str | None, str] = {}
            for env, arch in pairs:
                firsts.setdefault(env, arch)
            return list(firsts.items())
        return [(env, arch) for env, arch in pairs if arch in build.arches]

    def package(self, name: str | None, version: str | None) -> Model:
        """Return a Package, added if it is new; PybitError when the name or the version is missing."""
        if not name or not version:
            raise PybitError(f"no package of the name {name!r} and the version {version!r}")
        return model("Package", id=_id_of(self._packages, (name, version)), version=version, name=name)

    def instance(self, package: Model, build: Build, env: str | None, arch: str, master: bool) -> Model:
        """Return a PackageInstance, added if there is none; one that is there keeps its ``master``."""
        wanted = {
            "package": package, "arch": self.named("Arch", arch),
            "build_env": None if env is None else self.named("BuildEnv", env),
            "suite": self.named("Suite", build.suite), "distribution": self.named("Dist", build.dist),
            "format": self.named("Format", build.format),
        }
        for instance in self._instances.values():
            if all(instance.get(key) == value for key, value in wanted.items()):
                return instance
        key = max(self._instances, default=0) + 1
        self._instances[key] = model("PackageInstance", id=key, **wanted, master=master)
        return self._instances[key]

    def instance_by_id(self, text: str) -> Model:
        """Return a PackageInstance; PybitError when there is none of this id."""
        if not text.isdecimal() or int(text) not in self._instances:
            raise PybitError(f"no package instance {text}")
        return self._instances[int(text)]

    def add_job(self, package: Model, job_id: int | None = None) -> Job:
        """Add a job of a PackageInstance, whose names become known, with the status Waiting; None: the next id."""
        job = Job(max(self.jobs, default=0) + 1 if job_id is None else job_id, package)
        self.jobs[job.id] = job
        self._adopt(package)
        self.add_row(job, "Waiting")
        return job

    def in_order(self) -> list[Job]:
        """Return all jobs, the lowest id first."""
        return [self.jobs[key] for key in sorted(self.jobs)]

    def _adopt(self, instance: Model) -> None:
        self._instances.setdefault(instance.get("id", 0), instance)
        for key, kind in PARTS.items():
            if part := instance.get(key):
                self._names[kind].setdefault(part["name"], part["id"])
        package, env = instance["package"], instance.get("build_env")
        self._packages.setdefault((package["name"], package["version"]), package["id"])
        self._build(instance["suite"]["name"], env and env["name"], instance["arch"]["name"])

    def _build(self, suite: str, env: str | None, arch: str) -> None:
        built = self._built.setdefault(suite, [])
        if (env, arch) not in built:
            built.append((env, arch))

    def job(self, job_id: int) -> Job:
        """Return a job; PybitError when there is none of this id."""
        if job_id not in self.jobs:
            raise PybitError(f"no job {job_id}")
        return self.jobs[job_id]

    def put_status(self, job: Job, status: str, client: str) -> None:
        """Store an update of a form; an empty client keeps the job's. PybitError for an unknown status."""
        status, client = escaped(status), escaped(client)
        if status not in STATUSES:
            raise PybitError(f"no status {status}")
        if client:
            job.client = client
            self.add_buildd(client)
        self.add_row(job, status, client or None)

    def add_buildd(self, name: str) -> None:
        """Add a build client, unless it is there."""
        _id_of(self.buildds, name)

    @staticmethod
    def add_row(job: Job, status: str, client: str | None = None) -> None:
        """Add a status with the time of now."""
        job.rows.append((status, client, str(datetime.datetime.now())))

    def buildd_json(self, name: str) -> Model:
        """Return a BuildD."""
        return model("BuildD", id=self.buildds[name], name=name)

    def job_json(self, job: Job) -> Model:
        """Return a Job, its build client as a BuildD."""
        client = None if job.client is None else self.buildd_json(job.client)
        return model("Job", id=job.id, packageinstance=job.package, buildclient=client)

    @staticmethod
    def history_json(job: Job) -> list[Model]:
        """Return the JobHistory of each row; each shows the client that the job has now.

        A job whose rows were deleted has one without a status, as the real one's outer join makes it.
        """
        rows = [(status, when) for status, _, when in job.rows] or [(None, "None")]
        return [
            model("JobHistory", job_id=job.id, status=status, buildclient=job.client, time=when)
            for status, when in rows
        ]


def _id_of(ids: dict[Any, int], key: object) -> int:
    return ids.setdefault(key, max(ids.values(), default=0) + 1)
