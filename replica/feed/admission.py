"""Admission of a batch: decoded, walked, judged against rights and brake, once, at the leader (SEMANTICS 1.1, 2.1, 2.3, 2.4).

One bad record is quarantined with its reason while the rest flows; a batch that is malformed as a whole is refused.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from replica import native
from replica.feed.ports import OwnerOf
from replica.model.batch import BATCH_CHANGES_MAX, OP_PUT, Batch, open_batch
from replica.model.brake import BrakeWindows, Count, Live, Trip
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import DOCUMENT, ROUTE, ancestors, parent, prefix_text

PART_RECORDS_MAX = 1_000_000  # of a snapshot
NOT_OWNER = "not_owner"  # quarantine reason: a key outside the prefixes this source may write


@dataclass(frozen=True, slots=True)
class Rights:
    """What a source may write.

    Args:
        source: its name.
        pinned: key parts of the prefixes its certificate is pinned with.
        owned: prefixes the group's ownership entry grants; None before the first one (the pin alone decides).
        owner_of: longest owned prefix of the whole cluster -> source, for prefixes that are delegated further.
    """

    source: str
    pinned: frozenset[bytes]
    owned: frozenset[bytes] | None
    owner_of: OwnerOf

    def allows(self, part: bytes) -> bool:
        """May this source write keys with this prefix part?"""
        kind = part[:1]
        if kind == DOCUMENT:
            return True
        prefix = parent(part[1:]) if kind == ROUTE else part
        around = list(ancestors(prefix))
        if not any(level in self.pinned for level in around):
            return False
        if self.owned is not None and not any(level in self.owned for level in around):
            return False
        return self.owner_of(prefix) in (None, self.source)


@dataclass(frozen=True, slots=True)
class Judged:
    """A batch that parses: what of it is good, and how much it may remove or rewrite.

    Args:
        quarantined: (ordinal, reason), ascending.
        counts: (prefix part, deletes, puts) per part: an upper bound of what it removes and rewrites.
    """

    batch: Batch
    scan: native.Scan
    quarantined: list[tuple[int, str]]
    counts: list[Count]


def judge(raw: bytes, rights: Rights, shard: int = 0) -> Judged:
    """Open a batch and judge every record.

    Raises:
        ZaibeiError(MALFORMED, WRONG_SOURCE): refused as a whole, the sender's fault; nothing of it is applied.
    """
    batch = open_batch(raw)
    if batch.source != rights.source or batch.shard != shard:
        raise ZaibeiError(
            Code.WRONG_SOURCE, f"a batch of {batch.source!r}/{batch.shard} on the stream of {rights.source!r}/{shard}"
        )
    try:
        scan = native.scan(batch.columns, BATCH_CHANGES_MAX)
    except native.ColumnsFault as exc:
        raise ZaibeiError(Code.MALFORMED, f"the batch's columns do not parse: {exc}") from exc
    if scan.count != batch.count:
        raise ZaibeiError(Code.MALFORMED, f"a batch that states {batch.count} changes and holds {scan.count}")
    bad = dict(scan.faults)
    counts: dict[bytes, tuple[int, int]] = {}
    ordinal = 0
    for part, puts, deletes in scan.runs:
        until = ordinal + puts + deletes
        if not rights.allows(part):
            for place in range(ordinal, until):
                bad.setdefault(place, NOT_OWNER)
        ordinal = until
        had = counts.get(part, (0, 0))
        counts[part] = (had[0] + deletes, had[1] + puts)
    return Judged(batch, scan, sorted(bad.items()), [(part, *both) for part, both in counts.items()])


def judge_part(columns: bytes, rights: Rights) -> list[tuple[int, str]]:
    """Records of a snapshot's part that this source may not write, as in its batches; what octets show the loader judges.

    Raises:
        ZaibeiError(MALFORMED): the part does not parse.
    """
    try:
        runs = native.scan(columns, PART_RECORDS_MAX).runs
    except native.ColumnsFault as exc:
        raise ZaibeiError(Code.MALFORMED, f"a part of the snapshot does not parse: {exc}") from exc
    found: list[tuple[int, str]] = []
    ordinal = 0
    for part, puts, deletes in runs:
        until = ordinal + puts + deletes
        if not rights.allows(part):
            found.extend((place, NOT_OWNER) for place in range(ordinal, until))
        ordinal = until
    return found


@dataclass(frozen=True, slots=True)
class BrakeVerdict:
    """Counts to add for what is in flight, whether they are exact, and what trips."""

    counts: list[Count]
    exact: bool
    trips: list[Trip]


def put_keys(judged: Judged) -> list[bytes]:
    """Keys whose records a batch puts: new ones, or rewritten ones, as only a look tells."""
    return [key for key, op in zip(judged.scan.keys, judged.scan.ops, strict=True) if op == OP_PUT]


def brake_verdict(
    judged: Judged,
    windows: BrakeWindows,
    in_flight: Sequence[Count],
    at_ms: int,
    live: Live,
    held: Container[bytes] | None,
) -> BrakeVerdict | None:
    """Would this batch trip the brake? First by an upper bound without look-ups; only when that could trip, by looking.

    Args:
        windows: counters at the applied position.
        in_flight: counts of batches admitted and not applied yet.
        live: live records of a level.
        held: those of `put_keys` that the store holds or an unapplied batch puts; None: nobody looked yet.
    Returns:
        None: look, and ask again.
    """
    if not windows.trips([*in_flight, *judged.counts], at_ms, live):
        return BrakeVerdict(judged.counts, False, [])
    if held is None:
        return None
    rewritten: dict[bytes, int] = {}
    for key in put_keys(judged):
        if key in held:
            part = key.partition(b"\0")[0]
            rewritten[part] = rewritten.get(part, 0) + 1
    counts = [(part, deletes, rewritten.get(part, 0)) for part, deletes, _ in judged.counts]
    return BrakeVerdict(counts, True, windows.trips([*in_flight, *counts], at_ms, live))


def trip_text(trips: Iterable[Trip]) -> str:
    """The worst trip in words: the widest level first, since that is what a person must look at."""
    trip = min(trips, key=lambda one: (len(one.level), one.window))
    if not trip.level:
        where = "the whole source"
    elif trip.level[:1] == DOCUMENT:
        where = f"documents of kind {trip.level[1:].rstrip(chr(0).encode()).decode('utf-8', 'backslashreplace')}"
    else:
        text = prefix_text(trip.level.removeprefix(ROUTE).rstrip(b"\0"))
        where = f"{'routes of' if trip.level[:1] == ROUTE else 'prefix' if trip.level[-1:] == bytes(1) else 'subtree'} {text}"
    return f"{where}: {trip}"
