"""After a disaster: which promises were kept? Receipts are judged one by one, then held against what is served now. Pure.

A receipt is refused by name when it is no promise of ours:

| refusal | why |
| --- | --- |
| malformed | it names no position or no level |
| foreign_source | it is for another source |
| foreign_signer | whoever signed it is no member trusted here, or not the member it names |
| forged | the signature is not over what it says |
| other_lineage | its lineage is none the serving state knows (only against a serving state) |

A receipt of at least the promised level is honoured when the serving state has its boundary with the same chain; implied when the
state no longer knows that boundary, and a later receipt of the same book, which follows it in the source's own log, is honoured;
dishonoured when the state ends before it, has another chain there, or a later epoch went on from an earlier place. RPO_receipts
is how many are. What cannot be told makes the verdict UNKNOWN, and so does a refused one: an octet that flipped in a
broken promise must not turn FAIL into PASS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from replica.agent.receipts import Book, SignerCard
from replica.model.errors import ZaibeiError
from replica.model.identity import Peer, Trusts
from replica.model.position import Position
from replica.model.serving_state import ServingState
from replica.model.signing import receipt_octets, verify
from replica.model.states import ReceiptLevel, Result
from replica.v1 import source_pb2

DAY_MS = 86_400_000


class Refusal(StrEnum):
    """See the table of the module; stable names."""

    MALFORMED = "malformed"
    FOREIGN_SOURCE = "foreign_source"
    FOREIGN_SIGNER = "foreign_signer"
    FORGED = "forged"
    OTHER_LINEAGE = "other_lineage"


@dataclass(frozen=True, slots=True)
class Promise:
    """A receipt whose signature holds. `number`: its place in the book, from 1."""

    number: int
    position: Position
    level: ReceiptLevel
    member: str
    stated_ms: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A receipt that proves nothing."""

    number: int
    refusal: Refusal
    detail: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that what is served does not keep."""

    promise: Promise
    why: str


class Signers:
    """Whose signatures count: the cards of a book, each judged by the source's own trust at the time a receipt states."""

    def __init__(self, cards: Mapping[bytes, SignerCard], trusts: Trusts) -> None:
        self._cards, self._trusts = cards, trusts
        self._judged: dict[tuple[bytes, int], Peer | str] = {}

    def peer(self, ident: bytes, stated_ms: int) -> Peer | str:
        """The member behind a key id, or why it is nobody."""
        day = stated_ms // DAY_MS
        if (ident, day) not in self._judged:
            self._judged[ident, day] = self._judge(ident, stated_ms)
        return self._judged[ident, day]

    def _judge(self, ident: bytes, stated_ms: int) -> Peer | str:
        card = self._cards.get(ident)
        if card is None:
            return f"the book holds no certificate of the key {ident.hex()[:16]}"
        return whose(card.chain_pem, self._trusts, stated_ms)


def whose(chain_pem: bytes, trusts: Trusts, stated_ms: int) -> Peer | str:
    """The member whose certificate this is, at that time; or why it counts for nothing."""
    try:
        peer = trusts.identify([chain_pem], stated_ms / 1_000)
    except ZaibeiError as exc:
        return exc.trouble.message
    return peer if peer.role == "member" else f"{peer.name!r} is a {peer.role}, no member"


def judge_book(book: Book, signers: Signers) -> tuple[list[Promise], list[Refused]]:
    """Every receipt of a book: a promise, or refused by name."""
    promises: list[Promise] = []
    refused: list[Refused] = []
    for number, receipt in enumerate(book.receipts, 1):
        found = judge_receipt(receipt, number, book.source, signers)
        if isinstance(found, Promise):
            promises.append(found)
        else:
            refused.append(found)
    return promises, refused


def judge_receipt(receipt: source_pb2.Receipt, number: int, source: str, signers: Signers) -> Promise | Refused:
    try:
        position = Position.from_wire(receipt.position)
        level = ReceiptLevel(receipt.level)
    except (ZaibeiError, ValueError) as exc:
        return Refused(number, Refusal.MALFORMED, str(exc))
    if receipt.source != source:
        return Refused(number, Refusal.FOREIGN_SOURCE, f"it is for {receipt.source!r}, this is the book of {source!r}")
    peer = signers.peer(receipt.signature.key_id, receipt.stated_ms)
    if isinstance(peer, str):
        return Refused(number, Refusal.FOREIGN_SIGNER, peer)
    octets = receipt_octets(receipt.source, receipt.shard, position, int(level), receipt.member, receipt.stated_ms)
    if not verify(peer.signing_key, octets, receipt.signature):
        return Refused(number, Refusal.FORGED, f"the signature of {peer.name!r} is not over what it says")
    if peer.name != receipt.member:
        return Refused(number, Refusal.FOREIGN_SIGNER, f"{peer.name!r} signed in the name of {receipt.member!r}")
    return Promise(number, position, level, receipt.member, receipt.stated_ms)


@dataclass(frozen=True, slots=True)
class Replay:
    """The proof.

    Args:
        promises: of at least the promised level; honoured, implied, dishonoured, untold: what became of each.
        lost_changes: from the state's position to the farthest dishonoured one, where both lie in one epoch; None: unknown.
        left_out: receipts that are no longer in the book, each covered by a newer one in it.
    """

    result: Result
    promises: int
    honoured: int
    implied: int
    dishonoured: tuple[Broken, ...]
    untold: tuple[Broken, ...]
    refused: tuple[Refused, ...]
    lost_changes: int | None
    left_out: int = 0

    @property
    def rpo_receipts(self) -> int:
        return len(self.dishonoured)

    def refusals(self) -> Mapping[str, int]:
        return Counter(str(one.refusal) for one in self.refused)


def replay(
    promises: Sequence[Promise],
    refused: Sequence[Refused],
    state: ServingState,
    level: ReceiptLevel = ReceiptLevel.QUORUM,
    left_out: int = 0,
) -> Replay:
    """Hold promises against what is served.

    Args:
        promises, refused: of one book of the state's source, in the book's order.
        level: the promised one; weaker receipts are no promise of it.
    """
    away = [
        Refused(one.number, Refusal.OTHER_LINEAGE, f"lineage {one.position.lineage.hex()} is none of the serving state's")
        for one in promises
        if one.position.lineage not in state.lineages
    ]
    counted = [one for one in promises if one.level >= level and one.position.lineage in state.lineages]
    honoured: list[Promise] = []
    broken: list[Broken] = []
    unseen: list[Promise] = []
    starts = epochs_of(state)
    for one in counted:
        if state.boundaries.get(one.position.place) == one.position:
            honoured.append(one)
        elif (why := why_broken(one.position, state, starts)) is not None:
            broken.append(Broken(one, why))
        else:
            unseen.append(one)
    newest = {one.position.lineage: one for one in sorted(honoured, key=lambda one: one.position.place)}
    implied = [one for one in unseen if _follows(newest.get(one.position.lineage), one)]
    told = {one.number for one in implied}
    untold = [
        Broken(one, "the serving state knows no boundary there, and no later receipt of it is honoured")
        for one in unseen
        if one.number not in told
    ]
    every_refused = tuple(sorted([*refused, *away], key=lambda one: one.number))
    if broken:
        result = Result.FAIL
    elif untold or every_refused or not counted:
        result = Result.UNKNOWN
    else:
        result = Result.PASS
    return Replay(
        result,
        len(counted),
        len(honoured),
        len(implied),
        tuple(broken),
        tuple(untold),
        every_refused,
        _lost(broken, state),
        left_out,
    )


def _follows(later: Promise | None, earlier: Promise) -> bool:
    """In the source's own book, which names boundaries of its own log alone: the later one's chain covers the earlier one."""
    if later is None:
        return False
    return (
        later.number > earlier.number and later.position.covers(earlier.position) and later.position.seq >= earlier.position.seq
    )


def epochs_of(state: ServingState) -> list[tuple[int, int]]:
    """(epoch, seq of the first boundary known in it), ascending."""
    first: dict[int, int] = {}
    for epoch, seq in state.boundaries:
        first[epoch] = min(seq, first.get(epoch, seq))
    return sorted(first.items())


def why_broken(position: Position, state: ServingState, epochs: Sequence[tuple[int, int]]) -> str | None:
    """Why a boundary that the state does not have is not kept by it; None: the state does not tell."""
    other = state.boundaries.get(position.place)
    if other is not None:
        return f"another history is served: at {position.epoch}/{position.seq} it has {other.short()}"
    for epoch, seq in epochs:
        if epoch > position.epoch and seq < position.seq:
            return f"epoch {epoch} went on from {seq} or earlier, before it"
    if position.place > state.position.place:
        return f"what is served ends at {state.position.short()}, before it"
    return None


def _lost(broken: Sequence[Broken], state: ServingState) -> int | None:
    if not broken:
        return 0
    farthest = max(broken, key=lambda one: one.promise.position.place).promise.position
    same = (farthest.lineage, farthest.epoch) == (state.position.lineage, state.position.epoch)
    return farthest.seq - state.position.seq if same and farthest.seq > state.position.seq else None
