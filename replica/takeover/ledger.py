"""Classifies what a source wrote while we were the authority, beside what we wrote and hold (SEMANTICS 8, promise 8). Pure.

| what the source wrote | class | what becomes of it |
| --- | --- | --- |
| it proved by its signature that it never acknowledged it | unacknowledged | nothing; where it stands last, ours is said again |
| it wrote that key again later, and acknowledged that | superseded | nothing |
| the last word on that key, and we hold the same | same | nothing |
| the last word, we hold something else and did not write that key | conflict, by `only-source` | accepted |
| the last word, we hold something else and wrote it too | conflict, by the key's policy | accepted, kept or held |

Nobody's write is dropped because it was not copied in time: what only the source wrote enters under every policy. Each key on
which the source is left with something else than we hold gets a change in our history, so that a source that copies that history
from the common position on ends with our content. Both sides are read as iterators in one order (`order`), so a ledger of any
length needs memory for two writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256

from replica.model.errors import Code, ZaibeiError
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.values import decode_record
from replica.model.identifier import DOCUMENT, PrefixTree, owning_prefix
from replica.model.ledger import Counts, Kind, Line, Verdict, Written, kept

EQUAL, LATER_WRITE, PROOF, ONLY_SOURCE = "equal", "later-write", "proof", "only-source"


class Policy(StrEnum):
    """What decides where both sides wrote the same key."""

    OURS_WINS = "ours-wins"
    SOURCE_WINS = "source-wins"
    NEWEST = "newest-by-timestamp"
    HOLD = "hold-for-person"


@dataclass(frozen=True, slots=True)
class Policies:
    """Of one source: the policy of the longest matching prefix (key parts), else the source's."""

    default: Policy = Policy.HOLD
    by_prefix: PrefixTree[Policy] = field(default_factory=PrefixTree)

    def of(self, key: bytes) -> Policy:
        found = self.by_prefix.longest(owning_prefix(key))
        return self.default if found is None else found[1]


@dataclass(frozen=True, slots=True)
class SourceWrite:
    """A change of the source behind the common position.

    Args:
        seq: of this very change in the source's history; see COMPARED_SEQ.
        value: None: a delete.
        certain: False: found by comparing contents; see Line.
    """

    key: bytes
    seq: int
    value: bytes | None
    certain: bool = True


@dataclass(frozen=True, slots=True)
class OurSide:
    """What we hold of a key now, and whether we wrote it ourselves since the common position (what entered from the ledger is not
    ours)."""

    key: bytes
    value: bytes | None
    written: Written


def order(write: SourceWrite) -> tuple[bytes, int]:
    """Sorts writes as `classify` reads them: keys ascending, of each key the newest first."""
    return write.key, -write.seq


def classify(
    theirs: Iterable[SourceWrite],
    ours: Iterable[OurSide],
    policies: Policies,
    unacknowledged: Callable[[int], bool] = lambda seq: False,
) -> Iterator[Line]:
    """One line for each write, in the order they come.

    Args:
        theirs: sorted by `order`; a write that comes twice counts once.
        ours: keys ascending, each at most once; a key that is missing is not held and was not written.
        unacknowledged: does the source's verified proof name that write?
    Raises:
        ZaibeiError(FORKED): two different writes at one place of the source's history, or the order is broken.
    """
    sides = _Sides(ours)
    before: SourceWrite | None = None
    last: SourceWrite | None = None  # the acknowledged last word on the key at hand
    waits: Line | None = None  # an unacknowledged write that stands behind it at the source, where we hold something else
    for write in theirs:
        if before is not None and order(write) <= order(before):
            if write == before:
                continue
            raise ZaibeiError(Code.FORKED, f"the source's change at {write.seq} comes out of order, or twice and different")
        newest = before is None or write.key != before.key
        if newest:
            if waits is not None:
                yield waits
            last = waits = None
        before, side = write, sides.of(write.key)
        if unacknowledged(write.seq):
            line = _line(write, side, Kind.UNACKNOWLEDGED, Verdict.NOTHING, PROOF)
            if newest and write.value != side.value:
                waits = replace(line, verdict=kept(side.written))
            else:
                yield line
        elif last is not None:
            yield _line(write, side, Kind.SUPERSEDED, Verdict.NOTHING, LATER_WRITE, last.seq)
        else:
            last = write
            if waits is not None:  # the acknowledged word decides about the key
                yield replace(waits, verdict=Verdict.NOTHING)
            yield _last_word(write, side, policies, left_different=waits is not None)
            waits = None
    if waits is not None:
        yield waits


def _last_word(write: SourceWrite, side: OurSide, policies: Policies, left_different: bool) -> Line:
    if write.value == side.value:
        verdict = kept(side.written) if left_different else Verdict.NOTHING
        return _line(write, side, Kind.SAME, verdict, EQUAL)
    if side.written is Written.NO:
        return _line(write, side, Kind.CONFLICT, Verdict.ACCEPT, ONLY_SOURCE)
    policy = policies.of(write.key)
    return _line(write, side, Kind.CONFLICT, _decide(policy, write, side), policy)


def _decide(policy: Policy, write: SourceWrite, side: OurSide) -> Verdict:
    match policy:
        case Policy.OURS_WINS:
            return kept(side.written)
        case Policy.SOURCE_WINS:  # a value that may be older than the takeover never overwrites ours unseen
            return Verdict.ACCEPT if write.certain and side.written is Written.YES else Verdict.HOLD
        case Policy.NEWEST:
            mine, its = stamp(side.key, side.value), stamp(write.key, write.value)
            if mine is None or its is None or mine == its:
                return Verdict.HOLD
            return Verdict.ACCEPT if its > mine else kept(side.written)
    return Verdict.HOLD


def stamp(key: bytes, value: bytes | None) -> int | None:
    """Unix seconds of a record's newest value; None: a delete, a document, or octets that show none."""
    if value is None or key[:1] == DOCUMENT:
        return None
    try:
        values = decode_record(value).values
    except ProtocolFault:
        return None
    return max((one.timestamp for one in values), default=0) or None


def _line(write: SourceWrite, side: OurSide, kind: Kind, verdict: Verdict, by: str, later: int = 0) -> Line:
    return Line(write.key, write.seq, write.value, side.value, side.written, kind, verdict, str(by), later, write.certain)


class _Sides:
    """Our side of rising keys."""

    def __init__(self, ours: Iterable[OurSide]) -> None:
        self._rest = iter(ours)
        self._next = next(self._rest, None)

    def of(self, key: bytes) -> OurSide:
        while self._next is not None and self._next.key < key:
            passed, self._next = self._next, next(self._rest, None)
            if self._next is not None and self._next.key <= passed.key:
                raise ZaibeiError(Code.FORKED, "our side of the ledger is not in the order of its keys")
        if self._next is not None and self._next.key == key:
            return self._next
        return OurSide(key, None, Written.NO)


def our_written(value: bytes | None, written: Written, entered: Iterable[bytes | None]) -> Written:
    """Was it us? Not where what we hold is what an earlier line of this ledger let in (`entered`: values of such lines)."""
    return Written.NO if written is Written.YES and any(value == one for one in entered) else written


def counts_of(lines: Iterable[Line]) -> Counts:
    """Lines by class and verdict."""
    counts = Counts()
    for line in lines:
        counts = counts.plus(line)
    return counts


def ledger_hash(lines: Iterable[Line]) -> bytes:
    """SHA-256 over the lines' octets, each behind its length (u32, big-endian): equal for equal ledgers."""
    hashed = sha256(b"zaibei-ledger-1\0")
    for line in lines:
        octets = line.pack()
        hashed.update(len(octets).to_bytes(4, "big"))
        hashed.update(octets)
    return hashed.digest()
