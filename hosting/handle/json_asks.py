"""What is asked over the JSON API beside resolution: changes, lists, verifications. Pure: a request in, what it asks out.

| request | becomes |
| --- | --- |
| PUT /api/handles/H | create, with OVERWRITE unless `overwrite=false`; `mintNewSuffix=true`: a new name that begins with H |
| PUT /api/handles/H?index=1&index=2 | add values, with OVERWRITE unless `overwrite=false`; the body has exactly these |
| PUT /api/handles/H?index=various | the same with whatever the body has |
| DELETE /api/handles/H, with ?index=1 | delete the handle; remove these values |
| GET /api/handles?prefix=P&page=0&pageSize=100 | names of one prefix in the order of their keys; pageSize=0: their number alone |
| GET /api/verifications/I:H?nonce&cnonce&alg&signature | was this signed by that secret key? |
| GET /api/prefixes, PUT or POST /api/prefixes/P, DELETE | list of homed prefixes; home; unhome |
| /api/sessions | a session of the JSON API; needs TLS |

Source: HSv9 JSON API as deployed (protocol digest 9).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from hosting.handle.json_auth import base64_of, key_of, number_of, proof_of
from replica.model.handle.admin_bodies import HS_SECKEY, KIND_OCTETS_MAX, NONCE_OCTETS_MAX, VerifyRequest
from replica.model.handle.bodies import HandleRequest, IndexesRequest, Request, ValuesRequest
from replica.model.handle.codes import VALUES_MAX, OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.json_read import read_request
from replica.model.handle.message import Header
from replica.model.handle.names import check_name, fold, full_name

HANDLES, VERIFICATIONS, SESSIONS, PREFIXES = b"/api/handles", b"/api/verifications/", b"/api/sessions", b"/api/prefixes"
QUERY_FIELDS_MAX = VALUES_MAX + 16
PAGE_NAMES_MAX = 20_000
PAGE_MAX = 200_000
_TRUE = ("", "true", "1", "yes", "on")


@dataclass(frozen=True, slots=True)
class JsonAsked:
    """A request as it came.

    Args:
        url: path and query, percent-encoded.
        authorization: its header; empty: none.
        client: address it came from, without the port.
        private: nobody can listen: TLS, or within this machine.
        certificate: that the client showed over TLS, DER; empty: none. `tls`: it came over TLS.
    """

    method: bytes
    url: bytes
    body: bytes = b""
    authorization: bytes = b""
    client: str = ""
    private: bool = False
    certificate: bytes = b""
    tls: bool = False

    @property
    def handle(self) -> bytes | None:
        """The name in the path; None: there is none."""
        path = self.url.partition(b"?")[0]
        return unquote_to_bytes(path[len(HANDLES) + 1 :]) or None if path.startswith(HANDLES + b"/") else None

    @property
    def this_session(self) -> bool:
        """Does it ask about the session it is in?"""
        return self.url.partition(b"?")[0] == SESSIONS + b"/this"


@dataclass(frozen=True, slots=True)
class Change:
    """A change: operation and flags, and the body it would have in the Handle protocol."""

    header: Header
    request: Request


@dataclass(frozen=True, slots=True)
class Page:
    """A list. `said`: the prefix as asked; `prefix`: its own handle; `size` None: all at once."""

    said: bytes
    prefix: bytes
    page: int = 0
    size: int | None = None

    @property
    def first(self) -> int:
        return self.page * (self.size or 0)


def read_change(asked: JsonAsked) -> Change:
    """Raises ProtocolFault: says what is wrong."""
    handle = _name(asked.handle or b"")
    query = _query(asked.url)
    indexes, various = _indexes(query)
    if asked.method == b"DELETE":
        if various:
            raise ProtocolFault("what is deleted is named by its index")
        if indexes:
            return Change(Header(OpCode.REMOVE_VALUE), IndexesRequest(handle, indexes))
        return Change(Header(OpCode.DELETE_HANDLE), HandleRequest(handle))
    flags = _flag(query, "overwrite", True) * int(OpFlag.OVERWRITE)
    named, values = read_request(asked.body)
    if named is not None and fold(named) != fold(handle):
        raise ProtocolFault("the body is of another handle than the address")
    if not indexes and not various:
        flags |= _flag(query, "mintNewSuffix", False) * int(OpFlag.MINT)
        return Change(Header(OpCode.CREATE_HANDLE, flags=flags), ValuesRequest(handle, values))
    if indexes and {value.index for value in values} != set(indexes):
        raise ProtocolFault("the body has other indexes than the address")
    return Change(Header(OpCode.ADD_VALUE, flags=flags), ValuesRequest(handle, values))


def is_homes(path: bytes) -> bool:
    """Is it about which prefixes live here? `path`: without a query."""
    return path == PREFIXES or path.startswith(PREFIXES + b"/")


def read_homes(asked: JsonAsked) -> Change:
    """Raises ProtocolFault."""
    said = unquote_to_bytes(asked.url.partition(b"?")[0][len(PREFIXES) + 1 :])
    if asked.method in (b"GET", b"HEAD") and not said:
        return Change(Header(OpCode.LIST_HOMED_NAS), HandleRequest(b"/"))
    if not said or asked.method not in (b"PUT", b"POST", b"DELETE"):
        raise ProtocolFault("GET /api/prefixes lists; PUT, POST and DELETE name one, /api/prefixes/PREFIX")
    op = OpCode.UNHOME_NA if asked.method == b"DELETE" else OpCode.HOME_NA
    return Change(Header(op), HandleRequest(full_name(_name(said))))


def read_page(asked: JsonAsked) -> Page:
    """Raises ProtocolFault."""
    query = _query(asked.url)
    prefix = next((value for name, value in query if name == "prefix"), "")
    said = _name(prefix.encode("utf-8", "surrogateescape"))
    size = next((value for name, value in query if name == "pageSize"), "-1")
    page = next((value for name, value in query if name == "page"), "0")
    if size == "-1":
        return Page(said, full_name(said))
    found = Page(said, full_name(said), max(0, _whole(page)), _whole(size))
    if found.page > PAGE_MAX or not 0 <= (found.size or 0) <= PAGE_NAMES_MAX:
        raise ProtocolFault(f"a page has at most {PAGE_NAMES_MAX} names, its number is at most {PAGE_MAX}")
    return found


def read_verification(asked: JsonAsked) -> tuple[bytes, VerifyRequest]:
    """Kind of key and what is to be verified. Raises ProtocolFault."""
    path = asked.url.partition(b"?")[0]
    given = {name: value.replace(" ", "+") for name, value in _query(asked.url)}  # base64 that was not percent-encoded
    name = unquote_to_bytes(path[len(VERIFICATIONS) :])
    if "index" in given:
        name = b"%d:%b" % (number_of(given["index"]), name)
    if any(one not in given for one in ("nonce", "cnonce", "alg", "signature")):
        raise ProtocolFault("a verification has nonce, cnonce, alg and signature")
    if len(given["alg"]) > KIND_OCTETS_MAX:
        raise ProtocolFault("an algorithm nobody knows", ResponseCode.AUTHENTICATION_FAILED)
    nonce, cnonce = base64_of(given["nonce"], NONCE_OCTETS_MAX), base64_of(given["cnonce"], NONCE_OCTETS_MAX)
    return HS_SECKEY, VerifyRequest(key_of(name), nonce, cnonce, proof_of(HS_SECKEY, given["alg"], given))


def pretty(url: bytes) -> bool:
    """Shall the answer be written for people? A query that cannot be read says nothing about it."""
    if b"pretty" not in url:
        return False
    try:
        return _flag(_query(url), "pretty", False)
    except ProtocolFault:
        return False


def _name(handle: bytes) -> bytes:
    try:
        check_name(handle).decode()
    except UnicodeDecodeError:
        raise ProtocolFault("a handle's name is UTF-8", ResponseCode.INVALID_HANDLE) from None
    return handle


def _query(url: bytes) -> list[tuple[str, str]]:
    query = url.partition(b"?")[2]
    try:
        text = query.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="surrogateescape")
    except ValueError:
        raise ProtocolFault(f"a query is ASCII, with at most {QUERY_FIELDS_MAX} parameters") from None


def _indexes(query: list[tuple[str, str]]) -> tuple[tuple[int, ...], bool]:
    """Indexes that are named, and whether any are meant."""
    given = [value for name, value in query if name == "index"]
    if "various" in given:
        if len(given) > 1:
            raise ProtocolFault("index=various stands alone")
        return (), True
    if len(given) > VALUES_MAX:
        raise ProtocolFault(f"at most {VALUES_MAX} indexes")
    return tuple(dict.fromkeys(map(number_of, given))), False


def _flag(query: list[tuple[str, str]], wanted: str, default: bool) -> bool:
    return next((value.lower() in _TRUE for name, value in query if name == wanted), default)


def _whole(text: str) -> int:
    return -1 if text == "-1" else number_of(text)
