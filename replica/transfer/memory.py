"""Memory twin of another member: its files are octets in memory, with the faults a test wants."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256

from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError, require
from replica.model.position import ORIGIN
from replica.model.transfer import FileLine, Manifest, TransferKind, make_manifest
from replica.transfer.ports import TRANSFER_OCTETS, Chunk, Offer, Wanted

Tamper = Callable[[Chunk], Chunk]


def describe(files: dict[str, bytes], source: str, *, index: int = 1, generation: int = 0, begun: int = 0) -> Manifest:
    """The manifest of files in memory: a checkpoint, or with `begun` a generation."""
    lines = [FileLine(name, len(octets), sha256(octets).hexdigest()) for name, octets in files.items()]
    kind = TransferKind.GENERATION if begun else TransferKind.CHECKPOINT
    return make_manifest(kind, source, generation, begun, (index, 1), ContentDigest(ORIGIN, 0, 0), lines)


def untouched(chunk: Chunk) -> Chunk:
    """A Tamper that does nothing."""
    return chunk


class MemorySender:
    """Twin of another member.

    Args:
        chunk_octets: of what is sent.
    Attributes:
        cut_after: the stream breaks behind so many chunks more; None: never.
        tamper: what becomes of each chunk on its way.
        offers, sent, released: what happened.
    """

    name = "member 9"

    def __init__(self, files: dict[str, bytes], manifest: Manifest, chunk_octets: int = 7) -> None:
        self.files, self.manifest, self._chunk_octets = files, manifest, chunk_octets
        self.cut_after: int | None = None
        self.tamper: Tamper = untouched
        self.offers = self.sent = 0
        self.released: list[bytes] = []
        self._current: bytes | None = None

    async def offer(self, wanted: Wanted) -> Offer:
        if wanted.transfer and wanted.transfer != self._current:
            raise ZaibeiError(Code.NOT_FOUND, "no such transfer here, or no more")
        self.offers += 1
        if not wanted.transfer:
            self._current = self.offers.to_bytes(TRANSFER_OCTETS, "big")
        return Offer(self._current or b"", self.manifest)

    def forget(self) -> None:
        """What was held is held no more."""
        self._current = None

    @asynccontextmanager
    async def reading(self, transfer: bytes) -> AsyncIterator[MemoryReading]:
        if transfer != self._current:
            raise ZaibeiError(Code.NOT_FOUND, "no such transfer here, or no more")
        yield MemoryReading(self, self._chunk_octets)

    async def release(self, transfer: bytes) -> None:
        self.released.append(transfer)


class MemoryReading:
    """Twin of a stream of files."""

    def __init__(self, sender: MemorySender, chunk_octets: int) -> None:
        self._sender, self._chunk_octets = sender, chunk_octets
        self._asked: deque[tuple[str, int]] = deque()
        self._credits = 0

    async def ask(self, file: str, offset: int) -> None:
        if file not in self._sender.files:
            raise ZaibeiError(Code.MALFORMED, f"no file {file[:100]!r} belongs to this transfer")
        self._asked.append((file, offset))

    async def credit(self, chunks: int) -> None:
        self._credits += chunks

    async def next(self) -> Chunk:
        sender = self._sender
        require(self._credits > 0 and self._asked, "a chunk is waited for that cannot come: no credit, or nothing was asked for")
        if sender.cut_after == 0:
            raise ZaibeiError(Code.UNREACHABLE, f"{sender.name}: the stream broke", retry=True)
        if sender.cut_after is not None:
            sender.cut_after -= 1
        file, offset = self._asked.popleft()
        octets = sender.files[file][offset : offset + self._chunk_octets]
        if offset + len(octets) < len(sender.files[file]):
            self._asked.appendleft((file, offset + len(octets)))
        self._credits -= 1
        sender.sent += len(octets)
        return sender.tamper(Chunk(file, offset, octets))
