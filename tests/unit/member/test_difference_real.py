"""A planted divergence between a real store and a real agent's log: found, located key by key, settled by the source."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from replica import native
from replica.agent.edge_log import AgentLog
from replica.feed.edge_difference import Located, locate
from replica.model.batch import OP_PUT, Change, columns_of, open_batch
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry
from replica.store import SourceStore
from replica.v1 import entry_pb2, position_pb2, source_pb2
from tests.unit.agent.helpers import SOURCE, Turned, commit, grant, key, opened, put, value
from tests.unit.store.support import small_budget


class Pair:
    """A source with its log, and a copy that is fed by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = Turned()
        self.log: AgentLog = opened(folder, clock=self.clock)
        self.store = SourceStore.open(folder / "store", SOURCE, small_budget(folder))
        self.index = 0
        given = grant(self.log.head())
        asyncio.run(self.log.accept_grant(given))
        self.apply(entry_pb2.Entry(grant=given))
        self.at = self.log.head()

    def apply(self, entry: entry_pb2.Entry) -> str:
        self.index += 1
        entry.format, entry.admitted_ms = 1, 1_700_000_000_000
        [outcome] = self.store.apply([LogEntry(self.index, 1, entry.SerializeToString())])
        return f"{outcome.kind.name} {outcome.detail}"

    def feed(self, planted: dict[bytes, bytes | None] | None = None) -> None:
        """Carry over what the log has; `planted`: values that arrive changed, None: records that are lost on the way."""
        for raw in self.log.read(self.at, 10**9) or []:
            batch = open_batch(raw)
            message = position_pb2.Batch.FromString(raw)
            if planted:
                keys, values, ops = native.split(batch.columns)
                changes = [Change(op, one, other) for one, other, op in zip(keys, values, ops, strict=True)]
                message.columns = columns_of(_changed(changes, planted))
            body = entry_pb2.AppendBatch(batch=message.SerializeToString(), follows=batch.before.to_wire(), live=True)
            assert self.apply(entry_pb2.Entry(append=body)).startswith("APPLIED")
            self.at = batch.after

    def certify(self) -> str:
        self.clock.now_s += 10  # the log rests: its head is certified
        certificate = self.log.certificate(self.at)
        assert certificate is not None
        return self.apply(entry_pb2.Entry(check=entry_pb2.CheckResult(certificate=certificate)))

    def locate(self) -> Located:
        position = self.store.pinned_at
        assert position is not None

        async def theirs(request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
            return self.log.digest(request)

        return asyncio.run(locate(position, self.store.answer_digest, theirs))

    def close(self) -> None:
        self.store.close()
        self.log.close()


def _changed(changes: Sequence[Change], planted: dict[bytes, bytes | None]) -> list[Change]:
    """As many changes as before: a lost one becomes a put of another key's own value."""
    found = []
    for change in changes:
        other = planted.get(change.key, change.value)
        if other is None:  # it arrives as a change of its neighbour, which is there already
            other, change = changes[0].value, changes[0]
        found.append(Change(OP_PUT, change.key, other) if change.op == OP_PUT else change)
    return found


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_equal_content_is_equal_in_one_round(pair: Pair) -> None:
    commit(pair.log, *(put(f"A{number}") for number in range(300)))
    pair.feed()
    assert pair.certify().endswith("equal")
    found = pair.locate()
    assert (len(found.found), found.round_trips, found.found.complete) == (0, 1, True)
    pair.close()


def test_one_planted_value_is_located_in_three_rounds(pair: Pair) -> None:
    commit(pair.log, *(put(f"A{number}") for number in range(900)))
    pair.feed({key("A77"): value("planted")})
    assert pair.certify().endswith("different")
    assert pair.store.state().verified is False
    found = pair.locate()
    assert found.found.other_value == [key("A77")]
    assert (found.found.only_ours, found.found.only_theirs) == ([], [])
    assert (found.round_trips, found.octets <= 64 * 1024) == (3, True)
    commit(pair.log, put("A77", "settled by the source"))  # the copy never edits itself
    pair.feed()
    assert pair.certify().endswith("equal")
    assert len(pair.locate().found) == 0
    pair.close()


def test_a_record_that_was_lost_on_the_way_is_only_there(pair: Pair) -> None:
    commit(pair.log, *(put(f"A{number}") for number in range(300)))
    commit(pair.log, put("A9", "again"), put("B1"))
    batches = pair.log.read(pair.at, 10**9) or []
    assert len(batches) == 2
    pair.feed({key("B1"): None})
    assert pair.certify().endswith("different")
    found = pair.locate().found
    assert found.only_theirs == [key("B1")]
    pair.close()


def test_a_key_only_ours_is_found_too(pair: Pair) -> None:
    """The source names no such key: our own bucket is read through."""
    commit(pair.log, *(put(f"A{number}") for number in range(300)))
    pair.feed()
    commit(pair.log, put("C1"))
    raw = (pair.log.read(pair.at, 10**9) or [b""])[0]
    batch, message = open_batch(raw), position_pb2.Batch.FromString(raw)
    message.columns = columns_of([Change(OP_PUT, key("X1"), value("x"))])
    body = entry_pb2.AppendBatch(batch=message.SerializeToString(), follows=batch.before.to_wire(), live=True)
    assert pair.apply(entry_pb2.Entry(append=body)).startswith("APPLIED")
    pair.at = batch.after
    assert pair.certify().endswith("different")
    found = pair.locate().found
    assert (found.only_ours, found.only_theirs) == ([key("X1")], [key("C1")])
    pair.close()


def test_a_position_that_is_no_longer_held_is_unknown(pair: Pair) -> None:
    commit(pair.log, put("A"))
    pair.feed({key("A"): value("planted")})
    pair.certify()

    async def forgot(request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        return source_pb2.DigestResponse(pinned=False)

    position = pair.store.pinned_at
    assert position is not None
    with pytest.raises(ZaibeiError) as caught:
        asyncio.run(locate(position, pair.store.answer_digest, forgot))
    assert caught.value.code is Code.UNKNOWN
    pair.close()
