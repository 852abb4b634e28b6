"""JSON of the HTTP interface, written straight from stored octets.

The texts are put together by hand: a small record takes 2 to 4 µs, and what is not plain (HS_SITE and its kin) takes the
longer way. Source: the JSON API of HSv8/9, every vector to the octet. Reading JSON: `json_read`.
"""

from __future__ import annotations

import binascii
import datetime
import re
import struct
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring as _quote

from replica.model.handle import types
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.keys import decode_key
from replica.model.handle.values import Reference
from replica.model.handle.wire import U32

CONTENT_TYPE = "application/json;charset=UTF-8"
_HEAD = struct.Struct(">IIBIBI")
_BINARY = re.compile(rb"[\x00-\x08\x14-\x1f\x7f]")  # what makes HSv9 take data for binary, beside octets that are not UTF-8
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_DAY_S = 86_400
_PERMISSIONS = [f"{bits:04b}" for bits in range(16)]
_PERMISSIONS_USUAL = 0b1110
_PROTOCOLS = {member.value: _quote(member.name) for member in types.Protocol}
_BOOLEAN = ("false", "true")


@lru_cache(maxsize=4_096)
def _day(number: int) -> str:
    return datetime.date.fromordinal(_EPOCH_DAY + number).isoformat()


def time_text(seconds: int) -> str:
    """Unix seconds as `2023-11-14T22:13:20Z`."""
    day, rest = divmod(seconds, _DAY_S)
    return f"{_day(day)}T{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}Z"


def _text(octets: bytes) -> str:
    return _quote(octets.decode("utf-8", "replace"))


def values_json(values: bytes) -> str:
    """u32 count and encoded values (as `native.filter_values` gives them) as a JSON array.

    Args:
        values: octets from our own store or from `values.encode_values`, checked before.
    Raises:
        ProtocolFault(INVALID_VALUE): they are not values after all.
    """
    try:
        (count,) = U32.unpack_from(values)
        parts, at = [], 4
        for _ in range(count):
            part, at = _value(values, at)
            parts.append(part)
    except struct.error as exc:
        raise ProtocolFault(f"values are cut off: {exc}", ResponseCode.INVALID_VALUE) from exc
    return f"[{','.join(parts)}]"


def _value(octets: bytes, start: int) -> tuple[str, int]:
    """JSON of the value at an offset, and the offset behind it. A slice past the end is short, the next unpack notices."""
    index, timestamp, ttl_type, ttl, permissions, length = _HEAD.unpack_from(octets, start)
    at = start + _HEAD.size
    kind = octets[at : at + length]
    at += length
    (length,) = U32.unpack_from(octets, at)
    at += 4
    data = octets[at : at + length]
    at += length
    (count,) = U32.unpack_from(octets, at)
    at += 4
    text = f'{{"index":{index},"type":{_text(kind)},"data":{_data(kind, data)}'
    if permissions & 15 != _PERMISSIONS_USUAL:
        text = f'{text},"permissions":"{_PERMISSIONS[permissions & 15]}"'
    text = f'{text},"ttl":"{time_text(ttl)}"' if ttl_type else f'{text},"ttl":{ttl}'
    if timestamp:
        text = f'{text},"timestamp":"{time_text(timestamp)}"'
    if count:
        references = []
        for _ in range(count):
            (length,) = U32.unpack_from(octets, at)
            handle = octets[at + 4 : at + 4 + length]
            at += 4 + length
            references.append(f'{{"handle":{_text(handle)},"index":{U32.unpack_from(octets, at)[0]}}}')
            at += 4
        text = f'{text},"references":[{",".join(references)}]'
    return text + "}", at


def _data(kind: bytes, data: bytes) -> str:
    if kind[:3].upper() == b"HS_":
        special = _special(kind.upper(), data)
        if special is not None:
            return special
    if _BINARY.search(data) is None:
        try:
            return f'{{"format":"string","value":{_quote(data.decode())}}}'
        except UnicodeDecodeError:
            pass  # not text, so it is written as base64
    return base64_json(data)


def base64_json(data: bytes) -> str:
    return f'{{"format":"base64","value":"{binascii.b2a_base64(data, newline=False).decode()}"}}'


def _special(kind: bytes, data: bytes) -> str | None:
    """JSON of a built-in type; None when the data is not what the type promises (it then falls back to text)."""
    for name, (form, writer) in _WRITERS.items():
        if kind == name or kind.startswith(name + b"."):
            try:
                return f'{{"format":"{form}","value":{writer(data)}}}'
            except ProtocolFault:
                return None
    return None


def _reference_json(reference: Reference) -> str:
    return f'{{"handle":{_text(reference.handle)},"index":{reference.index}}}'


def _admin_json(data: bytes) -> str:
    admin = types.decode_admin(data)
    legacy = ',"legacyByteLength":true' if admin.legacy_byte_length else ""
    who = f'"handle":{_text(admin.admin.handle)},"index":{admin.admin.index}'
    return f'{{{who},"permissions":"{admin.permissions & 0xFFF:012b}"{legacy}}}'


def _vlist_json(data: bytes) -> str:
    return f"[{','.join(map(_reference_json, types.decode_vlist(data)))}]"


def _site_data_json(data: bytes) -> str:
    return site_json(types.decode_site(data))


def _key_json(data: bytes) -> str:
    kty, numbers = decode_key(data)
    members = [f'"{name}":"{_base64url(number)}"' for name, number in numbers.items()]
    return f'{{"kty":"{kty}",{",".join(members)}}}'


def _base64url(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).rstrip(b"=").translate(_URL_SAFE).decode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_WRITERS: dict[bytes, tuple[str, Callable[[bytes], str]]] = {
    types.HS_ADMIN: ("admin", _admin_json),
    types.HS_VLIST: ("vlist", _vlist_json),
    types.HS_SITE: ("site", _site_data_json),
    types.HS_NA_DELEGATE: ("site", _site_data_json),
    types.HS_PUBKEY: ("key", _key_json),
}


def site_json(site: types.HsSite) -> str:
    """JSON of a site. Members with their default are left out as HSv9 does."""
    flags = site.flags
    text = (
        f'{{"version":{site.format_version},"protocolVersion":"{site.protocol[0]}.{site.protocol[1]}",'
        f'"serialNumber":{site.serial},"primarySite":{_BOOLEAN[flags >> 7 & 1]},"multiPrimary":{_BOOLEAN[flags >> 6 & 1]}'
    )
    if site.hash_option != 2:
        text += f',"hashOption":{site.hash_option}'
    if site.hash_filter:
        text += f',"hashFilter":{_text(site.hash_filter)}'
    attributes = [f'{{"name":{_text(name)},"value":{_text(value)}}}' for name, value in site.attributes]
    servers = map(_server_json, site.servers)
    return f'{text},"attributes":[{",".join(attributes)}],"servers":[{",".join(servers)}]}}'


def _server_json(server: types.Server) -> str:
    try:
        key = f'{{"format":"key","value":{_key_json(server.public_key)}}}'
    except ProtocolFault:
        key = base64_json(server.public_key)
    faces = [
        f'{{"query":{_BOOLEAN[face.use >> 1 & 1]},"admin":{_BOOLEAN[face.use & 1]},'
        f'"protocol":{_PROTOCOLS.get(face.protocol, face.protocol)},"port":{face.port}}}'
        for face in server.interfaces
    ]
    address = f'"serverId":{server.server_id},"address":"{server.host}"'
    return f'{{{address},"publicKey":{key},"interfaces":[{",".join(faces)}]}}'


def resolution_json(handle: bytes, values: bytes) -> bytes:
    """Body of a successful resolution: code 1, the handle as asked, u32 count and encoded values."""
    return f'{{"responseCode":1,"handle":{_text(handle)},"values":{values_json(values)}}}'.encode()


def error_json(code: int, handle: bytes | None = None, message: str = "") -> bytes:
    """Body of an error. VALUES_NOT_FOUND carries an empty list of values."""
    text = f'{{"responseCode":{int(code)}'
    if handle is not None:
        text += f',"handle":{_text(handle)}'
    if message:
        text += f',"message":{_quote(message)}'
    if code == ResponseCode.VALUES_NOT_FOUND:
        text += ',"values":[]'
    return f"{text}}}".encode()


def referral_json(code: int, referral_handle: bytes, values: bytes | None) -> bytes:
    """Body of a 302 or 303: the handle that holds the sites (left out when empty), u32 count and encoded values."""
    text = f'{{"responseCode":{int(code)}'
    if referral_handle:
        text += f',"referralHandle":{_text(referral_handle)}'
    if values is not None and values[:4] != bytes(4):
        text += f',"values":{values_json(values)}'
    return f"{text}}}".encode()


def site_response_json(site: types.HsSite) -> bytes:
    """Body of `GET /api/site`."""
    return f'{{"responseCode":1,"site":{site_json(site)}}}'.encode()
