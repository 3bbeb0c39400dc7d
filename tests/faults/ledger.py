"""The ledger of a run of the harness: what became of every job, in figures, with what proves each exception."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.evidence import Evidence
from tests.faults.record import Run

EXCEPTIONS = {
    "killed": "their client or worker was killed",
    "out of reach": "out of the broker's reach for longer than their lease",
    "ack forgotten": "broker killed within 1 s of their ack",
    "not taken": "stopped while RabbitMQ could not take their last status",
    "young": "no lease yet",
    "handover": "connection lost while their first lease was made",
    "unexplained": "UNEXPLAINED",
}


@dataclass
class Ledger:
    """The figures.

    Attributes:
        rows: what is counted, in words, in order.
        proofs: a line for each exception, with its times.
        failures: in words; the promise is kept when there are none.
    """

    rows: dict[str, int] = field(default_factory=dict)
    proofs: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return the rows as a table."""
        wide = max(map(len, self.rows))
        return "\n".join(f"{name:{wide}}  {count:6}" for name, count in self.rows.items())


def make(evidence: Evidence, runs: list[Run], statuses: dict[int, list[str]], left: dict[str, int]) -> Ledger:
    """Return the ledger.

    Arguments:
        evidence: what is known of the faults and the jobs.
        runs: of all jobs.
        statuses: those of each build request at PyBit's stand-in, by its id there.
        left: messages in each queue at the end.
    """
    ledger = Ledger()
    submitted = {event.facts["job"]: event.facts["request"] for event in evidence.events
                 if event.what == "submitted"}
    unsure = sum(event.what == "not confirmed" for event in evidence.events)
    by_job: dict[str, list[Run]] = {}
    for run in runs:
        by_job.setdefault(run.job, []).append(run)
    complete = {job for job, of_job in by_job.items() if any(run.complete for run in of_job)}
    ledger.rows["jobs submitted"] = len(submitted)
    ledger.rows["  not confirmed, so perhaps not submitted"] = unsure
    ledger.rows["jobs with a complete run"] = len(complete & submitted.keys())
    ledger.rows["lost"] = len(submitted.keys() - complete)
    ledger.failures += [f"{job} is lost" for job in sorted(submitted.keys() - complete)]
    leased = {job for of_client in evidence.logs.values() for job, log in of_client.jobs.items() if log.held}
    ledger.rows["jobs under a lease"] = len(leased & complete)
    ledger.rows["runs that did not come to their end"] = sum(not run.how for run in runs)
    _count_extra_runs(ledger, evidence, by_job)
    _count_statuses(ledger, submitted, statuses)
    ledger.rows["messages left anywhere"] = sum(left.values())
    ledger.failures += [f"{count} messages are left in {queue}" for queue, count in left.items() if count]
    stranded = [event for event in evidence.events if event.what == "stranded"]
    ledger.rows["messages that stood still until their queue had a new leader"] = sum(
        event.facts["count"] for event in stranded
    )
    ledger.proofs += [f"{event.facts['queue']} had expired messages and did not send them on, "
                      f"until {event.facts['leader']} was restarted at {event.at:.3f}" for event in stranded]
    ledger.rows["faults"] = sum(event.what == "fault" for event in evidence.events)
    for what in ("client ended by itself", "client did not stop"):
        found = [event for event in evidence.events if event.what == what]
        ledger.rows[f"{what.replace('client', 'clients that')}"] = len(found)
        ledger.failures += [f"{what}: {event.facts}" for event in found]
    return ledger


def _count_extra_runs(ledger: Ledger, evidence: Evidence, by_job: dict[str, list[Run]]) -> None:
    counts: Counter[str] = Counter()
    for job, of_job in sorted(by_job.items()):
        for _, verdict in evidence.explain(of_job):
            counts[verdict.why] += 1
            line = f"{job} ran again ({verdict.why}): {verdict.shown_by}"
            (ledger.failures if verdict.why == "unexplained" else ledger.proofs).append(line)
    ledger.rows["complete runs beyond the first"] = sum(counts.values())
    for why, words in EXCEPTIONS.items():
        ledger.rows[f"  {words}"] = counts[why]


def _count_statuses(
    ledger: Ledger, submitted: dict[str, int | None], statuses: dict[int, list[str]]
) -> None:
    requests = {job: request for job, request in submitted.items() if request is not None}
    late = {job: request for job, request in sorted(requests.items()) if statuses[request][-1] != "Done"}
    for job, request in late.items():
        ledger.failures.append(f"PyBit does not have {job} as Done in the end; it knows {statuses[request]}")
    ledger.rows["build requests submitted"] = len(requests)
    ledger.rows["  last status delivered"] = len(requests) - len(late)
