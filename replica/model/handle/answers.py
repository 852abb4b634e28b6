"""The quick way of a server: a plain resolution request to its answer with two struct calls and one join.

`peek_resolution` takes what nearly every client sends and returns None for everything else (sessions, fragments, faults,
other operations), which then goes through `message.decode_message`. Both ways give the same answers; a test compares them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from replica.model.handle.codes import (
    ENVELOPE_OCTETS,
    HANDLE_OCTETS_MAX,
    HEADER_OCTETS,
    LIST_ITEMS_MAX,
    SERIAL_UNKNOWN,
    DigestType,
    OpCode,
    OpFlag,
)
from replica.model.handle.message import (
    FLAG_BITS,
    OUR_VERSION,
    SUGGESTED_BITS,
    Envelope,
    answer_flags,
    code_for,
    digest_type_for,
    request_digest,
)
from replica.model.handle.wire import U32

# envelope: 4 version and flag octets, session, request, sequence, length; header: operation, response code, flags,
# serial, recursion, reserved, expiration, body length; length of the handle
_REQUEST = struct.Struct(">4s4I3IHBB2II")
_RESPONSE = struct.Struct(">4s4I3IHBB2I")
_PLAIN_TAIL = bytes(12)  # no indexes, no types, no credential
_BODY_AT = ENVELOPE_OCTETS + HEADER_OCTETS
_HANDLE_AT = _BODY_AT + 4
_RESOLUTION = int(OpCode.RESOLUTION)
_DIGEST = int(OpFlag.REQUEST_DIGEST)
_PUBLIC_ONLY = int(OpFlag.PUBLIC_ONLY)


class Peeked(NamedTuple):
    """A resolution request, as far as answering it needs.

    Args:
        handle: as asked; echo it.
        indexes, types: empty = all.
        flags: OpFlag bits.
        request_id, session_id: to be echoed.
        versions: first four octets of the answer's envelope.
        digest: what the answer's body starts with, empty unless the request wanted it.
        recursion: hops so far.
    """

    handle: bytes
    indexes: tuple[int, ...]
    types: tuple[bytes, ...]
    flags: int
    request_id: int
    session_id: int
    versions: bytes
    digest: bytes
    recursion: int

    @property
    def public_only(self) -> bool:
        return bool(self.flags & _PUBLIC_ONLY)


_versions: dict[bytes, tuple[bytes, DigestType]] = {}
_VERSIONS_MAX = 1_024  # of 2^32 a stranger could send


def _answer_versions(octets: bytes) -> tuple[bytes, DigestType]:
    """First octets of an answer and its kind of digest, remembered per first octets of a request."""
    known = _versions.get(octets)
    if known is None:
        suggested = (octets[2] & SUGGESTED_BITS, octets[3])
        version = Envelope(0, 0, (octets[0], octets[1]), suggested).answer_version
        known = bytes((*version, OUR_VERSION[0] & SUGGESTED_BITS, OUR_VERSION[1])), digest_type_for(version)
        if len(_versions) < _VERSIONS_MAX:
            _versions[octets] = known
    return known


def peek_resolution(octets: bytes) -> Peeked | None:
    """Decode a complete resolution request.

    Args:
        octets: one datagram, or one message cut from a stream.
    Returns:
        The request; None when it is anything but a well-formed, unencrypted, unsigned resolution request in one piece.
    """
    end = len(octets)
    if end < _HANDLE_AT:
        return None
    head, session_id, request_id, _, length, op, code, flags, _, recursion, _, _, body, handle_octets = _REQUEST.unpack_from(
        octets
    )
    if op != _RESOLUTION or code or head[2] & FLAG_BITS or length != end - ENVELOPE_OCTETS:
        return None
    at = _HANDLE_AT + handle_octets
    if not 0 < handle_octets <= HANDLE_OCTETS_MAX:
        return None
    versions, kind = _answer_versions(head)
    indexes: tuple[int, ...] = ()
    types: tuple[bytes, ...] = ()
    if octets[at:] != _PLAIN_TAIL or body != handle_octets + 12:
        lists = _peek_lists(octets, at, _BODY_AT + body)
        if lists is None:
            return None
        indexes, types = lists
    digest = request_digest(octets, kind) if flags & _DIGEST else b""
    return Peeked(octets[_HANDLE_AT:at], indexes, types, flags, request_id, session_id, versions, digest, recursion)


def _peek_lists(octets: bytes, at: int, body_end: int) -> tuple[tuple[int, ...], tuple[bytes, ...]] | None:
    """Indexes and types that fill the body exactly, with no credential behind it; otherwise None."""
    if octets[body_end:] not in (b"", b"\0\0\0\0") or at + 8 > body_end or body_end > len(octets):
        return None
    (count,) = U32.unpack_from(octets, at)
    at += 4
    if count > LIST_ITEMS_MAX or at + 4 * count + 4 > body_end:
        return None
    indexes = struct.unpack_from(f">{count}I", octets, at)
    at += 4 * count
    (count,) = U32.unpack_from(octets, at)
    at += 4
    if count > LIST_ITEMS_MAX:
        return None
    types = []
    for _ in range(count):
        if at + 4 > body_end:
            return None
        (length,) = U32.unpack_from(octets, at)
        at += 4 + length
        if at > body_end:
            return None
        types.append(octets[at - length : at])
    return (indexes, tuple(types)) if at == body_end else None


def resolution_answer(
    request: Peeked, values: bytes, expiration: int, *, site_serial: int = SERIAL_UNKNOWN, authoritative: bool = False
) -> bytes:
    """Octets of a successful answer; `fragments.datagrams` splits it for UDP when it is long.

    Args:
        request: what is answered.
        values: u32 count and encoded values, as `native.filter_values` gives them.
        expiration: Unix seconds, now + EXPIRATION_S.
    """
    return answer(request, 1, _echo(request.handle) + values, expiration, site_serial, authoritative)


def error_answer(
    request: Peeked, code: int, text: bytes, expiration: int, *, site_serial: int = SERIAL_UNKNOWN, authoritative: bool = False
) -> bytes:
    """Octets of an error answer with a text, which may be empty."""
    return answer(request, code, U32.pack(len(text)) + text, expiration, site_serial, authoritative)


def referral_answer(
    request: Peeked, code: int, handle: bytes, values: bytes, expiration: int, *, site_serial: int = SERIAL_UNKNOWN
) -> bytes:
    """Octets of a 302 or 303: a handle (may be empty) and u32 count with encoded HS_SITE or HS_SERV values."""
    return answer(request, code, U32.pack(len(handle)) + handle + values, expiration, site_serial, False)


def _echo(handle: bytes) -> bytes:
    return U32.pack(len(handle)) + handle


def answer(request: Peeked, code: int, body: bytes, expiration: int, site_serial: int, authoritative: bool) -> bytes:
    """Octets of any answer to a peeked request; the request's digest comes before the body when it asked for it."""
    if code in (7, 202):  # the two that old peers know by other numbers
        code = code_for((request.versions[0], request.versions[1]), code)
    digest = request.digest
    body_octets = len(digest) + len(body)
    return b"".join(
        (
            _RESPONSE.pack(
                request.versions,
                request.session_id,
                request.request_id,
                0,
                HEADER_OCTETS + body_octets + 4,
                _RESOLUTION,
                code,
                answer_flags(request.flags, authoritative=authoritative),
                site_serial,
                0,
                0,
                expiration,
                body_octets,
            ),
            digest,
            body,
            b"\0\0\0\0",
        )
    )
