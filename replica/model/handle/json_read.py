"""JSON of the HTTP interface, read: values and answers, with every fault named.

Source: the JSON API of HSv8/9. HSv9 ignores the first character of a four-character permission string; here it counts.
"""

from __future__ import annotations

import binascii
import datetime
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import msgspec

from replica.model.handle import types
from replica.model.handle.codes import TTL_S_DEFAULT, VALUES_MAX, ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.keys import encode_key
from replica.model.handle.values import (
    PERMISSIONS_DEFAULT,
    TTL_ABSOLUTE,
    TTL_RELATIVE,
    HandleValue,
    Reference,
)

T = TypeVar("T")
_PROTOCOL_NUMBERS = {member.name: int(member) for member in types.Protocol}


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """An answer of the JSON interface.

    Args:
        code: responseCode.
        handle: as echoed, empty when the answer names none.
        values: empty when there are none.
        referral_handle: of a 302 or 303.
        message: of an error.
    """

    code: int
    handle: bytes = b""
    values: tuple[HandleValue, ...] = ()
    referral_handle: bytes = b""
    message: str = ""


def _refuse(what: str) -> NoReturn:
    raise ProtocolFault(what, ResponseCode.INVALID_VALUE)


def _parse(octets: bytes) -> Any:
    try:
        return msgspec.json.decode(octets)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise ProtocolFault(f"not JSON: {exc}", ResponseCode.PROTOCOL_ERROR) from exc


def _member(thing: Any, name: str, kind: type[T], default: T | None = None) -> T:
    """A member of a JSON object, of one kind; required when there is no default."""
    if not isinstance(thing, dict):
        _refuse(f"an object with {name} is needed")
    found = thing.get(name)
    if found is None:
        if default is None:
            _refuse(f"{name} is missing")
        return default
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is int):
        _refuse(f"{name} is of the wrong kind")
    return found


def _octets(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        _refuse("a text is not valid Unicode")


def read_answer(octets: bytes) -> JsonAnswer:
    """Body of an answer to a resolution. Raises ProtocolFault."""
    thing = _parse(octets)
    return JsonAnswer(
        _member(thing, "responseCode", int),
        _octets(_member(thing, "handle", str, "")),
        _values(_member(thing, "values", list, [])),
        _octets(_member(thing, "referralHandle", str, "")),
        _member(thing, "message", str, ""),
    )


def read_values(octets: bytes) -> tuple[HandleValue, ...]:
    """Values of a request's body: an array, {"values": [...]}, or a single value. Raises ProtocolFault."""
    return _given_values(_parse(octets))


def read_request(octets: bytes) -> tuple[bytes | None, tuple[HandleValue, ...]]:
    """Body of a PUT: the handle it is of, None: it does not say; and its values, as in `read_values`. Raises ProtocolFault."""
    thing = _parse(octets)
    whole = isinstance(thing, dict) and "values" in thing
    return (_octets(_member(thing, "handle", str, "")) or None) if whole else None, _given_values(thing)


def _given_values(thing: Any) -> tuple[HandleValue, ...]:
    if isinstance(thing, dict):
        thing = thing.get("values", [thing])
    if not isinstance(thing, list):
        _refuse("values are an array")
    return _values(thing)


def _values(things: list[Any]) -> tuple[HandleValue, ...]:
    if len(things) > VALUES_MAX:
        _refuse(f"a record has at most {VALUES_MAX} values")
    try:
        return tuple([value_of(thing) for thing in things])
    except CodecMisuse as exc:  # a number in their JSON that fits no field
        raise ProtocolFault(str(exc), ResponseCode.INVALID_VALUE) from exc


def value_of(thing: Any) -> HandleValue:
    """One value of decoded JSON. Raises ProtocolFault, or CodecMisuse for a number out of range."""
    ttl_type, ttl = TTL_RELATIVE, TTL_S_DEFAULT
    if isinstance(thing, dict) and isinstance(thing.get("ttl"), str):
        ttl_type, ttl = TTL_ABSOLUTE, _seconds(thing["ttl"])
    else:
        ttl = _member(thing, "ttl", int, ttl)
    stamp = _member(thing, "timestamp", str, "")
    return HandleValue(
        _member(thing, "index", int),
        _octets(_member(thing, "type", str)),
        _data(thing.get("data")),
        ttl_type,
        ttl,
        _permissions(_member(thing, "permissions", str, "")),
        _seconds(stamp) if stamp else 0,
        tuple([_reference(one) for one in _member(thing, "references", list, [])]),
    )


def _reference(thing: Any) -> Reference:
    return Reference(_octets(_member(thing, "handle", str)), _member(thing, "index", int))


def _permissions(text: str) -> int:
    if text == "*":
        return 0b1111
    bits = text[-4:]
    if bits.strip("01"):
        _refuse("permissions are written with 0 and 1")
    kept = PERMISSIONS_DEFAULT >> len(bits) << len(bits)  # what is not written keeps its default
    return kept | int(bits or "0", 2)


def _seconds(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        _refuse(f"not a time: {text[:40]!r}")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp())


def _data(thing: Any) -> bytes:
    if isinstance(thing, str):
        return _octets(thing)
    form = _member(thing, "format", str).lower()
    value = thing.get("value")
    reader = _READERS.get(form)
    if reader is None:
        _refuse(f"data of format {form[:20]!r} is not known")
    if form in ("string", "base64", "hex") and not isinstance(value, str):
        _refuse(f"data of format {form} is a text")
    return reader(value)


def base64_octets(text: str) -> bytes:
    """Octets of base64 in either alphabet, padded or not. Raises ProtocolFault."""
    plain = text.rstrip("=").translate({0x2D: "+", 0x5F: "/"})
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except (binascii.Error, ValueError) as exc:
        raise ProtocolFault(f"not base64: {exc}", ResponseCode.INVALID_VALUE) from exc


def _hex_octets(text: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except (binascii.Error, ValueError) as exc:
        raise ProtocolFault(f"not hexadecimal: {exc}", ResponseCode.INVALID_VALUE) from exc


def _admin_octets(thing: Any) -> bytes:
    text = _member(thing, "permissions", str)
    if text == "*":
        text = "1" * 12
    if not text or text.strip("01") or len(text) > 16:
        _refuse("the permissions of an administrator are 12 characters 0 and 1")
    return types.encode_admin(types.HsAdmin(int(text, 2), _reference(thing), _member(thing, "legacyByteLength", bool, False)))


def _vlist_octets(thing: Any) -> bytes:
    if not isinstance(thing, list):
        _refuse("a vlist is an array")
    return types.encode_vlist([_reference(one) for one in thing])


def _key_octets(thing: Any) -> bytes:
    kty = _member(thing, "kty", str)
    return encode_key(kty, {name: base64_octets(text) for name, text in thing.items() if isinstance(text, str) and name != "kty"})


def _site_octets(thing: Any) -> bytes:
    return types.encode_site(read_site(thing))


def read_site(thing: Any) -> types.HsSite:
    """A site of decoded JSON. Raises ProtocolFault, or CodecMisuse for a number out of range."""
    major, dot, minor = _member(thing, "protocolVersion", str, "2.11").partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(major) < 4 and len(minor) < 4):
        _refuse("protocolVersion is written like 2.11")
    flags = types.SiteFlag.PRIMARY if _member(thing, "primarySite", bool, False) else 0
    flags |= types.SiteFlag.MULTI_PRIMARY if _member(thing, "multiPrimary", bool, False) else 0
    attributes = [
        (_octets(_member(one, "name", str)), _octets(_member(one, "value", str)))
        for one in _member(thing, "attributes", list, [])
    ]
    return types.HsSite(
        _member(thing, "serialNumber", int, 1),
        tuple([_server(one) for one in _member(thing, "servers", list)]),
        int(flags),
        _member(thing, "hashOption", int, 2),
        tuple(attributes),
        _octets(_member(thing, "hashFilter", str, "")),
        _member(thing, "version", int, 1),
        (int(major), int(minor)),
    )


def _server(thing: Any) -> types.Server:
    key = thing.get("publicKey") if isinstance(thing, dict) else None
    return types.Server(
        _member(thing, "serverId", int, 1),
        types.address_octets(_member(thing, "address", str)),
        b"" if key is None else _data(key),
        tuple([_interface(one) for one in _member(thing, "interfaces", list)]),
    )


def _interface(thing: Any) -> types.Interface:
    use = 2 * _member(thing, "query", bool, False) + _member(thing, "admin", bool, False)
    protocol = thing.get("protocol")
    number = _PROTOCOL_NUMBERS.get(protocol.upper()) if isinstance(protocol, str) else protocol
    if not isinstance(number, int) or isinstance(number, bool):
        _refuse("an interface's protocol is UDP, TCP, HTTP or HTTPS")
    return types.Interface(use, number, _member(thing, "port", int))


_READERS = {
    "string": _octets,
    "base64": base64_octets,
    "hex": _hex_octets,
    "admin": _admin_octets,
    "vlist": _vlist_octets,
    "site": _site_octets,
    "key": _key_octets,
}
