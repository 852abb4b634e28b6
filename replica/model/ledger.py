"""A line of a failback's ledger: one write that a source made while we were the authority, and what became of it (SEMANTICS 8).

Octets of a line (integers big-endian): u8 format 1 | u8 kind | u8 verdict | u8 written | u8 flags (1 theirs is a record, 2 ours
is one, 4 found by comparing contents) | u64 seq | u64 later | then each behind a u32 length: key, theirs, ours, by. One line has
exactly one such text, so equal ledgers have equal octets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from enum import IntEnum
from hashlib import sha256

from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN, Position

LINE_FORMAT = 1
LINE_OCTETS_MAX = 2 * 252 * 1024 + 8_192  # both values, a key, and the rest
BY_OCTETS_MAX = 200
IDENT_WRITE_OCTETS = 8
COMPARED_SEQ = 1 << 62  # added to the seq of what was found by comparing contents: it is the last word on its key
_HEAD = struct.Struct(">BBBBBQQ")
_LENGTH = struct.Struct(">I")
_THEIRS, _OURS, _UNCERTAIN = 1, 2, 4


class Kind(IntEnum):
    """Class of a diverged write; every one has exactly one. Persistent, never renumber."""

    SAME = 1  # we hold the very same
    SUPERSEDED = 2  # the source itself wrote that key again later
    CONFLICT = 3  # the source's last word on that key differs from what we hold
    UNACKNOWLEDGED = 4  # the source proved that it never acknowledged it


class Verdict(IntEnum):
    """What becomes of it. Persistent, never renumber."""

    NOTHING = 1  # nothing is to be done
    ACCEPT = 2  # it enters as a new change of the current epoch
    KEEP = 3  # what we hold stays, and is in our own history; the source's value stays in the ledger
    HOLD = 4  # a person decides
    ENTERED = 5  # it was accepted, and its change is applied
    STATE = 6  # what we hold stays, and is said again as a change of the current epoch, so that the source's copy follows
    STATED = 7  # and that change is applied


class Written(IntEnum):
    """Did we write that key ourselves since the common position? Persistent, never renumber."""

    NO = 1
    YES = 2
    UNKNOWN = 3  # our change log no longer reaches back


OPEN = frozenset({Verdict.ACCEPT, Verdict.STATE, Verdict.HOLD})  # failback cannot pass FROZEN with one of these
DONE: dict[Verdict, Verdict] = {Verdict.ACCEPT: Verdict.ENTERED, Verdict.STATE: Verdict.STATED}  # once their change is applied


@dataclass(frozen=True, slots=True)
class Line:
    """One diverged write.

    Args:
        key, seq: which write; seq counts in the source's own history (see COMPARED_SEQ).
        theirs: the value the source wrote, None: a delete.
        ours: the value we held when it was judged, None: no record.
        certain: False: the histories could not be read, the contents were compared; theirs may be the value before the takeover.
        by: name of the policy or rule that decided.
        later: seq of the write that superseded it; of our change that carried the verdict out, once it is applied; else 0.
    """

    key: bytes
    seq: int
    theirs: bytes | None
    ours: bytes | None
    written: Written
    kind: Kind
    verdict: Verdict
    by: str
    later: int = 0
    certain: bool = True

    @property
    def ident(self) -> bytes:
        """16 octets that name the write within its ledger, in the order of the source's history."""
        return line_ident(self.seq, self.key, self.theirs)

    @property
    def name(self) -> str:
        """The ident as people write it."""
        return self.ident.hex()

    def pack(self) -> bytes:
        """See the module."""
        flags = (self.theirs is not None) * _THEIRS + (self.ours is not None) * _OURS + (not self.certain) * _UNCERTAIN
        out = [_HEAD.pack(LINE_FORMAT, self.kind, self.verdict, self.written, flags, self.seq, self.later)]
        for part in (self.key, self.theirs or b"", self.ours or b"", self.by.encode()):
            out += (_LENGTH.pack(len(part)), part)
        return b"".join(out)

    @staticmethod
    def unpack(octets: bytes) -> Line:
        """Inverse of `pack`. Raises ZaibeiError(MALFORMED): not exactly the octets of a line."""
        try:
            form, kind, verdict, written, flags, seq, later = _HEAD.unpack_from(octets)
            parts, at = [], _HEAD.size
            for _ in range(4):
                (length,) = _LENGTH.unpack_from(octets, at)
                at += _LENGTH.size
                parts.append(octets[at : at + length])
                at += length
            key, theirs, ours, by = parts
            line = Line(
                key, seq, theirs if flags & _THEIRS else None, ours if flags & _OURS else None, Written(written), Kind(kind),
                Verdict(verdict), by.decode(), later, not flags & _UNCERTAIN,
            )  # fmt: skip
        except (struct.error, ValueError) as exc:
            raise ZaibeiError(Code.MALFORMED, f"not a line of a ledger: {exc}") from exc
        if form != LINE_FORMAT or len(octets) > LINE_OCTETS_MAX or len(by) > BY_OCTETS_MAX or line.pack() != octets:
            raise ZaibeiError(Code.MALFORMED, f"a ledger line of format {form}, {len(octets)} octets: not the octets of a line")
        return line


@dataclass(frozen=True, slots=True)
class Counts:
    """Lines of a ledger, by class, and those still open."""

    same: int = 0
    superseded: int = 0
    conflict: int = 0
    unacknowledged: int = 0
    held: int = 0  # of the conflicts: wait for a person
    accepted: int = 0  # of the conflicts: still to enter
    entered: int = 0
    kept: int = 0  # what we held stays
    stating: int = 0  # and is still to be said again

    @property
    def lines(self) -> int:
        return self.same + self.superseded + self.conflict + self.unacknowledged

    @property
    def open(self) -> int:
        """Lines that failback may not leave behind."""
        return self.held + self.accepted + self.stating

    def plus(self, line: Line, sign: int = 1) -> Counts:
        """With one line more (or with sign -1 one less)."""
        changed = {name: getattr(self, name) for name in (line.kind.name.lower(), *_COUNTED.get(line.verdict, ()))}
        return replace(self, **{name: count + sign for name, count in changed.items()})


_COUNTED: dict[Verdict, tuple[str, ...]] = {
    Verdict.HOLD: ("held",),
    Verdict.ACCEPT: ("accepted",),
    Verdict.ENTERED: ("entered",),
    Verdict.KEEP: ("kept",),
    Verdict.STATE: ("kept", "stating"),
    Verdict.STATED: ("kept",),
}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where a source's newest ledger stands: part of its group's committed state; the lines lie beside it.

    Args:
        common: the newest position both histories hold: ours when the source's epoch was closed. Names the ledger.
        theirs: the source's own history is in the ledger up to here.
        complete: every write up to `theirs` is.
    """

    common: Position = ORIGIN
    theirs: Position = ORIGIN
    complete: bool = False
    counts: Counts = field(default_factory=Counts)


def kept(written: Written) -> Verdict:
    """What "ours stays" means for a line: a source that copies our history finds it there only where we wrote it."""
    return Verdict.KEEP if written is Written.YES else Verdict.STATE


def unsettled(ledger: Ledger | None, common: Position | None) -> str:
    """Why failback may not pass FROZEN; empty when it may: the source's own history since `common` is classified to its end."""
    if ledger is None or ledger.common != common:
        return "what the source wrote by itself was not looked at"
    if not ledger.complete:
        return f"what the source wrote by itself is in the ledger up to {ledger.theirs.short()} only"
    counts = ledger.counts
    if counts.open:
        return (
            f"of {counts.lines} ledger lines {counts.held} wait for a person, {counts.accepted + counts.stating} for their change"
        )
    return ""


def line_ident(seq: int, key: bytes, theirs: bytes | None) -> bytes:
    """u64 seq and 8 octets of a SHA-256 over the write itself, so that no other one can be taken for it."""
    told = b"-" if theirs is None else b"+" + theirs
    return seq.to_bytes(8, "big") + sha256(_LENGTH.pack(len(key)) + key + told).digest()[:IDENT_WRITE_OCTETS]
