"""Receipts a source keeps: durable before they count, thinned without losing the proof, and replayed after a disaster."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from replica.agent.edge_receipts import BOOK_FILE, ReceiptBook
from replica.agent.receipt_proof import Promise, Refusal, Refused, Signers, judge_book, replay
from replica.agent.receipts import Book, read_book, thinned, whole
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Pins
from replica.model.position import ORIGIN, Position, chain_next, epoch_start
from replica.model.serving_state import ServingState, read_state, write_state
from replica.model.signing import receipt_octets
from replica.model.states import ReceiptLevel, Result
from replica.v1 import source_pb2

SOURCE = "node-a"
LINEAGE = b"L" * 16


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return ensure_identity(tmp_path_factory.mktemp("member"), "member-1")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return ensure_identity(tmp_path_factory.mktemp("stranger"), "member-1")  # the same name, another key


def peer_of(identity: Identity) -> Peer:
    return Peer(identity.name, identity.certificate_pem, role="member")


def history(count: int, *, epoch: int = 1, parent: Position = ORIGIN, salt: bytes = b"") -> list[Position]:
    """The start of an epoch and `count` boundaries of one change each."""
    at = epoch_start(parent, LINEAGE, epoch)
    found = [at]
    for _ in range(count):
        at = Position(LINEAGE, epoch, at.seq + 1, chain_next(at.chain, epoch, at.seq + 1, 1, salt.rjust(32, b"\0")))
        found.append(at)
    return found


def receipt(
    identity: Identity, position: Position, level: int = 2, *, source: str = SOURCE, member: str = "member-1"
) -> source_pb2.Receipt:
    octets = receipt_octets(source, 0, position, level, member, 1_800_000_000_000)
    return source_pb2.Receipt(
        source=source,
        position=position.to_wire(),
        level=source_pb2.Receipt.Level.ValueType(level),
        member=member,
        stated_ms=1_800_000_000_000,
        signature=identity.signer.sign(octets),
    )


def state_of(boundaries: Sequence[Position], source: str = SOURCE) -> ServingState:
    return ServingState(source, "member-1", boundaries[-1], {one.place: one for one in boundaries}, 1_800_000_000_000, True)


def judged(book: Book, *trusted: Identity) -> tuple[list[Promise], list[Refused]]:
    return judge_book(book, Signers(book.signers, Pins(tuple(peer_of(one) for one in trusted))))


def book_of(identity: Identity, receipts: Sequence[source_pb2.Receipt]) -> Book:
    from replica.agent.receipts import SignerCard
    from replica.model.signing import key_id

    card = SignerCard(identity.name, identity.signer.public, identity.certificate_pem)
    return Book(SOURCE, {key_id(card.key): card}, list(receipts))


# ---------------------------------------------------------------------------------------------------------------- replay


def test_a_copy_that_has_every_receipted_boundary_keeps_every_promise(member: Identity) -> None:
    positions = history(20)
    promises, refused = judged(book_of(member, [receipt(member, one) for one in positions[1::3]]), member)
    proof = replay(promises, refused, state_of(positions))
    assert (proof.result, proof.rpo_receipts, proof.honoured, proof.lost_changes) == (Result.PASS, 0, 7, 0)


def test_a_copy_that_ends_early_breaks_each_later_promise_and_each_is_listed(member: Identity) -> None:
    positions = history(20)
    promises, refused = judged(book_of(member, [receipt(member, one) for one in positions[1:]]), member)
    proof = replay(promises, refused, state_of(positions[:16]))
    assert (proof.result, proof.rpo_receipts) == (Result.FAIL, 5)
    assert [one.promise.position for one in proof.dishonoured] == positions[16:]
    assert proof.lost_changes == 5
    assert all("ends at" in one.why for one in proof.dishonoured)


def test_another_history_at_the_same_place_and_a_later_epoch_from_before_break_promises(member: Identity) -> None:
    positions = history(10)
    promises, refused = judged(book_of(member, [receipt(member, positions[5]), receipt(member, positions[9])]), member)
    forked = history(10, salt=b"other")
    proof = replay(promises, refused, state_of(forked))
    assert proof.rpo_receipts == 2
    assert "another history" in proof.dishonoured[0].why
    later = history(3, epoch=2, parent=positions[7])
    proof = replay(promises, refused, state_of([*positions[:8], *later]))
    assert [one.promise.position for one in proof.dishonoured] == [positions[9]]
    assert "epoch 2" in proof.dishonoured[0].why
    assert proof.honoured == 1


def test_a_boundary_the_copy_no_longer_knows_is_implied_by_a_later_kept_one_and_never_by_itself(member: Identity) -> None:
    positions = history(20)
    promises, refused = judged(book_of(member, [receipt(member, positions[3]), receipt(member, positions[18])]), member)
    proof = replay(promises, refused, state_of(positions[10:]))
    assert (proof.result, proof.honoured, proof.implied) == (Result.PASS, 1, 1)
    proof = replay(promises[:1], refused, state_of(positions[10:]))
    assert (proof.result, len(proof.untold)) == (Result.UNKNOWN, 1)


def test_weaker_receipts_are_no_promise_and_nothing_at_all_is_unknown(member: Identity) -> None:
    positions = history(4)
    promises, refused = judged(book_of(member, [receipt(member, positions[4], level=1)]), member)
    assert replay(promises, refused, state_of(positions[:2])).result is Result.UNKNOWN
    assert replay(promises, refused, state_of(positions[:2]), ReceiptLevel.RECEIVED).rpo_receipts == 1
    assert replay([], [], state_of(positions)).result is Result.UNKNOWN


def test_forged_foreign_and_other_lineage_receipts_are_refused_by_name(member: Identity, stranger: Identity) -> None:
    positions = history(6)
    forged = receipt(member, positions[3])
    forged.stated_ms += 1
    elsewhere = replace(positions[2], lineage=b"M" * 16)
    broken = receipt(member, positions[1])
    broken.position.chain = b"short"
    receipts = [
        forged,
        receipt(member, positions[1], source="node-b"),
        receipt(stranger, positions[2]),
        receipt(member, positions[2], member="member-2"),
        receipt(member, elsewhere),
        broken,
        receipt(member, positions[6]),
    ]
    promises, refused = judged(book_of(member, receipts), member)
    proof = replay(promises, refused, state_of(positions))
    assert [one.refusal for one in proof.refused] == [
        Refusal.FORGED,
        Refusal.FOREIGN_SOURCE,
        Refusal.FOREIGN_SIGNER,
        Refusal.FOREIGN_SIGNER,
        Refusal.OTHER_LINEAGE,
        Refusal.MALFORMED,
    ]
    assert [one.number for one in proof.refused] == [1, 2, 3, 4, 5, 6]
    assert proof.result is Result.UNKNOWN  # one kept promise, and six that prove nothing: not a pass
    assert proof.honoured == 1


def test_a_member_that_is_not_trusted_proves_nothing(member: Identity, stranger: Identity) -> None:
    book = book_of(member, [receipt(member, history(2)[2])])
    promises, refused = judged(book, stranger)
    assert not promises
    assert refused[0].refusal is Refusal.FOREIGN_SIGNER


def test_random_disasters_the_count_is_what_a_plain_look_says(member: Identity) -> None:
    """Seeded: histories with several epochs, books thinned at random, copies that stop anywhere."""
    signed: dict[Position, source_pb2.Receipt] = {}
    for seed in range(60):
        chance = random.Random(seed)
        epochs = [history(chance.randrange(1, 12))]
        for epoch in range(2, 2 + chance.randrange(3)):
            epochs.append(history(chance.randrange(1, 12), epoch=epoch, parent=epochs[-1][-1]))
        every = [one for epoch in epochs for one in epoch]
        marked = [one for one in every if one.seq and chance.random() < 0.5]
        for one in marked:
            signed.setdefault(one, receipt(member, one))
        cut = chance.randrange(1, len(every) + 1)
        promises, refused = judged(book_of(member, thinned([signed[one] for one in marked], keep=4)), member)
        proof = replay(promises, refused, state_of(every[:cut]))
        lost = [one.position for one in promises if one.position not in every[:cut]]
        assert [one.promise.position for one in proof.dishonoured] == lost, f"seed {seed}"
        newest_lost = bool(marked) and marked[-1] not in every[:cut]
        assert (proof.result is Result.FAIL) == newest_lost, f"seed {seed}: thinning must never hide the newest broken promise"


# ------------------------------------------------------------------------------------------------------------ the book


class Kept:
    """Collects what the book called back for."""

    def __init__(self) -> None:
        self.positions: list[Position] = []
        self.came = threading.Event()

    def __call__(self, kept: source_pb2.Receipt) -> None:
        self.positions.append(Position.from_wire(kept.position))
        self.came.set()


def until(done: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def test_a_receipt_counts_only_once_it_is_on_disk(tmp_path: Path, member: Identity) -> None:
    gate = threading.Event()
    gate.set()

    def slow(handle: int) -> None:
        assert gate.wait(60)
        os.fsync(handle)

    book, kept = ReceiptBook.open(tmp_path, SOURCE, fsync=slow), Kept()
    book.met(peer_of(member))
    gate.clear()
    positions = history(3)
    for one in positions[1:]:
        book.keep(receipt(member, one), kept)
    time.sleep(0.05)
    assert not kept.positions
    gate.set()
    until(lambda: kept.positions == positions[1:])
    book.close()
    found, _ = read_book((tmp_path / BOOK_FILE).read_bytes(), "book")
    assert [Position.from_wire(one.position) for one in found.receipts] == positions[1:]
    promises, refused = judged(found, member)
    assert len(promises) == 3
    assert not refused


def test_a_book_opens_with_all_it_had_and_a_torn_end_is_healed(tmp_path: Path, member: Identity) -> None:
    book, kept = ReceiptBook.open(tmp_path, SOURCE), Kept()
    book.met(peer_of(member))
    for one in history(5)[1:]:
        book.keep(receipt(member, one), kept)
    until(lambda: len(kept.positions) == 5)
    book.close()
    path = tmp_path / BOOK_FILE
    whole_octets = path.read_bytes()
    path.write_bytes(whole_octets + whole_octets[-200:-50])
    again = ReceiptBook.open(tmp_path, SOURCE)
    assert len(again.book.receipts) == 5
    again.close()
    assert path.read_bytes() == whole_octets
    with pytest.raises(ZaibeiError, match="receipt book of 'node-a'"):
        ReceiptBook.open(tmp_path, "node-b")


def test_a_book_grows_no_longer_than_its_limit_and_keeps_the_newest(tmp_path: Path, member: Identity) -> None:
    book, kept = ReceiptBook.open(tmp_path, SOURCE, octets_max=20_000, keep=8), Kept()
    book.met(peer_of(member))
    positions = history(300)
    signed = [receipt(member, one) for one in positions[1:]]
    for one in signed:
        book.keep(one, kept)
    until(lambda: len(kept.positions) == 300)
    book.close()
    assert (tmp_path / BOOK_FILE).stat().st_size < 120_000
    found, _ = read_book((tmp_path / BOOK_FILE).read_bytes(), "book")
    assert found.left_out + len(found.receipts) == 300
    assert found.left_out > 0
    assert Position.from_wire(found.receipts[-1].position) == positions[-1]
    assert len(found.signers) == 1


def test_a_full_disk_loses_no_receipt_and_a_failed_fsync_is_for_good(tmp_path: Path, member: Identity) -> None:
    full = threading.Event()

    def fails(handle: int) -> None:
        if full.is_set():
            raise OSError(errno.EIO, "planted")
        os.fsync(handle)

    book, kept = ReceiptBook.open(tmp_path, SOURCE, fsync=fails), Kept()
    book.met(peer_of(member))
    positions = history(2)
    book.keep(receipt(member, positions[1]), kept)
    until(lambda: len(kept.positions) == 1)
    full.set()
    book.keep(receipt(member, positions[2]), kept)
    until(lambda: book.failed is not None)
    assert book.failed is not None
    assert book.failed.code is Code.DISK_FAILED
    assert kept.positions == positions[1:2]  # what no fsync covered was never told
    book.close()


def test_every_flipped_octet_of_a_book_is_seen(member: Identity) -> None:
    """A changed octet is damage, a cut end, or a receipt that is refused: never another promise."""
    positions = history(3)
    octets = whole(book_of(member, [receipt(member, one) for one in positions[1:]]))
    clean, _ = judged(read_book(octets, "book")[0], member)
    for at in range(0, len(octets), 7):
        bad = bytearray(octets)
        bad[at] ^= 0x10
        try:
            book, _found = read_book(bytes(bad), "book")
        except ZaibeiError:
            continue
        promises, _refused = judged(book, member)
        assert promises != clean or len(book.receipts) < 3, f"octet {at}"
        assert all(one in clean for one in promises), f"octet {at}"


# ------------------------------------------------------------------------------------------------------- serving state


def test_a_serving_state_reads_back_and_every_change_of_it_is_seen(member: Identity, stranger: Identity) -> None:
    positions = history(30)
    state = state_of(positions)
    octets = b"".join(write_state(state, positions, member.signer, member.certificate_pem))
    found, seal = read_state(octets)
    assert found == state
    assert seal.by(member.signer.public)
    assert not seal.by(stranger.signer.public)
    end = octets.rindex(b"\n", 0, -1)
    for at in range(0, end, 13):
        bad = bytearray(octets)
        bad[at] ^= 0x01
        with pytest.raises(ZaibeiError):
            read_state(bytes(bad))
    lines = octets.splitlines(keepends=True)
    for cut in (
        lines[:-2] + lines[-1:],
        [lines[0], *lines[2:]],
        [*lines[:1], lines[2], lines[1], *lines[3:]],
        lines[:-1],
        [b"{}\n"],
    ):
        with pytest.raises(ZaibeiError):
            read_state(b"".join(cut))
