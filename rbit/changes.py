"""Tells what is different between two configurations, in words: names of keys, never a value.

Decides which keys count without a restart. Used in the client's main thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from rbit.ini import printable
from rbit.secret import Secret
from rbit.settings import Config, RunnerSettings
from rbit.tls import Tls

# The keys of [rbit] that count as soon as they are read anew; another connection or name needs a restart.
AT_ONCE = (
    "polling_time", "architecture", "distribution", "format", "suites", "concurrency", "lease_after", "lease_ttl",
    "lease_renew", "stop_timeout", "max_jobs_per_worker", "worker_idle", "log_dir", "log_limit", "log_keep_days",
)
OTHERS = ("path", "client", "runners", "warnings", "logging")  # what is in a Config beside sections that wait


def merged(running: Config, read: Config) -> Config:
    """Returns what counts of a configuration that was read anew, and for the rest what was running."""
    values = {key: getattr(read.client, key) for key in AT_ONCE}
    return replace(running, client=replace(running.client, **values), runners=read.runners, warnings=read.warnings)


def counting(before: Config, after: Config) -> str:
    """Returns what is different between two configurations that ran one after the other; '' for nothing."""
    old, new = sections(before), sections(after)
    groups = {
        "added": [queue for queue in new if queue not in old],
        "changed": [queue for queue in new if queue in old and new[queue] != old[queue]],
        "taken away": [queue for queue in old if queue not in new],
    }
    parts = [
        f"{word}: {', '.join(f'[runner:{printable(queue)}]' for queue in queues)}"
        for word, queues in groups.items() if queues
    ]
    keys = [key for key in AT_ONCE if getattr(before.client, key) != getattr(after.client, key)]
    return "; ".join([*parts, f"changed: [rbit] {', '.join(keys)}"] if keys else parts)


def waiting(running: Config, read: Config) -> str:
    """Returns the keys that are different and need a restart; '' for none."""
    found = {"rbit": list(_keys(running.client, read.client, AT_ONCE))}
    for field in fields(Config):
        if field.name not in OTHERS:
            found[field.name] = list(_keys(getattr(running, field.name), getattr(read, field.name)))
    parts = [f"[{section}] {', '.join(keys)}".rstrip() for section, keys in found.items() if keys]
    return "; ".join([*parts, "the logging sections"] if _logging(running) != _logging(read) else parts)


def sections(config: Config) -> dict[str, RunnerSettings]:
    """Returns the runner sections by their queues."""
    return {section.queue: section for section in config.runners}


def _keys(old: Any, new: Any, known: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields the keys in which two sections differ; '' for a section that is new, or gone."""
    if not (is_dataclass(old) and is_dataclass(new)):
        if old != new:
            yield ""
        return
    for field in fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after or field.name in known:
            continue
        if isinstance(before, Secret) and isinstance(after, Secret):
            yield from dict.fromkeys((before.key, after.key))
        elif isinstance(before, Tls) and isinstance(after, Tls):
            yield from _keys(before, after)
        else:
            yield "ssl" if field.name == "tls" else field.name


def _logging(config: Config) -> dict[str, dict[str, str]] | None:
    found = config.logging
    return None if found is None else {name: dict(found.items(name)) for name in found.sections()}
