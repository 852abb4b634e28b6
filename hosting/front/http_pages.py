"""The JSON API as values: from a request to what is asked, and from an answer to a response's octets. Pure.

| request | what it becomes |
| --- | --- |
| GET, HEAD, POST /api/handles/HANDLE | a resolution; POST has its parameters in a form or JSON body |
| PUT, DELETE /api/handles/HANDLE | hosting/handle answers, where sources live at this member; else 301 |
| GET /api/handles?prefix=P, GET /api/verifications/KEY, /api/sessions, /api/prefixes | the same; else 5 |
| GET /api/site | this cluster's site, with the freshness of its sources as attributes |
| GET /livez, /readyz, /healthz | the process lives; it can answer for at least one source (healthz: the same) |
| POST anything, Content-Type application/x-hdl-message | a Handle message in its envelope, answered likewise |
| other paths under /api | 5, operation not supported |

Source: HSv9 HTTP JSON API as deployed (protocol digest 9).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from hosting.answer.question import Question
from hosting.answer.standing import Standing, freshness_of
from hosting.handle.json_asks import HANDLES, SESSIONS, VERIFICATIONS, is_homes
from replica.model.handle.codes import ResponseCode, http_status

BODY_OCTETS_MAX: Final = 262_144 + 20  # the longest Handle message and its envelope
URL_OCTETS_MAX: Final = 8_192  # a name of 2,048 octets, percent-encoded, and a query
HEADER_OCTETS_MAX: Final = 16_384
PARAMETERS_MAX: Final = 2_048
TUNNEL_TYPE: Final = b"application/x-hdl-message"

_HANDLES = b"/api/handles/"
_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]{0,127}", re.ASCII)
_TRUE = ("", "true", "1", "yes", "on")
_JSON = b"application/json;charset=UTF-8"
_SCRIPT = b"application/javascript;charset=UTF-8"
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request as parsed off the wire; header names in lower case."""

    method: bytes
    url: bytes
    content_type: bytes = b""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Look:
    """How a JSON answer shall look."""

    pretty: bool = False
    callback: str = ""


PLAIN: Final = Look()


@dataclass(frozen=True, slots=True)
class Page:
    """A response that needs nothing further."""

    status: int
    body: bytes
    content_type: bytes = _JSON
    headers: bytes = b""


@dataclass(frozen=True, slots=True)
class Resolve:
    question: Question
    look: Look = PLAIN


@dataclass(frozen=True, slots=True)
class OwnSite:
    look: Look = PLAIN


@dataclass(frozen=True, slots=True)
class Ready:
    pass


@dataclass(frozen=True, slots=True)
class Tunnel:
    message: bytes


@dataclass(frozen=True, slots=True)
class Registers:
    """A request for hosting/handle. `otherwise`: the page where no source lives whose registrations we take."""

    otherwise: Page


Wanted = Page | Resolve | OwnSite | Ready | Tunnel | Registers


@dataclass(slots=True)
class _Parameters:
    types: list[str] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    flags: dict[str, bool] = field(default_factory=dict)
    callback: str = ""


class _BadParameter(ValueError):
    pass


def read_request(request: HttpRequest) -> Wanted:
    """Decide what a request asks for; a malformed one becomes the Page that says so."""
    url = request.url
    if request.method == b"GET" and url.startswith(_HANDLES) and b"?" not in url and len(url) > len(_HANDLES):
        name = url[len(_HANDLES) :]
        return Resolve(Question(unquote_to_bytes(name) if b"%" in name else name))
    if request.method == b"POST" and request.content_type == TUNNEL_TYPE:
        return Tunnel(request.body)
    path, _, query = url.partition(b"?")
    if path.startswith(_HANDLES) and len(path) > len(_HANDLES):
        return _read_handle(request, unquote_to_bytes(path[len(_HANDLES) :]), query)
    match path:
        case b"/livez":
            return Page(200, b'{"alive":true}')
        case b"/readyz" | b"/healthz":
            return Ready()
        case b"/api/site" if request.method in (b"GET", b"HEAD"):
            return _read_site(query)
    if path == b"/api" or path.startswith(b"/api/"):
        page = fault_page(ResponseCode.OPERATION_NOT_SUPPORTED, "not offered by a disaster-recovery site; ask the node itself")
        return Registers(page) if _is_registering(request.method, path) else page
    return Page(404, _encode({"message": "no such page; identifiers are under /api/handles/"}))


def _read_handle(request: HttpRequest, handle: bytes, query: bytes) -> Wanted:
    if request.method in (b"PUT", b"DELETE"):
        return Registers(fault_page(ResponseCode.SERVER_NOT_RESP, "registrations go to the node itself, not to its copy", handle))
    if request.method not in (b"GET", b"HEAD", b"POST"):
        allowed = b"Allow: GET, HEAD, POST, PUT, DELETE\r\n"
        return Page(405, _encode({"message": "use GET, HEAD, POST, PUT or DELETE"}), headers=allowed)
    try:
        parameters = _parameters(parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=PARAMETERS_MAX))
        if request.method == b"POST" and request.body:
            parameters = _parameters(_body_pairs(request), parameters)
    except ValueError as exc:
        return fault_page(ResponseCode.PROTOCOL_ERROR, f"parameters: {exc}", handle)
    flags = parameters.flags
    question = Question(
        handle,
        tuple(parameters.indexes),
        tuple(name.encode() for name in parameters.types),
        flags.get("auth", False),
        not flags.get("doNotRefer", False),
    )
    return Resolve(question, Look(flags.get("pretty", False), parameters.callback))


def _is_registering(method: bytes, path: bytes) -> bool:
    """Lists, verifications, sessions and homed prefixes of the JSON API."""
    if is_homes(path):
        return method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE")
    if path.startswith(SESSIONS):
        return path[len(SESSIONS) :] in (b"", b"/", b"/this")
    reads = method in (b"GET", b"HEAD")
    return reads and (path in (HANDLES, HANDLES + b"/") or (path.startswith(VERIFICATIONS) and len(path) > len(VERIFICATIONS)))


def _read_site(query: bytes) -> Wanted:
    try:
        parameters = _parameters(parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=PARAMETERS_MAX))
    except ValueError as exc:
        return fault_page(ResponseCode.PROTOCOL_ERROR, f"parameters: {exc}")
    return OwnSite(Look(parameters.flags.get("pretty", False), parameters.callback))


def _parameters(pairs: Iterable[tuple[str, str]], into: _Parameters | None = None) -> _Parameters:
    """Raises ValueError. Parameters we do not know are passed over, as HSv9 does."""
    found = into or _Parameters()
    for name, value in pairs:
        match name:
            case "type":
                found.types.append(value)
            case "index":
                if not (value.isascii() and value.isdigit() and int(value) < 1 << 32):
                    raise _BadParameter("an index is a number from 0 to 4294967295")
                found.indexes.append(int(value))
            case "auth" | "cert" | "doNotRefer" | "pretty" | "publicOnly":
                found.flags[name] = value.lower() in _TRUE
            case "callback":
                if not _CALLBACK.fullmatch(value):
                    raise _BadParameter("a callback is an identifier of at most 128 characters")
                found.callback = value
    if len(found.types) + len(found.indexes) > PARAMETERS_MAX:
        raise _BadParameter(f"at most {PARAMETERS_MAX} types and indexes")
    return found


def _body_pairs(request: HttpRequest) -> list[tuple[str, str]]:
    if request.content_type == b"application/x-www-form-urlencoded":
        return parse_qsl(request.body.decode("ascii"), keep_blank_values=True, max_num_fields=PARAMETERS_MAX)
    try:
        given = msgspec.json.decode(request.body, type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        raise _BadParameter(f"the body is neither a form nor a JSON object: {exc}") from exc
    pairs: list[tuple[str, str]] = []
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str | int | bool):
                raise _BadParameter(f"{name} is a text, a number or a list of them")
            pairs.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return pairs


def fault_page(code: int, message: str, handle: bytes | None = None) -> Page:
    """An error of the JSON API."""
    told: dict[str, object] = {"responseCode": int(code)}
    if handle is not None:
        told["handle"] = handle.decode("utf-8", "replace")
    return Page(http_status(code), _encode(told | {"message": message}))


def vouch_headers(standing: Standing | None) -> bytes:
    """Who vouches for an answer, from which position, how fresh."""
    if standing is None or standing.view is None:
        return b""
    view = standing.view
    age = "unknown" if view.age_ms is None else str(view.age_ms)
    name = view.source.encode("ascii", "backslashreplace").decode()
    return (
        f"X-Zaibei-Source: {name}\r\nX-Zaibei-Position: {view.position}\r\n"
        f"X-Zaibei-Freshness: {freshness_of(view, standing.row)}\r\nX-Zaibei-Age-Ms: {age}\r\n"
    ).encode()


def look_at(body: bytes, look: Look) -> tuple[bytes, bytes]:
    """(body, content type) as the request wished."""
    if look.pretty:
        body = msgspec.json.format(body, indent=2)
    if look.callback:
        return b"".join((look.callback.encode(), b"(", body, b");")), _SCRIPT
    return body, _JSON


def response(status: int, body: bytes, content_type: bytes, headers: bytes, *, close: bool, head_only: bool = False) -> bytes:
    """One HTTP/1.1 response."""
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nAccess-Control-Allow-Origin: *\r\n"
            % (status, _REASONS.get(status, b"Status"), content_type, len(body)),
            headers,
            b"Connection: close\r\n\r\n" if close else b"\r\n",
            b"" if head_only else body,
        )
    )


def page_response(page: Page, *, close: bool, head_only: bool = False) -> bytes:
    return response(page.status, page.body, page.content_type, page.headers, close=close, head_only=head_only)


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)
