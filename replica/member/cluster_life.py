"""A running member in its cluster: which sources are open here, who leads them, what others and operators ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from replica.cluster.state import CONTROL_ID, ControlState
from replica.consensus.group import GroupLog
from replica.member.cluster_care import ClusterCare
from replica.member.cluster_side import ClusterSide
from replica.member.copy import SourceCopy
from replica.member.edge_asks import ask
from replica.member.edge_broken import tell_end
from replica.member.elsewhere import Elsewhere, answer_of
from replica.member.outside import answer_of_site
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.view import SourceView
from replica.takeover.edge_runner import boottime_ns
from replica.v1 import entry_pb2, peer_pb2

log = logging.getLogger("zaibei.cluster")
OBSERVE_S = 0.2
LOOK_S = 1.0
ASK_S_MAX = 8.0
LEAD_S_MAX = 5.0
HAND_OVER_S_MAX = 1.0
STEP_S = 0.02
CONTROL_KINDS, SOURCE_KINDS = ("control",), ("load_staged", "block")  # entries that other members may ask for


OperatorAnswerer = Callable[[str, bytes], Awaitable[bytes]]  # name of the member that asks, a line in; a line out


class Sources(Protocol):
    """What the cluster's life needs of the member."""

    copies: dict[str, SourceCopy]

    def configured(self, name: str) -> bool: ...

    def read_one(self, name: str, keys: Sequence[bytes]) -> tuple[list[bytes | None], SourceView]:
        """Records of a source that lives here. Raises ZaibeiError(NOT_FOUND)."""
        ...

    async def open_source(self, name: str) -> None:
        """Take a configured source into service."""
        ...

    async def close_source(self, name: str, *, forget: bool) -> None:
        """Take it out; `forget`: its store and log are put aside, since it lives here no more or is fed anew."""
        ...


@dataclass(frozen=True, slots=True)
class Reached:
    """What became of an entry of the control group."""

    outcome: Outcome
    index: int


class ClusterLife:
    """See the module. Made when the member starts; `start` when it serves."""

    def __init__(self, side: ClusterSide, sources: Sources, holds: Callable[[str], bool]) -> None:
        self.side, self._sources = side, sources
        self.elsewhere = Elsewhere(side.peers, side.holders)
        self.care = ClusterCare(side, holds)
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.operator: OperatorAnswerer | None = None  # answers commands that other members hand on
        side.on_control = self._on_control
        side.answer = self._answer

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        works = {"care of the cluster": self.care.run(), "places of sources": self._keep_places(), "findings": self._observe()}
        for name, work in works.items():
            task = loop.create_task(work, name=name)
            task.add_done_callback(tell_end)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Before the sources are closed: what is led here is handed over, so that nobody waits for an election."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        led = [hosted.log for hosted in self.side.host.groups.values() if hosted.log.leader]
        await asyncio.gather(*(self._hand_over(group) for group in led))

    async def _hand_over(self, group: GroupLog) -> None:
        heirs = [one for one in group.membership.voters if one != self.side.me and one in self.side.links.connected]
        if not heirs:
            return
        try:
            group.transfer(max(heirs, key=group.matched))
            async with asyncio.timeout(HAND_OVER_S_MAX):
                while group.leader:  # noqa: ASYNC110  the core says it by its role alone
                    await asyncio.sleep(STEP_S)
        except (ZaibeiError, TimeoutError) as exc:
            log.info("not handed over", extra={"fields": {"group": group.group, "why": str(exc)}})

    # -- which sources are open here

    def _on_control(self, _state: ControlState) -> None:
        self._moved.set()

    async def _keep_places(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._moved.wait()
            except TimeoutError:
                pass
            self._moved.clear()
            try:
                await self._look_at_sources()
            except ZaibeiError as exc:
                log.warning("places of sources", extra={"fields": {"why": str(exc)}})

    async def _look_at_sources(self) -> None:
        for record in self.side.state.groups:
            if record.ident == CONTROL_ID or not self._sources.configured(record.name):
                continue
            here = self.side.lives_here(record)
            is_open = record.name in self._sources.copies
            if here and not is_open:
                await self._sources.open_source(record.name)
            elif is_open and not here:
                log.info("source lives here no more", extra={"fields": {"source": record.name}})
                await self._sources.close_source(record.name, forget=True)

    async def _observe(self) -> None:
        """Our observers' findings for whoever leads the sources."""
        while True:
            await asyncio.sleep(OBSERVE_S)
            now_ns = boottime_ns()
            found = {
                name: copy.runner.detector.observation(now_ns)
                for name, copy in self._sources.copies.items()
                if copy.settings.peer is not None
            }
            self.side.tell_probes(found)

    # -- questions

    async def _answer(self, member: int, question: peer_pb2.MemberQuestion) -> peer_pb2.MemberAnswer:
        match question.WhichOneof("body"):
            case "propose":
                reached = await self._propose_here(question)
                return peer_pb2.MemberAnswer(
                    outcome=reached.outcome.kind.value, detail=reached.outcome.detail, index=reached.index
                )
            case "lead":
                await self.lead(question.group, question.lead)
            case "read":
                return answer_of(self._sources.read_one(question.read.source, question.read.keys))
            case "begin_reseed":
                await self._begin_reseed(question.group)
            case "probe_site":
                return await answer_of_site(question.probe_site)
            case "operator":
                if self.operator is None:
                    raise ZaibeiError(Code.STOPPING, "this member takes no commands yet: try again", retry=True)
                asker = self.side.state.member(member)
                return peer_pb2.MemberAnswer(octets=await self.operator(asker.name if asker else str(member), question.operator))
            case _:
                raise ZaibeiError(
                    Code.MALFORMED, f"member {member} asks something this version does not know: update this member"
                )
        return peer_pb2.MemberAnswer()

    async def _propose_here(self, question: peer_pb2.MemberQuestion) -> Reached:
        """An entry that another member may ask for: of control, that it staged a side generation, or a signed block."""
        entry = entry_pb2.Entry.FromString(question.propose)
        hosted = self.side.host.groups.get(question.group)
        kind = entry.WhichOneof("body")
        if hosted is None or kind not in (CONTROL_KINDS if question.group == CONTROL_ID else SOURCE_KINDS):
            raise ZaibeiError(Code.REFUSED, f"an entry {kind} of group {question.group} is not for other members to ask for")
        proposal = hosted.log.propose(entry)
        try:
            async with asyncio.timeout(ASK_S_MAX):
                outcome = await asyncio.shield(proposal.applied)
        except TimeoutError:
            return Reached(Outcome(OutcomeKind.UNKNOWN), 0)
        index = proposal.committed.result() if proposal.committed.done() and not proposal.committed.exception() else 0
        return Reached(outcome, index)

    async def propose(self, ident: int, entry: entry_pb2.Entry) -> Reached:
        """Commit an entry at whatever member leads the group, and apply it here.

        Raises:
            ZaibeiError: UNREACHABLE (no leader, nothing was done), UNKNOWN.
        """
        question = peer_pb2.MemberQuestion(group=ident, propose=entry.SerializeToString())
        leader = self._leader(ident)
        if leader == self.side.me:
            return await self._propose_here(question)
        answer = await ask(self.side.peers, leader, question, ASK_S_MAX)
        try:
            reached = Reached(Outcome(OutcomeKind(answer.outcome), None, answer.detail), answer.index)
            hosted = self.side.host.groups.get(ident)
            if hosted is not None:
                async with asyncio.timeout(ASK_S_MAX):
                    while hosted.log.applied < reached.index:  # noqa: ASYNC110
                        await asyncio.sleep(STEP_S)
        except ValueError:
            text = f"member {leader} says {answer.outcome[:40]!r} became of it, which this version does not know"
            raise ZaibeiError(Code.UNKNOWN, text, definite=False) from None
        except TimeoutError:
            text = f"group {ident}: it is decided, and not applied here within {ASK_S_MAX} s"
            raise ZaibeiError(Code.UNKNOWN, text, definite=False, retry=True) from None
        return reached

    async def propose_of(self, source: str, entry: entry_pb2.Entry) -> Outcome:
        """Commit an entry of SOURCE_KINDS in a source's group. Raises ZaibeiError as `propose`, and NOT_FOUND."""
        record = self.side.state.group(source)
        if record is None:
            raise ZaibeiError(Code.NOT_FOUND, f"no group {source!r}")
        return (await self.propose(record.ident, entry)).outcome

    def _leader(self, ident: int) -> int:
        told = self.side.host.stands(ident)
        if told is None:
            raise ZaibeiError(Code.UNREACHABLE, f"nobody is known to lead group {ident} now", retry=True)
        return told.leader

    async def lead(self, ident: int, member: int) -> None:
        """Let a member lead a group; returns when it does. Raises ZaibeiError: REFUSED, UNREACHABLE."""
        leader = self._leader(ident)
        if leader == member:
            return
        if leader != self.side.me:
            await ask(self.side.peers, leader, peer_pb2.MemberQuestion(group=ident, lead=member), ASK_S_MAX)
        else:
            group = self.side.host.groups[ident].log
            if member not in group.membership.voters:
                raise ZaibeiError(Code.REFUSED, f"member {member} has no vote in {group.group}")
            group.transfer(member)
        try:
            async with asyncio.timeout(LEAD_S_MAX):
                while (told := self.side.host.stands(ident)) is None or told.leader != member:  # noqa: ASYNC110
                    await asyncio.sleep(STEP_S)
        except TimeoutError:
            raise ZaibeiError(Code.UNREACHABLE, f"member {member} did not lead within {LEAD_S_MAX} s", retry=True) from None

    async def reseed(self, ident: int, member: int) -> None:
        """Begin to feed a member's copy anew. Raises ZaibeiError."""
        told = self.side.host.stands(ident)
        if told is not None and told.leader == member:
            heirs = [one.member for one in told.row.matched if one.member in told.row.voters.voters and not one.amnesiac]
            if not heirs:
                raise ZaibeiError(Code.WOULD_LOSE_DATA, f"member {member} leads, and nobody else could: nothing was done")
            await self.lead(ident, heirs[0])
        if member == self.side.me:
            await self._begin_reseed(ident)
        else:
            await ask(self.side.peers, member, peer_pb2.MemberQuestion(group=ident, begin_reseed=b"1"), ASK_S_MAX)

    async def _begin_reseed(self, ident: int) -> None:
        """Our copy is put aside. What others remember of us then says that we forgot: we are made a learner and fed."""
        record = next((one for one in self.side.state.groups if one.ident == ident), None)
        if record is None or not self._sources.configured(record.name):
            raise ZaibeiError(Code.NOT_FOUND, f"group {ident} has no copy here that could be fed anew")
        hosted = self.side.host.groups.get(ident)
        if hosted is not None and hosted.log.leader:
            raise ZaibeiError(Code.REFUSED, f"this member leads {record.name}: let another one lead first", retry=True)
        await self._sources.close_source(record.name, forget=True)
        await self._sources.open_source(record.name)

    def out_of_service(self) -> Mapping[int, str]:
        """Groups whose copy here may not be used, and why."""
        found = dict(self.care.amnesiacs())
        for ident, hosted in self.side.host.groups.items():
            if hosted.log.failure is not None:
                found[ident] = str(hosted.log.failure)
        return found
