"""The book of receipts on the source's disk: a receipt counts for the registry once it lies there, fsynced.

One thread writes; receipts that came while it waited for the disk share the next fsync. The book lies beside the log's folder, so
that it outlives a log that had to be moved away.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from replica.agent.edge_segments import Fsync, sync_folder
from replica.agent.receipts import (
    BOOK_OCTETS_MAX,
    RECEIPTS_KEPT_MIN,
    Book,
    SignerCard,
    head_octets,
    read_book,
    receipt_frame,
    signer_octets,
    thinned,
    whole,
)
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer
from replica.model.signing import key_id
from replica.v1 import source_pb2

log = logging.getLogger("zaibei.agent")

BOOK_FILE = "receipts.book"
WAITING_MAX = 4_096  # receipts not yet on disk; beyond it the oldest gives way to a newer one, which covers it
AGAIN_S = 1.0  # after a full disk

Kept = Callable[[source_pb2.Receipt], None]


class ReceiptBook:
    """See the module docstring. `open` makes one; `close` when done. Any thread."""

    def __init__(self, path: Path, book: Book, octets: int, fsync: Fsync, octets_max: int, keep: int) -> None:
        self.path, self.book = path, book
        self.failed: ZaibeiError | None = None  # for good: the process must stop
        self.trouble: ZaibeiError | None = None  # passes by itself
        self._octets, self._fsync, self._octets_max, self._keep = octets, fsync, octets_max, keep
        self._cards: dict[bytes, SignerCard] = {}
        self._waiting: list[tuple[source_pb2.Receipt, Kept]] = []
        self._turn = threading.Condition()
        self._closing = False
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._thread = threading.Thread(target=self._run, name="receipts", daemon=True)
        self._thread.start()

    @staticmethod
    def open(
        folder: Path,
        source: str,
        *,
        fsync: Fsync = os.fsync,
        octets_max: int = BOOK_OCTETS_MAX,
        keep: int = RECEIPTS_KEPT_MIN,
    ) -> ReceiptBook:
        """Open or make the book of one source.

        Raises:
            ZaibeiError(DAMAGED): what an fsync covered is bad. WRONG_SOURCE: another source's book. DISK_FULL, DISK_FAILED.
        """
        path = folder / BOOK_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                _replace(path, head_octets(source), fsync)
            octets = path.read_bytes()
            book, found = read_book(octets, str(path))
            if book.source != source:
                raise ZaibeiError(Code.WRONG_SOURCE, f"{path} is the receipt book of {book.source!r}, not of {source!r}")
            if found.torn:
                log.warning("receipt book healed after a crash", extra={"source": source, "healed": found.torn})
                os.truncate(path, found.end)
        except OSError as exc:
            raise _translate(exc, f"open {path}") from exc
        return ReceiptBook(path, book, found.end, fsync, octets_max, keep)

    def met(self, peer: Peer) -> None:
        """A member that may give receipts from now on, with the certificate by which it was let in."""
        card = SignerCard(peer.name, peer.signing_key, peer.certificate_pem + peer.issuers_pem)
        self._cards[key_id(peer.signing_key)] = card

    def keep(self, receipt: source_pb2.Receipt, then: Kept) -> None:
        """Make a checked receipt durable, then call back from the book's thread."""
        with self._turn:
            self._waiting.append((receipt, then))
            if len(self._waiting) > WAITING_MAX:
                del self._waiting[0]
            self._turn.notify()

    def close(self) -> None:
        """Write what waits, then close. Calling twice is harmless."""
        with self._turn:
            self._closing = True
            self._turn.notify()
        self._thread.join()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    # -- the thread

    def _run(self) -> None:
        while True:
            with self._turn:
                while not self._waiting and not self._closing:
                    self._turn.wait()
                group = list(self._waiting)
                if not group or self.failed is not None:
                    return
            try:
                self._write([receipt for receipt, _ in group])
            except ZaibeiError as exc:
                if exc.code is not Code.DISK_FULL:
                    self.failed = exc
                    return
                self.trouble = exc
                with self._turn:
                    if self._closing:
                        return
                    self._turn.wait(AGAIN_S)
                continue
            self.trouble = None
            with self._turn:
                written = {id(receipt) for receipt, _ in group}
                self._waiting = [one for one in self._waiting if id(one[0]) not in written]
            for receipt, then in group:
                then(receipt)

    def _write(self, receipts: Sequence[source_pb2.Receipt]) -> None:
        cards = self._new_cards(receipts)
        frames = [signer_octets(card, self._octets) for card in cards.values()]
        octets = b"".join([*frames, *(receipt_frame(receipt, self._octets) for receipt in receipts)])
        try:
            written = 0
            while written < len(octets):
                written += os.write(self._handle, octets[written:])
        except OSError as exc:
            self._undo()
            raise _translate(exc, f"write {self.path}") from exc
        try:
            self._fsync(self._handle)
        except OSError as exc:
            raise ZaibeiError(Code.DISK_FAILED, f"fsync of {self.path} failed: {exc}", definite=False) from exc
        self._octets += len(octets)
        self.book.signers.update(cards)
        self.book.receipts.extend(receipts)
        if self._octets > self._octets_max:
            self._anew()

    def _new_cards(self, receipts: Sequence[source_pb2.Receipt]) -> dict[bytes, SignerCard]:
        """Cards of signers that the book does not have as they are by now; each stands before its first receipt."""
        signers = {receipt.signature.key_id for receipt in receipts}
        cards = {one: self._cards[one] for one in signers if one in self._cards}
        return {one: card for one, card in cards.items() if self.book.signers.get(one) != card}

    def _undo(self) -> None:
        try:
            os.ftruncate(self._handle, self._octets)
        except OSError as exc:
            raise ZaibeiError(Code.DISK_FAILED, f"cannot undo a write to {self.path}: {exc}", definite=False) from exc

    def _anew(self) -> None:
        """Leave out what newer ones cover; on a full disk the longer book stays."""
        kept = thinned(self.book.receipts, self._keep)
        lean = Book(self.book.source, self.book.signers, kept, self.book.left_out + len(self.book.receipts) - len(kept))
        octets = whole(lean)
        try:
            _replace(self.path, octets, self._fsync)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise _translate(exc, f"write {self.path} anew") from exc
            self._octets_max += BOOK_OCTETS_MAX  # not at every receipt again
            return
        os.close(self._handle)
        self._handle, self.book, self._octets = handle, lean, len(octets)


def _replace(path: Path, octets: bytes, fsync: Fsync) -> None:
    """Whole or not at all, mode 0600, on the disk when it returns."""
    beside = path.with_name(f"{path.name}.new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(octets)
        out.flush()
        fsync(out.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def _translate(error: OSError, what: str) -> ZaibeiError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ZaibeiError(Code.DISK_FULL, f"no room to {what}: free some space, it goes on by itself", retry=True)
    return ZaibeiError(Code.DISK_FAILED, f"cannot {what}: {error}", definite=False)
