"""Where members are reached, as far as this one knows: a cache, renewed by every Hello and by the control group. Pure.

It is never believed: a member that answers at an address shows its certificate. So an old or damaged cache costs time, no safety.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from replica.cluster.card import Card
from replica.cluster.state import ControlState

PLACES_FORMAT = 1
PLACES_OCTETS_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """One member. host:port of its links, of its feed, and of its answers to programs."""

    number: int
    name: str
    zone: str = ""
    links: tuple[str, ...] = ()
    feeds: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


Places = tuple[Place, ...]


class _File(msgspec.Struct):
    format: int
    places: Places


def of_card(card: Card) -> Places:
    """What the card knew."""
    return tuple(Place(one.number, one.name, links=one.addresses) for one in card.members)


def of_state(state: ControlState) -> Places:
    """What the control group says: members that are not removed."""
    return tuple(Place(one.number, one.name, one.zone, one.links, one.feeds, one.answers) for one in state.living())


def merged(known: Places, told: Iterable[Place]) -> Places:
    """What is told replaces what was known of the same member; an empty list of addresses tells nothing."""
    found = {place.number: place for place in known}
    for place in told:
        if place.number < 1:
            continue
        old = found.get(place.number, place)
        found[place.number] = Place(
            place.number,
            place.name or old.name,
            place.zone or old.zone,
            place.links or old.links,
            place.feeds or old.feeds,
            place.answers or old.answers,
        )
    return tuple(found[number] for number in sorted(found))


def encode_places(places: Places) -> bytes:
    return msgspec.json.encode(_File(PLACES_FORMAT, places))


_decode = msgspec.json.Decoder(_File).decode  # made once: see replica/store/state_row.py


def decode_places(octets: bytes) -> Places:
    """The places back; none when the octets are damaged: they are asked for again."""
    try:
        file = _decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    return file.places if file.format == PLACES_FORMAT else ()
