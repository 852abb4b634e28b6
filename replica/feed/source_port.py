"""The log of a source, as the feed needs it: a registry's agent has one, and our own store offers one through an adapter.

Positions are model values; everything that travels as it is stays a message of replica.v1. Times are milliseconds or seconds as
named. Calls without `async` answer from memory or one bounded read (below 10 ms); they run on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from replica.model.digest import ContentDigest
from replica.model.position import Position
from replica.v1 import position_pb2, source_pb2


class SourceLog(Protocol):
    """What a source offers to whoever copies it. The memory twin is `replica.feed.memory_source.MemorySourceLog`."""

    def describe(self) -> source_pb2.Description:
        """Name, prefixes, abilities, head and floor as they are now."""
        ...

    def head(self) -> Position:
        """The newest boundary that is on this source's disk."""
        ...

    def floor(self) -> Position:
        """The oldest boundary from which `read` can go on."""
        ...

    def prove(self, position: Position) -> source_pb2.Proof:
        """Does our history hold this boundary? Chains are kept longer than batches, so this may reach below `floor`.

        Returns:
            RESULT_PROVED (same chain), RESULT_DIFFERENT (with our own position there), RESULT_UNKNOWN (no boundary known there).
        """
        ...

    def read(self, after: Position, octets_max: int) -> list[bytes] | None:
        """Serialized batches that follow a boundary, whole and in order.

        Args:
            after: boundary, usually one this log stated before.
            octets_max: limit on the sum of their lengths; the first batch is returned even when it alone is longer.
        Returns:
            [] when `after` is the head; None when the log cannot go on from there (truncated, or not our history).
        """
        ...

    async def wait(self, after: Position, timeout_s: float) -> None:
        """Return when the head has moved beyond `after`, or the log wants something said, or the time is over.

        Raises ZaibeiError(STOPPING): it was closed.
        """
        ...

    def certificate(self, position: Position) -> position_pb2.Certificate | None:
        """The signed digest held for exactly this boundary.

        A log makes one at a boundary at least every 5 s while changes come in and one at its head when it is idle, and holds the
        newest few with their sums pinned; the session asks after each batch it sends and at idle.
        """
        ...

    def epoch_wanted(self) -> str:
        """Empty, or why this log cannot go on in its epoch (state lost, re-initialised): it asks, and never raises one itself."""
        ...

    async def accept_grant(self, grant: source_pb2.Grant) -> Position:
        """Take a granted epoch; later batches are cut in it. On disk (fsynced) when this returns; taking one twice is harmless.

        Returns:
            First position of the epoch, equal to the grant's start.
        Raises:
            ZaibeiError(CONFLICT): the grant's parent is not our head; nothing changed.
        """
        ...

    def receipt(self, receipt: source_pb2.Receipt) -> None:
        """The replica vouches for everything up to a position; cumulative. What lies below a quorum receipt may be released."""
        ...

    def retain(self, from_position: Position, duration_ms: int) -> None:
        """Keep batches after this boundary for so long from now (a retention lease, renewed while a snapshot loads)."""
        ...

    def snapshot(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]:
        """The full content at one boundary: header, chunks with keys ascending, signed end. Bounded memory on both sides."""
        ...

    def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        """Sums of the content at a pinned certificate's position; `pinned` False when they are no longer held. Any thread."""
        ...


@dataclass(frozen=True, slots=True)
class WriteAsk:
    """A question for a write-path lease, as it goes out on every stream. `number` rises."""

    number: int
    epoch: int
    duration_ms: int


class LeaseHolder(Protocol):
    """The guard of a source's write path, as the streams see it; called on the loop of the feed."""

    def wanted(self) -> WriteAsk | None:
        """The newest question; None: nothing is asked for."""
        ...

    def given(self, number: int, epoch: int, duration_ms: int) -> None:
        """The replica's group committed it."""
        ...

    def denied(self, number: int, why: str) -> None:
        """The replica's group gives none."""
        ...

    def drain(self) -> ContentDigest:
        """End the source's writing until a lease is given that was asked for after this. In a worker thread; twice is harmless.

        Returns:
            Its content where its history ends.
        Raises:
            ZaibeiError: why it goes on writing, for people.
        """
        ...
