"""`zaibei source receipts`: from a real store and a real book to the verdict, offline."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.cli.exits import Exit
from ops.cli.receipts import receipts
from ops.proofs import write_serving_state
from replica.agent.edge_receipts import ReceiptBook
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.identity import Peer
from replica.model.position import Position
from replica.model.signing import receipt_octets
from replica.store import SourceStore
from replica.v1 import source_pb2
from tests.unit.store.support import SOURCE, Group, Source, put, small_budget


@pytest.fixture
def member(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "identity", "member-1")


def receipted(folder: Path, member: Identity, positions: list[Position]) -> Path:
    book = ReceiptBook.open(folder, SOURCE)
    book.met(Peer(member.name, member.certificate_pem, role="member"))
    done: list[object] = []
    for position in positions:
        octets = receipt_octets(SOURCE, 0, position, 2, "member-1", 1_800_000_000_000)
        one = source_pb2.Receipt(
            source=SOURCE,
            position=position.to_wire(),
            level=source_pb2.Receipt.LEVEL_QUORUM,
            member="member-1",
            stated_ms=1_800_000_000_000,
            signature=member.signer.sign(octets),
        )
        book.keep(one, done.append)
    end = time.monotonic() + 30
    while len(done) < len(positions) and time.monotonic() < end:
        time.sleep(0.01)
    book.close()
    return book.path


def run(*words: str) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(receipts, [*words, "--json"], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value or 0), json.loads(result.stdout)


def test_a_store_that_lost_its_newest_batches_breaks_just_those_promises(tmp_path: Path, member: Identity) -> None:
    store = SourceStore.open(tmp_path / "store", SOURCE, small_budget(tmp_path))
    source, group = Source(), Group(store)
    group.grant(source.grant())
    positions = []
    for number in range(6):
        group.append(batch := source.cut([put(number)]))
        positions.append(batch.after)
    lost = source.cut([put(6)])  # receipted, then gone with the disk
    book = receipted(tmp_path / "book", member, [*positions[::2], positions[5]])
    state = tmp_path / "state"
    done = write_serving_state(store, member, "member-1", state)
    assert Position.parse(done["position"]) == positions[5]
    trust = tmp_path / "member.pem"
    trust.write_bytes(member.certificate_pem)
    where = ("--book", str(book), "--trust", str(trust))
    code, proof = run("replay", str(state), *where)
    assert (code, proof["rpo_receipts"], proof["honoured"]) == (Exit.DONE, 0, 4)
    code, shown = run("verify", *where)
    assert (code, shown["promises"], shown["source"]) == (Exit.DONE, 4, SOURCE)

    again = receipted(tmp_path / "again", member, [*positions, lost.after])
    code, proof = run("replay", str(state), "--book", str(again), "--trust", str(trust))
    assert (code, proof["rpo_receipts"], proof["lost_changes"]) == (Exit.VERIFICATION_FAILED, 1, 1)
    assert [one["position"] for one in proof["dishonoured"]] == [str(lost.after)]  # type: ignore[union-attr,attr-defined]

    with pytest.raises(ZaibeiError, match="is there already"):
        write_serving_state(store, member, "member-1", state)
    store.close()


def test_a_state_that_nobody_trusted_signed_proves_nothing(tmp_path: Path, member: Identity) -> None:
    stranger = ensure_identity(tmp_path / "stranger", "member-1")
    store = SourceStore.open(tmp_path / "store", SOURCE, small_budget(tmp_path))
    source, group = Source(), Group(store)
    group.grant(source.grant())
    group.append(batch := source.cut([put(1)]))
    write_serving_state(store, stranger, "member-1", tmp_path / "state")
    store.close()
    book = receipted(tmp_path / "book", member, [batch.after])
    trust = tmp_path / "member.pem"
    trust.write_bytes(member.certificate_pem)
    with pytest.raises(ZaibeiError, match="nobody this source trusts"):
        run("replay", str(tmp_path / "state"), "--book", str(book), "--trust", str(trust))
    octets = bytearray((tmp_path / "state").read_bytes())
    octets[40] ^= 1
    (tmp_path / "state").write_bytes(octets)
    with pytest.raises(ZaibeiError):
        run("replay", str(tmp_path / "state"), "--book", str(book), "--trust", str(trust))
