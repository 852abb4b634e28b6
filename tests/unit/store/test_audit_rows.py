"""The audit in a store: in the same write as the entry, the same on every member, carried over a switch and a restart."""

from __future__ import annotations

import json
from pathlib import Path

from replica.model.audit import NO_CHAIN, check_chain, seal_entry
from replica.model.audit_personal import DAY_MS, KEPT_DAYS
from replica.model.audit_seal import AuditKeys
from replica.store import SourceStore
from replica.store.edge_audit import AuditTrail
from replica.v1 import entry_pb2
from tests.unit.store.conftest import World
from tests.unit.store.support import SOURCE, Group, Source, put, small_budget
from tests.unit.store.test_loading import loaded

NOW_MS = 1_800_000_000_000


def opened(folder: Path, name: str = "store") -> SourceStore:
    return SourceStore.open(folder / name, SOURCE, small_budget(folder))


def mark(group: Group, state: int, reason: str = "") -> None:
    group.apply(entry_pb2.Entry(mark=entry_pb2.FeedMark(state=state, reason=reason)))


def some_decisions(group: Group, source: Source) -> None:
    group.grant(source.grant())
    group.append(source.cut([put(1)]))
    mark(group, 2, "a gap")
    mark(group, 1)
    group.apply(entry_pb2.Entry(overlay=entry_pb2.Overlay(prefix=SOURCE, sites=[b"s"], serial=5, act="t")))
    group.apply(entry_pb2.Entry(overlay=entry_pb2.Overlay(prefix=SOURCE, sites=[b"s"], serial=5, act="t")))  # refused
    group.append(source.cut([put(2)]))


def test_decisions_leave_records_batches_none(tmp_path: Path) -> None:
    store = opened(tmp_path)
    source, group = Source(), Group(store)
    some_decisions(group, source)
    page = store.audit_page(0, 100)
    found = [json.loads(line) for line in page.lines]
    assert [(one["kind"], one["effect"]) for one in found] == [
        ("grant", True), ("mark", True), ("mark", True), ("overlay", True), ("overlay", False),
    ]  # fmt: skip
    assert [one["index"] for one in found] == [1, 3, 4, 5, 6]
    assert check_chain(page.lines, SOURCE, 1, NO_CHAIN, page.head) == []
    assert [json.loads(line)["number"] for line in store.audit_page(2, 2).lines] == [3, 4]
    store.close()


def test_a_certificate_is_recorded_only_where_it_changes_the_feed(tmp_path: Path) -> None:
    store = opened(tmp_path)
    source, group = Source(), Group(store)
    some_decisions(group, source)
    before = store.audit_page(0, 100).head

    def certify(total: int) -> None:
        digest = store.digest_at(source.head)
        assert digest is not None
        wire = digest.to_wire()
        wire.sum = ((digest.total + total) % (1 << 128)).to_bytes(16, "little")
        check = entry_pb2.CheckResult(equal=not total)
        check.certificate.digest.CopyFrom(wire)
        group.apply(entry_pb2.Entry(check=check))

    for _ in range(3):
        certify(0)
    assert store.audit_page(0, 100).head == before
    certify(1)
    certify(1)
    certify(0)
    kinds = [json.loads(line)["kind"] for line in store.audit_page(before.number, 100).lines]
    assert kinds == ["check", "check"]  # diverged, and equal again
    store.close()


def test_members_agree_and_a_restart_replays_to_the_same_chain(tmp_path: Path) -> None:
    one, other = opened(tmp_path, "one"), opened(tmp_path, "other")
    source, group = Source(), Group(one)
    some_decisions(group, source)
    group.replay(other)
    assert one.audit_page(0, 9) == other.audit_page(0, 9)
    other.close()  # flushed: everything is there
    again = opened(tmp_path, "other")
    assert again.audit_page(0, 9) == one.audit_page(0, 9)
    group.replay(again)
    mark(group, 2, "once more")
    assert again.audit_page(0, 9).head.number == one.audit_page(0, 9).head.number + 1
    for store in (one, again):
        store.close()


def test_a_crash_before_the_flush_loses_record_and_entry_together(tmp_path: Path) -> None:
    store = opened(tmp_path)
    source, group = Source(), Group(store)
    some_decisions(group, source)
    whole = store.audit_page(0, 9)
    store._live.rocks.abandon()  # as a SIGKILL leaves it: nothing was flushed
    fresh = opened(tmp_path)
    index, _ = fresh.applied()
    told = [json.loads(line)["index"] for line in fresh.audit_page(0, 9).lines]
    assert all(one <= index for one in told)
    group.replay(fresh)
    assert fresh.audit_page(0, 9) == whole
    fresh.close()


def marked(group: Group, number: int, at_ms: int) -> None:
    body = entry_pb2.FeedMark(state=2 if number % 2 == 0 else 1, reason=str(number))
    group.apply(entry_pb2.Entry(mark=body, admitted_ms=at_ms))


def test_no_record_that_is_younger_than_six_months_goes_however_many_there_are(tmp_path: Path) -> None:
    store = opened(tmp_path)
    source, group = Source(), Group(store)
    group.grant(source.grant())
    store._trail = AuditTrail(store._live, records_max=4)
    for number in range(10):
        marked(group, number, NOW_MS + number)
    marked(group, 10, NOW_MS + KEPT_DAYS * DAY_MS)
    page = store.audit_page(0, 100)
    assert page.head.first == 2 and len(page.lines) == 11, "the grant of 1970 went, and nothing else"
    store.close()


def test_a_sealed_entry_makes_the_same_record_at_every_member(tmp_path: Path) -> None:
    one, other = opened(tmp_path, "one"), opened(tmp_path, "other")
    source, group = Source(), Group(one)
    group.grant(source.grant())
    entry = entry_pb2.Entry(admitted_ms=NOW_MS, authority=entry_pb2.Authority(kind=2, act="t", reason="li.wei says so"))
    keys = AuditKeys((b"k" * 32,))
    seal_entry(SOURCE, entry, keys)
    group.apply(entry)
    group.replay(other)
    page = one.audit_page(0, 9)
    assert page == other.audit_page(0, 9) and check_chain(page.lines, SOURCE, 1, NO_CHAIN, page.head) == []
    assert b"li.wei" not in page.lines[-1] and keys.open(json.loads(page.lines[-1])) == {"why": "li.wei says so"}
    for store in (one, other):
        store.close()


def test_the_oldest_records_go_when_there_are_too_many_and_the_chain_holds(tmp_path: Path) -> None:
    store = opened(tmp_path)
    source, group = Source(), Group(store)
    group.grant(source.grant())
    store._trail = AuditTrail(store._live, records_max=4)
    for number in range(10):
        marked(group, number, NOW_MS + number * (KEPT_DAYS + 1) * DAY_MS)
    page = store.audit_page(0, 100)
    numbers = [json.loads(line)["number"] for line in page.lines]
    assert numbers == list(range(page.head.first, page.head.number + 1))
    assert len(numbers) == 4
    before = bytes.fromhex(json.loads(page.lines[0])["before"])
    assert check_chain(page.lines, SOURCE, page.head.first, before, page.head) == []
    store.close()


async def test_a_switch_carries_the_audit_into_the_new_generation(granted: World) -> None:
    before = granted.store.audit_page(0, 100)
    digest = await loaded(granted)
    granted.group.load_switch(1, digest)
    page = granted.store.audit_page(0, 100)
    assert page.lines[: len(before.lines)] == before.lines
    assert [json.loads(line)["kind"] for line in page.lines[len(before.lines) :]] == ["load_begin", "load_switch"]
    assert check_chain(page.lines, SOURCE, 1, NO_CHAIN, page.head) == []
    mark(granted.group, 2, "behind the switch")
    after = granted.store.audit_page(0, 100)
    assert check_chain(after.lines, SOURCE, 1, NO_CHAIN, after.head) == []
    assert after.head.number == page.head.number + 1
