"""Bodies of requests and responses, by operation.

A server decodes what it answers (resolution, get-site) and at least parses what it refuses; a client decodes every answer
to those. Everything else stays `RawBody` (authentication, sessions, replication), so that it can be refused by number.
Source: RFC 3652 §3 with the changes of protocol 2.11 (HSv9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replica.model.handle.codes import (
    FLAGS_DEFAULT,
    LIST_BATCH_NAMES_MAX,
    LIST_ITEMS_MAX,
    MESSAGE_OCTETS_MAX,
    OpCode,
    ResponseCode,
)
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.message import UNKNOWN_PEER_VERSION, Envelope, Header, Message, Version, encode_message, strip_digest
from replica.model.handle.names import check_name
from replica.model.handle.types import HsSite, decode_site, encode_site
from replica.model.handle.values import HandleValue, encode_values, read_values
from replica.model.handle.wire import U32, Reader, pack_u32s, string


@dataclass(frozen=True, slots=True)
class ResolutionRequest:
    """Which values of a handle are wanted. Empty lists mean all; both given mean their union."""

    handle: bytes
    indexes: tuple[int, ...] = ()
    types: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        types = b"".join((U32.pack(len(self.types)), *map(string, self.types)))
        return string(self.handle) + pack_u32s(self.indexes) + types


@dataclass(frozen=True, slots=True)
class HandleRequest:
    """Delete, list, list-homed, home, unhome, get-site: one name, `/` where it says nothing."""

    handle: bytes

    def encode(self) -> bytes:
        return string(self.handle)


@dataclass(frozen=True, slots=True)
class ValuesRequest:
    """Create, add, modify."""

    handle: bytes
    values: tuple[HandleValue, ...]

    def encode(self) -> bytes:
        return string(self.handle) + encode_values(self.values)


@dataclass(frozen=True, slots=True)
class IndexesRequest:
    """Remove values."""

    handle: bytes
    indexes: tuple[int, ...]

    def encode(self) -> bytes:
        return string(self.handle) + pack_u32s(self.indexes)


@dataclass(frozen=True, slots=True)
class RawBody:
    """Octets of an operation that is not decoded here."""

    octets: bytes

    def encode(self) -> bytes:
        return self.octets


@dataclass(frozen=True, slots=True)
class ResolutionResponse:
    """The handle as it was asked, and the chosen values."""

    handle: bytes
    values: tuple[HandleValue, ...]

    def encode(self) -> bytes:
        return string(self.handle) + encode_values(self.values)


@dataclass(frozen=True, slots=True)
class Referral:
    """302 or 303: ask there. Either a handle that holds the sites, or the sites themselves, or both.

    Args:
        handle: may be empty.
        values: None when the body ends after the handle.
    """

    handle: bytes
    values: tuple[HandleValue, ...] | None = ()

    def encode(self) -> bytes:
        return string(self.handle) + (b"" if self.values is None else encode_values(self.values))


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """Any other response code: a text, and (RFC) the indexes it concerns. message None: a bare empty body."""

    message: bytes | None = b""
    indexes: tuple[int, ...] | None = None

    def encode(self) -> bytes:
        if self.message is None:
            return b""
        return string(self.message) + (b"" if self.indexes is None else pack_u32s(self.indexes))


@dataclass(frozen=True, slots=True)
class SiteResponse:
    """Answer to get-site: the record without a length."""

    site: HsSite

    def encode(self) -> bytes:
        return encode_site(self.site)


@dataclass(frozen=True, slots=True)
class ListResponse:
    """Names, at most 50 a message; the CN flag says that more follow."""

    handles: tuple[bytes, ...]

    def encode(self) -> bytes:
        if len(self.handles) > LIST_BATCH_NAMES_MAX:
            raise CodecMisuse(f"a message lists at most {LIST_BATCH_NAMES_MAX} names, not {len(self.handles)}")
        return b"".join((U32.pack(len(self.handles)), *map(string, self.handles)))


def resolution_request(
    handle: bytes,
    request_id: int,
    *,
    indexes: tuple[int, ...] = (),
    types: tuple[bytes, ...] = (),
    flags: int = FLAGS_DEFAULT,
    version: Version = UNKNOWN_PEER_VERSION,
) -> bytes:
    """Octets of a plain resolution request, as the standard client writes it.

    Args:
        handle: 1 to 2,048 octets.
        request_id: positive, unique among those under way to the peer; 31 bits.
        version: written to the peer; 2.11 is suggested back.
    Raises:
        CodecMisuse: a number that does not fit.
    """
    body = ResolutionRequest(handle, indexes, types).encode()
    return encode_message(Message(Envelope(request_id, 0, version), Header(OpCode.RESOLUTION, flags=flags), body))


Request = ResolutionRequest | HandleRequest | ValuesRequest | IndexesRequest | RawBody
Response = ResolutionResponse | Referral | ErrorResponse | SiteResponse | ListResponse | RawBody


def read_u32s(reader: Reader) -> tuple[int, ...]:
    return tuple([reader.u32() for _ in range(reader.count(LIST_ITEMS_MAX, 4))])


def _resolution(reader: Reader) -> ResolutionRequest:
    handle, indexes = check_name(reader.string()), read_u32s(reader)
    return ResolutionRequest(handle, indexes, tuple([reader.string() for _ in range(reader.count(LIST_ITEMS_MAX, 4))]))


def _handle(reader: Reader) -> HandleRequest:
    return HandleRequest(check_name(reader.string()))


def _values(reader: Reader) -> ValuesRequest:
    return ValuesRequest(check_name(reader.string()), read_values(reader))


def _indexes(reader: Reader) -> IndexesRequest:
    return IndexesRequest(check_name(reader.string()), read_u32s(reader))


_REQUESTS: dict[int, Callable[[Reader], Request]] = {
    OpCode.RESOLUTION: _resolution,
    OpCode.GET_SITE_INFO: _handle,
    OpCode.CREATE_HANDLE: _values,
    OpCode.DELETE_HANDLE: _handle,
    OpCode.ADD_VALUE: _values,
    OpCode.REMOVE_VALUE: _indexes,
    OpCode.MODIFY_VALUE: _values,
    OpCode.LIST_HANDLES: _handle,
    OpCode.LIST_NA: _handle,
    OpCode.HOME_NA: _handle,
    OpCode.UNHOME_NA: _handle,
    OpCode.LIST_HOMED_NAS: _handle,
    OpCode.SESSION_TERMINATE: _handle,
}


def decode_request(message: Message) -> Request:
    """Body of a request. Octets that trail it are ignored, as the deployed servers do.

    Raises:
        ProtocolFault: with the envelope and operation, so that it can be answered.
    """
    decoder = _REQUESTS.get(message.header.op_code)
    if decoder is None:
        return RawBody(message.body)
    try:
        return decoder(Reader(message.body))
    except ProtocolFault as fault:
        raise fault.within(message.envelope, message.header.op_code) from None


def decode_response(message: Message, request: bytes | None = None) -> Response:
    """Body of a response, digest of the request stripped.

    Args:
        message: a response message.
        request: octets of the request, to check the digest when there is one.
    Raises:
        ProtocolFault.
    """
    body = strip_digest(message, request)
    try:
        return _decode_response(body, message.header.op_code, message.header.response_code)
    except ProtocolFault as fault:
        raise fault.within(message.envelope, message.header.op_code) from None


def _decode_response(body: bytes, op_code: int, response_code: int) -> Response:
    reader = Reader(body)
    if response_code in (ResponseCode.SERVICE_REFERRAL, ResponseCode.PREFIX_REFERRAL):
        return Referral(reader.string(), read_values(reader) if reader.rest else None)
    if response_code == ResponseCode.AUTHENTICATION_NEEDED:
        return RawBody(body)
    if response_code != ResponseCode.SUCCESS:
        if not body:
            return ErrorResponse(None)
        return ErrorResponse(reader.string(), read_u32s(reader) if reader.rest else None)
    if op_code == OpCode.RESOLUTION:
        return ResolutionResponse(reader.string(), read_values(reader))
    if op_code == OpCode.GET_SITE_INFO:
        return SiteResponse(decode_site(body))
    if op_code in (OpCode.LIST_HANDLES, OpCode.LIST_HOMED_NAS):
        return ListResponse(tuple([reader.string() for _ in range(reader.count(MESSAGE_OCTETS_MAX, 4))]))
    return RawBody(body)


def list_batches(handles: Sequence[bytes]) -> list[ListResponse]:
    """The messages of a list answer, at least one; all but the last carry the CN flag."""
    step = LIST_BATCH_NAMES_MAX
    return [ListResponse(tuple(handles[at : at + step])) for at in range(0, len(handles), step)] or [ListResponse(())]
