"""Ports of this room. `memory.py` holds a twin of the other member; one contract test runs on both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from replica.model.errors import Code, ZaibeiError
from replica.model.transfer import Manifest, TransferKind

CHUNK_OCTETS_MAX = 1024 * 1024
CHUNK_OCTETS = (
    CHUNK_OCTETS_MAX - 4_096
)  # with its envelope below 1 MiB: just above it, sending costs three times as much (measured)
CLUSTER_OCTETS = TRANSFER_OCTETS = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of another member.

    Args:
        group: id. source: its name; what comes must be of it.
        kind: CHECKPOINT: `index_min` is the last entry it must hold. GENERATION: `number` and `begun` name it.
        transfer: of a checkpoint that was offered to us, and no other will do; empty: none was.
    """

    group: int
    source: str
    kind: TransferKind
    index_min: int = 0
    number: int = 0
    begun: int = 0
    transfer: bytes = b""

    def mismatch(self, found: Manifest) -> str:
        """Empty, or how a manifest differs from what was asked: a replayed one, another group's, an older one."""
        if found.kind is not self.kind or found.source != self.source:
            return f"a {found.kind} of {found.source!r} came, a {self.kind} of {self.source!r} was asked for"
        if self.kind is TransferKind.GENERATION and (found.generation, found.begun) != (self.number, self.begun):
            asked = f"generation {self.number} begun by entry {self.begun}"
            return f"generation {found.generation} begun by entry {found.begun} came, {asked} was asked for"
        if found.index < self.index_min:
            return f"a checkpoint at entry {found.index} came, one at {self.index_min} or later was asked for"
        return ""


@dataclass(frozen=True, slots=True)
class Offer:
    """Files another member holds still for us."""

    transfer: bytes
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a file."""

    file: str
    offset: int
    octets: bytes


class Reading(Protocol):
    """An open stream of files. Calls on the event loop.

    They raise ZaibeiError: UNREACHABLE and BUSY (again later), others as the sender says.
    """

    async def ask(self, file: str, offset: int) -> None:
        """The next file, from an offset on."""
        ...

    async def credit(self, chunks: int) -> None:
        """So many more chunks may be sent."""
        ...

    async def next(self) -> Chunk:
        """The next chunk, in the order asked."""
        ...


class Sender(Protocol):
    """Another member, as the one that fetches sees it."""

    @property
    def name(self) -> str:
        """For messages to people."""
        ...

    async def offer(self, wanted: Wanted) -> Offer:
        """Have it hold files still.

        Raises:
            ZaibeiError: UNREACHABLE, BUSY (again later); NOT_FOUND, NOT_AUTHORISED; MALFORMED (not what was asked).
        """
        ...

    def reading(self, transfer: bytes) -> AbstractAsyncContextManager[Reading]: ...

    async def release(self, transfer: bytes) -> None:
        """We have all we need. Never raises: what is not released ends by itself."""
        ...


class Held(Protocol):
    """Files that stay as they are until `release`."""

    @property
    def folder(self) -> Path: ...

    @property
    def manifest(self) -> Manifest: ...

    def release(self) -> None:
        """Delete them; blocks, any thread. Idempotent."""
        ...


class Holder(Protocol):
    """What a member can hold still for others: its stores, as this room sees them. Blocks (hashing), any thread."""

    def hold(self, wanted: Wanted) -> Held:
        """Raises ZaibeiError: NOT_FOUND (no such group or generation here), BUSY, DISK_FULL, as the store failed."""
        ...


class MemberTrust(Protocol):
    """Which member is at the other end."""

    def member_of(self, chain_pem: Sequence[bytes]) -> tuple[int, str]:
        """Number and name of the member that presented these certificates, its own first. The links between members ask the same.

        Raises:
            ZaibeiError(NOT_AUTHORISED, MALFORMED): they are no member's of this cluster, ended or revoked.
        """
        ...


def require_same_member(certified: int, stated: int) -> None:
    """Raises ZaibeiError(NOT_AUTHORISED)."""
    if certified != stated:
        raise ZaibeiError(Code.NOT_AUTHORISED, f"the certificate is member {certified}'s, the request says member {stated}")
