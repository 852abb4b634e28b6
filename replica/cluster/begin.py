"""Entries with which a cluster begins and a member tells what it is: decided from the applied state, one at a time. Pure.

The member with number 1 begins the cluster when it first starts with its card; each later start of any member goes through the
same: `next_entry` until it gives None. A crash anywhere in between is followed by the same entries again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from replica.cluster import entries
from replica.cluster.card import Card
from replica.cluster.placement import World, first_placement
from replica.cluster.state import FIRST_MEMBER, ControlState, MemberRecord, MemberState
from replica.v1 import entry_pb2


@dataclass(frozen=True, slots=True)
class Announced:
    """What a member says of itself at each start. `journal`: identity of its journal, 16 octets."""

    zone: str
    machine: str
    links: tuple[str, ...]
    feeds: tuple[str, ...]
    answers: tuple[str, ...]
    journal: bytes
    serial: str = ""


def next_entry(state: ControlState, card: Card, said: Announced, replicas: int, now_ms: int) -> entry_pb2.Entry | None:
    """The next entry this member has to propose about itself; None: the control group knows all.

    Args:
        state: as applied at the proposer, after a linearizable read where the member is not the leader itself.
        replicas: from the first member's configuration; later ones are not looked at.
    """
    if not state.cluster:
        if card.number != FIRST_MEMBER:
            return None  # the first member begins the cluster; this one has heard nothing yet
        return entries.begun("begin", now_ms, card.cluster, card.lineage, replicas)
    record = state.member(card.number)
    if record is None:
        if card.number != FIRST_MEMBER or state.members:
            return None
        first = MemberRecord(0, card.name, said.zone, said.machine, said.links, serial=said.serial)
        return entries.admitted("begin:member", now_ms, first)
    if record.state is MemberState.REMOVED:
        return None
    wanted = replace(
        record,
        zone=said.zone,
        machine=said.machine,
        links=said.links,
        feeds=said.feeds,
        answers=said.answers,
        journal=said.journal,
    )
    if wanted == record:
        return None
    return entries.changed(f"say:{card.number}:{_digest(wanted)}:{state.index}", now_ms, wanted)


def next_group(world: World, names: Sequence[str], holders: dict[str, int], now_ms: int) -> entry_pb2.Entry | None:
    """The next group to make, for a configured source that has none; the control group's leader asks.

    Args:
        names: of the configured sources; holders: source -> the one member that already has its data from before the cluster.
    """
    for name in names:
        if world.state.group(name) is None:
            placement = first_placement(world, holders.get(name, 0))
            if not placement.voters:
                return None
            return entries.placed(f"make:{name}", now_ms, name, placement)
    return None


def refusal(state: ControlState, card: Card, journal: bytes) -> str:
    """Why a member with this card and journal may not take part, as far as the control group knows; "" when it may."""
    record = state.member(card.number)
    if state.cluster and state.cluster != card.cluster:
        return f"the card names the cluster {card.cluster.hex()}, this data is of {state.cluster.hex()}"
    if record is None:
        return ""
    if record.state is MemberState.REMOVED:
        return f"member {record.number} ({record.name}) was removed. Next: an empty data folder, and zaibei cluster join TOKEN"
    if record.journal not in (b"", journal):
        return (
            f"member {record.number} ({record.name}) is known with another journal: this data folder was copied, or its journal "
            f"was lost. Next: zaibei cluster replace {record.name} at another member"
        )
    return ""


def _digest(record: MemberRecord) -> str:
    return sha256(repr(record).encode()).hexdigest()[:16]
