"""When the stand-in for PyBit makes, supersedes, cancels and retries jobs, and what it sends for that.

It knows nothing of HTTP; whoever uses it holds a lock. It runs in threads of the process that tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.support.pybit_broker import Broker, Channel, publish_build, publish_cancel
from tests.support.pybit_model import Build, Database, Job, Model, PybitError, Transport, escaped

COMPARED = ("arch", "build_env", "suite", "distribution")  # and not the format


class NoArchError(PybitError):
    """Raised for a submission for which no arch is built: PyBit answers 500 with a phrase of its own."""


class Control:
    """Submissions and cancels.

    Arguments:
        database: where the jobs are.
        broker: where the requests go.
        web_host: returns what goes into a request as ``web_host``.
    """

    def __init__(self, database: Database, broker: Broker, web_host: Callable[[], str]) -> None:
        self._database = database
        self._broker = broker
        self._web_host = web_host

    def submit(self, build: Build, transport: Transport) -> list[Job]:
        """Make a job for each arch, cancel what it supersedes, and publish its build request.

        The order is the real one's: what fails late leaves a job that waits and has no message.

        Returns:
            the jobs; none for a package on the blacklist.

        Errors:
            NoArchError: the suite is not built for any such arch.
            PybitError: a field is missing, a name unknown, or RabbitMQ refuses or is away.
        """
        database = self._database
        if build.package in database.blacklist:
            return []
        package = database.package(build.package, build.version)
        for kind, name in (("Suite", build.suite), ("Dist", build.dist), ("Format", build.format)):
            database.named(kind, name)
        pairs = database.arches(build)
        if not pairs:
            raise NoArchError(f"{build.suite} is not built for {build.arches}")
        jobs: list[Job] = []
        with self._broker.channel() as channel:
            for index, (env, arch) in enumerate(pairs):
                master = index == 0 or pairs[index - 1][0] != env
                job = database.add_job(database.instance(package, build, env, arch, master))
                jobs.append(job)
                self._cancel_superseded(job)
                job.transport = _stored(transport)
                publish_build(channel, job, database.job_json(job), transport, self._web_host())
        return jobs

    def submit_again(self, instance: Model, transport: Transport) -> list[Job]:
        """Submit what a PackageInstance is of; for its build environment only, if it has one."""
        keys = (*COMPARED, "format", "package")
        names: dict[str, Any] = {key: (instance[key] or {}).get("name") for key in keys}
        return self.submit(
            Build(
                names["distribution"], names["arch"], names["suite"], names["format"], names["package"],
                instance["package"]["version"], names["build_env"],
            ),
            transport,
        )

    def retry(self, job: Job) -> list[Job]:
        """Submit a job again with the transport that was stored, and so escaped once more."""
        if job.transport is None:
            raise PybitError(f"job {job.id} has no transport")
        return self.submit_again(job.package, job.transport)

    def cancel(self, job: Job) -> None:
        """Ask the client of a job that is Building to cancel it; set any other job to Cancelled."""
        with self._broker.channel() as channel:
            self._cancel_on(channel, job)

    def cancel_all(self) -> None:
        """Cancel each unfinished job."""
        for job in self._unfinished():
            self.cancel(job)

    def _cancel_on(self, channel: Channel, job: Job) -> None:
        if job.status == "Building" and job.client is not None:
            publish_cancel(channel, job.client, self._database.job_json(job), self._web_host())
        else:
            self._database.add_row(job, "Cancelled")

    def _cancel_superseded(self, new: Job) -> None:
        with self._broker.channel() as channel:  # PyBit connects here also when there is nothing to cancel
            for job in self._unfinished():
                if job is not new and _supersedes(new.package, job.package):
                    self._cancel_on(channel, job)

    def _unfinished(self) -> list[Job]:
        return [job for job in self._database.in_order() if job.unfinished]


def version_order(version: str) -> tuple[int, list[Any], list[Any]]:
    """Return a key that sorts versions as ``dpkg --compare-versions`` does."""
    epoch, _, rest = version.rpartition(":")
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch) if epoch.isdecimal() else 0, _order(upstream), _order(revision or "0")


def _order(text: str) -> list[Any]:
    def weight(character: str) -> int:  # ~ before the end, letters before the rest
        if character == "~":
            return -1
        return ord(character) if character.isalpha() else ord(character) + 256

    # The last match is empty: the end of the text, which sorts between ~ and everything else.
    return [
        ([*map(weight, word), 0], int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", text)
    ]


def _supersedes(new: Model, old: Model) -> bool:
    if new["package"]["name"] != old["package"]["name"]:
        return False
    if any(new.get(key) != old.get(key) for key in COMPARED):
        return False
    versions = new["package"]["version"], old["package"]["version"]
    return versions[0] == versions[1] or version_order(versions[0]) >= version_order(versions[1])


def _stored(transport: Transport) -> Transport:
    stored: Transport = {}
    for name, value in transport.items():
        if value is None:
            raise PybitError(f"no {name}")
        stored[name] = escaped(value)
    return stored
