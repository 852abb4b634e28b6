"""The card of a member: which cluster it belongs to, its number there, and where others were when it was written.

A data folder with a card belongs to a cluster; without one it is a member by itself, number 1. The card is written once, by
`zaibei cluster init` or `zaibei cluster join`; where others are by now is in the places (places.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from replica.cluster.state import ID_OCTETS
from replica.model.errors import Code, ZaibeiError

CARD_FORMAT = 1
CARD_OCTETS_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CardMember:
    """A member as it was known when the card was written. `addresses`: host:port of its links."""

    number: int
    name: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """See the module. `cluster` and `lineage`: 16 octets each; `members` holds the member itself too."""

    cluster: bytes
    lineage: bytes
    number: int
    name: str
    members: tuple[CardMember, ...] = ()

    def others(self) -> tuple[CardMember, ...]:
        return tuple(one for one in self.members if one.number != self.number)


class _File(msgspec.Struct):
    format: int
    cluster: str
    lineage: str
    number: int
    name: str
    members: tuple[CardMember, ...]


def encode_card(card: Card) -> bytes:
    """JSON a person can read."""
    file = _File(CARD_FORMAT, card.cluster.hex(), card.lineage.hex(), card.number, card.name, card.members)
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


_decode = msgspec.json.Decoder(_File).decode  # made once: see replica/store/state_row.py


def decode_card(octets: bytes, place: str) -> Card:
    """The card back.

    Raises:
        ZaibeiError(DAMAGED): these octets are no card, or of another version; says what to do.
    """
    hint = "Next: restore that one file, or give the member a new place: zaibei cluster replace NAME at another member"
    try:
        file = _decode(octets)
        cluster, lineage = bytes.fromhex(file.cluster), bytes.fromhex(file.lineage)
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"{place} is no card of a member ({exc}). {hint}") from exc
    if file.format != CARD_FORMAT:
        raise ZaibeiError(
            Code.DAMAGED, f"{place} is of format {file.format}, this version reads {CARD_FORMAT}. Next: update this member"
        )
    if len(cluster) != ID_OCTETS or len(lineage) != ID_OCTETS or file.number < 1 or not file.name:
        raise ZaibeiError(Code.DAMAGED, f"{place} names no cluster, lineage, number or name. {hint}")
    return Card(cluster, lineage, file.number, file.name, file.members)
