"""Files of the card and of the places in a data folder, and the lineage beside them."""

from __future__ import annotations

from pathlib import Path

from replica.cluster.card import CARD_OCTETS_MAX, Card, decode_card, encode_card
from replica.cluster.edge_keep import FOLDER, FileKeep
from replica.cluster.places import PLACES_OCTETS_MAX, Places, decode_places, encode_places, merged, of_card
from replica.cluster.state import ID_OCTETS
from replica.model.errors import Code, ZaibeiError

CARD_FILE = "card.json"
PLACES_FILE = "places.json"
LINEAGE_FILE = "lineage"  # older than clusters: a member by itself has one from its first start


def read_card(data: Path) -> Card | None:
    """The card of a data folder; None: a member by itself. Raises ZaibeiError(DAMAGED, NOT_AUTHORISED)."""
    keep = FileKeep(data / FOLDER / CARD_FILE, CARD_OCTETS_MAX)
    octets = keep.read()
    return None if octets is None else decode_card(octets, keep.place)


def write_card(data: Path, card: Card) -> None:
    """Once in the life of a data folder.

    Raises:
        ZaibeiError(CONFLICT): there is another card already; nothing was changed.
    """
    there = read_card(data)
    if there is not None and (there.cluster, there.number) != (card.cluster, card.number):
        raise ZaibeiError(
            Code.CONFLICT,
            f"{data} is member {there.number} ({there.name}) of the cluster {there.cluster.hex()} already. "
            "Next: name another data folder with --data",
        )
    FileKeep(data / FOLDER / CARD_FILE, CARD_OCTETS_MAX).write(encode_card(card))


def read_places(data: Path) -> Places:
    """What is known of where members are, the card's knowledge included. Raises ZaibeiError as read_card does."""
    card = read_card(data)
    octets = FileKeep(data / FOLDER / PLACES_FILE, PLACES_OCTETS_MAX).read()
    known = decode_places(octets) if octets else ()
    return merged(of_card(card) if card else (), known)


def write_places(data: Path, places: Places) -> None:
    """Raises ZaibeiError; what was there stands then."""
    FileKeep(data / FOLDER / PLACES_FILE, PLACES_OCTETS_MAX).write(encode_places(places))


def read_lineage(data: Path) -> bytes | None:
    """The lineage of a data folder; None: it has none yet.

    Raises:
        ZaibeiError(DAMAGED): the file does not hold one.
    """
    path = data / LINEAGE_FILE
    octets = FileKeep(path, ID_OCTETS).read()
    if octets is not None and len(octets) != ID_OCTETS:
        raise ZaibeiError(Code.DAMAGED, f"{path} does not hold the {ID_OCTETS} octets of a lineage. Next: restore it")
    return octets


def write_lineage(data: Path, lineage: bytes) -> None:
    """Raises ZaibeiError(CONFLICT): the folder has another lineage already; nothing was changed."""
    there = read_lineage(data)
    if there not in (None, lineage):
        raise ZaibeiError(Code.CONFLICT, f"{data} holds data of another lineage. Next: name an empty folder with --data")
    if there is None:
        FileKeep(data / LINEAGE_FILE).write(lineage)
