"""The kit's own sum over a source's content, by the octets of the rules and with nothing of the source's own arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from replica.kit.sheet import Sheet
from replica.model.batch import OP_DELETE, OP_PUT
from replica.model.digest import MODULUS, ContentDigest
from replica.model.identifier import DOCUMENT, key_text, owning_prefix
from replica.native import ColumnsFault, record_hash, scan

RECORDS_MAX = 2_000_000  # about 200 octets of memory each; beyond it sums after changes are not checked
SCAN_COUNT_MAX = 1_000_000


def shown(key: bytes) -> str:
    """A key for a person, whatever octets it has."""
    try:
        return key_text(key)[:80]
    except (ValueError, IndexError):
        return repr(key[:80])


class Contents:
    """Record hashes by hash of the key, with count and sum."""

    def __init__(self, prefixes: Sequence[bytes], sheet: Sheet) -> None:
        self._prefixes, self._sheet = tuple(prefixes), sheet
        self._hashes: dict[bytes, int] = {}
        self.records = 0
        self.total = 0
        self.whole = True  # False: too large to follow

    def put(self, key: bytes, value: bytes) -> None:
        number = int.from_bytes(record_hash(key, value), "little")
        self.total = (self.total + number) % MODULUS
        self.records += 1
        if not self.whole:
            return
        name = record_hash(key, b"")
        old = self._hashes.get(name)
        if old is not None:
            self.total = (self.total - old) % MODULUS
            self.records -= 1
        self._hashes[name] = number
        if len(self._hashes) > RECORDS_MAX:
            self.whole = False
            self._hashes.clear()

    def delete(self, key: bytes) -> None:
        if not self.whole:
            return
        old = self._hashes.pop(record_hash(key, b""), None)
        if old is None:
            self._sheet.fail("deletes.exact", f"deletes {shown(key)}, which is not there")
            return
        self._sheet.saw("deletes.exact")
        self.total = (self.total - old) % MODULUS
        self.records -= 1

    def same(self, digest: ContentDigest) -> bool:
        return (digest.records, digest.total) == (self.records, self.total)

    def look(self, columns: bytes) -> tuple[list[bytes], list[bytes], bytes] | None:
        """Check one Columns payload record by record. None: malformed as a whole."""
        try:
            found = scan(columns, SCAN_COUNT_MAX)
        except ColumnsFault as exc:
            self._sheet.fail("records.canonical", f"columns do not parse: {exc}")
            return None
        for number, code in found.faults:
            self._sheet.fail("records.canonical", f"{found.keys[number][:80]!r}: {code}")
        self._sheet.saw("records.canonical", found.count - len(found.faults))
        for key in found.keys:
            self._owned(key)
        return found.keys, found.values, found.ops

    def _owned(self, key: bytes) -> None:
        owner = owning_prefix(key)
        owned = key[:1] == DOCUMENT or any(owner == prefix or owner.startswith(prefix + b"\x01") for prefix in self._prefixes)
        if owned:
            self._sheet.saw("keys.owned")
        else:
            self._sheet.fail("keys.owned", f"{shown(key)} lies outside the stated prefixes")

    def apply(self, keys: Sequence[bytes], values: Sequence[bytes], ops: bytes) -> None:
        """Follow a batch's changes."""
        for key, value, op in zip(keys, values, ops, strict=True):
            if op == OP_PUT:
                self.put(key, value)
            elif op == OP_DELETE:
                self.delete(key)
