"""Public keys in HS_PUBKEY values and sites: taken apart and put together as octets, never used for cryptography here.

data = string key type | u16 0 | numbers, each u32 length and big-endian two's complement:
RSA_PUB_KEY exponent, modulus · DSA_PUB_KEY q, p, g, y. Other kinds are left to whoever knows them.
Source: protocol 2.11 (HSv9); JWK names from RFC 7518 §6.3 (RSA), HSv9 for DSA.
"""

from __future__ import annotations

from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.wire import Reader, string

# kind -> (JWK kty, JWK member of each number in wire order, JWK members in written order)
_KINDS = {
    b"RSA_PUB_KEY": ("RSA", ("e", "n"), ("n", "e")),
    b"DSA_PUB_KEY": ("DSA", ("q", "p", "g", "y"), ("y", "p", "q", "g")),
}


def decode_key(data: bytes) -> tuple[str, dict[str, bytes]]:
    """(kty, unsigned numbers by JWK member, in JWK order).

    Raises:
        ProtocolFault(INVALID_VALUE): not RSA or DSA, or cut off.
    """
    reader = Reader(data, code=ResponseCode.INVALID_VALUE)
    kind = _KINDS.get(reader.string())
    if kind is None:
        raise reader.fault("a kind of key that is not taken apart here")
    kty, wire_order, written_order = kind
    reader.u16()
    numbers = {member: reader.string().lstrip(b"\0") for member in wire_order}
    reader.done()
    return kty, {member: numbers[member] for member in written_order}


def encode_key(kty: str, numbers: dict[str, bytes]) -> bytes:
    """Inverse of `decode_key`. Raises ProtocolFault(INVALID_VALUE): an unknown kty or a number missing."""
    for name, (known, wire_order, _) in _KINDS.items():
        if known == kty.upper():
            missing = [member for member in wire_order if member not in numbers]
            if missing:
                raise ProtocolFault(f"a key of kty {known} needs {', '.join(missing)}", ResponseCode.INVALID_VALUE)
            return string(name) + b"\0\0" + b"".join([string(_signed(numbers[member])) for member in wire_order])
    raise ProtocolFault(f"keys of kty {kty[:20]!r} are not known here", ResponseCode.INVALID_VALUE)


def _signed(number: bytes) -> bytes:
    """Shortest two's complement form of an unsigned number."""
    number = number.lstrip(b"\0")
    return b"\0" + number if not number or number[0] >= 0x80 else number
