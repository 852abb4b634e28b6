"""What registration needs of a hosted source's group; the member satisfies it, `memory.py` holds a twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from replica.model.group_state import GroupState
from replica.model.outcome import Proposal
from replica.model.position import Position
from replica.v1 import entry_pb2


class ReadBarrier(Protocol):
    """What makes a read linearizable."""

    async def wait(self) -> None:
        """Return when this member was still the leader after the call began, and has applied everything committed before it.

        Raises:
            ZaibeiError: it is not, or cannot tell; nothing was read.
        """
        ...


class HostedGroup(ReadBarrier, Protocol):
    """A hosted source on this member. All calls on the event loop."""

    @property
    def source(self) -> str: ...

    @property
    def leader(self) -> bool:
        """Registrations are admitted here: the first entry of the own term is applied."""
        ...

    def leaders(self) -> Sequence[str]:
        """`host:port` of the registration service where the source is led, as far as known; empty here or when it is not."""
        ...

    def state(self) -> GroupState:
        """At the applied index."""
        ...

    def octets(self) -> int | None:
        """Of keys and values of all records but the documents about the tenant, never behind an outcome that was told.

        None: not known yet; asking begins to count them, once.
        """
        ...

    def allows(self, part: bytes) -> bool:
        """May this source hold keys with this prefix part?"""
        ...

    def get_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], Position]:
        """Applied values and the position they were read at. Raises ZaibeiError."""
        ...

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Applied records with start <= key < stop, ascending. Raises ZaibeiError, never a short answer."""
        ...

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        """The boundary applied there; None: none, or no longer known."""
        ...

    def propose(self, entry: entry_pb2.Entry) -> Proposal:
        """See the Consensus port. Raises ZaibeiError: nothing was appended."""
        ...
