"""One test per rule of apply: order, epochs, holds, states, certificates (SEMANTICS 1, 2, 7, 10)."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from replica.model.batch import columns_of, cut_batch
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.node import Endpoint
from replica.model.outcome import LogEntry, OutcomeKind
from replica.model.position import ORIGIN, epoch_start
from replica.model.states import Authority, FeedState, Mode
from replica.store import SourceStore, StoreMetrics, hold_ident
from replica.v1 import entry_pb2, source_pb2
from tests.unit.store.conftest import World
from tests.unit.store.support import LINEAGE, SOURCE, Group, Source, delete, held, key, put, small_budget, value

GAP, LOADING, HELD, FORKED, FENCED, DIVERGED = 2, 3, 4, 5, 6, 7


def outcome(result: object) -> OutcomeKind:
    return result.kind  # type: ignore[attr-defined, no-any-return]


# ------------------------------------------------------------------------------------------------- order
def test_batches_apply_in_order_with_position_and_digest(granted: World) -> None:
    for start in range(0, 50, 10):
        batch = granted.source.cut([put(start + n) for n in range(10)])
        result = granted.group.append(batch)
        assert (result.kind, result.position) == (OutcomeKind.APPLIED, batch.after)
    assert held(granted.store) == granted.source.content
    assert granted.store.digest_at(granted.source.head) == granted.source.digest()
    assert granted.store.state().position == granted.source.head
    assert granted.store.state().records == 50


def test_a_batch_that_came_before_is_already_applied(granted: World) -> None:
    first, second = granted.source.cut([put(1)]), granted.source.cut([put(2)])
    granted.group.append(first)
    granted.group.append(second)
    digest = granted.store.digest_at(granted.source.head)
    assert [outcome(granted.group.append(batch)) for batch in (second, first)] == [OutcomeKind.ALREADY] * 2
    assert granted.store.digest_at(granted.source.head) == digest


def test_a_batch_behind_a_gap_is_not_applied(granted: World) -> None:
    granted.source.cut([put(1)])
    result = granted.group.append(granted.source.cut([put(2)]))
    assert result.kind is OutcomeKind.GAP
    assert "changes 1 to 1 are missing" in result.detail
    assert held(granted.store) == {}


def test_other_content_at_the_same_place_is_a_conflict(granted: World) -> None:
    twin = granted.source.fork()
    granted.group.append(granted.source.cut([put(1)]))
    granted.group.append(granted.source.cut([put(2)]))
    other = twin.cut([put(1, "other")])
    assert outcome(granted.group.append(other)) is OutcomeKind.CONFLICT
    assert outcome(granted.group.append(twin.cut([put(2, "other")]))) is OutcomeKind.CONFLICT
    assert outcome(granted.group.append(twin.cut([put(3, "other")]))) is OutcomeKind.CONFLICT  # at our head, another chain
    assert held(granted.store) == granted.source.content


def test_a_batch_cut_again_is_a_conflict(granted: World) -> None:
    twin = granted.source.fork()
    granted.group.append(granted.source.cut([put(1), put(2)]))
    twin.cut([put(1)])
    assert outcome(granted.group.append(twin.cut([put(2), put(3)]))) is OutcomeKind.CONFLICT  # runs over our boundary


def test_old_epoch_other_lineage_and_ungranted_epoch(granted: World) -> None:
    source = granted.source
    granted.group.append(source.cut([put(1)]))
    old = source.fork()
    granted.group.grant(source.grant(2))
    assert outcome(granted.group.append(old.cut([put(2)]))) is OutcomeKind.FENCED
    stranger = Source(epoch_start(source.head, b"X" * 16, 3))
    assert outcome(granted.group.append(stranger.cut([put(2)]))) is OutcomeKind.FENCED
    eager = Source(epoch_start(source.head, LINEAGE, 3))
    assert outcome(granted.group.append(eager.cut([put(2)]))) is OutcomeKind.CONFLICT
    assert outcome(granted.group.append(source.cut([put(3)]))) is OutcomeKind.APPLIED
    assert held(granted.store).keys() == {key(1), key(3)}


def test_nothing_is_applied_before_an_epoch_was_granted(world: World) -> None:
    assert outcome(world.group.append(world.source.cut([put(1)]))) is OutcomeKind.CONFLICT
    assert held(world.store) == {}


def test_the_entry_must_name_the_boundary_its_batch_follows(granted: World) -> None:
    batch = granted.source.cut([put(1)])
    body = entry_pb2.AppendBatch(batch=batch.raw, follows=batch.after.to_wire(), live=True)
    assert outcome(granted.group.apply(entry_pb2.Entry(append=body))) is OutcomeKind.CONFLICT
    assert held(granted.store) == {}


def test_an_entry_applied_before_is_skipped_and_a_missing_one_is_damage(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1)]))
    again = granted.store.apply(granted.group.log)
    assert [one.kind for one in again] == [OutcomeKind.ALREADY] * 2
    with pytest.raises(ZaibeiError, match="entries are missing") as caught:
        granted.store.apply([LogEntry(9, 1, granted.group.log[-1].data)])
    assert caught.value.code is Code.DAMAGED


def test_a_key_that_comes_twice_in_a_batch_counts_once(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1, "a"), put(2)]))
    changes = [put(1, "b"), delete(1), put(1, "c"), put(3), delete(3), delete(2), put(2, "z")]
    granted.group.append(granted.source.cut(changes))
    assert held(granted.store) == granted.source.content
    assert granted.store.digest_at(granted.source.head) == granted.source.digest()
    assert granted.group.check(granted.source.digest()).detail == "equal"


def test_deleting_what_is_not_there_changes_nothing(granted: World) -> None:
    granted.group.append(granted.source.cut([delete(7)]))
    assert granted.store.digest_at(granted.source.head) == granted.source.digest()
    assert granted.store.live_records(b"") == 0


# ------------------------------------------------------------------------------------------------- grants
def test_a_source_without_history_is_copied_at_once(world: World) -> None:
    assert not world.store.state().ready
    world.group.grant(world.source.grant())
    state = world.store.state()
    assert (state.ready, state.position, state.granted, state.grant_taken) == (True, world.source.head, world.source.head, False)


def test_a_grant_after_another_head_waits_for_a_load(world: World) -> None:
    history = cut_batch(SOURCE, ORIGIN, columns_of([put(1)]), 1, 0)  # epoch 0: the source's own history
    world.source.head = history.after
    world.group.grant(world.source.grant())
    state = world.store.state()
    assert (state.ready, state.position, state.granted) == (False, ORIGIN, world.source.head)
    assert outcome(world.group.append(world.source.cut([put(2)]))) is OutcomeKind.GAP


def test_grants_only_rise_and_their_start_is_bound_to_the_parent(granted: World) -> None:
    head = granted.source.head
    again = source_pb2.Grant(parent=ORIGIN.to_wire(), start=head.to_wire())
    assert outcome(granted.group.grant(again)) is OutcomeKind.ALREADY
    wrong = source_pb2.Grant(parent=head.to_wire(), start=epoch_start(ORIGIN, LINEAGE, 2).to_wire())
    assert outcome(granted.group.grant(wrong)) is OutcomeKind.CONFLICT
    granted.group.grant(granted.source.grant(5))
    lower = source_pb2.Grant(parent=head.to_wire(), start=epoch_start(head, LINEAGE, 4).to_wire())
    assert outcome(granted.group.grant(lower)) is OutcomeKind.FENCED
    taken = entry_pb2.Entry(grant_taken=entry_pb2.GrantTaken(position=granted.source.head.to_wire()))
    assert outcome(granted.group.apply(taken)) is OutcomeKind.APPLIED
    assert granted.store.state().grant_taken
    stale = entry_pb2.Entry(grant_taken=entry_pb2.GrantTaken(position=head.to_wire()))
    assert outcome(granted.group.apply(stale)) is OutcomeKind.CONFLICT


# ------------------------------------------------------------------------------------------------- feed states
def test_marks_follow_the_table_and_survive_a_restart(granted: World) -> None:
    assert outcome(granted.group.mark(GAP, "gap", "changes are missing")) is OutcomeKind.APPLIED
    assert outcome(granted.group.mark(DIVERGED)) is OutcomeKind.CONFLICT  # not in the table
    assert outcome(granted.group.mark(0)) is OutcomeKind.CONFLICT
    state = granted.restart().state()
    assert (state.feed, state.feed_code, state.feed_reason) == (FeedState.GAP, "gap", "changes are missing")


def test_a_fork_ends_only_with_a_new_epoch(granted: World) -> None:
    granted.group.mark(FORKED, "forked", "x")
    assert outcome(granted.group.mark(1)) is OutcomeKind.CONFLICT
    assert outcome(granted.group.mark(LOADING)) is OutcomeKind.CONFLICT
    assert outcome(granted.group.load_begin(1, granted.source.head)) is OutcomeKind.CONFLICT
    granted.group.grant(granted.source.grant(2))
    assert granted.store.state().feed is FeedState.FLOWING


def test_a_fork_regranted_elsewhere_is_left_by_a_load(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1)]))
    granted.group.mark(FORKED, "forked", "x")
    granted.source.cut([put(2)])  # we never saw this one: the operator grants on top of it
    granted.group.grant(granted.source.grant(2))
    assert granted.store.state().feed is FeedState.FORKED
    assert outcome(granted.group.load_begin(1, granted.source.head)) is OutcomeKind.APPLIED
    assert granted.store.state().feed is FeedState.LOADING


# ------------------------------------------------------------------------------------------------- holds
def test_a_held_batch_waits_and_all_after_it(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(5)]))
    follows = granted.source.head
    batch = granted.source.cut([delete(n) for n in range(5)])
    assert outcome(granted.group.hold(batch)) is OutcomeKind.HELD
    state = granted.store.state()
    assert state.hold is not None
    assert (state.feed, state.hold.ident, state.hold.batch) == (FeedState.HELD, hold_ident(follows), batch.raw)
    assert outcome(granted.group.append(granted.source.cut([put(9)]))) is OutcomeKind.HELD
    assert outcome(granted.group.append(batch)) is OutcomeKind.HELD
    assert outcome(granted.group.mark(1)) is OutcomeKind.HELD  # a mark does not end a hold
    assert len(held(granted.store)) == 5
    assert granted.restart().state().hold == state.hold


def test_release_applies_what_was_held_and_needs_two(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(5)]))
    batch = granted.source.cut([delete(n) for n in range(4)])
    granted.group.hold(batch)
    ident = granted.store.state().hold.ident  # type: ignore[union-attr]
    assert outcome(granted.group.decide(ident, release=True, operators=("ann", "ann"))) is OutcomeKind.CONFLICT
    assert outcome(granted.group.decide("1-99", release=True)) is OutcomeKind.CONFLICT
    result = granted.group.decide(ident, release=True)
    assert (result.kind, result.position) == (OutcomeKind.APPLIED, batch.after)
    state = granted.store.state()
    assert (state.feed, state.hold) == (FeedState.FLOWING, None)
    assert held(granted.store) == granted.source.content
    assert state.brake.trips([(b"h88\x01118\x018", 0, 1)], 1_700_000_000_000, lambda _: 1) == []  # the act is not held again


def test_discard_keeps_the_position_and_says_so(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1)]))
    before = granted.source.head
    granted.group.hold(granted.source.cut([delete(1)]))
    granted.group.decide(hold_ident(before), release=False)
    state = granted.store.state()
    assert (state.feed, state.feed_code, state.hold, state.position) == (FeedState.GAP, "discarded", None, before)
    assert held(granted.store).keys() == {key(1)}


def test_a_hold_must_follow_and_a_blocked_feed_releases_nothing(granted: World) -> None:
    granted.source.cut([put(1)])
    assert outcome(granted.group.hold(granted.source.cut([put(2)]))) is OutcomeKind.GAP
    batch = granted.source.batches[0]
    granted.group.hold(batch)
    granted.group.mark(FORKED, "forked", "x")
    ident = hold_ident(batch.before)
    assert outcome(granted.group.decide(ident, release=True)) is OutcomeKind.CONFLICT
    assert outcome(granted.group.decide(ident, release=False)) is OutcomeKind.APPLIED
    assert granted.store.state().feed is FeedState.FORKED


def test_a_released_batch_keeps_its_quarantine(granted: World) -> None:
    batch = granted.source.cut([put(1), put(2)])
    granted.group.hold(batch, quarantined=[entry_pb2.Quarantined(ordinal=1, reason="not_owner")])
    granted.group.decide(hold_ident(batch.before), release=True)
    values, _ = granted.store.get_many([key(1), key(2)])
    assert values == [granted.source.content[key(1)], b""]


# ------------------------------------------------------------------------------------------------- brake, counts, quarantine
def test_the_brake_counts_what_apply_really_did(granted: World) -> None:
    part = b"h88\x01118\x018"
    granted.group.append(granted.source.cut([put(n) for n in range(300)]), at_ms=10_000)
    assert len(granted.store.state().brake) == 0
    changes = [delete(n) for n in range(60)] + [put(n, "new") for n in range(60, 99)] + [put(200), delete(999)]  # 200 as it was
    granted.group.append(granted.source.cut(changes), at_ms=20_000)
    brake = granted.store.state().brake
    assert brake.trips([(part, 0, 0)], 20_001, granted.store.live_records) == []
    [*trips] = brake.trips([(part, 1, 0)], 20_001, granted.store.live_records)
    assert {trip.touched for trip in trips} == {100}
    assert {trip.began for trip in trips} == {300}
    assert granted.store.live_records(part + b"\0") == granted.store.live_records(b"") == 240
    restarted = granted.restart().state().brake
    assert restarted.dump() == brake.dump()
    assert granted.store.live_records(part) == 240


def test_oids_and_routes_count_with_their_parent(granted: World) -> None:
    from replica.model.batch import OP_PUT, Change
    from replica.model.identifier import Identifier

    keys = [Identifier.parse(f"oid:1.2.156.{n}").key() for n in range(20)]
    granted.group.append(granted.source.cut([Change(OP_PUT, one, value("x")) for one in keys]))
    parent = keys[0].partition(b"\0")[0].rpartition(b"\x01")[0]
    assert granted.store.live_records(parent + b"\0") == 20
    assert granted.store.digest_at(granted.source.head) == granted.source.digest()


def test_a_quarantined_record_counts_and_answers_nothing(granted: World) -> None:
    batch = granted.source.cut([put(1), put(2), put(3)])
    granted.group.append(batch, quarantined=[(1, "value_truncated")])
    content = granted.source.content
    values, position = granted.store.get_many([key(1), key(2), key(3), key(4)])
    assert (values, position) == ([content[key(1)], b"", content[key(3)], None], batch.after)
    assert granted.store.digest_at(batch.after) == granted.source.digest()
    assert granted.store.state().quarantined == 1
    assert granted.restart().get_many([key(2)])[0] == [b""]
    granted.group.append(granted.source.cut([put(2, "sound again")]))
    assert granted.store.get_many([key(2)])[0] == [granted.source.content[key(2)]]
    assert granted.store.state().quarantined == 0


def test_keys_of_no_kind_are_stored_in_order_and_never_touch_our_rows(granted: World) -> None:
    from replica.model.batch import OP_PUT, Change

    odd = [b"", b"\0", b"\0\0", b"\0\x10S", b"\0\x10P\1", b"\x01a", b"~", b"\0\xff"]
    changes = [Change(OP_PUT, one, b"v%d" % place) for place, one in enumerate(odd)] + [put(1)]
    granted.group.append(granted.source.cut(changes), quarantined=[(place, "unknown_kind") for place in range(len(odd))])
    assert granted.store.get_many([*odd, key(1)])[0] == [b""] * len(odd) + [granted.source.content[key(1)]]
    reader = granted.store.snapshot(b"s")
    [part] = [one.chunk.columns for one in reader.parts() if one.HasField("chunk")]
    reader.close()
    from replica import native

    keys, values, _ = native.split(part)
    assert keys == sorted(granted.source.content)
    assert dict(zip(keys, values, strict=True)) == granted.source.content
    store = granted.restart()
    assert store.digest_at(granted.source.head) == granted.source.digest()


def test_more_quarantined_than_fit_in_memory(tmp_path, granted: World) -> None:  # type: ignore[no-untyped-def]
    granted.store._live._quarantine_memory_max = 3
    granted.group.append(granted.source.cut([put(n) for n in range(10)]), quarantined=[(n, "x") for n in range(8)])
    values = granted.store.get_many([key(n) for n in range(10)])[0]
    assert [value == b"" for value in values] == [True] * 8 + [False] * 2
    granted.group.append(granted.source.cut([put(n, "fine") for n in range(10)]))
    assert b"" not in granted.store.get_many([key(n) for n in range(10)])[0]
    assert granted.store.state().quarantined == 0


# ------------------------------------------------------------------------------------------------- the rest
def test_certificates_compare_what_we_store(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1)]))
    early = granted.source.digest()
    granted.group.append(granted.source.cut([put(2)]))
    good = granted.source.digest()
    ahead = granted.source.fork()
    ahead.cut([put(3)])
    assert outcome(granted.group.check(ahead.digest())) is OutcomeKind.GAP
    assert outcome(granted.group.check(early)) is OutcomeKind.ALREADY
    assert granted.store.state().verified is None
    assert granted.group.check(good).detail == "equal"
    assert granted.store.state().verified is True
    wrong = ContentDigest(good.position, good.records, good.total ^ 1)
    assert granted.group.check(wrong).detail == "different"
    state = granted.restart().state()
    assert (state.verified, state.feed, state.certificate) == (False, FeedState.DIVERGED, wrong)
    assert granted.group.check(good).detail == "equal"
    assert granted.store.state().feed is FeedState.FLOWING


def test_a_certificate_pins_sums_and_content(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(50)]))
    head, content = granted.source.head, dict(granted.source.content)
    granted.group.check(granted.source.digest())
    sums = granted.store.pinned_sums(head)
    granted.group.append(granted.source.cut([delete(n) for n in range(50)]))
    assert granted.store.pinned_sums(head) == sums
    assert granted.store.pinned_sums(granted.source.head) is None
    from replica import native

    bucket = native.bucket_of(key(7))
    ask = source_pb2.DigestRequest(position=head.to_wire(), level=3, bucket=bucket)
    answer = granted.store.answer_digest(ask)
    assert key(7) in answer.keys
    assert list(answer.hashes) == [native.record_hash(one, content[one]) for one in answer.keys]
    level2 = granted.store.answer_digest(source_pb2.DigestRequest(position=head.to_wire(), level=2, bucket=bucket >> 8))
    mine = level2.sums[(bucket & 255) * 24 :][:24]
    assert int.from_bytes(mine[:8], "little") == len(answer.keys)
    level1 = granted.store.answer_digest(source_pb2.DigestRequest(position=head.to_wire(), level=1))
    assert native.sum_all(bytearray(sums or b""))[0] == 50
    assert len(level1.sums) == 256 * 24
    assert not granted.store.answer_digest(source_pb2.DigestRequest(position=granted.source.head.to_wire())).pinned


def test_ownership_overlays_and_authority(granted: World) -> None:
    own = entry_pb2.Ownership(version=2, prefixes=["88.118", "oid:1.2"], case_sensitive=["88.118.8"], mode=3)  # type: ignore[arg-type]
    assert outcome(granted.group.apply(entry_pb2.Entry(ownership=own))) is OutcomeKind.APPLIED
    old = entry_pb2.Ownership(version=1, prefixes=["86"])
    assert outcome(granted.group.apply(entry_pb2.Entry(ownership=old))) is OutcomeKind.FENCED
    bad = entry_pb2.Ownership(version=3, prefixes=["what:ever"])
    assert outcome(granted.group.apply(entry_pb2.Entry(ownership=bad))) is OutcomeKind.CONFLICT
    overlay = entry_pb2.Overlay(prefix="88.118", sites=[b"site"], serial=5, act="act-1")
    assert outcome(granted.group.apply(entry_pb2.Entry(overlay=overlay))) is OutcomeKind.APPLIED
    assert outcome(granted.group.apply(entry_pb2.Entry(overlay=overlay))) is OutcomeKind.CONFLICT  # serials rise
    who = entry_pb2.Authority(kind=entry_pb2.Authority.KIND_RESOLUTION, act="act-1")
    granted.group.apply(entry_pb2.Entry(authority=who))
    state = granted.restart().state()
    assert (state.ownership_version, state.prefixes, state.mode) == (2, (b"h88\x01118", b"o\x411\x01\x412"), Mode.MIXED)
    assert (state.overlays[0].serial, state.authority, state.authority_act) == (5, Authority.RESOLUTION, "act-1")
    gone = entry_pb2.Overlay(prefix="88.118", serial=6, act="act-1", withdrawn=True)
    granted.group.apply(entry_pb2.Entry(overlay=gone))
    assert (granted.store.state().overlays, granted.store.state().serial_highest) == ((), 6)


def test_where_the_node_answers_is_kept_as_it_was_last_said(granted: World) -> None:
    def stated(*addresses: str) -> entry_pb2.Entry:
        resolution = [source_pb2.Endpoint(protocol="udp", address=address, port=2641) for address in addresses]
        return entry_pb2.Entry(node=entry_pb2.NodeStated(resolution=resolution))

    assert outcome(granted.group.apply(stated("::1", "node.example"))) is OutcomeKind.APPLIED
    assert outcome(granted.group.apply(stated("::1"))) is OutcomeKind.ALREADY
    assert granted.restart().state().node == (Endpoint("udp", "::1", 2641),)
    assert outcome(granted.group.apply(stated())) is OutcomeKind.APPLIED
    assert granted.store.state().node == ()


def test_an_entry_of_a_newer_version_takes_the_group_out_of_service(granted: World) -> None:
    data = entry_pb2.Entry(format=3, no_op=entry_pb2.NoOp()).SerializeToString()
    with pytest.raises(ZaibeiError, match="newer version"):
        granted.store.apply([LogEntry(2, 1, data)])


def test_subscribers_see_each_state(granted: World) -> None:
    seen: list[int] = []
    end = granted.store.subscribe(lambda state: seen.append(state.index))
    granted.group.append(granted.source.cut([put(1)]))
    granted.group.mark(GAP)
    end()
    granted.group.mark(1)
    assert seen == [2, 3]


def test_metrics_follow_the_state(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    store = SourceStore.open(tmp_path / "s", SOURCE, small_budget(tmp_path), StoreMetrics(registry))
    group, source = Group(store), Source()
    group.grant(source.grant())
    group.append(source.cut([put(1), put(2)]))
    with pytest.raises(ZaibeiError):
        store.apply([LogEntry(99, 1, b"")])
    assert registry.get_sample_value("zaibei_store_records", {"source": SOURCE}) == 2
    assert registry.get_sample_value("zaibei_store_refused_entries_total", {"source": SOURCE, "code": "damaged"}) == 1
    store.close()
