"""What a member serves for a source at one moment, as a sealed file: where it stands, and the boundaries it knows (sealed.py).

One boundary a line as Position prints, (epoch, seq) ascending. Boundaries are chains: each binds the whole history before it, so
that a receipt's position is compared by its chain alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.model.sealed import Seal, read_sealed, write_sealed
from replica.model.signing import Signer

FORMAT = "zaibei-serving-state-1"


@dataclass(frozen=True, slots=True)
class ServingState:
    """What is served.

    Args:
        position: where the live copy stands; boundaries: by (epoch, seq), those the store still knows, `position` among them.
        verified: the last certificate of the source compared equal; None: never compared.
        stated_ms: the member's clock, Unix milliseconds.
        sum_hex, records: the content's digest at `position`; empty and 0 where unknown.
    """

    source: str
    member: str
    position: Position
    boundaries: Mapping[tuple[int, int], Position]
    stated_ms: int
    verified: bool | None = None
    records: int = 0
    sum_hex: str = ""

    @property
    def lineages(self) -> frozenset[bytes]:
        return frozenset(one.lineage for one in self.boundaries.values()) | {self.position.lineage}


def write_state(state: ServingState, boundaries: Iterable[Position], signer: Signer, chain_pem: bytes) -> Iterator[bytes]:
    """The file's octets, in pieces; `state.boundaries` is not looked at."""
    about = {
        "source": state.source,
        "position": str(state.position),
        "stated_ms": state.stated_ms,
        "verified": state.verified,
        "records": state.records,
        "sum": state.sum_hex,
    }
    lines = (str(boundary).encode() for boundary in boundaries)
    return write_sealed(FORMAT, state.member, about, lines, signer, chain_pem)


def read_state(octets: bytes) -> tuple[ServingState, Seal]:
    """Read a file as a whole; who signed it is the caller's to judge (`Seal.by`).

    Raises:
        ZaibeiError(MALFORMED): not such a file, or another version's. VERIFICATION_FAILED: changed, cut or put together anew.
    """
    found = read_sealed(octets, FORMAT)
    if found.seal is None or found.broken:
        raise ZaibeiError(Code.VERIFICATION_FAILED, f"the serving state proves nothing: {found.broken}")
    head = found.head
    try:
        boundaries = [Position.parse(line.decode()) for line in found.lines]
        state = ServingState(
            str(head["source"]),
            found.member,
            Position.parse(head["position"]),
            {one.place: one for one in boundaries},
            int(head["stated_ms"]),
            head["verified"],
            int(head["records"]),
            str(head["sum"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"not a serving state: {exc}") from exc
    places = [one.place for one in boundaries]
    if places != sorted(set(places)) or state.boundaries.get(state.position.place) != state.position:
        raise ZaibeiError(
            Code.VERIFICATION_FAILED, "the serving state contradicts itself: boundaries out of order, or none of it"
        )
    return state, found.seal
