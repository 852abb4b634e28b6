"""What travels on the admin channel. These shapes are also the `--json` contract of the commands: fields are added, not renamed.

None always means UNKNOWN, and UNKNOWN is never OK.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source as this member sees it.

    Args:
        feed: name of the feed state (FLOWING, HELD ...); feed_reason: one sentence, empty while FLOWING.
        connected: a stream of the source is open.
        position: as Position prints; lag_entries: changes it has stated beyond our position; lag_s: age of the position.
        verified: the last certificate compared equal.
        lag_check, digest_check: "pass", "fail" or "unknown", each true at this moment; None: this member does not say.
        takeover_ready: every readiness check passes.
    """

    source: str
    feed: str = "FLOWING"
    feed_reason: str = ""
    connected: bool | None = None
    ready: bool = False
    position: str = ""
    lag_entries: int | None = None
    lag_s: float | None = None
    freshness: str = "expired"
    verified: bool | None = None
    authority: str = "SOURCE"
    takeover_ready: bool | None = None
    takeover: str = ""  # state of the takeover machine
    records: int = 0
    quarantined: int = 0
    held: int = 0
    detail: dict[str, Any] = field(default_factory=dict)
    lag_check: str | None = None
    digest_check: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """One member. `addresses`: what is really bound, by server name; `warnings`: sentences for a person."""

    member: str
    version: str
    pid: int
    machine: str
    data: str
    fingerprint: str
    started_ms: int
    now_ms: int
    addresses: dict[str, list[str]] = field(default_factory=dict)
    sources: list[SourceStatus] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Held:
    """Something that waits for two people.

    Args:
        hold: its id; kind: "batch" or "snapshot".
        follows: position it follows; held_ms: Unix milliseconds.
        approvals: operators who signed the plan named by `token`, as the world stands now.
        counts: what it would do, by name (removed, rewritten, added ...), as far as known.
        samples: some of the identifiers it would remove or rewrite.
    """

    source: str
    hold: str
    kind: str
    reason: str
    follows: str
    held_ms: int
    counts: dict[str, int] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    approvals: dict[str, list[str]] = field(default_factory=dict)  # decision -> operators


@dataclass(frozen=True, slots=True)
class HoldPlan:
    """A planned decision: the canonical text that is signed, and its token."""

    token: str
    source: str
    hold: str
    decision: str  # "release" or "discard"
    text: str
    approvals: list[str] = field(default_factory=list)
    needed: int = 2


@dataclass(frozen=True, slots=True)
class Approval:
    """One operator's signature over a plan's text; all but the name in hex."""

    operator: str
    token: str
    suite: str
    key_id: str
    signature: str


@dataclass(frozen=True, slots=True)
class HoldDone:
    """A decision that was committed."""

    token: str
    source: str
    hold: str
    decision: str
    approved_by: list[str]
    outcome: str


@dataclass(frozen=True, slots=True)
class ReseedPlan:
    """A planned re-seed of a source that is out of service: the text to read, its token, where the damaged store goes."""

    token: str
    source: str
    text: str
    store: str
    aside: str
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReseedDone:
    """A source that is in service again, empty, and loads."""

    token: str
    source: str
    aside: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """One readiness check of one source: result "pass", "fail" or "unknown"."""

    source: str
    check: str
    result: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One metric value."""

    name: str
    labels: dict[str, str]
    value: float
    help: str = ""


@dataclass(frozen=True, slots=True)
class Stopping:
    """The member has begun to stop."""

    member: str
    pid: int
