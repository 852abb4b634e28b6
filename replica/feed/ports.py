"""What the feed needs from the group of a source and from a stream; the composition connects them. Memory twins: memory.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from replica.model.digest import ContentDigest
from replica.model.group_state import GroupState
from replica.model.outcome import Proposal
from replica.model.position import Position
from replica.v1 import entry_pb2, source_pb2

OwnerOf = Callable[[bytes], str | None]
"""Source that owns the longest prefix at or above a prefix key part, out of the whole cluster; None: nobody."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a switch to the side generation would change below one prefix part."""

    prefix: bytes
    removed: int
    rewritten: int
    added: int


@dataclass(frozen=True, slots=True)
class Staged:
    """A side generation on disk, verified against the snapshot's end."""

    digest: ContentDigest
    manifest_hash: bytes


class Loader(Protocol):
    """Builds one side generation from the parts of a snapshot, off the event loop; nothing of it is visible before a switch."""

    async def write(self, columns: bytes, judged: Sequence[tuple[int, str]] = ()) -> None:
        """Take one part; waits while its queue is full.

        Args:
            judged: (place, reason) of records to quarantine for what their octets do not show; the loader finds the others.
        Raises:
            ZaibeiError: MALFORMED, DISK_FULL, DISK_FAILED.
        """
        ...

    async def finish(self, end: source_pb2.SnapshotEnd) -> Staged:
        """Make it durable and compare count, digest and ordered hash. Raises ZaibeiError(VERIFICATION_FAILED, DISK_…)."""
        ...

    async def abort(self) -> None:
        """Forget it; harmless at any time."""
        ...


class GroupReads(Protocol):
    """Reads the pure session makes; each answers from memory or one bounded store read."""

    def state(self) -> GroupState: ...

    def live_records(self, level: bytes) -> int:
        """Live records of a brake level (replica/model/brake.py, `levels_of`)."""
        ...

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        """Our boundary at that place; None where we know none."""
        ...

    @property
    def pressure(self) -> bool:
        """True: give no more credit."""
        ...


class Group(GroupReads, Protocol):
    """The group of one source: reads, proposals, loads."""

    def subscribe(self, callback: Callable[[GroupState], None]) -> Callable[[], None]:
        """Call back (on any thread) after each apply; the result ends the subscription."""
        ...

    def propose(self, entry: entry_pb2.Entry) -> Proposal:
        """Never waits; seals first what persons said in it (replica/model/audit.py).

        Raises:
            ZaibeiError(BUSY, DISK_FULL, DISK_FAILED, DAMAGED, STOPPING).
        """
        ...

    def existing(self, keys: Sequence[bytes]) -> list[bool]:
        """Which keys the live generation holds. Up to a batch of cold keys, so it may take 20 ms: any thread but the loop's."""
        ...

    async def loader(self, side: int, position: Position) -> Loader: ...

    async def difference(self, side: int) -> list[Difference]: ...


class Link(Protocol):
    """One stream with a source, whichever side called."""

    async def receive(self) -> source_pb2.SourceMessage | None:
        """Next message; None: the source ended the stream. Raises ZaibeiError(UNREACHABLE, MALFORMED)."""
        ...

    async def send(self, message: source_pb2.ReplicaMessage) -> None:
        """Raises ZaibeiError(UNREACHABLE)."""
        ...

    async def prove(self, position: Position) -> source_pb2.Proof: ...

    async def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse: ...

    def snapshot(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]: ...


class BeatGate(Protocol):
    """Takes the key of each stream's datagram beats; a key counts for one stream only."""

    def allow(self, key: bytes) -> None: ...

    def revoke(self, key: bytes) -> None: ...


class Tap(Protocol):
    """Takes some of the source's messages in place of the session."""

    async def took(self, message: source_pb2.SourceMessage) -> bool:
        """True: it was taken. May wait: the source is then read no further."""
        ...

    def broke(self) -> None:
        """The stream is over."""
        ...
