"""Messages of the core as they stand on the wire, and what must hold of one from another member before it is handed up. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import sha256

from replica.consensus.hello import MEMBERS_MAX
from replica.consensus.link_port import ID_OCTETS
from replica.consensus.port import ENTRY_OCTETS_MAX
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Kind, MemberId, Message, SnapshotMeta
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import EntryKind, LogEntry
from replica.v1 import peer_pb2

NUMBER_MAX = 2**63 - 1  # of a term or an index
CONTEXT_OCTETS_MAX = 1_024
SUM_OCTETS = 8
ENTRIES_MAX = 65_536  # of one message
KINDS = frozenset(peer_pb2.GroupMessage.Kind.values()) - {peer_pb2.GroupMessage.KIND_UNSPECIFIED}
CORE_KINDS = frozenset(int(kind) for kind in Kind)
_SUM_HEAD, _SUM_ENTRY = struct.Struct(">QQQQQI"), struct.Struct(">QBI")
_DATA = int(EntryKind.DATA)
_ENTRY_KINDS = {int(kind): kind for kind in EntryKind}


def to_wire(group: int, message: Message, transfer: bytes = b"") -> peer_pb2.GroupMessage:
    """A message of the core for the wire.

    Args:
        transfer: of a SNAPSHOT: which transfer holds its files, 16 octets.
    """
    entries = message.entries
    kinds = [int(entry.kind) for entry in entries]
    wire = peer_pb2.GroupMessage(
        group=group,
        kind=peer_pb2.GroupMessage.Kind.ValueType(message.kind),
        term=message.term,
        log_term=message.log_term,
        index=message.index,
        commit=message.commit,
        reject=message.reject,
        hint=message.hint,
        context=message.context,
        terms=[entry.term for entry in entries],
        kinds=kinds if any(kinds) else (),
        entries=[entry.data for entry in entries],
        snapshot=None if message.snapshot is None else _snapshot_to_wire(message.snapshot, transfer),
        campaign_transfer=message.campaign_transfer,
    )
    if entries:
        wire.sum = sum_of(wire)
    return wire


def sum_of(message: peer_pb2.GroupMessage) -> bytes:
    """Of an APPEND's entries and of where they belong: what differs from it on the way is refused, never written. TLS ends in the
    process; this ends where entries do.

    Raises:
        struct.error: a number out of range.
    """
    count = len(message.entries)
    hashed = sha256(_SUM_HEAD.pack(message.group, message.term, message.log_term, message.index, message.commit, count))
    for term, kind, data in zip(message.terms, message.kinds or [_DATA] * count, message.entries, strict=True):
        hashed.update(_SUM_ENTRY.pack(term, kind, len(data)))
        hashed.update(data)
    return hashed.digest()[:SUM_OCTETS]


def from_wire(message: peer_pb2.GroupMessage, sender: MemberId, to: MemberId) -> Message:
    """A message for the core; `fault_of` found nothing in it.

    Raises:
        ZaibeiError(MALFORMED): its kind is none of the core's (CORE_KINDS).
    """
    if message.kind not in CORE_KINDS:
        raise ZaibeiError(Code.MALFORMED, f"a message of kind {message.kind} is not the core's to take")
    kinds = message.kinds or [_DATA] * len(message.entries)
    columns = zip(message.terms, message.entries, kinds, strict=True)
    return Message(
        kind=Kind(message.kind),
        to=to,
        sender=sender,
        term=message.term,
        log_term=message.log_term,
        index=message.index,
        entries=tuple(
            LogEntry(index, term, data, _ENTRY_KINDS[kind]) for index, (term, data, kind) in enumerate(columns, message.index + 1)
        ),
        commit=message.commit,
        reject=message.reject,
        hint=message.hint,
        context=message.context,
        snapshot=_snapshot_from_wire(message.snapshot) if message.HasField("snapshot") else None,
        campaign_transfer=message.campaign_transfer,
    )


def voters_to_wire(membership: Membership) -> peer_pb2.Voters:
    """A membership for the wire: members ascending."""
    return peer_pb2.Voters(
        voters=sorted(membership.voters),
        outgoing=sorted(membership.outgoing),
        learners=sorted(membership.learners),
        learners_next=sorted(membership.learners_next),
        auto_leave=membership.auto_leave,
    )


def voters_from_wire(voters: peer_pb2.Voters) -> Membership:
    """The membership; `fault_of` found nothing in it."""
    return Membership(
        frozenset(voters.voters),
        frozenset(voters.outgoing),
        frozenset(voters.learners),
        frozenset(voters.learners_next),
        voters.auto_leave,
    )


def _snapshot_to_wire(meta: SnapshotMeta, transfer: bytes) -> peer_pb2.SnapshotMeta:
    voters = voters_to_wire(meta.membership)
    return peer_pb2.SnapshotMeta(index=meta.index, term=meta.term, voters=voters, transfer=transfer)


def _snapshot_from_wire(meta: peer_pb2.SnapshotMeta) -> SnapshotMeta:
    return SnapshotMeta(meta.index, meta.term, voters_from_wire(meta.voters))


def fault_of(message: peer_pb2.GroupMessage) -> str:
    """What is wrong with a message, for a person; "": nothing. Whether its group is ours is not asked here."""
    if message.kind not in KINDS:
        return f"a message of unknown kind {message.kind}: is the sender's program newer?"
    if not message.group:
        return "a message of no group"
    if max(message.term, message.log_term, message.index, message.commit, message.hint) > NUMBER_MAX:
        return "a term or index out of range"
    if len(message.context) > CONTEXT_OCTETS_MAX:
        return f"a context of {len(message.context)} octets, at most {CONTEXT_OCTETS_MAX}"
    if len(message.promises) > MEMBERS_MAX:
        return f"{len(message.promises)} promises, at most {MEMBERS_MAX}"
    if message.HasField("voters"):
        if message.kind != peer_pb2.GroupMessage.KIND_REMINDED:
            return f"a membership in a message of kind {message.kind}"
        if fault := _fault_of_voters(message.voters):
            return fault
    if message.entries or message.terms or message.kinds:
        return _fault_of_entries(message)
    return _fault_of_snapshot(message)


def _fault_of_entries(message: peer_pb2.GroupMessage) -> str:
    count = len(message.entries)
    if message.kind != peer_pb2.GroupMessage.KIND_APPEND or message.HasField("snapshot"):
        return f"entries in a message of kind {message.kind}"
    if len(message.terms) != count or len(message.kinds) not in (0, count):
        return f"{count} entries with {len(message.terms)} terms and {len(message.kinds)} kinds"
    if count > ENTRIES_MAX or message.index + count > NUMBER_MAX:
        return f"{count} entries behind index {message.index}: too many"
    low = max(message.log_term, 1)
    for term in message.terms:
        if not low <= term <= message.term:
            return f"an entry of term {term} behind one of term {low}, from a leader of term {message.term}: they do not follow"
        low = term
    if any(kind not in _ENTRY_KINDS for kind in message.kinds):
        return "an entry of unknown kind: is the sender's program newer?"
    longest = max(map(len, message.entries))
    if longest > ENTRY_OCTETS_MAX:
        return f"an entry of {longest} octets, at most {ENTRY_OCTETS_MAX}"
    if message.sum and message.sum != sum_of(message):  # none: a program that did not know it yet
        return f"entries behind index {message.index} that fail their checksum: they were changed on the way"
    return ""


def _fault_of_snapshot(message: peer_pb2.GroupMessage) -> str:
    offers = message.kind == peer_pb2.GroupMessage.KIND_SNAPSHOT and not message.reject  # who could not take one names none
    if offers != message.HasField("snapshot"):
        return f"a message of kind {message.kind} with a snapshot, or a snapshot without"
    if not message.HasField("snapshot"):
        return ""
    meta = message.snapshot
    if not 0 < meta.index <= NUMBER_MAX or not 0 < meta.term <= message.term:
        return f"a snapshot at index {meta.index}, term {meta.term}, from a leader of term {message.term}"
    if len(meta.transfer) not in (0, ID_OCTETS):
        return f"a transfer's identity of {len(meta.transfer)} octets"
    return _fault_of_voters(meta.voters)


def _fault_of_voters(voters: peer_pb2.Voters) -> str:
    for members in (voters.voters, voters.outgoing, voters.learners, voters.learners_next):
        if len(members) > MEMBERS_MAX or not _ascends(members):
            return "a membership whose members do not ascend from 1, or are too many"
    voting = {*voters.voters, *voters.outgoing}
    if not voters.voters or voting & set(voters.learners) or not set(voters.learners_next) <= set(voters.outgoing):
        return "a membership without voters, or with voters that are learners too"
    return ""


def _ascends(members: Iterable[int]) -> bool:
    low = 0
    for member in members:
        if not low < member <= NUMBER_MAX:
            return False
        low = member
    return True
