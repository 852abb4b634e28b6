"""What entries decided about a source, as one stored row. Hot parts (position, index, totals, brake) have rows of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from replica.model.blocks import BlockOrder
from replica.model.brake import Count
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState, Hold, OverlaySites, SideGeneration
from replica.model.ladder import Ladder
from replica.model.ledger import Ledger
from replica.model.node import Endpoint
from replica.model.position import Position
from replica.model.prefix_moves import PrefixMove
from replica.model.states import Authority, FeedState, Mode
from replica.v1 import entry_pb2, position_pb2

STATE_FORMAT = 1
Quarantined = tuple[int, str]  # place in the batch, reason


@dataclass(frozen=True, slots=True)
class Stored:
    """The group's state with what only the store needs of it.

    Args:
        hold_quarantined, hold_counts: of the held batch, for its release.
        staged_by, members_needed: of the side generation.
    """

    group: GroupState
    hold_quarantined: tuple[Quarantined, ...] = ()
    hold_counts: tuple[Count, ...] = ()
    staged_by: tuple[str, ...] = ()
    members_needed: int = 1

    def with_group(self, **changes: object) -> Stored:
        """The same with fields of the group's state changed."""
        return replace(self, group=replace(self.group, **changes))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Row:
    """The row's fields; msgpack knows no numbers over 64 bits, so a digest travels as its message."""

    format: int
    source: str
    generation: int
    ready: bool
    granted: Position | None
    grant_taken: bool
    feed: FeedState
    feed_code: str
    feed_reason: str
    hold: Hold | None
    side: SideGeneration | None
    authority: Authority
    authority_act: str
    overlays: tuple[OverlaySites, ...]
    serial_highest: int
    ownership_version: int
    prefixes: tuple[bytes, ...]
    case_sensitive: tuple[bytes, ...]
    mode: Mode
    certificate: bytes
    verified: bool | None
    hold_quarantined: tuple[Quarantined, ...] = ()
    hold_counts: tuple[Count, ...] = ()
    staged_by: tuple[str, ...] = field(default=())
    members_needed: int = 1
    ladder: Ladder = field(default_factory=Ladder)  # rows of before have none
    ledger: Ledger | None = None
    node: tuple[Endpoint, ...] = ()
    blocks: tuple[BlockOrder, ...] = ()
    block_numbers: tuple[tuple[str, int], ...] = ()
    moves: tuple[PrefixMove, ...] = ()


_COPIED = (
    "source", "generation", "ready", "granted", "grant_taken", "feed", "feed_code", "feed_reason", "hold", "side", "authority",
    "authority_act", "overlays", "serial_highest", "ownership_version", "prefixes", "case_sensitive", "mode", "verified",
    "ladder", "ledger", "node", "blocks", "block_numbers", "moves",
)  # fmt: skip
_PRIVATE = ("hold_quarantined", "hold_counts", "staged_by", "members_needed")
# Made here, once: two threads that decode a type for the first time in one moment crash msgspec 0.22 (stores open side by side).
_decode = msgspec.msgpack.Decoder(_Row).decode


def pack_state(stored: Stored) -> bytes:
    """The row's octets."""
    group = stored.group
    certificate = b"" if group.certificate is None else group.certificate.to_wire().SerializeToString()
    return msgspec.msgpack.encode(
        _Row(
            format=STATE_FORMAT,
            certificate=certificate,
            **{name: getattr(group, name) for name in _COPIED},
            **{name: getattr(stored, name) for name in _PRIVATE},
        )
    )


def unpack_state(octets: bytes) -> Stored:
    """Inverse of `pack_state`; position, index, totals and brake are filled in by the caller. Raises ZaibeiError(DAMAGED)."""
    try:
        row = _decode(octets)
    except (msgspec.DecodeError, ZaibeiError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"the state row does not parse: {exc}") from exc
    if row.format != STATE_FORMAT:
        raise ZaibeiError(Code.DAMAGED, f"a state row of format {row.format}: we read {STATE_FORMAT}; a newer version wrote it")
    certificate = None
    if row.certificate:
        certificate = ContentDigest.from_wire(position_pb2.ContentDigest.FromString(row.certificate))
    group = GroupState(certificate=certificate, **{name: getattr(row, name) for name in _COPIED})
    return Stored(group, **{name: getattr(row, name) for name in _PRIVATE})


def hold_ident(position: Position) -> str:
    """Names a hold to people: hex of the epoch and seq it follows."""
    return f"{position.epoch:x}-{position.seq:x}"


def quarantined_of(lines: Sequence[entry_pb2.Quarantined]) -> tuple[Quarantined, ...]:
    """What an entry judged bad, as pairs."""
    return tuple((line.ordinal, line.reason) for line in lines)
