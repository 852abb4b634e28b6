"""Entries for the control group's log, made from the present state so that a change of one thing keeps all others.

Whoever proposes them does one at a time and looks at the applied state in between: two made from the same state would undo
each other.
"""

from __future__ import annotations

from replica.cluster.rules import ENTRY_FORMAT
from replica.cluster.state import MemberRecord, Placement, PrefixRecord
from replica.v1 import control_pb2, entry_pb2

_MOVED = (
    "act", "prefix", "number", "source", "target", "version", "position", "records", "case_sensitive", "acquired",
)  # fmt: skip


def _entry(act: str, admitted_ms: int, **body: object) -> entry_pb2.Entry:
    control = control_pb2.ControlEntry(format=ENTRY_FORMAT, act=act, **body)  # type: ignore[arg-type]
    return entry_pb2.Entry(format=ENTRY_FORMAT, admitted_ms=admitted_ms, control=control)


def begun(act: str, admitted_ms: int, cluster: bytes, lineage: bytes, replicas: int) -> entry_pb2.Entry:
    """First entry of a cluster; makes the control group."""
    return _entry(act, admitted_ms, begun=control_pb2.ClusterBegun(cluster=cluster, lineage=lineage, replicas=replicas))


def admitted(act: str, admitted_ms: int, member: MemberRecord) -> entry_pb2.Entry:
    """Give a member a number; that of `member` is not looked at."""
    body = control_pb2.MemberAdmitted(
        name=member.name,
        zone=member.zone,
        machine=member.machine,
        links=member.links,
        certificate_serial=member.serial,
        replaces=member.replaces,
    )
    return _entry(act, admitted_ms, admitted=body)


def changed(act: str, admitted_ms: int, member: MemberRecord) -> entry_pb2.Entry:
    """State all that may change of a member; `dataclasses.replace` its present record to make `member`."""
    body = control_pb2.MemberChanged(
        member=member.number,
        zone=member.zone,
        machine=member.machine,
        links=member.links,
        feeds=member.feeds,
        answers=member.answers,
        journal=member.journal,
        draining=member.draining,
    )
    return _entry(act, admitted_ms, changed=body)


def removed(act: str, admitted_ms: int, number: int, reason: str) -> entry_pb2.Entry:
    """Once: the member is leaving. Once more, when it holds nothing in any group's log: it is removed."""
    return _entry(act, admitted_ms, removed=control_pb2.MemberRemoved(member=number, reason=reason))


def placed(act: str, admitted_ms: int, name: str, placement: Placement) -> entry_pb2.Entry:
    """Where a group shall live."""
    body = control_pb2.GroupPlaced(name=name, voters=placement.voters, learners=placement.learners, leader=placement.leader)
    return _entry(act, admitted_ms, placed=body)


def prefix_moved(admitted_ms: int, record: PrefixRecord) -> entry_pb2.Entry:
    """A prefix was released; with `acquired`: and the new group has it. The same record twice counts once."""
    fields = {name: getattr(record, name) for name in _MOVED}
    body = control_pb2.PrefixMoved(digest=bytes.fromhex(record.digest), decided_ms=record.at_ms, **fields)
    return _entry(f"{record.act}:{'acquired' if record.acquired else 'recorded'}", admitted_ms, prefix_moved=body)
