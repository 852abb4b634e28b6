"""Lines of a registry's files to staged rows. Pure: one line in, rows or a named reason out.

Ready-made forms, used where the TOML file gives no mapping:
    JSONL  {"handle": "88.118.8/A", "values": [{"index": 1, "type": "URL", "data": "…", "ttl": 86400, "timestamp": …}]}
           {"prefix": "88.118.9", "sites": [{"address": "192.0.2.1", "tcp": 2641}], "service": "0.SERV/…", "values": […]}
           {"document": "enterprise", "id": "E-1", "body": {…}}
    CSV    header handle,index,type,data,ttl and, if you like, timestamp,permissions,format; one value a line
A value without a timestamp gets 0, never the time of reading: octets depend on the file alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from replica.agent.mapping import AnyMapping, Naming
from replica.agent.records import (
    assemble,
    bad,
    data_octets,
    document_of,
    encoded,
    judged,
    permissions_of,
    record_of,
    seconds,
    site_from_json,
    value_from_json,
)
from replica.model.batch import OP_DELETE, OP_PUT, Change
from replica.model.errors import ZaibeiError
from replica.model.handle.codes import TTL_S_DEFAULT
from replica.model.handle.values import TTL_ABSOLUTE, TTL_RELATIVE, HandleValue
from replica.model.identifier import document_key

LINE_OCTETS_MAX = 1024 * 1024
CSV_COLUMNS = ("handle", "index", "type", "data", "ttl")
ROUTE_TTL_S = 300
KEPT = -2  # the line's name is readable but the rest is not: what is held of that name stays
WHOLE = -1  # the row is a complete record; otherwise `ordinal` is the index of one value of it


@dataclass(frozen=True, slots=True)
class Staged:
    """A row on its way to the sorted comparison. `line`: where it came from."""

    key: bytes
    ordinal: int
    line: int
    payload: bytes = b""
    spelling: bytes = b""


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that is left out, with the reason for a person; `text`: how it begins."""

    line: int
    reason: str
    text: str = ""


Parsed = Staged | Reject


@dataclass(frozen=True, slots=True)
class Input:
    """One file. `format`: csv or jsonl; `mappings` empty: the ready-made form."""

    path: Path
    format: str
    mappings: tuple[AnyMapping, ...] = ()


def jsonl_line(octets: bytes, line: int, naming: Naming, mappings: Sequence[AnyMapping] = ()) -> Iterator[Parsed]:
    """Rows of one JSONL line; an empty line gives none."""
    if not octets.strip():
        return
    text = octets[:200].decode("utf-8", "backslashreplace").rstrip("\n")
    try:
        fields = msgspec.json.decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        yield Reject(line, f"not JSON: {exc}", text)
        return
    if not isinstance(fields, dict):
        yield Reject(line, "a line is one JSON object", text)
    elif mappings:
        yield from mapped_row({name: _as_text(value) for name, value in fields.items()}, line, naming, mappings, text)
    else:
        yield from _ready_made(fields, line, naming, text)


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value, order="sorted").decode()


def _ready_made(fields: Mapping[str, Any], line: int, naming: Naming, text: str) -> Iterator[Parsed]:
    key = b""
    try:
        if "handle" in fields:
            key, spelling = naming.key(str(fields["handle"]))
            values = [value_from_json(item) for item in _list(fields, "values")]
            yield Staged(key, WHOLE, line, record_of(values, spelling))
        elif "prefix" in fields:
            key = naming.route_key(str(fields["prefix"]))
            yield Staged(key, WHOLE, line, record_of(_route_values(fields)))
        elif "document" in fields:
            key = document_key(str(fields["document"]), str(fields.get("id", "")))
            yield Staged(key, WHOLE, line, document_of(fields.get("body")))
        else:
            yield Reject(line, "a line has handle and values, prefix and sites, or document, id and body", text)
    except ZaibeiError as exc:
        yield from _refused(exc, key, line, text)


def _refused(error: ZaibeiError, key: bytes, line: int, text: str) -> Iterator[Parsed]:
    yield Reject(line, error.trouble.message, text)
    if key:
        yield Staged(key, KEPT, line)


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    found = fields.get(name) or []
    if not isinstance(found, list):
        raise bad(f"{name} is a list")
    return found


def _route_values(fields: Mapping[str, Any]) -> list[HandleValue]:
    ttl, stamp = seconds(fields.get("ttl", ROUTE_TTL_S)), seconds(fields.get("timestamp", 0))
    with judged():
        values = [
            HandleValue(index, b"HS_SITE", site_from_json(site), ttl=ttl, timestamp=stamp)
            for index, site in enumerate(_list(fields, "sites"), 1)
        ]
        if fields.get("service"):
            values.append(HandleValue(len(values) + 1, b"HS_SERV", str(fields["service"]).encode(), ttl=ttl, timestamp=stamp))
    return values + [value_from_json(item) for item in _list(fields, "values")]


def mapped_row(row: Mapping[str, str], line: int, naming: Naming, mappings: Sequence[AnyMapping], text: str) -> Iterator[Parsed]:
    """Rows that the mappings make of one row of columns."""
    for mapping in mappings:
        try:
            made = mapping.made(row, naming)
        except ZaibeiError as exc:
            yield from _refused(exc, _key_or_none(mapping, row, naming), line, text)
        else:
            yield Staged(made.key, WHOLE, line, made.value)


def _key_or_none(mapping: AnyMapping, row: Mapping[str, str], naming: Naming) -> bytes:
    """Empty when not even the name can be read."""
    try:
        return mapping.key(row, naming)
    except ZaibeiError:
        return b""


def csv_row(row: Mapping[str | None, Any], line: int, naming: Naming, mappings: Sequence[AnyMapping] = ()) -> Iterator[Parsed]:
    """Rows of one CSV row as csv.DictReader gives it."""
    text = ",".join(str(cell) for cell in row.values())[:200]
    if None in row or any(cell is None for cell in row.values()):
        yield Reject(line, "the row has more or fewer cells than the header", text)
        return
    if any("\udc80" <= letter <= "\udcff" for cell in row.values() for letter in cell if letter > "\u07ff"):
        yield Reject(line, "the row is not UTF-8", text.encode("utf-8", "backslashreplace").decode())
        return
    named = {str(name): cell for name, cell in row.items()}
    if mappings:
        yield from mapped_row(named, line, naming, mappings, text)
    else:
        yield from _csv_value(named, line, naming, text)


def _csv_value(row: Mapping[str, str], line: int, naming: Naming, text: str) -> Iterator[Parsed]:
    key = b""
    try:
        key, spelling = naming.key(row["handle"])
        if not row["index"].strip().isdigit():
            raise bad("index is a whole number")
        value = _cell_value(row)
        yield Staged(key, value.index, line, encoded(value), spelling)
    except ZaibeiError as exc:
        yield from _refused(exc, key, line, text)


def _cell_value(row: Mapping[str, str]) -> HandleValue:
    ttl = row["ttl"].strip()
    with judged():
        return HandleValue(
            int(row["index"]),
            row["type"].encode(),
            data_octets(row["data"], row.get("format") or "string"),
            TTL_ABSOLUTE if ttl and not ttl.isdigit() else TTL_RELATIVE,
            seconds(ttl) if ttl else TTL_S_DEFAULT,
            permissions_of(row.get("permissions", "")),
            seconds(row.get("timestamp", "")),
        )


def records(rows: Iterable[Staged]) -> Iterator[tuple[bytes, bytes | None] | Reject]:
    """Complete records from rows sorted by (key, ordinal, line).

    Returns:
        (key, value) ascending by key; value None: keep what is held. A name or index given twice: the first line counts, the
        others are rejects.
    """
    group: list[Staged] = []
    for row in rows:
        if group and row.key != group[0].key:
            yield from _close(group)
            group = []
        group.append(row)
    if group:
        yield from _close(group)


def _close(group: Sequence[Staged]) -> Iterator[tuple[bytes, bytes | None] | Reject]:
    first = group[0]
    if first.ordinal == KEPT:
        yield first.key, None
        return
    if first.ordinal == WHOLE:
        for row in group[1:]:
            yield Reject(row.line, f"the same name as in line {first.line}")
        yield first.key, first.payload
        return
    kept = [first]
    for row in group[1:]:
        if row.ordinal == kept[-1].ordinal:
            yield Reject(row.line, f"index {row.ordinal} of the same name as in line {kept[-1].line}")
        else:
            kept.append(row)
    try:
        yield first.key, assemble([row.payload for row in kept], min(kept, key=lambda row: row.line).spelling)
    except ZaibeiError as exc:
        yield Reject(first.line, exc.trouble.message)
        yield first.key, None


def difference(wanted: Iterable[tuple[bytes, bytes | None]], held: Iterable[tuple[bytes, bytes]]) -> Iterator[Change]:
    """Puts and deletes that turn what is held into what is wanted; both ascending by key; bounded memory."""
    left = iter(held)
    have = next(left, None)
    for key, value in wanted:
        while have is not None and have[0] < key:
            yield Change(OP_DELETE, have[0])
            have = next(left, None)
        old = None
        if have is not None and have[0] == key:
            old = have[1]
            have = next(left, None)
        if value is not None and value != old:
            yield Change(OP_PUT, key, value)
    while have is not None:
        yield Change(OP_DELETE, have[0])
        have = next(left, None)
