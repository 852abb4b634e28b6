"""Octets of the admin channel, pure: one JSON document a line, `\\n` at its end, never inside.

request   {"v": 1, "id": 7, "call": "hold_plan", "params": {"hold": "...", "decision": "release"}}
answer    {"v": 1, "id": 7, "result": ...}   or   {"v": 1, "id": 7, "error": {"code", "message", "definite", "retry"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ops.admin.calls import CALLS
from replica.model.errors import Code, Trouble, ZaibeiError

VERSION = 1
REQUEST_OCTETS_MAX = 256 * 1024
ANSWER_OCTETS_MAX = 16 * 1024 * 1024
ID_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request: `params` hold what CALLS says, converted."""

    ident: int
    call: str
    params: Mapping[str, Any]


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    v: int
    id: int
    call: str
    params: dict[str, msgspec.Raw] = {}


class _Error(msgspec.Struct):
    code: str
    message: str
    definite: bool = True
    retry: bool = False


class _Answer(msgspec.Struct):
    v: int
    id: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


def encode_request(ident: int, call: str, params: Mapping[str, Any]) -> bytes:
    """One line. Raises ZaibeiError(MALFORMED) when it is too long."""
    line = msgspec.json.encode({"v": VERSION, "id": ident, "call": call, "params": params}) + b"\n"
    if len(line) > REQUEST_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a request of {len(line)} octets is over {REQUEST_OCTETS_MAX}")
    return line


def decode_request(line: bytes) -> Request:
    """Raises ZaibeiError(MALFORMED): not a request, another version, an unknown call or wrong parameters; says which."""
    try:
        envelope = msgspec.json.decode(line, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"not an admin request: {exc}") from exc
    if envelope.v != VERSION:
        raise ZaibeiError(
            Code.MALFORMED,
            f"admin protocol version {envelope.v}; this member speaks {VERSION}: use the zaibei command of its version",
        )
    call = CALLS.get(envelope.call)
    if call is None:
        raise ZaibeiError(
            Code.MALFORMED, f"this member knows no call {envelope.call[:40]!r}: use the zaibei command of its version"
        )
    if not 0 <= envelope.id <= ID_MAX or envelope.params.keys() != call.parameters.keys():
        raise ZaibeiError(Code.MALFORMED, f"{envelope.call} takes exactly: {', '.join(call.parameters) or 'no parameters'}")
    try:
        params = {name: msgspec.json.decode(envelope.params[name], type=kind) for name, kind in call.parameters.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"{envelope.call}: {exc}") from exc
    return Request(envelope.id, envelope.call, params)


def encode_result(ident: int, result: Any) -> bytes:
    """One line; an answer over the limit becomes an error that says so."""
    line = msgspec.json.encode({"v": VERSION, "id": ident, "result": result}) + b"\n"
    if len(line) > ANSWER_OCTETS_MAX:
        return encode_error(
            ident, Trouble(Code.MALFORMED, f"the answer has {len(line)} octets, over {ANSWER_OCTETS_MAX}: ask for less")
        )
    return line


def encode_error(ident: int, trouble: Trouble) -> bytes:
    error = {"code": trouble.code, "message": trouble.message, "definite": trouble.definite, "retry": trouble.retry}
    return msgspec.json.encode({"v": VERSION, "id": ident, "error": error}) + b"\n"


def decode_answer(line: bytes, ident: int, call: str) -> Any:
    """The result, as the type CALLS names.

    Raises:
        ZaibeiError: the error the member answered with; MALFORMED when these octets are no answer to this request.
    """
    try:
        answer = msgspec.json.decode(line, type=_Answer)
        if answer.v != VERSION or (answer.id != ident and answer.error is None):
            raise ZaibeiError(Code.MALFORMED, f"the member answered in version {answer.v}, for request {answer.id}: not ours")
        if answer.error is None:
            return msgspec.json.decode(answer.result, type=CALLS[call].result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"the member's answer to {call} is not what this command knows: {exc}") from exc
    error = answer.error
    code = Code(error.code) if error.code in set(Code) else Code.UNKNOWN
    raise ZaibeiError(code, error.message, definite=error.definite and error.code in set(Code), retry=error.retry)
