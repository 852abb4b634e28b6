"""A whole message: envelope, header, body, credential; versions; digests of requests.

Datagrams are joined by `fragments`, streams are cut by `stream`; here a message is complete octets. Bodies: `bodies`.
The quick way for plain resolutions: `answers`.
Source: RFC 3652 §2 with the changes of protocol 2.11 (HSv9).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from replica.model.handle.codes import (
    ENVELOPE_OCTETS,
    FLAGS_DEFAULT,
    HEADER_OCTETS,
    MESSAGE_OCTETS_MAX,
    SERIAL_UNKNOWN,
    DigestType,
    EnvelopeFlag,
    OpFlag,
    ResponseCode,
)
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.wire import U32

ENVELOPE = struct.Struct(">4B4I")
HEADER = struct.Struct(">3IHBB2I")
FLAG_BITS = 0xE0
SUGGESTED_BITS = 0x03

# Plain numbers: arithmetic on IntFlag costs a microsecond.
_COMPRESSED = int(EnvelopeFlag.COMPRESSED)
_ENCRYPTED = int(EnvelopeFlag.ENCRYPTED)
_REQUEST_DIGEST = int(OpFlag.REQUEST_DIGEST)
_AUTHORITATIVE = int(OpFlag.AUTHORITATIVE)
_CONTINUOUS = int(OpFlag.CONTINUOUS)
# An answer says what was asked, except what it does not do itself: sign, encrypt, continue, speak with authority.
_NOT_ECHOED = ~int(OpFlag.AUTHORITATIVE | OpFlag.CERTIFY | OpFlag.ENCRYPT | OpFlag.CONTINUOUS) & 0xFFFFFFFF

Version = tuple[int, int]
OUR_VERSION: Version = (2, 11)
UNKNOWN_PEER_VERSION: Version = (2, 3)  # what is written to a peer nobody has spoken to yet
SHA256_SINCE: Version = (2, 7)
_TODAYS_CODES_SINCE: Version = (2, 5)
_OLD_CODES = {int(ResponseCode.SERVER_BACKUP): 303, int(ResponseCode.INVALID_VALUE): 201}
_ANCIENT_MAJOR = 5  # an alias from before 2.1

DIGESTS = {DigestType.MD5: ("md5", 16), DigestType.SHA1: ("sha1", 20), DigestType.SHA256: ("sha256", 32)}


def version_rank(version: Version) -> Version:
    """A key that sorts versions by age: major 5 is older than 2.1."""
    return (0, version[1]) if version[0] == _ANCIENT_MAJOR else version


@dataclass(frozen=True, slots=True)
class Envelope:
    """First 20 octets of a message or datagram.

    Args:
        version: of the sender's message.
        suggested: version the sender would like back; major 0 means the same as `version`.
        flags: EnvelopeFlag bits.
        session_id: 0 = none; given by the server.
        request_id: chosen by the client, echoed.
        sequence: number of the datagram, 0 unless truncated.
        length: octets after the envelope, of the whole message.
    """

    request_id: int
    length: int
    version: Version = OUR_VERSION
    suggested: Version = OUR_VERSION
    flags: int = 0
    session_id: int = 0
    sequence: int = 0

    @property
    def answer_version(self) -> Version:
        """The version to answer in: the older of ours and the one the peer suggests."""
        wanted = self.suggested if self.suggested[0] else self.version
        return min(OUR_VERSION, wanted, key=version_rank)


@dataclass(frozen=True, slots=True)
class Header:
    """The 24 octets before the body, numbers as in codes.py; the body's length is written from the body itself."""

    op_code: int
    response_code: int = 0
    flags: int = FLAGS_DEFAULT
    site_serial: int = SERIAL_UNKNOWN
    recursion: int = 0
    reserved: int = 0
    expiration: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """A complete message. `envelope.length` is written from the parts; what was read keeps what was read."""

    envelope: Envelope
    header: Header
    body: bytes
    credential: bytes = b""

    @property
    def wants_digest(self) -> bool:
        return bool(self.header.flags & _REQUEST_DIGEST)


def encode_envelope(envelope: Envelope, length: int | None = None) -> bytes:
    """20 octets. `length`: written in place of the envelope's own. Raises CodecMisuse."""
    try:
        return ENVELOPE.pack(
            *envelope.version,
            envelope.flags & FLAG_BITS | envelope.suggested[0] & SUGGESTED_BITS,
            envelope.suggested[1],
            envelope.session_id,
            envelope.request_id,
            envelope.sequence,
            envelope.length if length is None else length,
        )
    except struct.error as exc:
        raise CodecMisuse(f"a number does not fit the envelope: {exc}") from exc


def decode_envelope(octets: bytes) -> Envelope:
    """Envelope at the start of the octets.

    Raises:
        ProtocolFault: with silence, when there are not even 20 octets.
    """
    if len(octets) < ENVELOPE_OCTETS:
        raise ProtocolFault(f"{len(octets)} octets are no envelope", None)
    major, minor, flags, suggested_minor, session_id, request_id, sequence, length = ENVELOPE.unpack_from(octets)
    suggested = (flags & SUGGESTED_BITS, suggested_minor)
    return Envelope(request_id, length, (major, minor), suggested, flags & FLAG_BITS, session_id, sequence)


def encode_message(message: Message) -> bytes:
    """Octets of a complete message, unencrypted and not split.

    Raises:
        CodecMisuse: over 262,144 octets, or a number that does not fit.
    """
    header, body = message.header, message.body
    length = HEADER_OCTETS + len(body) + 4 + len(message.credential)
    if length > MESSAGE_OCTETS_MAX:
        raise CodecMisuse(f"a message has at most {MESSAGE_OCTETS_MAX} octets, not {length}")
    try:
        packed = HEADER.pack(
            header.op_code,
            header.response_code,
            header.flags,
            header.site_serial,
            header.recursion,
            header.reserved,
            header.expiration,
            len(body),
        )
    except struct.error as exc:
        raise CodecMisuse(f"a number does not fit the header: {exc}") from exc
    envelope = encode_envelope(message.envelope, length)
    return b"".join((envelope, packed, body, U32.pack(len(message.credential)), message.credential))


def decode_message(octets: bytes) -> Message:
    """A complete message: a joined datagram, or one cut from a stream.

    Raises:
        ProtocolFault: PROTOCOL_ERROR with the envelope; SESSION_TIMEOUT for an encrypted one (no session of ours is known
            here); silence when there is no envelope.
    """
    envelope = decode_envelope(octets)
    if envelope.flags & _COMPRESSED:
        raise ProtocolFault("compression is not spoken here", envelope=envelope)
    if envelope.flags & _ENCRYPTED:
        raise ProtocolFault("encrypted with an unknown session key", ResponseCode.SESSION_TIMEOUT, envelope)
    end = len(octets)
    if envelope.length != end - ENVELOPE_OCTETS or envelope.length > MESSAGE_OCTETS_MAX:
        raise ProtocolFault(f"{end - ENVELOPE_OCTETS} octets follow where {envelope.length} are announced", envelope=envelope)
    body_at = ENVELOPE_OCTETS + HEADER_OCTETS
    if end < body_at:
        raise ProtocolFault("the header is cut off", envelope=envelope)
    op, response, flags, serial, recursion, reserved, expiration, body_length = HEADER.unpack_from(octets, ENVELOPE_OCTETS)
    header = Header(op, response, flags, serial, recursion, reserved, expiration)
    body_end = body_at + body_length
    if body_end > end:
        raise ProtocolFault("the body is cut off", envelope=envelope, op_code=op)
    credential = b""
    if body_end != end:  # some peers leave the empty credential out
        if body_end + 4 > end or U32.unpack_from(octets, body_end)[0] != end - body_end - 4:
            raise ProtocolFault("the credential is cut off or too long", envelope=envelope, op_code=op)
        credential = octets[body_end + 4 :]
    return Message(envelope, header, octets[body_at:body_end], credential)


def signed_part(octets: bytes) -> bytes:
    """Header and body of a complete message: what digests and signatures cover."""
    body_length = U32.unpack_from(octets, ENVELOPE_OCTETS + HEADER_OCTETS - 4)[0]
    return octets[ENVELOPE_OCTETS : ENVELOPE_OCTETS + HEADER_OCTETS + body_length]


def digest_type_for(version: Version) -> DigestType:
    """SHA-256 for peers of today, SHA-1 for those before 2.7."""
    return DigestType.SHA256 if version_rank(version) >= SHA256_SINCE else DigestType.SHA1


def request_digest(request: bytes, kind: DigestType) -> bytes:
    """u8 type and digest of a request's header and body: what an answer with the RD flag starts with."""
    name, _ = DIGESTS[kind]
    return bytes((kind,)) + hashlib.new(name, signed_part(request), usedforsecurity=False).digest()


def strip_digest(message: Message, request: bytes | None = None) -> bytes:
    """Body of a response without the request digest that the RD flag announces.

    Args:
        message: a response.
        request: octets of the request it answers; when given, the digest must be its digest.
    Raises:
        ProtocolFault: unknown type, cut off, or another request's digest.
    """
    body = message.body
    if not message.wants_digest or not body:
        return body
    known = DIGESTS.get(body[0])  # type: ignore[call-overload]
    if known is None or len(body) < 1 + known[1]:
        raise ProtocolFault(
            "a request digest is announced and not there", envelope=message.envelope, op_code=message.header.op_code
        )
    if request is not None and body[: 1 + known[1]] != request_digest(request, DigestType(body[0])):
        raise ProtocolFault("the answer is to another request", envelope=message.envelope, op_code=message.header.op_code)
    return body[1 + known[1] :]


def code_for(version: Version, code: int) -> int:
    """The number that says a response code to a peer: before 2.5, 303 stood for 7 and 201 for 202."""
    return _OLD_CODES.get(code, code) if version_rank(version) < _TODAYS_CODES_SINCE else code


def answer_flags(flags: int, *, authoritative: bool = False, more: bool = False) -> int:
    """Flags of an answer to a request's flags."""
    return flags & _NOT_ECHOED | (_AUTHORITATIVE if authoritative else 0) | (_CONTINUOUS if more else 0)


def answer_to(
    request: Message,
    request_octets: bytes,
    response_code: int,
    body: bytes,
    *,
    expiration: int,
    site_serial: int = SERIAL_UNKNOWN,
    authoritative: bool = False,
    more: bool = False,
) -> bytes:
    """Octets of an answer, with the request's digest in front of the body when it asked for that.

    Args:
        request: what is answered, and its octets.
        body: encoded body of the response.
        expiration: Unix seconds; now + EXPIRATION_S, a past time is refused by resolvers.
        site_serial: serial of the answering site.
        more: another message of the same answer follows.
    Raises:
        CodecMisuse: the answer is over 262,144 octets.
    """
    envelope, header = request.envelope, request.header
    version = envelope.answer_version
    if request.wants_digest:
        body = request_digest(request_octets, digest_type_for(version)) + body
    flags = answer_flags(header.flags, authoritative=authoritative, more=more)
    return encode_message(
        Message(
            Envelope(envelope.request_id, 0, version, OUR_VERSION, 0, envelope.session_id),
            Header(header.op_code, code_for(version, response_code), flags, site_serial, 0, 0, expiration),
            body,
        )
    )


def fault_answer(fault: ProtocolFault, *, expiration: int) -> bytes | None:
    """Octets of the error answer to a faulty request; None for silence."""
    if fault.code is None or fault.envelope is None:
        return None
    envelope = fault.envelope
    text = fault.detail.encode()
    return encode_message(
        Message(
            Envelope(envelope.request_id, 0, envelope.answer_version, OUR_VERSION, 0, envelope.session_id),
            Header(fault.op_code, code_for(envelope.answer_version, fault.code), FLAGS_DEFAULT, SERIAL_UNKNOWN, 0, 0, expiration),
            U32.pack(len(text)) + text,
        )
    )
