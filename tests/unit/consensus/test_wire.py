"""Messages on the wire: what goes through comes out equal, what is unsound is named, and no octets crash the decoder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replica.consensus import wire
from replica.consensus.link_checks import check_messages, read_link_message
from replica.consensus.link_port import LINK_OCTETS_MAX, Reason, Refused
from replica.consensus.port import ENTRY_OCTETS_MAX
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Kind, Message, SnapshotMeta
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import EntryKind, LogEntry
from replica.v1 import peer_pb2

Wire = peer_pb2.GroupMessage
numbers = st.integers(0, wire.NUMBER_MAX)
members = st.frozensets(st.integers(1, 50), max_size=5)


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    voters, outgoing = draw(members.filter(bool)), draw(members)
    learners = draw(members) - voters - outgoing
    return Membership(voters, outgoing, learners, draw(members) & outgoing, draw(st.booleans()))


@st.composite
def sound_messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from(Kind))
    message = Message(
        kind=kind,
        to=2,
        sender=1,
        term=draw(numbers),
        log_term=draw(numbers),
        index=draw(numbers),
        commit=draw(numbers),
        reject=draw(st.booleans()),
        hint=draw(numbers),
        context=draw(st.binary(max_size=wire.CONTEXT_OCTETS_MAX)),
        campaign_transfer=draw(st.booleans()),
    )
    if kind is Kind.APPEND:
        message.index = draw(st.integers(0, 2**40))
        terms = sorted(draw(st.lists(st.integers(1, 2**40), max_size=5)))
        message.log_term = draw(st.integers(0, terms[0])) if terms else 0
        message.term = max([*terms, 1])
        message.entries = tuple(
            LogEntry(message.index + 1 + at, term, draw(st.binary(max_size=30)), draw(st.sampled_from(EntryKind)))
            for at, term in enumerate(terms)
        )
    if kind is Kind.SNAPSHOT and not message.reject:  # who could not take one names none
        message.term = draw(st.integers(1, 2**40))
        meta_term = draw(st.integers(1, message.term))
        message.snapshot = SnapshotMeta(draw(st.integers(1, 2**40)), meta_term, draw(memberships()))
    return message


@given(sound_messages(), st.integers(1, 2**64 - 1))
def test_a_sound_message_comes_out_equal(message: Message, group: int) -> None:
    octets = wire.to_wire(group, message, transfer=b"t" * 16 if message.snapshot else b"").SerializeToString()
    arrived = Wire.FromString(octets)
    assert wire.fault_of(arrived) == ""
    assert arrived.group == group
    back = wire.from_wire(arrived, sender=1, to=2)
    assert back == message and all(isinstance(entry.kind, EntryKind) for entry in back.entries)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.integers(0, 2**40), st.data())
def test_no_flipped_bit_of_an_append_goes_unseen(datas: list[bytes], index: int, data: st.DataObject) -> None:
    entries = tuple(LogEntry(place, 3, octets, EntryKind.DATA) for place, octets in enumerate(datas, index + 1))
    arrived = wire.to_wire(
        7, Message(kind=Kind.APPEND, to=2, sender=1, term=4, log_term=2, index=index, commit=9, entries=entries)
    )
    assert len(arrived.sum) == wire.SUM_OCTETS and wire.fault_of(arrived) == ""
    places = [place for place, octets in enumerate(datas) if octets]
    if places and data.draw(st.booleans()):
        place = data.draw(st.sampled_from(places))
        bent = bytearray(datas[place])
        bent[data.draw(st.integers(0, len(bent) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        arrived.entries[place] = bytes(bent)
    else:
        field = data.draw(st.sampled_from(["index", "commit", "group", "log_term", "term"]))
        setattr(arrived, field, getattr(arrived, field) ^ 1)
    assert wire.fault_of(arrived) != ""


def append(**changes: object) -> Wire:
    fields: dict[str, object] = {"term": 5, "log_term": 2, "index": 9, "terms": [2, 5], "entries": [b"a", b"b"], **changes}
    return Wire(group=7, kind=Wire.KIND_APPEND, **fields)  # type: ignore[arg-type]


def snapshot(**changes: object) -> Wire:
    voters = peer_pb2.Voters(voters=[1, 2, 3], outgoing=[3, 4], learners=[5], learners_next=[4])
    for name, value in changes.items():
        voters.ClearField(name)  # type: ignore[arg-type]
        getattr(voters, name).extend(value)
    return Wire(group=7, kind=Wire.KIND_SNAPSHOT, term=5, snapshot=peer_pb2.SnapshotMeta(index=9, term=4, voters=voters))


def changed(message: Wire, change: Callable[[Wire], object]) -> Wire:
    change(message)
    return message


UNSOUND = {
    "no kind": (Wire(group=7), "unknown kind 0"),
    "a newer kind": (Wire(group=7, kind=99), "unknown kind 99"),  # type: ignore[arg-type]
    "no group": (Wire(kind=Wire.KIND_HEARTBEAT), "no group"),
    "term out of range": (append(term=2**63), "out of range"),
    "commit out of range": (append(commit=2**64 - 1), "out of range"),
    "long context": (Wire(group=7, kind=Wire.KIND_HEARTBEAT, context=bytes(1_025)), "context"),
    "many promises": (Wire(group=7, kind=Wire.KIND_HEARTBEAT, promises=[peer_pb2.Promise()] * 257), "257 promises"),
    "entries elsewhere": (Wire(group=7, kind=Wire.KIND_VOTE, entries=[b"a"]), "of kind 5"),
    "terms without entries": (append(entries=[]), "0 entries with 2 terms"),
    "fewer terms": (append(terms=[2]), "2 entries with 1 terms"),
    "fewer kinds": (append(kinds=[0]), "and 1 kinds"),
    "kinds alone": (Wire(group=7, kind=Wire.KIND_APPEND, kinds=[0]), "0 entries"),
    "terms that fall": (append(terms=[5, 4]), "do not follow"),
    "a term below the one before": (append(log_term=3), "do not follow"),
    "a term above the leader's": (append(terms=[2, 6]), "do not follow"),
    "a term of nobody": (append(log_term=0, terms=[0, 1]), "do not follow"),
    "an index past the end": (append(index=2**63 - 2), "too many"),
    "an unknown entry kind": (append(kinds=[0, 2]), "unknown kind"),
    "a long entry": (append(entries=[b"a", bytes(ENTRY_OCTETS_MAX + 1)]), "an entry of 1048577"),
    "another sum": (append(sum=b"12345678"), "fail their checksum"),
    "a snapshot among entries": (changed(append(), lambda m: m.snapshot.SetInParent()), "entries in a message"),
    "a snapshot elsewhere": (Wire(group=7, kind=Wire.KIND_VOTE, snapshot=snapshot().snapshot), "with a snapshot"),
    "a refusal that offers": (changed(snapshot(), lambda m: setattr(m, "reject", True)), "with a snapshot"),
    "no snapshot": (Wire(group=7, kind=Wire.KIND_SNAPSHOT, term=1), "a snapshot without"),
    "a snapshot of nothing": (changed(snapshot(), lambda m: setattr(m.snapshot, "index", 0)), "index 0"),
    "a snapshot of a later term": (changed(snapshot(), lambda m: setattr(m.snapshot, "term", 6)), "term 6"),
    "a short transfer": (changed(snapshot(), lambda m: setattr(m.snapshot, "transfer", b"t")), "identity of 1"),
    "no voters": (snapshot(voters=[]), "without voters"),
    "a voter twice": (snapshot(voters=[1, 1]), "do not ascend"),
    "voter 0": (snapshot(voters=[0, 1]), "do not ascend"),
    "a voter who only listens": (snapshot(learners=[2]), "learners too"),
    "an outgoing voter who only listens": (snapshot(learners=[4]), "learners too"),
    "a next learner who never voted": (snapshot(learners_next=[9]), "learners too"),
    "a membership elsewhere": (Wire(group=7, kind=Wire.KIND_HEARTBEAT, voters=snapshot().snapshot.voters), "a membership in"),
    "a reminder of no voters": (Wire(group=7, kind=Wire.KIND_REMINDED, index=9, voters=peer_pb2.Voters()), "without voters"),
    "a reminder of a voter who only listens": (
        Wire(group=7, kind=Wire.KIND_REMINDED, index=9, voters=snapshot(learners=[2]).snapshot.voters),
        "learners too",
    ),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_is_unsound_is_named(name: str) -> None:
    message, text = UNSOUND[name]
    assert text in wire.fault_of(message)
    with pytest.raises(Refused) as caught:
        check_messages([append(), message])
    assert caught.value.reason is Reason.MALFORMED


def test_the_sound_ones_of_these_tests_are_sound() -> None:
    assert wire.fault_of(append()) == wire.fault_of(append(kinds=[0, 1])) == wire.fault_of(snapshot()) == ""
    assert wire.fault_of(append(log_term=0, terms=[1, 5], index=0)) == ""
    assert wire.fault_of(Wire(group=7, kind=Wire.KIND_SNAPSHOT, term=5, reject=True)) == "", "what was offered is gone"
    told = Wire(group=7, kind=Wire.KIND_REMINDED, index=9, voters=snapshot().snapshot.voters)
    assert wire.fault_of(told) == wire.fault_of(Wire(group=7, kind=Wire.KIND_REMINDED, reject=True)) == ""


@pytest.mark.parametrize("kind", [Wire.KIND_SLEEP, Wire.KIND_AMNESIAC])
def test_kinds_of_the_groups_own_are_sound_and_not_the_cores(kind: Wire.Kind.ValueType) -> None:
    message = Wire(group=7, kind=kind, index=3)
    assert wire.fault_of(message) == ""
    with pytest.raises(ZaibeiError) as caught:
        wire.from_wire(message, 1, 2)
    assert caught.value.code is Code.MALFORMED


def test_data_entries_need_no_column_of_kinds() -> None:
    entries = (LogEntry(1, 1, b"a"), LogEntry(2, 1, b"b", EntryKind.MEMBERSHIP))
    assert list(wire.to_wire(7, Message(Kind.APPEND, term=1, entries=entries[:1])).kinds) == []
    assert list(wire.to_wire(7, Message(Kind.APPEND, term=1, entries=entries)).kinds) == [0, 1]


@given(st.binary(max_size=400))
def test_no_octets_crash_the_reader(octets: bytes) -> None:
    take(octets)


@settings(max_examples=300)
@given(sound_messages(), st.data())
def test_no_damage_to_a_sound_message_crashes_the_reader(message: Message, data: st.DataObject) -> None:
    sound = peer_pb2.LinkMessage(messages=peer_pb2.GroupMessages(messages=[wire.to_wire(7, message)])).SerializeToString()
    octets = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    take(bytes(octets[: data.draw(st.integers(0, len(octets)))]) if data.draw(st.booleans()) else bytes(octets))


def take(octets: bytes) -> None:
    """As the links do: what is read and found sound must become a message of the core, all else is refused."""
    try:
        message = read_link_message(octets)
        check_messages(message.messages.messages)
    except Refused:
        return
    for one in message.messages.messages:
        if one.kind in wire.CORE_KINDS:
            back = wire.from_wire(one, 1, 2)
            assert [entry.index for entry in back.entries] == list(range(back.index + 1, back.index + 1 + len(back.entries)))


def test_too_many_octets_and_no_content_are_refused() -> None:
    for octets, reason in ((bytes(LINK_OCTETS_MAX + 1), Reason.OVERSIZED), (b"", Reason.MALFORMED), (b"\xff", Reason.MALFORMED)):
        with pytest.raises(Refused) as caught:
            read_link_message(octets)
        assert caught.value.reason is reason
