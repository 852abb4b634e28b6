"""What each committed entry of the control group does: state in, state and definite outcome out.

An entry that breaks a rule changes nothing and says why, the same on every member. An entry this version cannot read raises:
a newer member may apply it, so going on without it would make two members differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from replica.cluster.state import (
    ACTS_KEPT,
    CONTROL_NAME,
    FIRST_MEMBER,
    ID_OCTETS,
    MOVED_KEPT,
    REPLICAS,
    ControlState,
    GroupRecord,
    MemberRecord,
    MemberState,
    Placement,
    PrefixRecord,
)
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import Outcome, OutcomeKind
from replica.v1 import control_pb2

ENTRY_FORMAT = 1
NAME_CHARS_MAX = 63
ADDRESS_CHARS_MAX = 300
ADDRESSES_MAX = 16
ACT_CHARS_MAX = 128
REASON_CHARS_MAX = 400
MEMBERS_MAX = 1_000  # living ones
VOTERS_MAX = 7
DIGEST_OCTETS = 32
COPIES_MAX = 16  # of a group; the control group has one at every member

Changed = tuple[ControlState, Outcome]


class _Refused(Exception):
    """The entry is a no-op; the sentence says why."""


def apply_entry(state: ControlState, entry: control_pb2.ControlEntry) -> Changed:
    """Apply one entry.

    Returns:
        The state afterwards (the same where nothing was changed), and APPLIED, ALREADY or CONFLICT with a sentence.
    Raises:
        ZaibeiError(REFUSED): the entry is of a newer version; the group must stop here until this member is updated.
    """
    body = entry.WhichOneof("body")
    if entry.format != ENTRY_FORMAT or body is None:
        raise ZaibeiError(
            Code.REFUSED,
            f"the control group holds an entry of format {entry.format} that this version does not know. "
            "Next: update this member to the version of the others",
        )
    if not 0 < len(entry.act) <= ACT_CHARS_MAX:
        return state, Outcome(OutcomeKind.CONFLICT, detail="the entry names no act")
    if state.given_by(entry.act) is not None:
        return state, Outcome(OutcomeKind.ALREADY, detail="the act was done before")
    try:
        if body == "begun":
            after, given = _begun(state, entry.begun)
        elif not state.cluster:
            raise _Refused("the cluster has not begun")
        elif body == "admitted":
            after, given = _admitted(state, entry.admitted)
        elif body == "changed":
            after, given = _changed(state, entry.changed)
        elif body == "prefix_moved":
            after, given = _prefix_moved(state, entry.prefix_moved)
        elif body == "removed":
            after, given = _removed(state, entry.removed)
        else:
            after, given = _placed(state, entry.placed)
    except _Refused as refusal:
        return state, Outcome(OutcomeKind.CONFLICT, detail=str(refusal))
    if after == state:
        return state, Outcome(OutcomeKind.ALREADY, detail="it is so already")
    acts = (*after.acts, (entry.act, given))[-ACTS_KEPT:]
    return replace(after, acts=acts), Outcome(OutcomeKind.APPLIED)


def _check(condition: object, sentence: str) -> None:
    if not condition:
        raise _Refused(sentence)


def _begun(state: ControlState, body: control_pb2.ClusterBegun) -> tuple[ControlState, int]:
    _check(len(body.cluster) == ID_OCTETS and len(body.lineage) == ID_OCTETS, "cluster and lineage are 16 octets each")
    _check(body.replicas in REPLICAS, f"{body.replicas} replicas: 3 or 5 are possible")
    if state.cluster:
        same = (state.cluster, state.lineage, state.replicas) == (body.cluster, body.lineage, body.replicas)
        _check(same, f"the cluster {state.cluster.hex()} has begun already")
        return state, 0
    control = GroupRecord(state.next_group, CONTROL_NAME, (FIRST_MEMBER,), Placement((FIRST_MEMBER,)))
    begun = replace(state, cluster=body.cluster, lineage=body.lineage, replicas=body.replicas, next_group=state.next_group + 1)
    return begun.with_group(control), control.ident


def _admitted(state: ControlState, body: control_pb2.MemberAdmitted) -> tuple[ControlState, int]:
    _check_words(body.name, body.zone, body.machine)
    _check_addresses(body.links)
    _check(body.name, "a member needs a name")
    named = state.member_named(body.name)
    _check(named is None, f"the name {body.name} belongs to member {named.number if named else 0}: choose another")
    _check(sum(1 for _ in state.living()) < MEMBERS_MAX, f"a cluster has at most {MEMBERS_MAX} members")
    if body.replaces:
        old = state.member(body.replaces)
        _check(old is not None, f"there is no member {body.replaces} to replace")
        if old is not None:
            _check(old.state is not MemberState.REMOVED, f"member {old.number} ({old.name}) is removed: nothing to replace")
            _check(old.state is not MemberState.JOINING, f"member {old.number} ({old.name}) never came: remove it instead")
            other = next((one for one in state.living() if one.replaces == old.number), None)
            _check(other is None, f"member {other.number if other else 0} takes the place of {old.name} already")
    record = MemberRecord(
        number=state.next_member,
        name=body.name,
        zone=body.zone,
        machine=body.machine,
        links=tuple(body.links),
        serial=body.certificate_serial[:ADDRESS_CHARS_MAX],
        replaces=body.replaces,
    )
    return replace(state.with_member(record), next_member=state.next_member + 1), record.number


def _changed(state: ControlState, body: control_pb2.MemberChanged) -> tuple[ControlState, int]:
    record = _living(state, body.member)
    _check_words(body.zone, body.machine)
    for addresses in (body.links, body.feeds, body.answers):
        _check_addresses(addresses)
    if body.journal:
        _check(len(body.journal) == ID_OCTETS, "a journal's identity is 16 octets")
        _check(
            record.journal in (b"", body.journal),
            f"member {record.number} ({record.name}) came with another journal than before: its data folder was lost or copied. "
            f"Replace it: zaibei cluster replace {record.name}",
        )
        twin = next((one for one in state.members if one.journal == body.journal and one.number != record.number), None)
        _check(twin is None, f"that journal is member {twin.number if twin else 0}'s: a data folder must not be copied")
    changed = replace(
        record,
        zone=body.zone,
        machine=body.machine,
        links=tuple(body.links),
        feeds=tuple(body.feeds),
        answers=tuple(body.answers),
        journal=body.journal or record.journal,
        draining=body.draining,
    )
    if changed.state is MemberState.JOINING and changed.journal:
        changed = changed.moved(MemberState.ACTIVE)
        # Only now: before the new one has come, the places of the old one could go nowhere.
        old = state.member(changed.replaces)
        if old is not None and old.state is MemberState.ACTIVE:
            state = state.with_member(replace(old.moved(MemberState.LEAVING), reason=f"replaced by {changed.name}"))
    return state.with_member(changed), 0


def _removed(state: ControlState, body: control_pb2.MemberRemoved) -> tuple[ControlState, int]:
    record = state.member(body.member)
    _check(record is not None, f"there is no member {body.member}")
    if record is None or record.state is MemberState.REMOVED:
        return state, 0
    reason = body.reason[:REASON_CHARS_MAX] or record.reason
    if record.state is MemberState.ACTIVE:
        others = [one for one in state.living() if one.state is MemberState.ACTIVE and one.number != record.number]
        _check(others, f"{record.name} is the last active member: a cluster needs one")
        return state.with_member(replace(record.moved(MemberState.LEAVING), reason=reason)), 0
    placed = state.places_of(record.number)
    _check(not placed, f"{record.name} still holds {', '.join(placed[:5])}: its places go to others first")
    return state.with_member(replace(record.moved(MemberState.REMOVED), reason=reason)), 0


def _placed(state: ControlState, body: control_pb2.GroupPlaced) -> tuple[ControlState, int]:
    voters, learners = tuple(sorted(body.voters)), tuple(sorted(body.learners))
    _check_words(body.name)
    _check(body.name, "a group needs a name")
    _check(len(voters) % 2 == 1 and len(voters) <= VOTERS_MAX, f"{len(voters)} voters: an odd number up to {VOTERS_MAX}")
    everyone = [*voters, *learners]
    copies_max = MEMBERS_MAX if body.name == CONTROL_NAME else COPIES_MAX
    _check(len(set(everyone)) == len(everyone) <= copies_max, "each member once, as voter or as learner")
    _check(body.leader in (0, *voters), f"member {body.leader} cannot lead: it is no voter")
    group = state.group(body.name)
    held = group.wanted.everyone if group else frozenset()
    for number in everyone:
        record = _living(state, number)
        _check(
            number in held or record.state is MemberState.ACTIVE,
            f"nothing new is placed at {record.name}: it is {record.state.value}",
        )
    wanted = Placement(voters, learners, body.leader)
    if group is not None:
        return state.with_group(replace(group, wanted=wanted)), group.ident
    made = GroupRecord(state.next_group, body.name, voters, wanted)
    return replace(state.with_group(made), next_group=state.next_group + 1), made.ident


def _prefix_moved(state: ControlState, body: control_pb2.PrefixMoved) -> tuple[ControlState, int]:
    _check(body.act and body.number and body.source != body.target, "a move names its act, its number and two sources")
    _check_words(body.source, body.target)
    _check(len(body.digest) == DIGEST_OCTETS, f"a digest is {DIGEST_OCTETS} octets")
    for name in (body.source, body.target):
        _check(state.group(name) is not None, f"there is no group {name!r}")
    record = PrefixRecord(
        body.act, body.prefix, body.number, body.source, body.target, body.version, body.position, body.records,
        body.digest.hex(), body.case_sensitive, body.decided_ms, body.acquired,
    )  # fmt: skip
    was = next((one for one in state.moved if one.act == body.act), None)
    if was is None:
        _check(not body.acquired, f"the move of {body.prefix} was never recorded: nothing can be acquired")
        other = max((one for one in state.moved if one.prefix == body.prefix), key=lambda one: one.number, default=None)
        if other is not None:
            _check(other.acquired, f"{body.prefix} is on its way to {other.target} already")
            _check(other.number < body.number, f"move {body.number} of {body.prefix} is over: {other.number} was recorded")
        return replace(state, moved=(*state.moved, record)[-MOVED_KEPT:]), 0
    if was.acquired:
        return state, 0
    _check(replace(record, acquired=False, at_ms=was.at_ms) == was, f"that is not what was recorded of {body.prefix}")
    kept = tuple(record if one.act == body.act and body.acquired else one for one in state.moved)
    return replace(state, moved=kept), 0


def _living(state: ControlState, number: int) -> MemberRecord:
    record = state.member(number)
    if record is None or record.state is MemberState.REMOVED:
        raise _Refused(f"there is no member {number}" if record is None else f"member {number} ({record.name}) is removed")
    return record


def _check_words(*words: str) -> None:
    for word in words:
        _check(len(word) <= NAME_CHARS_MAX and word.isprintable(), f"a name of {len(word)} characters or unprintable ones")


def _check_addresses(addresses: Sequence[str]) -> None:
    _check(len(addresses) <= ADDRESSES_MAX, f"at most {ADDRESSES_MAX} addresses")
    fits = all(0 < len(one) <= ADDRESS_CHARS_MAX and one.isprintable() for one in addresses)
    _check(fits, f"an address of over {ADDRESS_CHARS_MAX} characters or unprintable ones")
