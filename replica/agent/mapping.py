"""How rows of a registry's files become records, routes and documents: templates over columns, from the source's TOML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from replica.agent.records import (
    data_octets,
    document_of,
    judged,
    permissions_of,
    record_of,
    seconds,
    site_data,
)
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import TTL_S_DEFAULT
from replica.model.handle.values import HandleValue
from replica.model.identifier import END, ROUTE, Identifier, PrefixTree, document_key, key_text, prefix_key

_COLUMN = re.compile(r"\{([^{}]*)\}")

Row = Mapping[str, str]


def cell(row: Row, column: str) -> str:
    """Raises ZaibeiError(MALFORMED): the row has no such column."""
    if column not in row:
        raise ZaibeiError(Code.MALFORMED, f"the row has no column {column!r}")
    return row[column]


@dataclass(frozen=True, slots=True)
class Template:
    """Text with `{column}` in it. Columns are put in as they are, nothing in them is interpreted."""

    text: str

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(_COLUMN.findall(self.text))

    def render(self, row: Row) -> str:
        """Empty when every column named in it is empty (so that an optional value is left out).

        Raises:
            ZaibeiError(MALFORMED): the row has no such column.
        """
        filled = False

        def column(match: re.Match[str]) -> str:
            nonlocal filled
            text = cell(row, match[1])
            filled = filled or bool(text)
            return text

        text = _COLUMN.sub(column, self.text)
        return text if filled or not self.columns else ""


@dataclass(frozen=True, slots=True)
class Naming:
    """Policy of names: which prefixes the source owns, and below which of them suffixes are case-sensitive (key parts)."""

    prefixes: tuple[bytes, ...]
    case_sensitive: PrefixTree[bool]

    @staticmethod
    def of(prefixes: tuple[str, ...], case_sensitive: tuple[str, ...] = ()) -> Naming:
        """From prefixes as people write them. Raises ZaibeiError(MALFORMED)."""
        tree = PrefixTree({prefix_key(prefix): True for prefix in case_sensitive})
        return Naming(tuple(prefix_key(prefix) for prefix in prefixes), tree)

    def key(self, name: str) -> tuple[bytes, bytes]:
        """Key of an identifier, and its spelling where the key cannot tell it (else empty).

        Raises:
            ZaibeiError(MALFORMED, NOT_OWNER).
        """
        ident = Identifier.parse(name)
        found = self.case_sensitive.longest(ident.prefix)
        key = ident.key(case_sensitive=found is not None)
        self.check_owner(ident.prefix.rpartition(b"\x01")[0] if ident.route else ident.prefix, name)
        return key, b"" if ident.route or key_text(key) == name else ident.spelling

    def check_owner(self, prefix: bytes, name: str) -> None:
        for owned in self.prefixes:
            if prefix == owned or prefix.startswith(owned + b"\x01"):
                return
        raise ZaibeiError(Code.NOT_OWNER, f"{name[:80]!r} lies outside the source's prefixes")

    def route_key(self, prefix: str) -> bytes:
        """Key of a prefix's route record; it belongs to the owner of the parent prefix."""
        inner = prefix_key(prefix)
        self.check_owner(inner.rpartition(b"\x01")[0], prefix)
        return ROUTE + inner + END


@dataclass(frozen=True, slots=True)
class Made:
    """A record ready to be compared with the content."""

    key: bytes
    value: bytes


def _value(index: int, kind: str, data: bytes, ttl: int, stamp: int, permissions: int = 0b1110) -> HandleValue:
    with judged():
        return HandleValue(index, kind.encode(), data, ttl=ttl, permissions=permissions, timestamp=stamp)


@dataclass(frozen=True, slots=True)
class ValueMapping:
    """One value of the record a row gives; left out when `data` renders empty."""

    index: int
    type: str
    data: Template
    ttl: int = TTL_S_DEFAULT
    permissions: str = ""
    timestamp: str = ""  # column
    format: str = "string"

    def value(self, row: Row) -> HandleValue | None:
        text = self.data.render(row)
        if not text:
            return None
        stamp = seconds(cell(row, self.timestamp)) if self.timestamp else 0
        octets = data_octets(text, self.format)
        return _value(self.index, self.type, octets, self.ttl, stamp, permissions_of(self.permissions))


@dataclass(frozen=True, slots=True)
class RecordMapping:
    """A row gives one identifier record."""

    identifier: Template
    values: tuple[ValueMapping, ...]

    def key(self, row: Row, naming: Naming) -> bytes:
        return naming.key(self.identifier.render(row))[0]

    def made(self, row: Row, naming: Naming) -> Made:
        key, spelling = naming.key(self.identifier.render(row))
        values = [value for mapping in self.values if (value := mapping.value(row)) is not None]
        return Made(key, record_of(values, spelling))


@dataclass(frozen=True, slots=True)
class RouteMapping:
    """A row gives the route of one prefix: a site from its address and ports, or the name of a service handle.

    Args:
        prefix, addresses, service: templates; an address that renders empty is left out.
        ports: protocol -> template.
    """

    prefix: Template
    addresses: tuple[Template, ...] = ()
    ports: tuple[tuple[str, Template], ...] = ()
    service: Template | None = None
    serial: int = 1
    ttl: int = 300
    timestamp: str = ""

    def key(self, row: Row, naming: Naming) -> bytes:
        return naming.route_key(self.prefix.render(row))

    def made(self, row: Row, naming: Naming) -> Made:
        key = self.key(row, naming)
        stamp = seconds(cell(row, self.timestamp)) if self.timestamp else 0
        values: list[HandleValue] = []
        addresses = [text for template in self.addresses if (text := template.render(row))]
        if addresses:
            ports = {name: _port(text) for name, template in self.ports if (text := template.render(row))}
            values.append(_value(1, "HS_SITE", site_data(addresses, ports, serial=self.serial), self.ttl, stamp))
        if self.service is not None and (service := self.service.render(row)):
            values.append(_value(2, "HS_SERV", service.encode(), self.ttl, stamp))
        return Made(key, record_of(values))


def _port(text: str) -> int:
    if not text.isdigit():
        raise ZaibeiError(Code.MALFORMED, f"a port is a number, not {text[:20]!r}")
    return int(text)


@dataclass(frozen=True, slots=True)
class DocumentMapping:
    """A row gives one business document. `fields`: columns in it; empty: all that are not empty."""

    kind: str
    ident: Template
    fields: tuple[str, ...] = ()

    def key(self, row: Row, naming: Naming) -> bytes:
        return document_key(self.kind, self.ident.render(row))

    def made(self, row: Row, naming: Naming) -> Made:
        body = (
            {name: cell(row, name) for name in self.fields} if self.fields else {name: text for name, text in row.items() if text}
        )
        return Made(self.key(row, naming), document_of(body))


AnyMapping = RecordMapping | RouteMapping | DocumentMapping
