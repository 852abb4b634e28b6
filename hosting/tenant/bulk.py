"""Many identifiers out of a file: rows to changes or to named faults, and how far an import came. Pure.

CSV     header `identifier`, then types: identifier,URL,EMAIL; a cell that is not empty is a value, with the index of its column
JSONL   {"handle": "88.118.9/A", "values": [{"index": 1, "type": "URL", "data": "…"}]} a line, as an export writes it
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hosting.tenant.lots import below_of
from hosting.tenant.records import named
from replica.agent.records import record_of, value_from_json
from replica.model.errors import ZaibeiError
from replica.model.handle.values import HandleValue, record_head

FORMATS = ("csv", "jsonl")
ROW_OCTETS_MAX = 1024 * 1024
TEXT_SHOWN_MAX = 200
PROGRESS_FORMAT = 1
_JSON = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Row:
    """A row that can be registered.

    Args:
        number: of the row in the file, the first one is 1.
        values: u32 count and the values, as they are stored.
    """

    number: int
    identifier: str
    values: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is left out. `code`: stable; `reason`: for a person; `text`: how the row begins."""

    number: int
    code: str
    reason: str
    text: str

    def line(self) -> bytes:
        """One line of the file of rejected rows."""
        return msgspec.json.encode({"row": self.number, "code": self.code, "reason": self.reason, "text": self.text}) + b"\n"


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far an import came: every row up to `rows` has its outcome.

    Args:
        sha256: of the file it is about; size: its octets. Another file begins anew.
        rejected: rows left out; rejected_octets: length of the file of rejected rows at that moment.
    """

    sha256: str
    size: int
    rows: int = 0
    done: int = 0
    rejected: int = 0
    rejected_octets: int = 0
    format: int = PROGRESS_FORMAT


_PROGRESS = msgspec.json.Decoder(Progress)


def progress_of(octets: bytes, sha256: str, size: int) -> Progress:
    """What is known of an import of this file; a beginning where nothing is, or it was another file."""
    try:
        found = _PROGRESS.decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Progress(sha256, size)
    same = (found.sha256, found.size, found.format) == (sha256, size, PROGRESS_FORMAT)
    return found if same else Progress(sha256, size)


def rows_of(lines: Iterator[str], form: str) -> Iterator[Row | Rejected]:
    """Rows of a file, in its order.

    Args:
        lines: with their ends; octets that are not UTF-8 as lone surrogates.
    Raises:
        ValueError: a CSV file without the header that is wanted.
    """
    return _csv_rows(lines) if form == "csv" else _json_rows(lines)


def _json_rows(lines: Iterator[str]) -> Iterator[Row | Rejected]:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if len(text) > ROW_OCTETS_MAX:
            yield _rejected(number, text, f"a row has at most {ROW_OCTETS_MAX} characters")
            continue
        try:
            fields = _JSON.decode(text.encode())
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            yield _rejected(number, text, f"not JSON: {exc}")
            continue
        yield _row_of_json(number, text, fields)


def _row_of_json(number: int, text: str, fields: Any) -> Row | Rejected:
    if not isinstance(fields, Mapping) or not isinstance(fields.get("handle"), str) or not isinstance(fields.get("values"), list):
        return _rejected(number, text, 'a row is {"handle": "…", "values": [ … ]}')
    try:
        values = [value_from_json(item) for item in fields["values"]]
    except (ZaibeiError, ValueError) as exc:
        return _rejected(number, text, str(exc))
    return _row(number, text, fields["handle"], values)


def _csv_rows(lines: Iterator[str]) -> Iterator[Row | Rejected]:
    reader = csv.reader(lines, strict=True)
    header = next(reader, [])
    if header and header[0].startswith("\ufeff"):
        header[0] = header[0][1:]
    if len(header) < 2 or header[0] != "identifier" or not all(header) or len(set(header)) < len(header):
        raise ValueError("a CSV file begins with a header: identifier, then one column a type, each once")
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield _rejected(number, "", f"not CSV: {exc}")
            continue
        text = ",".join(cells)
        if not any(cells):
            continue
        if len(cells) != len(header):
            yield _rejected(number, text, f"{len(cells)} cells, the header has {len(header)}")
            continue
        try:
            values = [
                HandleValue(index, kind.encode(), cell.encode())
                for index, (kind, cell) in enumerate(zip(header[1:], cells[1:], strict=True), 1)
                if cell
            ]
        except UnicodeEncodeError:
            yield _rejected(number, text, "not UTF-8")
            continue
        yield _row(number, text, cells[0], values)


def _row(number: int, text: str, identifier: str, values: Sequence[HandleValue]) -> Row | Rejected:
    """Judged as far as can be told without the registry."""
    try:
        below = below_of(identifier)
        if below is None:
            named(identifier)
        else:
            below.key(identifier, sensitive=False)
        record = record_of(values)
    except (ZaibeiError, UnicodeError) as exc:
        return _rejected(number, text, str(exc))
    return Row(number, identifier, record[len(record_head(None)) :])


def _rejected(number: int, text: str, reason: str) -> Rejected:
    shown = text[:TEXT_SHOWN_MAX].encode("utf-8", "backslashreplace").decode()
    return Rejected(number, "malformed", reason.removeprefix("malformed: ").encode("utf-8", "backslashreplace").decode(), shown)
