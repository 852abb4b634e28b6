"""Bodies with which a peer proves who it is: challenges and their answers, sessions, and the credential behind a message.

challenge (402)     = the request's digest, always | bytes nonce; the envelope carries a session id
challenge answer    = string kind | string key handle | u32 key index | bytes proof (see `proofs`)
verify request      = string handle | u32 index | bytes nonce | bytes digest | bytes proof; its answer: u8 1 or 0
session setup       = u16 mode | u32 timeout, s | string handle | u32 index | mode 1, 4: bytes key; 3: string handle, u32 index
session setup answer= u16 mode | bytes data; two octets 0 trail both, as the deployed encoder counts the mode twice
exchange of keys    = bytes session key, encrypted with the server's key
login (2001)        = string user handle | u32 key index; an addition of China's SDKs, answered with a challenge
credential          = 4 octets 0 | string signer | u32 counter | string kind | u32 rest | string digest name | bytes signature

Source: protocol 2.11 (HSv9).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

from replica.model.handle.codes import OpFlag, ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault, within_u32
from replica.model.handle.message import (
    DIGESTS,
    Envelope,
    Message,
    Version,
    answer_to,
    digest_type_for,
    request_digest,
    version_rank,
)
from replica.model.handle.names import check_name
from replica.model.handle.values import Reference
from replica.model.handle.wire import U32, Reader, string

NONCE_OCTETS = 16
NONCE_OCTETS_MAX = 64
DIGEST_OCTETS_MAX = 32
PROOF_OCTETS_MAX = 2_048  # a signature of RSA with 16,384 bits
KIND_OCTETS_MAX = 32
SESSION_KEY_OCTETS_MAX = 8_192
SESSION_S_DEFAULT = 86_400
SIGNED_SINCE: Version = (2, 8)  # what a signature covers since then
SIGNED_OCTETS = struct.Struct(">4B3I")
SETUP_TAIL = b"\0\0"

HS_PUBKEY = b"HS_PUBKEY"
HS_SECKEY = b"HS_SECKEY"
HS_SIGNED = b"HS_SIGNED"
HS_MAC = b"HS_MAC"


class SetupMode(IntEnum):
    """How the two sides of a session come by its key."""

    CLIENT_KEY = 1
    SERVER_KEY = 2
    KEY_OF_HANDLE = 3
    DIFFIE_HELLMAN = 4


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server asks of who wants something. `digest`: of the request's header and body, without its type."""

    nonce: bytes
    digest: bytes


def challenge_to(request: Message, octets: bytes, nonce: bytes, session_id: int, *, expiration: int) -> tuple[bytes, Challenge]:
    """The 402 to a request: whole octets, and what the answer must prove.

    Args:
        nonce: 16 octets nobody can guess.
        session_id: over 0; the answer comes in it.
    Raises:
        CodecMisuse: a nonce of another length, or session id 0.
    """
    if len(nonce) != NONCE_OCTETS or not session_id:
        raise CodecMisuse(f"a challenge has a nonce of {NONCE_OCTETS} octets and a session id, not {len(nonce)} and {session_id}")
    within_u32("a session id", session_id)
    wants = replace(
        request,
        envelope=replace(request.envelope, session_id=session_id),
        header=replace(request.header, flags=request.header.flags | OpFlag.REQUEST_DIGEST),
    )
    digest = request_digest(octets, digest_type_for(request.envelope.answer_version))[1:]
    answer = answer_to(wants, octets, ResponseCode.AUTHENTICATION_NEEDED, string(nonce), expiration=expiration)
    return answer, Challenge(nonce, digest)


def decode_challenge(message: Message) -> Challenge:
    """What a client reads of a 402. Raises ProtocolFault."""
    body = message.body
    known = DIGESTS.get(body[0]) if body else None  # type: ignore[call-overload]
    if known is None or not message.wants_digest:
        raise ProtocolFault("a challenge without the request's digest", envelope=message.envelope)
    reader = Reader(body, 1)
    digest = reader.take(known[1])
    return Challenge(_limited(reader, NONCE_OCTETS_MAX, "a nonce"), digest)


@dataclass(frozen=True, slots=True)
class ChallengeAnswer:
    """Op 200. `kind`: HS_PUBKEY or HS_SECKEY; `key`: the value that proves it; `proof`: see `proofs`."""

    kind: bytes
    key: Reference
    proof: bytes

    def encode(self) -> bytes:
        return string(self.kind) + _reference(self.key) + string(self.proof)


def decode_challenge_answer(body: bytes) -> ChallengeAnswer:
    """Raises ProtocolFault."""
    reader = Reader(body)
    kind = _limited(reader, KIND_OCTETS_MAX, "a kind of key")
    key = Reference(check_name(reader.string()), reader.u32())
    return ChallengeAnswer(kind, key, _limited(reader, PROOF_OCTETS_MAX, "a proof"))


def encode_login(key: Reference) -> bytes:
    """Op 2001: which key is about to be proved."""
    return _reference(key)


def decode_login(body: bytes) -> Reference:
    """Raises ProtocolFault."""
    reader = Reader(body)
    return Reference(check_name(reader.string()), reader.u32())


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """Op 201: does this proof belong to this key? Asked by who cannot see the key."""

    key: Reference
    nonce: bytes
    digest: bytes
    proof: bytes

    def encode(self) -> bytes:
        return _reference(self.key) + string(self.nonce) + string(self.digest) + string(self.proof)


def decode_verify_request(body: bytes) -> VerifyRequest:
    """Raises ProtocolFault."""
    reader = Reader(body)
    key = Reference(check_name(reader.string()), reader.u32())
    nonce, digest = _limited(reader, NONCE_OCTETS_MAX, "a nonce"), _limited(reader, DIGEST_OCTETS_MAX, "a digest")
    return VerifyRequest(key, nonce, digest, _limited(reader, PROOF_OCTETS_MAX, "a proof"))


@dataclass(frozen=True, slots=True)
class SessionSetup:
    """Op 400.

    Args:
        timeout_s: how long the client would like the session to live unused.
        identity: key value of who opens it; an empty handle: nobody yet.
        public_key: of modes 1 and 4, an HS_PUBKEY value's data.
        key_at: of mode 3, where the key stands.
    """

    mode: SetupMode
    timeout_s: int
    identity: Reference
    public_key: bytes = b""
    key_at: Reference | None = None

    def encode(self) -> bytes:
        within_u32("a timeout", self.timeout_s)
        head = self.mode.to_bytes(2, "big") + U32.pack(self.timeout_s) + _reference(self.identity)
        if self.mode in (SetupMode.CLIENT_KEY, SetupMode.DIFFIE_HELLMAN):
            head += string(self.public_key)
        elif self.mode is SetupMode.KEY_OF_HANDLE:
            if self.key_at is None:
                raise CodecMisuse("a session of mode 3 says where its key stands")
            head += _reference(self.key_at)
        return head + SETUP_TAIL


def decode_session_setup(body: bytes) -> SessionSetup:
    """Raises ProtocolFault(INVALID_SESSIONSETUP)."""
    reader = Reader(body, code=ResponseCode.INVALID_SESSIONSETUP)
    mode = _mode(reader)
    timeout_s, identity = reader.u32(), Reference(reader.string(), reader.u32())
    if mode in (SetupMode.CLIENT_KEY, SetupMode.DIFFIE_HELLMAN):
        return SessionSetup(mode, timeout_s, identity, _limited(reader, SESSION_KEY_OCTETS_MAX, "a session's key"))
    if mode is SetupMode.KEY_OF_HANDLE:
        return SessionSetup(mode, timeout_s, identity, key_at=Reference(reader.string(), reader.u32()))
    return SessionSetup(mode, timeout_s, identity)


@dataclass(frozen=True, slots=True)
class SessionSetupAnswer:
    """`data`: of mode 1 the session key, encrypted for the client; of mode 2 the server's public key."""

    mode: SetupMode
    data: bytes

    def encode(self) -> bytes:
        return self.mode.to_bytes(2, "big") + string(self.data) + SETUP_TAIL


def decode_session_setup_answer(body: bytes) -> SessionSetupAnswer:
    """Raises ProtocolFault(INVALID_SESSIONSETUP)."""
    reader = Reader(body, code=ResponseCode.INVALID_SESSIONSETUP)
    return SessionSetupAnswer(_mode(reader), _limited(reader, SESSION_KEY_OCTETS_MAX, "a session's key"))


def decode_exchange_key(body: bytes) -> bytes:
    """The encrypted key of an op 402. Raises ProtocolFault(INVALID_SESSION_KEY)."""
    return _limited(Reader(body, code=ResponseCode.INVALID_SESSION_KEY), SESSION_KEY_OCTETS_MAX, "a session's key")


@dataclass(frozen=True, slots=True)
class Credential:
    """What vouches for a message.

    Args:
        kind: HS_SIGNED (by a key pair) or HS_MAC (by a session's key).
        counter: of the messages in a session, each once.
        digest: name of the hash or MAC.
    """

    kind: bytes
    digest: bytes
    signature: bytes
    counter: int = 0
    signer: bytes = b""

    def encode(self) -> bytes:
        within_u32("a counter", self.counter)
        rest = string(self.digest) + string(self.signature)
        return bytes(4) + string(self.signer) + U32.pack(self.counter) + string(self.kind) + U32.pack(len(rest)) + rest


def decode_credential(octets: bytes) -> Credential | None:
    """None: there is none. Raises ProtocolFault(INVALID_CREDENTIAL)."""
    if not octets:
        return None
    reader = Reader(octets, code=ResponseCode.INVALID_CREDENTIAL)
    reader.take(4)
    signer, counter = reader.string(), reader.u32()
    kind = _limited(reader, KIND_OCTETS_MAX, "a kind of credential")
    if reader.u32() != reader.rest:
        raise reader.fault("a credential says another length than it has")
    digest = _limited(reader, KIND_OCTETS_MAX, "a digest's name")
    signature = _limited(reader, PROOF_OCTETS_MAX, "a signature")
    reader.done()
    return Credential(kind, digest, signature, counter, signer)


def signed_octets(envelope: Envelope, counter: int, header_and_body: bytes) -> bytes:
    """What a credential's signature or MAC covers.

    Raises:
        ProtocolFault(INVALID_CREDENTIAL): from before 2.8, whose signatures leave parts of the envelope out.
    """
    if version_rank(envelope.version) < SIGNED_SINCE:
        text = f"signatures of {envelope.version[0]}.{envelope.version[1]} leave the session out: use 2.8 or later"
        raise ProtocolFault(text, ResponseCode.INVALID_CREDENTIAL, envelope)
    head = SIGNED_OCTETS.pack(*envelope.version, *envelope.suggested, envelope.session_id, envelope.request_id, counter)
    return head + header_and_body


def _reference(reference: Reference) -> bytes:
    return string(reference.handle) + U32.pack(reference.index)


def _mode(reader: Reader) -> SetupMode:
    number = reader.u16()
    if number not in tuple(SetupMode):
        raise reader.fault(f"session setup of mode {number}")
    return SetupMode(number)


def _limited(reader: Reader, octets_max: int, what: str) -> bytes:
    octets = reader.string()
    if len(octets) > octets_max:
        raise reader.fault(f"{what} has at most {octets_max} octets, not {len(octets)}")
    return octets
