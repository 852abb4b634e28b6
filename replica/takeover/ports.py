"""What takeover needs from the member around it, with the twins its tests use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from replica.model import ladder_rules, ladder_words
from replica.model.digest import ContentDigest
from replica.model.drained import Drained
from replica.model.errors import ZaibeiError
from replica.model.group_state import GroupState, OverlaySites
from replica.model.identifier import prefix_key
from replica.model.ladder_values import Judged, Moment, Moved
from replica.model.node import Endpoint
from replica.model.outcome import Outcome, OutcomeKind, Proposal
from replica.model.position import Position
from replica.model.states import Authority
from replica.takeover.detector import Observation
from replica.v1 import entry_pb2


def not_leading(source: str) -> str:
    """Why an act is refused here; an operator's command was handed on already where somebody is known to lead."""
    return f"this member does not lead {source}, and who does is not known here yet. Next: zaibei cluster status; then again"


@dataclass(frozen=True, slots=True)
class PublishedSites:
    """What the node has published for one prefix, from the record of that prefix; ttl_s None: unknown."""

    sites: tuple[bytes, ...] = ()
    ttl_s: int | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """The source's own words, by its beats.

    Args:
        behind: changes it stated and we have not applied; it may have written more since. None: unknown.
        ms_ago: since its newest word; None: none yet.
    """

    behind: int | None = None
    ms_ago: int | None = None


def heard_of(newest: tuple[Position, int] | None, ours: Position, now_ns: int) -> Heard:
    """Out of the newest stated head and when we sent the nonce it echoed.

    A head of another epoch says nothing in numbers: both histories have to be looked at.
    """
    if newest is None:
        return Heard()
    head, sent_ns = newest
    same = (head.lineage, head.epoch) == (ours.lineage, ours.epoch)
    return Heard(max(0, head.seq - ours.seq) if same else None, max(0, now_ns - sent_ns) // 1_000_000)


class SourcePort(Protocol):
    """One source as the member knows it. All calls but `published` are cheap and never wait."""

    def state(self) -> GroupState:
        """Committed and applied state of the group."""
        ...

    def age_ms(self) -> int | None:
        """Age of the applied position (SEMANTICS 4); None: unknown."""
        ...

    def heard(self) -> Heard:
        """How far we are behind what the source last said of itself."""
        ...

    def leads(self) -> bool:
        """This member leads the group: it decides and publishes."""
        ...

    def propose(self, entry: entry_pb2.Entry) -> Proposal:
        """Raises ZaibeiError(BUSY, STOPPING, DISK_FULL, DISK_FAILED, DAMAGED); then nothing was proposed."""
        ...

    def endpoints(self) -> Sequence[Endpoint]:
        """Resolution endpoints of the node, from its description or our configuration."""
        ...

    def observations(self) -> Sequence[Observation]:
        """Evidence of other members that is still current."""
        ...

    def drain(self, act: str, epoch: int) -> None:
        """Ask the source to end its writing, if it is connected; `drained` is what it says, later."""
        ...

    def drained(self) -> Drained | None:
        """The newest statement of the source that its writing ended, or goes on, about any act."""
        ...

    async def published(self, prefix: bytes) -> PublishedSites:
        """The node's own sites of a prefix, without overlays. Raises ZaibeiError when the answer is not known."""
        ...


@dataclass(slots=True)
class MemorySource:
    """The twin: applies takeover's entries to a GroupState at once, as the store does.

    Args:
        trouble: raised by `propose` while set.
        ends: what the source says when it is asked to end its writing.
    """

    current: GroupState
    age: int | None = 0
    leading: bool = True
    nodes: dict[bytes, PublishedSites] = field(default_factory=dict)
    where: tuple[Endpoint, ...] = ()
    others: tuple[Observation, ...] = ()
    words: Heard = Heard()
    trouble: ZaibeiError | None = None
    ends: Callable[[str, GroupState], Drained | None] = lambda _act, _state: None  # what the source says when it is asked
    said: Drained | None = None
    entries: list[entry_pb2.Entry] = field(default_factory=list)

    def state(self) -> GroupState:
        return self.current

    def age_ms(self) -> int | None:
        return self.age

    def heard(self) -> Heard:
        return self.words

    def leads(self) -> bool:
        return self.leading

    def endpoints(self) -> Sequence[Endpoint]:
        return self.where

    def observations(self) -> Sequence[Observation]:
        return self.others

    def drain(self, act: str, epoch: int) -> None:
        self.said = self.ends(act, self.current)

    def drained(self) -> Drained | None:
        return self.said

    async def published(self, prefix: bytes) -> PublishedSites:
        return self.nodes.get(prefix, PublishedSites())

    def propose(self, entry: entry_pb2.Entry) -> Proposal:
        if self.trouble is not None:
            raise self.trouble
        self.entries.append(entry)
        self.current, kind = applied(self.current, entry)
        loop = asyncio.get_running_loop()
        proposal = Proposal(loop.create_future(), loop.create_future())
        proposal.committed.set_result(self.current.index)
        proposal.applied.set_result(Outcome(kind))
        return proposal


def applied(state: GroupState, entry: entry_pb2.Entry) -> tuple[GroupState, OutcomeKind]:
    """What entries of takeover do to a group's state; a test holds this against the store's own rules."""
    state = replace(state, index=state.index + 1)
    if (judged := _ladder(state, entry)) is not None:
        return (judged.group, OutcomeKind.APPLIED) if isinstance(judged, Moved) else (state, judged.kind)
    if state.ladder.closed and entry.WhichOneof("body") == "authority":
        return state, OutcomeKind.CONFLICT
    if entry.WhichOneof("body") == "authority":
        return replace(state, authority=Authority(entry.authority.kind), authority_act=entry.authority.act), OutcomeKind.APPLIED
    if entry.WhichOneof("body") != "overlay":
        return state, OutcomeKind.APPLIED
    overlay = entry.overlay
    if overlay.serial <= state.serial_highest:
        return state, OutcomeKind.CONFLICT
    prefix = prefix_key(overlay.prefix)
    kept = tuple(old for old in state.overlays if old.prefix != prefix)
    if not overlay.withdrawn:
        kept += (OverlaySites(prefix, tuple(overlay.sites), overlay.serial, overlay.act, overlay.shadow),)
    return replace(state, overlays=kept, serial_highest=overlay.serial), OutcomeKind.APPLIED


def _ladder(state: GroupState, entry: entry_pb2.Entry) -> Judged | None:
    """Entries of the ladder; None: another one."""
    match entry.WhichOneof("body"):
        case "ladder":
            digest = state.certificate or ContentDigest(state.position, state.records, 0)
            return ladder_rules.move(state, entry.ladder, Moment(state.index, state.position, digest))
        case "lease":
            return ladder_words.renew(state, entry.lease, state.index)
        case "order":
            return ladder_words.take_order(state, entry.order)
        case "review":
            return ladder_words.review(state, entry.review)
        case _:
            return None
