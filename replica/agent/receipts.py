"""Receipts a source keeps as its proof: the octets of their book, and what may be left out of it. Pure.

The book is a run of frames as in log.py. Kinds: H head (JSON: format, source), K who signs (JSON: member, key, certificates),
R a serialized replica.v1.Receipt, F how many receipts were left out so far (JSON).

Which receipts must stay? A receipt names a position, and its chain binds everything before it: a newer one of the same epoch and
level vouches for all that an older one vouched for. So the newest of each (lineage, epoch, level, signer) is enough for the
verdict after a disaster. The newest ones beyond those stay too, because a copy that comes back *older* than the newest receipt
must be told each promise it broke, and nobody knows beforehand how far back it falls.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from replica.agent.log import KIND_HEAD, Walk, frame, walk
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.model.signing import key_id
from replica.v1 import source_pb2

BOOK_FORMAT = 1
KIND_SIGNER, KIND_RECEIPT, KIND_LEFT_OUT = 0x4B, 0x52, 0x46
RECEIPTS_KEPT_MIN = 16_384  # newest ones that always stay: about 4 MiB
BOOK_OCTETS_MAX = 16 * 1024 * 1024  # at this size the book is written anew without what may be left out


@dataclass(frozen=True, slots=True)
class SignerCard:
    """Who signs receipts: the member's name, its public key (32 octets), the certificate it showed (PEM, leaf first)."""

    member: str
    key: bytes
    chain_pem: bytes

    def encode(self) -> bytes:
        return json.dumps({"member": self.member, "key": self.key.hex(), "chain": self.chain_pem.decode()}).encode()

    @staticmethod
    def decode(octets: bytes) -> SignerCard:
        """Raises ZaibeiError(DAMAGED)."""
        try:
            fields = json.loads(octets)
            return SignerCard(str(fields["member"]), bytes.fromhex(fields["key"]), str(fields["chain"]).encode())
        except (ValueError, KeyError, TypeError) as exc:
            raise ZaibeiError(Code.DAMAGED, f"not a signer of a receipt book: {exc}") from exc


@dataclass(slots=True)
class Book:
    """What a book's octets hold. `receipts` in the order in which they came; `left_out`: older ones that newer ones cover."""

    source: str
    signers: dict[bytes, SignerCard] = field(default_factory=dict)  # by key id
    receipts: list[source_pb2.Receipt] = field(default_factory=list)
    left_out: int = 0


def head_octets(source: str) -> bytes:
    """First frame of a book."""
    return frame(KIND_HEAD, json.dumps({"format": BOOK_FORMAT, "receipts_of": source}).encode(), 0)


def signer_octets(card: SignerCard, synced: int) -> bytes:
    return frame(KIND_SIGNER, card.encode(), synced)


def receipt_frame(receipt: source_pb2.Receipt, synced: int) -> bytes:
    return frame(KIND_RECEIPT, receipt.SerializeToString(), synced)


def whole(book: Book) -> bytes:
    """The octets of a book written anew."""
    parts = [head_octets(book.source)]
    if book.left_out:
        parts.append(frame(KIND_LEFT_OUT, json.dumps({"left_out": book.left_out}).encode(), 0))
    parts += [signer_octets(card, 0) for card in book.signers.values()]
    parts += [receipt_frame(receipt, 0) for receipt in book.receipts]
    return b"".join(parts)


def read_book(octets: bytes, where: str) -> tuple[Book, Walk]:
    """Read a book.

    Returns:
        What it holds, and how far its octets are sound: what a crash cut off behind that was promised to nobody.
    Raises:
        ZaibeiError(DAMAGED): octets that an fsync covered are bad, or this is no receipt book.
    """
    found = walk(octets, last=True)
    if found.damaged or not found.frames or found.frames[0].kind != KIND_HEAD:
        why = found.torn if found.damaged else "it does not begin with the head of a receipt book"
        raise ZaibeiError(Code.DAMAGED, f"{where} is damaged: {why}. Restore it from a backup: what is lost of it proves nothing")
    book = Book(_source_of(octets[found.frames[0].start : found.frames[0].end], where))
    for item in found.frames[1:]:
        body = octets[item.start : item.end]
        if item.kind == KIND_SIGNER:
            card = SignerCard.decode(body)
            book.signers[key_id(card.key)] = card
        elif item.kind == KIND_RECEIPT:
            book.receipts.append(_receipt(body, where))
        elif item.kind == KIND_LEFT_OUT:
            book.left_out = _left_out(body, where)
        else:
            raise ZaibeiError(Code.DAMAGED, f"{where}: a frame of kind {item.kind:#x} at octet {item.offset}: a newer version's")
    return book, found


def _source_of(body: bytes, where: str) -> str:
    try:
        fields = json.loads(body)
        if fields["format"] != BOOK_FORMAT:
            raise ZaibeiError(Code.DAMAGED, f"{where} has format {fields['format']}: this version reads {BOOK_FORMAT}")
        return str(fields["receipts_of"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"{where} is no receipt book: {exc}") from exc


def _receipt(body: bytes, where: str) -> source_pb2.Receipt:
    try:
        return source_pb2.Receipt.FromString(body)
    except DecodeError as exc:
        raise ZaibeiError(Code.DAMAGED, f"{where}: a receipt does not parse: {exc}") from exc


def _left_out(body: bytes, where: str) -> int:
    try:
        return int(json.loads(body)["left_out"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"{where}: {exc}") from exc


def thinned(receipts: Sequence[source_pb2.Receipt], keep: int = RECEIPTS_KEPT_MIN) -> list[source_pb2.Receipt]:
    """What stays, in the same order: the last `keep`, and the newest of each (lineage, epoch, level, signer)."""
    newest: dict[tuple[bytes, int, int, bytes], int] = {}
    for number, receipt in enumerate(receipts):
        at = receipt.position
        group = (at.lineage, at.epoch, int(receipt.level), receipt.signature.key_id)
        if group not in newest or receipts[newest[group]].position.seq <= at.seq:
            newest[group] = number
    staying = set(newest.values()) | set(range(max(0, len(receipts) - keep), len(receipts)))
    return [receipts[number] for number in sorted(staying)]


def position_of(receipt: source_pb2.Receipt) -> Position:
    """Raises ZaibeiError(MALFORMED)."""
    return Position.from_wire(receipt.position)
