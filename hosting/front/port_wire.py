"""Octets of the answer port between an owner and its fronts: both sides of one machine, one version, limits checked on reading.

    frame   = u32 octets that follow | u8 version | u8 kind | u32 number | body            (native byte order: one machine)
    WANTS   = u16 sources, each: u16 length, name, u32 keys, a u32 length for each key, the keys one after another
    FOUND   = u64 CLOCK_BOOTTIME when it was read | u16 sources, each: u16 length, name, u32 length, view, u32 values,
              a u32 length for each value (0xFFFFFFFF: no such record), the values one after another
    FAILED  = error code, 0x00, text
    HELLO   = 16 octets: open_id of the owner, also in its page
    CATALOG = message pack, see `encode_catalog`

Views and catalogs are message packs of their own fields, checked by type on reading.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import msgspec

from hosting.answer.port import Found, Values, Wants
from replica.model.blocks import Blocked, blocks_of
from replica.model.catalog import Catalog, Owner
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import OverlaySites
from replica.model.identifier import PrefixTree
from replica.model.states import Mode
from replica.model.tenant_view import TenantView
from replica.model.view import SourceView

VERSION: Final = 3
FRAME_OCTETS_MAX: Final = 64 * 1024 * 1024
SOURCES_MAX: Final = 10_000
KEYS_MAX: Final = 200_000
OPEN_ID_OCTETS: Final = 16
_ABSENT: Final = 0xFFFFFFFF

_HEAD = struct.Struct("=IBBI")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
_encode_view = msgspec.msgpack.Encoder().encode
_decode_view = msgspec.msgpack.Decoder(SourceView).decode


class Kind(IntEnum):
    """Kinds of frames."""

    HELLO = 1
    WANTS = 2
    FOUND = 3
    FAILED = 4
    CATALOG = 5


class PortFault(Exception):
    """The other side sent what no version of ours sends: the connection is given up."""


class _CatalogForm(msgspec.Struct, array_like=True):
    version: int
    owners: list[tuple[bytes, str, Mode, bool]]
    overlays: list[OverlaySites]
    own_site: bytes
    blocks: tuple[Blocked, ...]
    tenants: dict[str, TenantView]


_decode_catalog = msgspec.msgpack.Decoder(_CatalogForm).decode


def frame(kind: Kind, number: int, body: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(_HEAD.size - 4 + len(body), VERSION, kind, number) + body


class Deframer:
    """Cuts a stream into (kind, number, body). Raises PortFault on another version, an unknown kind or an oversized frame."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, octets: bytes) -> list[tuple[Kind, int, bytes]]:
        held = self._held
        held += octets
        frames, at = [], 0
        while len(held) - at >= _HEAD.size:
            length, version, kind, number = _HEAD.unpack_from(held, at)
            if version != VERSION or not 1 <= kind <= 5 or not _HEAD.size - 4 <= length <= FRAME_OCTETS_MAX:
                raise PortFault(f"not a frame of version {VERSION}: version {version}, kind {kind}, {length} octets")
            end = at + 4 + length
            if end > len(held):
                break
            frames.append((Kind(kind), number, bytes(held[at + _HEAD.size : end])))
            at = end
        del held[:at]
        return frames


def encode_wants(wants: Wants) -> bytes:
    """Body of WANTS."""
    parts = [_U16.pack(len(wants))]
    for source, keys in wants.items():
        name = source.encode()
        parts += (_U16.pack(len(name)), name, struct.pack(f"={len(keys) + 1}I", len(keys), *map(len, keys)), *keys)
    return b"".join(parts)


def decode_wants(body: bytes) -> dict[str, list[bytes]]:
    """Inverse of `encode_wants`. Raises PortFault."""
    reader = _Reader(body)
    wants: dict[str, list[bytes]] = {}
    for _ in range(reader.count(_U16, SOURCES_MAX)):
        source = reader.name()
        wants[source] = [key for key in reader.strings(KEYS_MAX) if key is not None]
    reader.done()
    return wants


def encode_found(found: Found, read_ns: int) -> bytes:
    """Body of FOUND."""
    parts = [_U64.pack(read_ns), _U16.pack(len(found))]
    for source, (values, view) in found.items():
        name, told = source.encode(), _encode_view(view)
        lengths = [_ABSENT if value is None else len(value) for value in values]
        parts += (
            _U16.pack(len(name)),
            name,
            _U32.pack(len(told)),
            told,
            struct.pack(f"={len(lengths) + 1}I", len(lengths), *lengths),
        )
        parts += [value for value in values if value]
    return b"".join(parts)


def decode_found(body: bytes) -> tuple[int, dict[str, tuple[Values, SourceView]]]:
    """Inverse of `encode_found`: (when it was read, what was found). Raises PortFault."""
    reader = _Reader(body)
    (read_ns,) = reader.take(_U64)
    found: dict[str, tuple[Values, SourceView]] = {}
    for _ in range(reader.count(_U16, SOURCES_MAX)):
        source = reader.name()
        told = reader.octets(reader.count(_U32, FRAME_OCTETS_MAX))
        try:
            view = _decode_view(told)
        except (msgspec.MsgspecError, ValueError, ZaibeiError) as exc:
            raise PortFault(f"not a view: {exc}") from exc
        found[source] = (list(reader.strings(KEYS_MAX)), view)
    reader.done()
    return read_ns, found


def encode_failed(error: ZaibeiError) -> bytes:
    """Body of FAILED."""
    return f"{error.code}\0{error.trouble.message}".encode()


def decode_failed(body: bytes) -> ZaibeiError:
    """Inverse of `encode_failed`; an unknown code becomes UNKNOWN."""
    code, _, message = body.decode("utf-8", "replace").partition("\0")
    known = Code(code) if code in set(Code) else Code.UNKNOWN
    return ZaibeiError(known, message, retry=True)


def encode_catalog(catalog: Catalog) -> bytes:
    """Body of CATALOG."""
    owners = [(prefix, owner.source, owner.mode, owner.case_sensitive) for prefix, owner in catalog.owners.items()]
    overlays, blocks = list(catalog.overlays.values()), tuple(catalog.blocks)
    return msgspec.msgpack.encode(
        _CatalogForm(catalog.version, owners, overlays, catalog.own_site, blocks, dict(catalog.tenants))
    )


def decode_catalog(body: bytes) -> Catalog:
    """Inverse of `encode_catalog`. Raises PortFault."""
    try:
        form = _decode_catalog(body)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise PortFault(f"not a catalog: {exc}") from exc
    return Catalog(
        form.version,
        PrefixTree({prefix: Owner(source, mode, case_sensitive) for prefix, source, mode, case_sensitive in form.owners}),
        {overlay.prefix: overlay for overlay in form.overlays},
        form.own_site,
        blocks_of(form.blocks),
        form.tenants,
    )


class _Reader:
    """Reads a body from front to back; every length is checked against what is left."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def take(self, form: struct.Struct) -> tuple[int, ...]:
        if len(self._body) - self._at < form.size:
            raise PortFault("a body ends too early")
        at, self._at = self._at, self._at + form.size
        return form.unpack_from(self._body, at)

    def count(self, form: struct.Struct, most: int) -> int:
        (number,) = self.take(form)
        if number > most:
            raise PortFault(f"{number} is over the limit of {most}")
        return number

    def octets(self, length: int) -> bytes:
        at, self._at = self._at, self._at + length
        if self._at > len(self._body):
            raise PortFault("a body ends too early")
        return self._body[at : self._at]

    def name(self) -> str:
        return self.octets(self.count(_U16, 65_535)).decode("utf-8", "replace")

    def strings(self, most: int) -> Iterator[bytes | None]:
        lengths = self.octets(4 * self.count(_U32, most))
        body, at = self._body, self._at
        for (length,) in _U32.iter_unpack(lengths):
            if length == _ABSENT:
                yield None
                continue
            end = at + length
            if end > len(body):
                raise PortFault("a body ends too early")
            yield body[at:end]
            at = end
        self._at = at

    def done(self) -> None:
        if self._at != len(self._body):
            raise PortFault("octets trail a body")
