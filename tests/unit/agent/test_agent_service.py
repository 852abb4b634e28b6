"""What the agent's log answers: proofs, certificates, bisection, snapshots; each for exactly one position."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from replica.agent import edge_snapshot
from replica.agent.edge_log import AgentLog
from replica.model.position import Position
from replica.model.signing import snapshot_octets, verify
from replica.native import bucket_of, split
from replica.v1 import source_pb2
from tests.unit.agent.helpers import LINEAGE, SIGNER, SOURCE, Turned, commit, key, opened, put, total, value


async def read_out(log: AgentLog, request: source_pb2.SnapshotRequest) -> list[source_pb2.SnapshotPart]:
    return [part async for part in log.snapshot(request)]


def test_certificates_are_of_exactly_the_boundary(tmp_path: Path) -> None:
    clock = Turned()
    log = opened(tmp_path, clock=clock)
    first = commit(log, put("A"))
    clock.now_s += 0.1
    second = commit(log, put("B"))
    certificate = log.certificate(first)
    assert certificate is not None and certificate.digest.records == 1
    assert log.certificate(second) is None  # too soon after the last, and not idle
    clock.now_s += 1.0
    idle = log.certificate(second)
    assert idle is not None
    expected = total({key("A"): value("x"), key("B"): value("x")})
    assert (idle.digest.records, int.from_bytes(idle.digest.sum, "little")) == expected
    for known in (first, second):
        assert log.certificate(Position(known.lineage, 0, known.seq, bytes(32))) is None
    log.close()


def test_bisection_finds_a_key_at_a_pinned_position(tmp_path: Path) -> None:
    clock = Turned()
    log = opened(tmp_path, clock=clock)
    commit(log, *[put(f"K{number}") for number in range(50)])
    clock.now_s += 1
    head = log.head()
    assert log.certificate(head) is not None
    changed = commit(log, put("K7", "later"))
    bucket = bucket_of(key("K7"))

    def ask(level: int, number: int = 0, at: Position = head) -> source_pb2.DigestResponse:
        return log.digest(source_pb2.DigestRequest(position=at.to_wire(), level=level, bucket=number))

    assert (ask(0).pinned, ask(0).digest.records) == (True, 50)
    top = ask(1).sums
    assert sum(int.from_bytes(top[at : at + 8], "little") for at in range(0, len(top), 24)) == 50
    assert ask(2, bucket >> 8).sums[(bucket & 255) * 24 :][0] >= 1
    assert not ask(3, bucket).pinned  # the key changed since: what is there now says nothing about the pin
    other = bucket_of(key("K9"))
    answer = ask(3, other)
    assert answer.pinned and key("K9") in answer.keys
    assert not ask(1, at=changed).pinned or log.certificate(changed) is not None
    log.close()


async def test_a_snapshot_is_of_one_position_resumable_and_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_snapshot, "PART_OCTETS", 2_000)
    log = opened(tmp_path)
    await asyncio.to_thread(commit, log, *[put(f"S{number:04d}", "y" * 100) for number in range(100)])
    at = log.head()
    parts = []
    async for part in log.snapshot(source_pb2.SnapshotRequest()):
        if not parts:
            await asyncio.to_thread(commit, log, put("LATER"))
        parts.append(part)
    header, chunks, end = parts[0].header, [part.chunk for part in parts[1:-1]], parts[-1].end
    assert Position.from_wire(header.position) == at
    assert [chunk.part for chunk in chunks] == list(range(len(chunks))) and end.parts == len(chunks) > 3
    keys = [name for chunk in chunks for name in split(chunk.columns)[0]]
    assert keys == sorted(keys) and len(keys) == 100 == end.digest.records
    assert end.ordered_hash == sha256(b"".join(chunk.columns for chunk in chunks)).digest()
    digest = log.content.boundaries_at(at.epoch, at.seq)[0]
    assert verify(SIGNER.public, snapshot_octets(SOURCE, digest, end.parts, end.ordered_hash), end.signature)
    again = await read_out(log, source_pb2.SnapshotRequest(snapshot_id=header.snapshot_id, first_part=2))
    assert [part.chunk for part in again[1:-1]] == chunks[2:]
    assert again[-1].end.ordered_hash == end.ordered_hash
    fresh = await read_out(log, source_pb2.SnapshotRequest(snapshot_id=b"forgotten", first_part=2))
    assert fresh[0].header.snapshot_id != header.snapshot_id and fresh[1].chunk.part == 0
    log.close()


def test_prove_knows_true_forged_and_foreign_positions(tmp_path: Path) -> None:
    log = opened(tmp_path)
    first = commit(log, put("A"), put("B"))
    commit(log, put("C"))
    proof = source_pb2.Proof
    assert log.prove(first).result == proof.RESULT_PROVED
    forged = Position(first.lineage, first.epoch, first.seq, bytes(32))
    assert log.prove(forged).result == proof.RESULT_DIFFERENT
    assert Position.from_wire(log.prove(forged).position) == first
    assert log.prove(Position(LINEAGE, 0, first.seq, first.chain)).result == proof.RESULT_DIFFERENT
    assert log.prove(Position(first.lineage, 0, 1, bytes(32))).result == proof.RESULT_UNKNOWN  # no boundary there
    assert log.prove(Position(first.lineage, 7, 3, bytes(32))).result == proof.RESULT_UNKNOWN
    assert log.read(forged, 1_000) is None
    log.close()
