"""The kit's judges meet hostile sources: any octets end in a finding, never in a crash."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from replica.kit.content import Contents, shown
from replica.kit.judges import HeadJudge, HistoryJudge, SnapshotJudge, judge_certificate
from replica.kit.sheet import FAULTS_KEPT_MAX, Sheet
from replica.model.batch import Change, columns_of, cut_batch
from replica.model.identifier import prefix_key
from replica.model.position import ORIGIN
from replica.model.signing import Signer
from replica.model.states import Result
from replica.v1 import position_pb2, source_pb2

KEY = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32))).public
PREFIXES = (prefix_key("88.118"),)

changes = st.builds(Change, st.integers(0, 3), st.binary(max_size=8), st.binary(max_size=40))
columns = st.binary(max_size=80) | st.lists(changes, max_size=5).map(columns_of)
positions = st.builds(
    position_pb2.Position,
    lineage=st.sampled_from([b"", bytes(16), b"x" * 16]),
    epoch=st.integers(0, 2**64 - 1),
    seq=st.integers(0, 2**64 - 1),
    chain=st.sampled_from([b"", bytes(32)]),
)
digests = st.builds(
    position_pb2.ContentDigest,
    format=st.integers(0, 2),
    algorithm=st.sampled_from(["", "sum128-sha256/crc32-65536"]),
    position=positions,
    records=st.integers(0, 9),
    sum=st.sampled_from([b"", bytes(16)]),
)
batches = st.binary(max_size=60) | st.builds(
    position_pb2.Batch,
    format=st.just(1),
    suite=st.just("std"),
    before=positions,
    after=positions,
    count=st.integers(0, 9),
    columns=columns,
).map(lambda batch: batch.SerializeToString())
parts = st.one_of(
    st.builds(
        source_pb2.SnapshotPart,
        header=st.builds(source_pb2.SnapshotHeader, format=st.just(1), position=positions, snapshot_id=st.binary(max_size=3)),
    ),
    st.builds(source_pb2.SnapshotPart, chunk=st.builds(source_pb2.SnapshotChunk, part=st.integers(0, 3), columns=columns)),
    st.builds(source_pb2.SnapshotPart, end=st.builds(source_pb2.SnapshotEnd, parts=st.integers(0, 3), digest=digests)),
    st.just(source_pb2.SnapshotPart()),
)


@given(st.lists(parts, max_size=6), st.lists(batches, max_size=4), digests, positions)
def test_any_octets_end_in_a_finding(
    snapshot: list[source_pb2.SnapshotPart], history: list[bytes], digest: position_pb2.ContentDigest, head: position_pb2.Position
) -> None:
    sheet = Sheet()
    contents = Contents(PREFIXES, sheet)
    taking = SnapshotJudge("node-a", KEY, contents, sheet)
    for part in snapshot:
        taking.take(part)
    taking.close()
    for followed in (contents, None):
        judge = HistoryJudge("node-a", ORIGIN, sheet, followed)
        for raw in history:
            judge.take(raw)
    HeadJudge(sheet).take(head)
    judge_certificate(position_pb2.Certificate(source="node-a", digest=digest), "node-a", KEY, ORIGIN, contents, sheet)
    assert {finding.rule.ident for finding in sheet.findings() if finding.rule.ident.startswith("snapshot.")}


@given(st.binary(max_size=12))
def test_any_key_can_be_shown(key: bytes) -> None:
    assert isinstance(shown(key), str)


def test_faults_are_bounded_and_counted() -> None:
    sheet = Sheet()
    for number in range(FAULTS_KEPT_MAX + 7):
        sheet.fail("prove.true", f"fault {number}")
    (finding,) = [one for one in sheet.findings() if one.rule.ident == "prove.true"]
    assert finding.result is Result.FAIL and finding.detail.endswith("and 7 more")


def test_a_second_delete_is_wrong_wherever_the_history_began() -> None:
    """Below a floor a first delete proves nothing, a second one does."""
    sheet = Sheet()
    later = cut_batch("node-a", ORIGIN, columns_of([Change(1, b"h88\x01118\0A", b"\x01\0\0\0\0")]), 1, 0).after
    judge = HistoryJudge("node-a", later, sheet)
    at = later
    for number in range(2):
        batch = cut_batch("node-a", at, columns_of([Change(2, b"h88\x01118\0B")]), 1, 0)
        judge.take(batch.raw)
        at = batch.after
        (found,) = [one for one in sheet.findings() if one.rule.ident == "deletes.exact"]
        assert found.result is (Result.UNKNOWN, Result.FAIL)[number]
