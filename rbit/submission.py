"""Messages that ``rbit-submit`` sends: build requests and cancel requests in PyBit's form, or any other.

Knows nothing of the command line, nor of how they are sent.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rbit import decode, envelope, ini, models
from rbit.errors import BodyRefused
from rbit.message import PERSISTENT, Properties
from rbit.settings import Config

ENCODING = "UTF-8"  # as PyBit says it of its own
UNKNOWN = 0  # in the place of the ids in PyBit's database
NO_PYBIT = "localhost:8080"  # in the place of PyBit's address, where there is none
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Submission:
    """A message to be sent.

    Attributes:
        label: how a client's log calls its job.
        body, properties: what is sent.
    """

    label: str
    body: bytes = field(repr=False)
    properties: Properties = field(repr=False)

    @property
    def id(self) -> str:
        """Its message id, by which the statuses of its job are known."""
        return str(self.properties.message_id)


@dataclass(frozen=True)
class Build:
    """What is to be built: the id of the job, the name and the version of the package, where its source is."""

    job: int
    package: str
    version: str
    uri: str = ""


Parts = tuple[str, str, str, str]
NO_PARTS: Parts = ("-", "-", "-", "-")


def parts_of(queue: str) -> Parts | None:
    """Returns the distribution, architecture, suite and format of a queue of PyBit's; None for another name."""
    names = queue.split("_")
    return (names[0], names[1], names[2], names[3]) if len(names) == 4 and all(names) else None


def build_request(queue: str, parts: Parts, build: Build, host: str) -> Submission:
    """Returns a build request.

    Arguments:
        queue: where it goes.
        parts: as ``parts_of`` gives them.
        build: what is to be built.
        host: PyBit's ``host:port``.
    """
    request = models.BuildRequest(job_of(parts, build), models.Transport(None, "http", build.uri, ""), host)
    return Submission(f"{ini.printable(queue)} job {build.job}", models.encode(request), properties(ENCODING))


def raw(queue: str, body: bytes, job: int | None) -> Submission:
    """Returns a message with any body. Arguments: where it goes, its body, and what ``job_in`` finds there."""
    made = properties(None)
    name = f"message {made.message_id}" if job is None else f"job {job}"
    return Submission(f"{ini.printable(queue)} {name}", body, made)


def job_in(body: bytes) -> int | None:
    """Returns the id of the job if a body is a build request, by which its client calls it; else None."""
    try:
        facts = decode.facts(decode.check(body))
    except BodyRefused:
        return None
    return facts.job if facts else None


def cancel_request(parts: Parts, job: int, client: str, host: str) -> bytes:
    """Returns the body of a request to cancel a job.

    Arguments:
        parts: as of ``build_request``, of the queue of the job.
        job: the id of the job.
        client: the name of the client that has it.
        host: as of ``build_request``.
    """
    of = job_of(parts, Build(job, "-", "-"))
    of.buildclient = models.BuildD(UNKNOWN, client)
    return models.encode(models.CancelRequest(of, host))


def job_of(parts: Parts, build: Build) -> models.Job:
    """Returns PyBit's object for a job. Arguments: as of ``build_request``."""
    distribution, arch, suite, form = parts
    return models.Job(build.job, models.PackageInstance(
        UNKNOWN, models.Package(UNKNOWN, build.version, build.package), models.Arch(UNKNOWN, arch), None,
        models.Suite(UNKNOWN, suite), models.Dist(UNKNOWN, distribution), models.Format(UNKNOWN, form),
    ))


def properties(encoding: str | None, named: bool = True) -> Properties:
    """Returns the properties of a message that PyBit knows nothing of: persistent, and with an id if ``named``."""
    return Properties(
        content_encoding=encoding,
        headers={envelope.LOCAL: True},
        delivery_mode=PERSISTENT,
        message_id=secrets.token_hex(16) if named else None,
    )


def host_of(config: Config) -> str:
    """Returns the ``host:port`` of PyBit's web; as in PyBit's own requests, the port is always there."""
    if config.pybit is None:
        return NO_PYBIT
    url = urlsplit(config.pybit.url)
    return url.netloc if url.port else f"{url.netloc.rstrip(':')}:{PORTS[url.scheme]}"
