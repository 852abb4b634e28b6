"""Scrubbing: a copy is read through from time to time, so that damage is found before somebody asks for what it hit.

Decisions only: whose turn it is, what was found, and how that is said. `edge_scrubber.py` reads; `edge_scrub.py` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from replica.model.errors import Code

DAY_MS = 86_400_000
AGAIN_MS = 3_600_000  # after a start, and after a scrub that could not look, the next one waits this long
SHOWN_BUCKETS_MAX = 8


class Finding(StrEnum):
    """How a scrub ended. The last two say that this copy is not what was written here."""

    SOUND = "sound"
    UNKNOWN = "unknown"  # it could not look to the end: no room, no file, stopped
    UNREADABLE = "unreadable"  # a file is damaged
    DIFFERENT = "different"  # every file reads well, but the records do not add up to the digest


@dataclass(frozen=True, slots=True)
class ScrubJob:
    """What the helper reads. `folder`: files held still for it alone; octets_s: its pace."""

    folder: str
    source: str
    generation: int
    octets_s: int


@dataclass(frozen=True, slots=True)
class ScrubReply:
    """What the helper says once, at its end.

    Args:
        code, message: the fault that ended it; empty: it read everything.
        records, octets: read; keys and values, as they are kept.
        stated: records that the position row states.
        buckets: digest buckets whose sum is not that of the records in them.
        parts: prefix parts whose count of records is another one.
        summed: octets of all records and of the documents about a tenant, as read and as stated; empty: they agree.
    """

    code: str = ""
    message: str = ""
    records: int = 0
    octets: int = 0
    stated: int = 0
    buckets: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()
    summed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """The last scrub of one copy. `at_ms`: Unix time of its end; took_ms: how long it read; mark: of the files it read."""

    at_ms: int
    finding: Finding
    mark: str = ""
    records: int = 0
    octets: int = 0
    took_ms: int = 0
    text: str = ""


def judged(reply: ScrubReply) -> tuple[Finding, str]:
    """What a reply means, and the sentence that says so (empty: sound). UNKNOWN is never sound."""
    if reply.code:
        damaged = reply.code == Code.DAMAGED.value
        return (Finding.UNREADABLE if damaged else Finding.UNKNOWN), reply.message
    if reply.buckets or reply.records != reply.stated:
        shown = ", ".join(map(str, reply.buckets[:SHOWN_BUCKETS_MAX]))
        more = f" and {len(reply.buckets) - SHOWN_BUCKETS_MAX} more" if len(reply.buckets) > SHOWN_BUCKETS_MAX else ""
        what = f"digest bucket {shown}{more}" if reply.buckets else "no bucket"
        return Finding.DIFFERENT, f"{reply.records} records are here, {reply.stated} are stated; sums differ in {what}"
    if reply.parts:
        return Finding.DIFFERENT, f"the count of records is wrong below {', '.join(reply.parts[:SHOWN_BUCKETS_MAX])}"
    if reply.summed:
        octets, about, stated, stated_about = reply.summed
        what = f"the records have {octets} octets ({about} about a tenant), {stated} ({stated_about}) are stated"
        return Finding.DIFFERENT, what
    return Finding.SOUND, ""


DAMAGED = frozenset((Finding.UNREADABLE, Finding.DIFFERENT))


def kept(before: Scrubbed | None, found: Scrubbed) -> Scrubbed:
    """What is known after a scrub: damage that was seen is not forgotten because the next one could not look."""
    if before is None or before.finding not in DAMAGED or found.finding is not Finding.UNKNOWN:
        return found
    return replace(before, at_ms=found.at_ms)


def next_turn(copies: Iterable[str], last: Mapping[str, Scrubbed], now_ms: int, started_ms: int, every_ms: int) -> str | None:
    """The copy whose scrub is most overdue; None: none is due.

    One that was never scrubbed, or in the future (a clock that went back), is due AGAIN_MS after the start, and comes
    before others. What could not be looked at is due again after AGAIN_MS.
    """
    again_ms = min(AGAIN_MS, every_ms)
    due: list[tuple[int, str]] = []
    for name in copies:
        found = last.get(name)
        if found is None or found.at_ms > now_ms:
            if now_ms - started_ms >= again_ms:
                due.append((0, name))
        elif now_ms - found.at_ms >= (again_ms if found.finding is Finding.UNKNOWN else every_ms):
            due.append((found.at_ms, name))
    return min(due)[1] if due else None


def warning_of(source: str, found: Scrubbed, alone: bool) -> str | None:
    """The sentence for a person at night; None: nothing is wrong with this copy.

    Args:
        alone: this member is no part of a cluster: there is no other copy of ours to feed it from.
    """
    if found.finding not in DAMAGED:
        return None
    command = f"zaibei source reseed plan {source}" if alone else f"zaibei cluster reseed {source} MEMBER"
    return (
        f"source {source}: this member's copy is damaged: {found.text}. "
        f"It goes out of service here when somebody asks for what is hit. Look at the disk, then feed it anew: {command}"
    )
