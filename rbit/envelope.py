"""What a copy of a message looks like: its properties, and the headers in which rbit keeps its own.

A copy has the body and the properties of its original but for those that would harm it: a foreign ``user_id``
closes the channel, ``CC`` and ``BCC`` send it around, an old ``expiration`` ends it, what the broker noted of
former dead-lettering may make it drop the copy as going in circles. Knows nothing of the broker.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from rbit.message import PERSISTENT, Properties
from rbit.output import printable
from rbit.settings import LONGEST_NAME
from rbit.tokens import token

PREFIX = "x-rbit-"  # of the headers that rbit writes
JOB, LEASE, ATTEMPT, COPY, KEPT, LEFT_OUT, LOCAL = (
    PREFIX + name for name in ("job", "lease", "attempt", "copy", "kept", "left-out", "local")
)
DEATHS = frozenset(
    {f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")}
    | {"x-death"}
)
GIVEN_BACK = "x-delivery-count"
COUNTED = frozenset({GIVEN_BACK, "x-acquired-count"})  # written by quorum queues at each delivery
HARMFUL_HEADERS = frozenset({"CC", "BCC"}) | DEATHS
HARMFUL = ("expiration", "user_id")
LARGEST = 10**9  # of the numbers in headers of rbit's; a stranger's may be such that the next cannot be encoded
TOKEN = re.compile(r"[0-9a-f]{32}")  # of a job
NAME = re.compile(r"[0-9a-f]{16}")  # of a copy
CHANGED = DEATHS | COUNTED
COMPARED = [name for name in vars(Properties()) if name not in {"headers", "user_id"}]
LONGEST_WHY = 1000  # characters


@dataclass(frozen=True)
class Tag:
    """What the headers of a copy say of it. They come from strangers like all headers.

    Attributes:
        job: the token of the job whose lease it is; None when it is no lease.
        lease: counts the copies of that job, from 1; 0 for an original.
        attempt: which run of the message this is, from 1.
        copy: the name of a copy that was made for a new run; None for an original.
    """

    job: str | None = None
    lease: int = 0
    attempt: int = 1
    copy: str | None = None


NO_TAG = Tag()


@dataclass(frozen=True, slots=True)
class Identity:
    """What a message that is no lease is known by when it comes again.

    Attributes:
        queue: the queue that it belongs to.
        message_id: as its publisher set it; None for an empty one.
        copy: the name of a copy that rbit made.
        digest: of the body and what came with it, but for what the broker changes or a copy does not keep. It is
            the same for a message and its leases.
    """

    queue: str
    message_id: str | None
    copy: str | None
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, queue: str, properties: Properties, body: bytes) -> Identity:
        """Returns the identity of a message, or of a copy of one, with these properties and this body."""
        sent = original(properties)
        kept = [header for header in (sent.headers or {}).items() if header[0] not in CHANGED]
        rest = [getattr(sent, name) for name in COMPARED]
        digest = hashlib.sha256(repr((sorted(kept, key=repr), rest)).encode("utf-8", "replace"))
        digest.update(body)
        return cls(queue, properties.message_id or None, tag_of(properties).copy, digest.digest())

    @property
    def is_named(self) -> bool:
        """Whether it names the message, whatever its body."""
        return self.message_id is not None or self.copy is not None


def tag_of(properties: Properties) -> Tag:
    """Returns what the headers say; what is not as rbit writes it is left aside."""
    headers = properties.headers
    if not headers:
        return NO_TAG
    job, lease, attempt, name = (headers.get(name) for name in (JOB, LEASE, ATTEMPT, COPY))
    if not fits(TOKEN, job) or type(lease) is not int or not 1 <= lease < 2 * LARGEST:
        job, lease = None, 0
    attempt = attempt if type(attempt) is int and 1 < attempt < LARGEST else 1
    return Tag(job, lease, attempt, name if fits(NAME, name) else None)


def fits(pattern: re.Pattern[str], value: object) -> bool:
    """Whether the value of a header is a text of this form."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def original(properties: Properties) -> Properties:
    """Returns the properties that the original had, for a job to see, from those of a copy.

    Its ``user_id`` stays away: nobody has validated it since.
    """
    headers = properties.headers
    own = {name for name in headers or () if is_own(name)}
    if not headers or not own:
        return properties
    if own == {LOCAL}:  # it is no copy: who has sent it has written this
        return replace(properties, headers={name: value for name, value in headers.items() if name != LOCAL})
    kept = headers.get(KEPT)
    kept = kept if isinstance(kept, dict) else {}
    plain = {name: value for name, value in headers.items() if not is_own(name) and name not in DEATHS}
    plain.update({name: value for name, value in kept.items() if name in HARMFUL_HEADERS})
    expiration = kept.get("expiration")
    mode = kept.get("delivery_mode", PERSISTENT)
    return replace(
        properties,
        headers=plain if plain or "no_headers" not in kept else None,
        expiration=expiration if isinstance(expiration, str) else None,
        delivery_mode=mode if isinstance(mode, int) else None,
    )


def copy(properties: Properties, ttl: float | None = None, **own: Any) -> Properties:
    """Returns the properties of a copy.

    Arguments:
        properties: those that the message came with, of an original or of a copy.
        ttl: seconds after which it leaves the queue that it is published to; None: never.
        own: rbit's headers, by their names without the prefix; None leaves one out.
    """
    headers = properties.headers or {}
    plain = {name: value for name, value in headers.items() if not is_own(name)}
    left_out = headers.get(LEFT_OUT)
    own.setdefault("left_out", left_out if isinstance(left_out, str) else None)
    own.setdefault("local", is_local(properties) or None)
    kept = headers.get(KEPT)
    if not isinstance(kept, dict):
        kept = {name: value for name in HARMFUL if (value := getattr(properties, name)) is not None}
        kept.update({name: value for name, value in plain.items() if name in HARMFUL_HEADERS})
        if properties.delivery_mode != PERSISTENT:
            kept["delivery_mode"] = properties.delivery_mode
        if properties.headers is None:
            kept["no_headers"] = True
    plain = {name: value for name, value in plain.items() if name not in HARMFUL_HEADERS}
    plain.update({PREFIX + name.replace("_", "-"): value for name, value in own.items() if value is not None})
    if kept:
        plain[KEPT] = kept
    return replace(
        properties,
        headers=plain,
        delivery_mode=PERSISTENT,
        user_id=None,
        expiration=None if ttl is None else str(round(ttl * 1000)),
    )


def anew(properties: Properties, attempt: int, ttl: float | None = None) -> Properties:
    """Returns the properties of a copy for a new run, which has a name of its own.

    Arguments:
        properties: those that the message came with.
        attempt: which run it will be, from 1.
        ttl: as of ``copy``.
    """
    return copy(properties, ttl, attempt=attempt if attempt > 1 else None, copy=token(8))


def put_anew(properties: Properties) -> Properties:
    """Returns the properties of a message that takes its own place, as they were but for what would harm it."""
    left_out = COUNTED | {"CC", "BCC"}
    headers = {name: value for name, value in (properties.headers or {}).items() if name not in left_out}
    return replace(properties, headers=headers or None, user_id=None)


def given_back(properties: Properties) -> int:
    """Returns how often a message was given back, if it comes from a quorum queue, which counts it; else 0."""
    count = (properties.headers or {}).get(GIVEN_BACK)
    return count if type(count) is int and count > 0 else 0


def is_local(properties: Properties) -> bool:
    """Whether a build request did not come from PyBit, which is not asked or told of it then."""
    return (properties.headers or {}).get(LOCAL) is True


def is_own(name: str | bytes) -> bool:
    """Whether a header is one of rbit's; pika gives bytes for a name that is not UTF-8."""
    return isinstance(name, str) and name.startswith(PREFIX)


def fitted(properties: Properties, room: Callable[[Properties], int]) -> tuple[Properties, str]:
    """Returns properties without the largest headers, as few as will do, and the names of these; '' for none.

    Arguments:
        properties: of a copy. Headers of rbit's own are the last to go.
        room: returns how many bytes properties leave in the frame that must hold them; below 0: too large.
    """
    if not properties.headers:  # the others always fit, each has 255 bytes at most
        return properties, ""
    headers = dict(properties.headers)
    fit, left_out = properties, ""
    if room(fit) < 0:
        alone = {name: room(Properties(headers={name: value})) for name, value in headers.items()}
        for name in sorted(headers, key=lambda name: (is_own(name) and name != KEPT, alone[name])):
            del headers[name]
            shown = printable(name, LONGEST_NAME)
            left_out = short(f"{left_out}, {shown}" if left_out else shown)
            fit = replace(properties, headers=headers | {LEFT_OUT: left_out})
            if room(fit) >= 0:
                break
    return fit, left_out


def short(why: str) -> str:
    """Returns a reason short enough for a header."""
    return why if len(why) <= LONGEST_WHY else why[: LONGEST_WHY - 3] + "..."
