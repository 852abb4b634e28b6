"""A hosted source's group: how it begins, and what registration needs of it.

At creation three entries are committed, each once: we are the authority; epoch 1 is granted with nothing before it; the grant is
taken, since the one who writes in that epoch is the group itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from replica.feed.admission import Rights
from replica.feed.meeting import grant_entry
from replica.feed.ports import OwnerOf
from replica.member.settings import SourceSettings
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import HOSTED, GroupState
from replica.model.outcome import OutcomeKind, Proposal
from replica.model.position import ORIGIN, Position
from replica.model.prefix_moves import NOWHERE, MoveStep, move_at, newest, owning
from replica.model.signing import Signer
from replica.store.edge_store import SourceStore
from replica.v1 import entry_pb2

ENTRY_FORMAT = 1
FOUND_S_MAX = 10.0


class Log(Protocol):
    """A group's log, as far as a hosted source needs it; the Consensus port satisfies it."""

    @property
    def leader(self) -> bool: ...

    @property
    def failure(self) -> ZaibeiError | None: ...

    def propose(self, entry: entry_pb2.Entry | bytes) -> Proposal: ...


def next_founding(state: GroupState, lineage: bytes, signer: Signer) -> entry_pb2.Entry | None:
    """The next entry of a hosted source's creation; None: it is complete.

    Raises:
        ZaibeiError(REFUSED): the group belongs to a source that was copied: its node may still write.
    """
    if state.granted is not None and not state.lives_here:
        raise ZaibeiError(
            Code.REFUSED,
            f"{state.source} was copied from a node of its own, so it cannot be hosted by a line in the configuration: "
            "take `hosted` out, or give the hosted source a name of its own; if it left for a node, name that node's certificate",
        )
    if not state.lives_here:
        body = entry_pb2.Authority(kind=entry_pb2.Authority.KIND_REGISTRATION, act=HOSTED, reason="it lives here")
        return entry_pb2.Entry(authority=body)
    if state.granted is None:
        return grant_entry(state, ORIGIN, lineage, HOSTED, signer)
    if not state.grant_taken:
        return entry_pb2.Entry(grant_taken=entry_pb2.GrantTaken(position=state.granted.to_wire()))
    return None


async def found(log: Log, store: SourceStore, lineage: bytes, signer: Signer) -> None:
    """Commit what a hosted source's group lacks; on its leader. Harmless when nothing is.

    Raises:
        ZaibeiError: REFUSED (see `next_founding`), UNKNOWN (not applied in time), or as the log refuses.
    """
    while (entry := next_founding(store.state(), lineage, signer)) is not None:
        entry.format, entry.admitted_ms = ENTRY_FORMAT, time.time_ns() // 1_000_000
        proposal = log.propose(entry)
        try:
            async with asyncio.timeout(FOUND_S_MAX):
                outcome = await asyncio.shield(proposal.applied)
        except TimeoutError:
            raise ZaibeiError(
                Code.UNKNOWN, f"{store.source}: not founded within {FOUND_S_MAX} s", definite=False, retry=True
            ) from None
        if outcome.kind not in (OutcomeKind.APPLIED, OutcomeKind.ALREADY):
            raise ZaibeiError(Code.CONFLICT, f"{store.source} cannot be hosted: {outcome.kind}: {outcome.detail}")


class HostedPort:
    """Satisfies hosting.tenant.port.HostedGroup.

    Args:
        barrier: confirms that this member leads, and waits until what was committed before is applied; None: one member, whose
            leadership nobody else can have taken.
        leaders: addresses of the registration service where the source is led; None: one member, there is no other.
    """

    def __init__(
        self,
        log: Log,
        store: SourceStore,
        settings: SourceSettings,
        owner_of: OwnerOf,
        *,
        barrier: Callable[[], Awaitable[None]] | None = None,
        leaders: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self._log, self._store, self._settings, self._owner_of = log, store, settings, owner_of
        self._barrier, self._leaders = barrier, leaders

    @property
    def source(self) -> str:
        return self._settings.name

    @property
    def leader(self) -> bool:
        return self._log.failure is None and self._log.leader

    def leaders(self) -> Sequence[str]:
        return () if self._leaders is None else self._leaders()

    def state(self) -> GroupState:
        return self._store.state()

    def octets(self) -> int | None:
        return self._store.octets

    def allows(self, part: bytes) -> bool:
        """May this source hold keys with this prefix part? By the configuration, and by what its group committed.

        What moved is decided by the group's own store alone. A prefix that is leaving is still read here, until it is dropped.
        """
        state = self._store.state()
        move = move_at(newest(state.moves), part) if state.moves else None
        if move is not None and move.step is not MoveStep.FROZEN:
            came = move.step is MoveStep.ACQUIRED and self._owner_of(owning(part)) in (None, self.source, move.source, NOWHERE)
            return came or move.step is MoveStep.RELEASED
        owned = frozenset(state.prefixes) if state.ownership_version else None
        return Rights(self.source, self._settings.written, owned, self._owner_of).allows(part)

    def get_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], Position]:
        if self._store.behind:
            raise ZaibeiError(Code.BUSY, f"{self.source} catches up after a disk error: again later", retry=True)
        return self._store.get_many(keys)

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return await asyncio.to_thread(self._store.scan, start, stop, limit)

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        return self._store.chain_at(epoch, seq)

    def propose(self, entry: entry_pb2.Entry) -> Proposal:
        if self._log.failure is not None:
            raise self._log.failure.again()
        return self._log.propose(entry)

    async def wait(self) -> None:
        """The read barrier. With one member, whoever leads is the only one who can have acknowledged anything."""
        if self._barrier is not None:
            await self._barrier()
        elif not self.leader:
            if self._log.failure is not None:
                raise self._log.failure.again()
            raise ZaibeiError(Code.UNREACHABLE, f"this member does not lead {self.source}: nothing was read", retry=True)
