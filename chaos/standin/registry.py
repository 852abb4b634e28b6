"""What a stand-in secondary node holds: records read from the very files its agent publishes. Pure but for the file given."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.standin.given import Given
from replica.agent.mapping import Naming
from replica.agent.readers import WHOLE, Reject, Staged, csv_row, jsonl_line, records
from replica.model.errors import ZaibeiError
from replica.model.handle.answers import Peeked
from replica.model.handle.codes import ResponseCode
from replica.model.handle.types import HS_SITE
from replica.model.handle.values import HandleValue, encode_record
from replica.model.identifier import END, ROUTE, Identifier, ancestors, handle_prefix_key
from replica.native import filter_values


class FileReader:
    """Reads one JSONL or CSV file again and again; JSONL lines that did not change are not parsed anew."""

    def __init__(self, path: Path, naming: Naming) -> None:
        self.path, self._naming = path, naming
        self._lines: dict[bytes, tuple[bytes, bytes] | None] = {}

    def read(self) -> dict[bytes, bytes]:
        """Records by store key; lines that do not parse are left out, of a name given twice the first counts, as at the agent.

        Raises:
            OSError: the file cannot be read.
        """
        return self._read_csv() if self.path.suffix == ".csv" else self._read_jsonl()

    def _read_jsonl(self) -> dict[bytes, bytes]:
        known: dict[bytes, tuple[bytes, bytes] | None] = {}
        found: dict[bytes, bytes] = {}
        with self.path.open("rb") as lines:
            for line in lines:
                if line in known:
                    continue
                made = known[line] = self._lines[line] if line in self._lines else self._line(line)
                if made is not None:
                    found.setdefault(*made)
        self._lines = known
        return found

    def _line(self, line: bytes) -> tuple[bytes, bytes] | None:
        for row in jsonl_line(line, 1, self._naming):
            if isinstance(row, Staged) and row.ordinal == WHOLE:
                return row.key, row.payload
        return None

    def _read_csv(self) -> dict[bytes, bytes]:
        with self.path.open(newline="", encoding="utf-8", errors="surrogateescape") as text:
            reader = csv.DictReader(text)
            rows = [row for item in reader for row in csv_row(item, reader.line_num, self._naming)]
        staged = sorted((row for row in rows if isinstance(row, Staged)), key=lambda row: (row.key, row.ordinal, row.line))
        made = (row for row in records(staged) if not isinstance(row, Reject))
        return {key: value for key, value in made if value is not None}


def read_file(path: Path, naming: Naming) -> dict[bytes, bytes]:
    """One reading of a file, see FileReader. Raises OSError."""
    return FileReader(path, naming).read()


@dataclass(slots=True)
class Registry:
    """Answers from files read before; later files win.

    Args:
        prefixes: key parts of the prefixes this node owns.
        site: HS_SITE data of this node; site_ttl_s: of the value it is answered in.
        second: HS_SITE data of the site published behind it for the node's own prefixes; empty: none.
        files: one dictionary a file; replaced as a whole when the file changes.
    """

    prefixes: tuple[bytes, ...]
    site: bytes
    site_ttl_s: int
    files: list[dict[bytes, bytes]]
    second: bytes = b""

    @staticmethod
    def of(prefixes: Sequence[str], site: bytes, site_ttl_s: int, files: int) -> Registry:
        return Registry(
            tuple(handle_prefix_key(prefix.encode()) for prefix in prefixes), site, site_ttl_s, [{} for _ in range(files)]
        )

    def answer(self, asked: Peeked) -> Given:
        """The node's own answer: it is the authority for its prefixes, so what it does not hold does not exist."""
        try:
            ident = Identifier.parse(asked.handle)
        except ZaibeiError as exc:
            return Given(ResponseCode.INVALID_HANDLE, text=exc.trouble.message)
        record = self._find(ident.key())
        if record is None and ident.route and ident.prefix in self.prefixes and self.site:
            sites = [site for site in (self.site, self.second) if site]
            record = encode_record([HandleValue(n, HS_SITE, site, ttl=self.site_ttl_s) for n, site in enumerate(sites, 1)])
        if record is not None:
            return self._chosen(asked, record)
        owned = next((prefix for prefix in ancestors(ident.prefix) if prefix in self.prefixes), None)
        if owned is None:
            return Given(ResponseCode.SERVER_NOT_RESP, text="That prefix doesn't live here")
        return self._referral(ident, owned) or Given(ResponseCode.HANDLE_NOT_FOUND)

    def _find(self, key: bytes) -> bytes | None:
        for held in reversed(self.files):
            record = held.get(key)
            if record is not None:
                return record
        return None

    @staticmethod
    def _chosen(asked: Peeked, record: bytes) -> Given:
        values = filter_values(record, asked.indexes, asked.types, asked.public_only)
        if values is None:
            return Given(ResponseCode.ERROR, text="the stored record does not parse")
        if values == bytes(4):
            return Given(ResponseCode.VALUES_NOT_FOUND)
        return Given(ResponseCode.SUCCESS, values)

    def _referral(self, ident: Identifier, owned: bytes) -> Given | None:
        """Identifiers of an enterprise that has its own node live there."""
        for prefix in ancestors(ident.prefix):
            if prefix == owned:
                return None
            record = self._find(ROUTE + prefix + END)
            if record is None:
                continue
            values = filter_values(record, (), (HS_SITE, b"HS_SERV"), True)
            return Given(ResponseCode.SERVICE_REFERRAL, values) if values and values != bytes(4) else None
        return None
