"""Octets of a group's membership: in the journal's row beside the log, and in the control of transfers. A persistent format.

u8 format | u64 index | u8 auto_leave | four times: u16 count, u64 numbers ascending (voters, outgoing, learners, learners_next)
"""

from __future__ import annotations

import struct

from replica.consensus.raft.membership import Membership
from replica.model.errors import Code, ZaibeiError

FORMAT = 1
_HEAD = struct.Struct(">BQB")
_COUNT = struct.Struct(">H")


def encode_membership(index: int, membership: Membership) -> bytes:
    """`index`: the last entry that had been handed out when this membership held."""
    octets = [_HEAD.pack(FORMAT, index, membership.auto_leave)]
    for members in (membership.voters, membership.outgoing, membership.learners, membership.learners_next):
        octets.append(_COUNT.pack(len(members)))
        octets += [number.to_bytes(8, "big") for number in sorted(members)]
    return b"".join(octets)


def decode_membership(octets: bytes) -> tuple[int, Membership]:
    """(index, membership). Raises ZaibeiError(DAMAGED)."""
    try:
        form, index, auto_leave = _HEAD.unpack_from(octets)
        place, sets = _HEAD.size, list[frozenset[int]]()
        for _ in range(4):
            (count,) = _COUNT.unpack_from(octets, place)
            place += _COUNT.size
            sets.append(frozenset(int.from_bytes(octets[at : at + 8], "big") for at in range(place, place + 8 * count, 8)))
            place += 8 * count
    except struct.error as exc:
        raise ZaibeiError(Code.DAMAGED, f"a membership row does not parse: {exc}") from exc
    if form != FORMAT or place != len(octets):
        raise ZaibeiError(Code.DAMAGED, f"a membership row has format {form} and {len(octets)} octets")
    voters, outgoing, learners, learners_next = sets
    return index, Membership(voters, outgoing, learners, learners_next, bool(auto_leave))
