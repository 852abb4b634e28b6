"""Entries of the control group, one rule a test; and the machine that keeps the state: crash, damage, transfer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from replica.cluster import entries
from replica.cluster.edge_keep import control_keep
from replica.cluster.machine import ControlMachine, MemoryKeep, decode_state, encode_state
from replica.cluster.rules import ADDRESSES_MAX, apply_entry
from replica.cluster.state import ACTS_KEPT, CONTROL_ID, ControlState, MemberRecord, MemberState, Placement
from replica.model.errors import Code, InvariantBroken, ZaibeiError
from replica.model.outcome import EntryKind, LogEntry, Outcome, OutcomeKind
from replica.v1 import control_pb2, entry_pb2
from tests.unit.cluster.worlds import CLUSTER, LINEAGE, Cluster, journal_of


def member(name: str = "m", **more: object) -> MemberRecord:
    return replace(MemberRecord(0, name, links=(f"{name}:2646",)), **more)  # type: ignore[arg-type]


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    for at in (1, 2, 3):
        made.join(f"m{at}", "abc"[at - 1])
    return made


def test_a_cluster_begins_once_with_the_control_group() -> None:
    state = ControlState()
    state, outcome = apply_entry(state, entries.begun("a", 0, CLUSTER, LINEAGE, 3).control)
    assert outcome.kind is OutcomeKind.APPLIED
    control = state.group("control")
    assert control is not None and (control.ident, control.first) == (CONTROL_ID, (1,))
    again, outcome = apply_entry(state, entries.begun("b", 0, CLUSTER, LINEAGE, 3).control)
    assert (outcome.kind, again) == (OutcomeKind.ALREADY, state)
    _, outcome = apply_entry(state, entries.begun("c", 0, LINEAGE, LINEAGE, 3).control)
    assert outcome.kind is OutcomeKind.CONFLICT and CLUSTER.hex() in outcome.detail


@pytest.mark.parametrize(("cluster_id", "replicas"), [(b"", 3), (bytes(15), 3), (CLUSTER, 0), (CLUSTER, 2), (CLUSTER, 7)])
def test_a_cluster_does_not_begin_with_nonsense(cluster_id: bytes, replicas: int) -> None:
    state, outcome = apply_entry(ControlState(), entries.begun("a", 0, cluster_id, LINEAGE, replicas).control)
    assert (outcome.kind, state) == (OutcomeKind.CONFLICT, ControlState())


def test_nothing_before_the_beginning() -> None:
    _, outcome = apply_entry(ControlState(), entries.admitted("a", 0, member()).control)
    assert outcome == Outcome(OutcomeKind.CONFLICT, detail="the cluster has not begun")


def test_the_same_act_applies_once_and_says_what_it_gave(cluster: Cluster) -> None:
    entry = entries.admitted("join-4", 0, member("m4"))
    assert cluster.apply(entry).kind is OutcomeKind.APPLIED
    assert cluster.state.given_by("join-4") == 4
    before = cluster.state
    assert cluster.apply(entry).kind is OutcomeKind.ALREADY
    assert cluster.state == before and cluster.state.given_by("never") is None


def test_acts_are_forgotten_in_order_and_rules_hold_without_them(cluster: Cluster) -> None:
    entry = entries.admitted("old", 0, member("m4"))
    cluster.apply(entry)
    for at in range(ACTS_KEPT):
        cluster.apply(entries.placed(f"p{at}", 0, "g", Placement((1 + at % 3,))))
    assert cluster.state.given_by("old") is None and len(cluster.state.acts) == ACTS_KEPT
    assert cluster.apply(entry).kind is OutcomeKind.CONFLICT, "the name is taken"


def test_numbers_and_ids_are_never_given_again(cluster: Cluster) -> None:
    number = cluster.join("m4", come=False)
    cluster.leave(number)
    found = cluster.state.member(number)
    assert found is not None and found.state is MemberState.REMOVED, "it never came: nothing to move"
    assert cluster.join("m4") == number + 1, "the name is free again, the number is not"
    cluster.make("g", 1)
    assert cluster.group("g").ident == CONTROL_ID + 1


def refusals() -> list[tuple[str, Callable[[Cluster], entry_pb2.Entry], str]]:
    def changed(cluster: Cluster, **more: object) -> entry_pb2.Entry:
        found = cluster.state.member(1)
        assert found is not None
        return entries.changed("x", 0, replace(found, **more))  # type: ignore[arg-type]

    return [
        ("name taken", lambda c: entries.admitted("x", 0, member("m1")), "belongs to member 1"),
        ("no name", lambda c: entries.admitted("x", 0, member("")), "needs a name"),
        ("long name", lambda c: entries.admitted("x", 0, member("m" * 64)), "64 characters"),
        ("unprintable", lambda c: entries.admitted("x", 0, member("m\n")), "unprintable"),
        ("addresses", lambda c: entries.admitted("x", 0, member(links=("a:1",) * (ADDRESSES_MAX + 1))), "at most"),
        ("replaces nobody", lambda c: entries.admitted("x", 0, member(replaces=9)), "no member 9"),
        ("another journal", lambda c: changed(c, journal=journal_of(77)), "zaibei cluster replace m1"),
        ("copied folder", lambda c: changed(c, journal=journal_of(2)), "another journal"),
        ("short journal", lambda c: changed(c, journal=b"x"), "16 octets"),
        ("unknown member", lambda c: entries.changed("x", 0, MemberRecord(9, "m9")), "no member 9"),
        ("even voters", lambda c: entries.placed("x", 0, "g", Placement((1, 2))), "2 voters"),
        ("no voters", lambda c: entries.placed("x", 0, "g", Placement(())), "0 voters"),
        ("twice", lambda c: entries.placed("x", 0, "g", Placement((1, 2, 3), (3,))), "once"),
        ("unknown voter", lambda c: entries.placed("x", 0, "g", Placement((1, 2, 9))), "no member 9"),
        ("leader no voter", lambda c: entries.placed("x", 0, "g", Placement((1,), (), 2)), "cannot lead"),
        ("no act", lambda c: entries.placed("", 0, "g", Placement((1,))), "no act"),
        ("unknown removed", lambda c: entries.removed("x", 0, 9, ""), "no member 9"),
    ]


@pytest.mark.parametrize(("make", "says"), [row[1:] for row in refusals()], ids=[row[0] for row in refusals()])
def test_what_breaks_a_rule_changes_nothing_and_says_why(
    cluster: Cluster, make: Callable[[Cluster], entry_pb2.Entry], says: str
) -> None:
    before = cluster.state
    outcome = cluster.apply(make(cluster))
    assert (outcome.kind, cluster.state) == (OutcomeKind.CONFLICT, before)
    assert says in outcome.detail


def test_a_copied_data_folder_is_found_when_it_first_comes(cluster: Cluster) -> None:
    number = cluster.join("m4", come=False)
    found = cluster.state.member(number)
    assert found is not None
    outcome = cluster.apply(entries.changed("x", 0, replace(found, journal=journal_of(2))))
    assert outcome.kind is OutcomeKind.CONFLICT and "must not be copied" in outcome.detail


def test_two_cannot_replace_one_and_a_removed_one_is_not_replaced(cluster: Cluster) -> None:
    cluster.join("m4", replaces=3, come=False)
    assert "takes the place of m3" in cluster.apply(entries.admitted("x", 0, member("m5", replaces=3))).detail
    cluster.come(4)
    old = cluster.state.member(3)
    assert old is not None and old.state is MemberState.LEAVING and old.reason == "replaced by m4"
    cluster.leave(3)
    assert "removed: nothing to replace" in cluster.apply(entries.admitted("y", 0, member("m6", replaces=3))).detail


def test_nothing_new_is_placed_at_one_that_leaves_or_never_came(cluster: Cluster) -> None:
    joining = cluster.join("m4", come=False)
    cluster.leave(3)
    for number in (joining, 3):
        assert "nothing new" in cluster.apply(entries.placed(f"x{number}", 0, "g", Placement((number,)))).detail


def test_the_last_active_member_stays() -> None:
    cluster = Cluster()
    cluster.join("m1")
    assert "a cluster needs one" in cluster.leave(1).detail


def test_first_voters_of_a_group_stay_as_they_were(cluster: Cluster) -> None:
    cluster.make("g", 1)
    cluster.make("g", 1, 2, 3)
    assert (cluster.group("g").first, cluster.group("g").wanted.voters) == ((1,), (1, 2, 3))


@pytest.mark.parametrize(
    "entry", [control_pb2.ControlEntry(format=2, act="a"), control_pb2.ControlEntry(format=1, act="a")], ids=["format", "body"]
)
def test_an_entry_of_a_newer_version_stops_the_group(entry: control_pb2.ControlEntry) -> None:
    with pytest.raises(ZaibeiError, match="update this member"):
        apply_entry(ControlState(), entry)


# ------------------------------------------------------------------------------------------------------------ machine
def log_of(count: int = 3) -> list[LogEntry]:
    made = [entries.begun("b", 0, CLUSTER, LINEAGE, 3)]
    made += [entries.admitted(f"m{at}", 0, member(f"m{at}")) for at in range(1, count + 1)]
    return [LogEntry(at, 1, entry.SerializeToString()) for at, entry in enumerate(made, 1)]


def test_what_was_flushed_is_there_again_and_the_rest_comes_from_the_journal() -> None:
    keep, log = MemoryKeep(), log_of()
    machine = ControlMachine(keep)
    assert (machine.applied(), machine.durable_applied(), machine.keep_from()) == ((0, 0), 0, None)
    machine.apply(log[:2])
    assert machine.flush() == 2 == machine.durable_applied()
    machine.apply(log[2:])
    whole = machine.state
    again = ControlMachine(MemoryKeep(keep.octets))
    assert (again.applied(), again.durable_applied()) == ((2, 1), 2)
    again.apply(log[2:])
    assert again.state == whole


def test_a_flush_without_change_writes_nothing_and_a_full_disk_keeps_what_was_there() -> None:
    keep, log = MemoryKeep(), log_of()
    machine = ControlMachine(keep)
    machine.apply(log[:2])
    machine.flush()
    machine.flush()
    assert keep.writes == 1
    machine.apply(log[2:])
    keep.fail = ZaibeiError(Code.DISK_FULL, "no room", retry=True)
    with pytest.raises(ZaibeiError):
        machine.flush()
    assert machine.durable_applied() == 2 and ControlMachine(MemoryKeep(keep.octets)).applied() == (2, 1)


def test_entries_of_the_log_itself_only_move_the_index() -> None:
    machine = ControlMachine(MemoryKeep())
    no_op = entry_pb2.Entry(format=1, no_op=entry_pb2.NoOp()).SerializeToString()
    strange = entry_pb2.Entry(format=1, epoch_ask=entry_pb2.EpochAsk()).SerializeToString()
    outcomes = machine.apply(
        [
            LogEntry(1, 1, no_op),
            LogEntry(2, 1, b"\x01 change", EntryKind.MEMBERSHIP),
            LogEntry(4, 2, strange),
            LogEntry(5, 2, b"\xff\xff"),
        ]
    )
    kinds = [outcome.kind for outcome in outcomes]
    assert kinds == [OutcomeKind.APPLIED, OutcomeKind.APPLIED, OutcomeKind.CONFLICT, OutcomeKind.CONFLICT]
    assert machine.applied() == (5, 2)
    with pytest.raises(InvariantBroken):
        machine.apply([LogEntry(5, 2, no_op)])
    with pytest.raises(ZaibeiError, match="update this member"):
        machine.apply([LogEntry(6, 2, entry_pb2.Entry(format=1).SerializeToString())])
    assert machine.applied() == (5, 2), "the entry comes again after the update"


@pytest.mark.parametrize("at", [0, 20, 60, 100, 150, -2])
def test_a_damaged_file_is_said_to_be_damaged(at: int) -> None:
    machine = ControlMachine(MemoryKeep())
    machine.apply(log_of())
    octets = bytearray(encode_state(machine.state))
    octets[at] ^= 1
    with pytest.raises(ZaibeiError) as raised:
        ControlMachine(MemoryKeep(bytes(octets)))
    assert raised.value.code is Code.DAMAGED and "Next: " in raised.value.trouble.message


def test_every_octet_of_the_file_counts() -> None:
    machine = ControlMachine(MemoryKeep())
    machine.apply(log_of())
    octets = encode_state(machine.state)
    for at in range(0, len(octets), 7):
        broken = octets[:at] + bytes([octets[at] ^ 4]) + octets[at + 1 :]
        with pytest.raises(ZaibeiError):
            decode_state(broken, "file")
    with pytest.raises(ZaibeiError):
        decode_state(octets[:-3], "file")


def test_a_checkpoint_goes_to_another_member_whole_or_not_at_all() -> None:
    log = log_of()
    machine, other = ControlMachine(MemoryKeep()), ControlMachine(MemoryKeep())
    machine.apply(log)
    seen: list[ControlState] = []
    other.subscribe(seen.append)
    index, term, octets = machine.checkpoint()
    assert other.install(octets) == (index, term) == other.applied()
    assert other.state == machine.state == seen[-1] and other.durable_applied() == index
    older = ControlMachine(MemoryKeep())
    older.apply(log[:2])
    with pytest.raises(ZaibeiError, match="already"):
        other.install(older.checkpoint()[2])
    stranger = ControlMachine(MemoryKeep())
    stranger.apply([LogEntry(9, 1, entries.begun("b", 0, LINEAGE, LINEAGE, 3).SerializeToString())])
    with pytest.raises(ZaibeiError, match="not of ours"):
        other.install(stranger.checkpoint()[2])
    with pytest.raises(ZaibeiError):
        other.install(octets[:40])
    assert other.state == machine.state


def test_listeners_hear_of_changes_alone() -> None:
    machine = ControlMachine(MemoryKeep())
    seen: list[ControlState] = []
    machine.subscribe(seen.append)
    machine.apply(log_of(1))
    machine.apply([LogEntry(9, 2, b"")])
    assert len(seen) == 1 and machine.applied() == (9, 2)


def test_the_file_on_a_disk(tmp_path: Path) -> None:
    keep = control_keep(tmp_path)
    machine = ControlMachine(keep)
    machine.apply(log_of())
    machine.flush()
    assert keep.path == tmp_path / "cluster" / "control.json"
    assert keep.path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "cluster" / "control.json.new").write_bytes(b"half a file of a crash")
    assert ControlMachine(control_keep(tmp_path)).state == machine.state
    keep.path.write_bytes(b"{}")
    with pytest.raises(ZaibeiError, match="control"):
        ControlMachine(control_keep(tmp_path))
