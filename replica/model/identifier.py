"""Identifiers of all six code types, and the keys they are stored under.

Key = scheme octet | segment 0x01 segment … 0x00 | suffix, so that memcmp order is tree order and a subtree is one range
(DESIGN 5). Octets 0x00-0x02 inside a segment are written 0x02, octet + 3. The ownership and route record of a prefix
(Handle: `0.NA/PREFIX`) is stored under `p` | key of the prefix, in the store of the parent's source; business documents
under `b` | kind 0x00 id.

| code type | scheme | written | segments | suffix |
| --- | --- | --- | --- | --- |
| VAA, Handle | h | 88.118.8/XYZ-001 | 88, 118, 8 (folded to upper case) | XYZ-001 (folded unless the prefix is case-sensitive) |
| OID | o | oid:1.2.156 | every arc: length octet (0x40 + digits) and decimal digits | empty |
| Ecode | e | ecode:1/2086/69… or the digits together | version, numbering system | master data |
| GS1 | g | gs1:01/09506000134352/21/A | every digit from the company prefix on | the whole key as written |
| DID | d | did:bid:ef123 | method and inner parts | last part |

Sources: RFC 3651 §3 and HSv9 behaviour for case (ASCII only), ITU-T X.660 (arcs), GB/T 31866 (Ecode), GS1 General
Specifications §3 and §7.9 (keys, check digit), W3C DID Core §3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from replica.model.errors import Code, ZaibeiError

NAME_OCTETS_MAX = 2_048
SEGMENTS_MAX = 64
ARC_DIGITS_MAX = 39  # an arc of 128 bits (X.667)

END = b"\0"
SEP = b"\x01"
_ESCAPES = {0: b"\x02\x03", 1: b"\x02\x04", 2: b"\x02\x05"}

RECORD_SCHEMES = b"hoegd"
ROUTE = b"p"
DOCUMENT = b"b"
PREFIX_RECORDS = b"0.NA"  # the Handle prefix under which prefixes have their records

# Identification keys of GS1: application identifier -> (length of the digits, where the company prefix starts)
_GS1_KEYS = {
    "00": (18, 1),
    "01": (14, 1),
    "253": (13, 0),
    "255": (13, 0),
    "402": (17, 0),
    "414": (13, 0),
    "417": (13, 0),
    "8003": (14, 1),
    "8017": (18, 0),
    "8018": (18, 0),
}
_ECODE_SYSTEM_DIGITS = {"1": 4, "2": 4, "3": 5, "4": 5}


class CodeType(StrEnum):
    """The code types of the national system that we hold."""

    VAA = "vaa"
    HANDLE = "handle"
    OID = "oid"
    ECODE = "ecode"
    GS1 = "gs1"
    DID = "did"


def _bad(name: bytes, why: str) -> ZaibeiError:
    return ZaibeiError(Code.MALFORMED, f"not an identifier: {name[:80]!r}: {why}")


@dataclass(frozen=True, slots=True)
class Identifier:
    """A parsed identifier.

    Args:
        code: code type.
        prefix: key part of the prefix: scheme octet and segments, no terminator.
        suffix: suffix as written (not folded).
        spelling: the octets as given, for the echo.
        route: True when it names a prefix's own record (`0.NA/P` or a bare prefix).
    """

    code: CodeType
    prefix: bytes
    suffix: bytes
    spelling: bytes
    route: bool = False

    def key(self, *, case_sensitive: bool = False) -> bytes:
        """Store key. `case_sensitive`: policy of the longest matching prefix, of weight for Handle and VAA suffixes alone."""
        if self.route:
            return ROUTE + self.prefix + END
        if self.prefix[0] == 0x68 and (not case_sensitive or self.prefix.startswith(b"h0\x01")):
            return self.prefix + END + self.suffix.upper()
        return self.prefix + END + self.suffix

    @staticmethod
    def parse(name: str | bytes) -> Identifier:
        """Parse an identifier as clients write it.

        Raises:
            ZaibeiError(MALFORMED): says which rule is broken.
        """
        octets = name.encode() if isinstance(name, str) else bytes(name)
        if not 1 <= len(octets) <= NAME_OCTETS_MAX:
            raise _bad(octets, f"1 to {NAME_OCTETS_MAX} octets")
        scheme, colon, rest = octets.partition(b":")
        if colon:
            parser = _SCHEMES.get(scheme.lower())
            if parser is not None:
                return parser(octets, rest)
        return _parse_handle(octets)


def _escape(segment: bytes) -> bytes:
    if min(segment) > 2:
        return segment
    return b"".join(_ESCAPES.get(octet) or bytes((octet,)) for octet in segment)


def _unescape(segment: bytes) -> bytes:
    """Inverse of `_escape`; an escape that nobody writes stays as it is: keys of quarantined records are shown too."""
    if b"\x02" not in segment:
        return segment
    out, marked = bytearray(), False
    for octet in segment:
        if marked:
            out.extend((octet - 3,) if 3 <= octet <= 5 else (2, octet))
            marked = False
        elif octet == 2:
            marked = True
        else:
            out.append(octet)
    return bytes(out) + (b"\x02" if marked else b"")


def _join(scheme: bytes, segments: list[bytes], name: bytes) -> bytes:
    if not segments or len(segments) > SEGMENTS_MAX or not all(segments):
        raise _bad(name, f"a prefix has 1 to {SEGMENTS_MAX} segments, none of them empty")
    return scheme + SEP.join(map(_escape, segments))


def handle_prefix_key(prefix: bytes) -> bytes:
    """Key part of a Handle or VAA prefix, e.g. b"88.118" -> b"h88\\x01118". Raises ZaibeiError(MALFORMED)."""
    return _join(b"h", prefix.upper().split(b"."), prefix)


def _parse_handle(name: bytes) -> Identifier:
    prefix, slash, suffix = name.partition(b"/")
    if not slash:  # a name without a slash means 0.NA/<name>
        key = handle_prefix_key(prefix)
        return Identifier(_handle_code(key), key, b"", name, route=True)
    key = handle_prefix_key(prefix)
    if key == b"h0\x01NA":
        if not suffix:
            raise _bad(name, "0.NA/ needs the prefix it describes")
        inner = handle_prefix_key(suffix)
        return Identifier(_handle_code(inner), inner, b"", name, route=True)
    return Identifier(_handle_code(key), key, suffix, name)


def _handle_code(prefix_key: bytes) -> CodeType:
    return CodeType.VAA if prefix_key == b"h88" or prefix_key.startswith(b"h88\x01") else CodeType.HANDLE


def _arc(arc: bytes, name: bytes) -> bytes:
    if not (arc.isdigit() and len(arc) <= ARC_DIGITS_MAX and (arc == b"0" or arc[0] != 0x30)):
        raise _bad(name, f"an arc is a decimal number without leading zeros, at most {ARC_DIGITS_MAX} digits")
    return bytes((0x40 + len(arc),)) + arc


def _parse_oid(name: bytes, rest: bytes) -> Identifier:
    arcs = rest.split(b".")
    if arcs[0] not in (b"0", b"1", b"2"):
        raise _bad(name, "the first arc is 0, 1 or 2")
    return Identifier(CodeType.OID, _join(b"o", [_arc(arc, name) for arc in arcs], name), b"", name)


def _parse_ecode(name: bytes, rest: bytes) -> Identifier:
    text = rest.replace(b"/", b"").decode("ascii", "replace")
    digits = _ECODE_SYSTEM_DIGITS.get(text[:1])
    if (
        digits is None
        or not text[1 : 1 + digits].isdigit()
        or len(text) <= 1 + digits
        or not text.isalnum()
        or not text.isascii()
    ):
        raise _bad(name, "Ecode is a version 1 to 4, a numbering system of 4 (versions 1, 2) or 5 digits, and master data")
    return Identifier(
        CodeType.ECODE, _join(b"e", [text[:1].encode(), text[1 : 1 + digits].encode()], name), text[1 + digits :].encode(), name
    )


def gs1_check_digit(digits: str) -> int:
    """Check digit of a GS1 key without its last digit (GS1 General Specifications §7.9.1)."""
    return -sum((3, 1)[place % 2] * int(digit) for place, digit in enumerate(reversed(digits))) % 10


def _parse_gs1(name: bytes, rest: bytes) -> Identifier:
    text = rest.decode("ascii", "replace")
    ai, _, tail = text.partition("/")
    form = _GS1_KEYS.get(ai)
    value = tail.partition("/")[0]
    if form is None:
        raise _bad(name, f"write gs1:AI/key[/qualifiers] with a key's AI out of {', '.join(_GS1_KEYS)}")
    length, start = form
    core = value[:length]
    if (
        len(core) != length
        or not (core.isascii() and core.isdigit())
        or (len(value) > length and ai not in ("253", "255", "8003"))
    ):
        raise _bad(name, f"the key of AI {ai} has {length} digits")
    if gs1_check_digit(core[:-1]) != int(core[-1]):
        raise _bad(name, "the check digit is wrong")
    segments = [digit.encode() for digit in core[start:-1]]
    return Identifier(CodeType.GS1, _join(b"g", segments, name), text.encode(), name)


def _parse_did(name: bytes, rest: bytes) -> Identifier:
    *inner, last = rest.split(b":")
    if not inner or not last or not inner[0].isalnum() or inner[0].lower() != inner[0]:
        raise _bad(name, "a DID is did:method:specific, the method in lower case")
    return Identifier(CodeType.DID, _join(b"d", inner, name), last, name)


_SCHEMES = {b"oid": _parse_oid, b"ecode": _parse_ecode, b"gs1": _parse_gs1, b"did": _parse_did}


def prefix_key(text: str) -> bytes:
    """Key part of a prefix as people write it: `88.118`, `oid:1.2.156`, `ecode:1/2086`, `gs1:6901234`, `did:bid`.

    Raises:
        ZaibeiError(MALFORMED): not a prefix.
    """
    octets = text.encode()
    scheme, colon, rest = octets.partition(b":")
    if not colon:
        return handle_prefix_key(octets)
    match scheme.lower():
        case b"oid":
            return _join(b"o", [_arc(arc, octets) for arc in rest.split(b".")], octets)
        case b"ecode":
            return _join(b"e", rest.split(b"/"), octets)
        case b"gs1" if rest.isdigit():
            return _join(b"g", [bytes((digit,)) for digit in rest], octets)
        case b"did":
            return _join(b"d", rest.split(b":"), octets)
    raise _bad(octets, "not a prefix of a code type we know")


def prefix_text(key: bytes) -> str:
    """Inverse of `prefix_key`, for people; takes any octets."""
    segments = [_unescape(segment).decode("utf-8", "backslashreplace") for segment in key[1:].split(SEP)]
    match key[:1]:
        case b"o":
            return "oid:" + ".".join(segment[1:] for segment in segments)
        case b"e":
            return "ecode:" + "/".join(segments)
        case b"g":
            return "gs1:" + "".join(segments)
        case b"d":
            return "did:" + ":".join(segments)
    return ".".join(segments)


def key_text(key: bytes) -> str:
    """A stored key as a person writes the identifier (folded spelling); takes any octets."""
    if key[:1] == DOCUMENT:
        kind, _, ident = key[1:].partition(END)
        return f"document {kind.decode('utf-8', 'backslashreplace')}/{ident.decode('utf-8', 'backslashreplace')}"
    route = key[:1] == ROUTE
    prefix, _, suffix = (key[1:] if route else key).partition(END)
    tail = suffix.decode("utf-8", "backslashreplace")
    text = prefix_text(prefix)
    if route:
        return f"0.NA/{text}"
    match key[:1]:
        case b"o":
            return text
        case b"e":
            return f"{text}/{tail}"
        case b"g":
            return f"gs1:{tail}"
        case b"d":
            return f"{text}:{tail}"
    return f"{text}/{tail}"


def document_key(kind: str, ident: str) -> bytes:
    """Key of a business document. Raises ZaibeiError(MALFORMED)."""
    if not kind or "\0" in kind or not ident:
        raise ZaibeiError(Code.MALFORMED, "a document needs a kind and an id")
    return DOCUMENT + kind.encode() + END + ident.encode()


def prefix_part(key: bytes) -> bytes:
    """The prefix part of any key: scheme octet and segments (for a route record: of the prefix it describes, behind `p`)."""
    return key.partition(END)[0]


def owning_prefix(key: bytes) -> bytes:
    """Key part of the prefix whose owner decides about this key: the parent's for a route record, b"" for documents and roots."""
    part = prefix_part(key)
    if part[:1] == ROUTE:
        return parent(part[1:])
    return b"" if part[:1] == DOCUMENT else part


def parent(prefix: bytes) -> bytes:
    """Key part of the parent prefix; b"" above the first segment."""
    return prefix.rpartition(SEP)[0]


def ancestors(prefix: bytes) -> Iterator[bytes]:
    """The prefix itself, then its ancestors, longest first."""
    while prefix:
        yield prefix
        prefix = parent(prefix)


def subtree(prefix: bytes) -> tuple[bytes, bytes]:
    """Key range [from, to) of a prefix and everything below it."""
    return prefix + END, prefix + b"\x02"


T = TypeVar("T")


class PrefixTree(Generic[T]):
    """Longest-prefix match over key parts; one dictionary, a look-up per ancestor (0.1-0.9 µs)."""

    __slots__ = ("_by_prefix",)

    def __init__(self, items: dict[bytes, T] | None = None) -> None:
        self._by_prefix: dict[bytes, T] = dict(items or {})

    def __len__(self) -> int:
        return len(self._by_prefix)

    def items(self) -> Iterator[tuple[bytes, T]]:
        return iter(self._by_prefix.items())

    def get(self, prefix: bytes) -> T | None:
        """Exact match."""
        return self._by_prefix.get(prefix)

    def put(self, prefix: bytes, value: T) -> None:
        self._by_prefix[prefix] = value

    def longest(self, prefix: bytes) -> tuple[bytes, T] | None:
        """The longest prefix at or above `prefix` that is in the tree, with its value."""
        by_prefix = self._by_prefix
        while prefix:
            value = by_prefix.get(prefix)
            if value is not None:
                return prefix, value
            prefix = prefix.rpartition(SEP)[0]
        return None
