"""Requests to a top-level node by file, and its answers: signed JSON that may travel by any means. Pure.

    request: {"format", "member", "prefix", "serial", "act", "withdrawn", "shadow", "sites" (hex), "key_id", "signature" (hex)}
    request: {"format", "member", "prefix", "serial", "act", "withdrawn", "shadow", "sites", "key_id", "signature"}, octets as hex
             signed: canonical("zaibei-publication-request-1", member, prefix, serial, act, withdrawn, shadow, count, *sites)
    answer:  {"format", "request" (SHA-256 of the request's file), "result": "done" | "refused", "text", "key_id", "signature"}
             signed: canonical("zaibei-publication-answer-1", SHA-256 of the request's file, result, text)
Ed25519 (model/signing.py), so that the same request has the same octets whenever it is written again. A request is named
`PREFIX_SERIAL_publish_MEMBER.request` or `…_withdraw_…`, its answer the same with `.answer`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

from replica.model.errors import Code, ZaibeiError
from replica.model.signing import SUITE, Signer, canonical, verify
from replica.model.states import Result
from replica.takeover.overlay import FLAGS_OFFSET, PRIMARY_FLAGS, is_site, site_serial, site_with
from replica.takeover.publish import Publication
from replica.v1 import position_pb2

REQUEST, ANSWER = "zaibei-publication-request-1", "zaibei-publication-answer-1"
REQUEST_SUFFIX, ANSWER_SUFFIX = ".request", ".answer"
DONE, REFUSED = "done", "refused"
VERBS = ("publish", "withdraw")
FILE_OCTETS_MAX = 1024 * 1024
TEXT_CHARS_MAX = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was read. `signed`: what the signature covers."""

    member: str
    publication: Publication
    signature: position_pb2.Signature
    signed: bytes

    def by(self, public: bytes) -> bool:
        """True when this key signed it."""
        return verify(public, self.signed, self.signature)


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer, or a look at a record, says. PASS: done; FAIL: refused, forged, other; UNKNOWN: nobody could say."""

    result: Result
    detail: str


def name_of(publication: Publication, member: str) -> str:
    """File name of a request."""
    verb = VERBS[publication.withdrawn]
    prefix, by = quote(publication.prefix, safe="").replace("_", "%5F"), quote(member, safe="").replace("_", "%5F")
    return f"{prefix}_{publication.serial:05d}_{verb}_{by}{REQUEST_SUFFIX}"


def about(name: str) -> tuple[str, int, str] | None:
    """(prefix, serial, member) of a request's file name; None: it is none."""
    parts = name.removesuffix(REQUEST_SUFFIX).split("_")
    if not name.endswith(REQUEST_SUFFIX) or len(parts) != 4 or parts[2] not in VERBS:
        return None
    if not (parts[1].isascii() and parts[1].isdigit()):
        return None
    return unquote(parts[0]), int(parts[1]), unquote(parts[3])


def write_request(publication: Publication, member: str, signer: Signer) -> bytes:
    """Octets of a request's file."""
    one = publication
    signature = signer.sign(_signed(one, member))
    fields = {
        "format": REQUEST,
        "member": member,
        "prefix": one.prefix,
        "serial": one.serial,
        "act": one.act,
        "withdrawn": one.withdrawn,
        "shadow": one.shadow,
        "sites": [site.hex() for site in one.sites],
        **_signature(signature),
    }
    return json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_request(octets: bytes) -> Asked:
    """Raises ZaibeiError(MALFORMED): no request."""
    fields = _fields(octets, REQUEST)
    try:
        sites = tuple(bytes.fromhex(site) for site in fields["sites"])
        serial = _number(fields["serial"])
        texts = [_text(fields[name]) for name in ("member", "prefix", "act")]
        one = Publication(
            texts[1], sites, serial, texts[2], withdrawn=fields["withdrawn"] is True, shadow=fields["shadow"] is True
        )
        return Asked(texts[0], one, _read_signature(fields), _signed(one, texts[0]))
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"no publication request: {exc!r}") from exc


def write_answer(request: bytes, result: str, text: str, signer: Signer) -> bytes:
    """Octets of an answer's file, by the top-level node. `result`: DONE or REFUSED; `text`: why, for a person."""
    if result not in (DONE, REFUSED) or len(text) > TEXT_CHARS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"an answer is {DONE} or {REFUSED}, with at most {TEXT_CHARS_MAX} characters")
    digest = sha256(request).digest()
    fields = {"format": ANSWER, "request": digest.hex(), "result": result, "text": text}
    return (
        json.dumps({**fields, **_signature(signer.sign(_answered(digest, result, text)))}, indent=1, sort_keys=True).encode()
        + b"\n"
    )


def judge_answer(octets: bytes, request: bytes, issuer: str, public: bytes) -> Said:
    """What an answer says about a request. `issuer`: who must have signed it, and its key."""
    try:
        fields = _fields(octets, ANSWER)
        result, text = _text(fields["result"]), _text(fields["text"])
        signature, about = _read_signature(fields), bytes.fromhex(fields["request"])
        signed = _answered(about, result, text)
    except (ZaibeiError, KeyError, TypeError, ValueError) as exc:
        return Said(Result.FAIL, f"its answer cannot be read: {exc}")
    if not verify(public, signed, signature):
        return Said(Result.FAIL, f"its answer bears no valid signature of {issuer}")
    if about != sha256(request).digest():
        return Said(Result.FAIL, "its answer is about another request")
    shown = text[:TEXT_CHARS_MAX]
    if result != DONE:
        return Said(Result.FAIL, f"refused by {issuer}: {shown}")
    return Said(Result.PASS, f"done, says {issuer}{f': {shown}' if shown else ''}")


def seen(found: Sequence[bytes], publication: Publication, ours: Sequence[bytes]) -> Said:
    """Does what a resolver answers show the publication?

    Args:
        found: HS_SITE data in the order of their indexes.
        ours: sites of ours that may stand there; a withdrawal has none of its own.
    """
    if publication.withdrawn:
        left = {_plain(site) for site in ours} & {_plain(site) for site in found}
        return Said(
            Result.FAIL if left else Result.PASS, "our site still stands there" if left else "none of our sites stands there"
        )
    if [_plain(site) for site in found] != [_plain(site) for site in publication.sites]:
        return Said(Result.FAIL, f"{len(found)} sites stand there, not the {len(publication.sites)} we ask for in their order")
    first, wanted = found[0], publication.sites[0]
    if not is_site(first):
        return Said(Result.FAIL, "what stands first is no site")
    serial = site_serial(first)
    if serial < publication.serial or _primary(first) is not _primary(wanted):
        return Said(Result.FAIL, f"our site stands first with serial {serial}, not as asked for")
    return Said(Result.PASS, f"our site stands first, serial {serial}")


def _plain(site: bytes) -> bytes:
    """A site without what each publication changes in it."""
    return site_with(site, serial=0, primary=False) if is_site(site) else site


def _primary(site: bytes) -> bool:
    return bool(site[FLAGS_OFFSET] & PRIMARY_FLAGS)


def _signed(one: Publication, member: str) -> bytes:
    flags = (int(one.withdrawn), int(one.shadow), len(one.sites))
    return canonical(REQUEST, member, one.prefix, one.serial, one.act, *flags, *one.sites)


def _answered(digest: bytes, result: str, text: str) -> bytes:
    return canonical(ANSWER, digest, result, text)


def _signature(signature: position_pb2.Signature) -> dict[str, str]:
    return {"key_id": signature.key_id.hex(), "signature": signature.signature.hex()}


def _read_signature(fields: Mapping[str, Any]) -> position_pb2.Signature:
    octets = [bytes.fromhex(fields[name]) for name in ("key_id", "signature")]
    return position_pb2.Signature(suite=SUITE, key_id=octets[0], signature=octets[1])


def _fields(octets: bytes, form: str) -> dict[str, Any]:
    """Raises ZaibeiError(MALFORMED)."""
    try:
        if len(octets) > FILE_OCTETS_MAX:
            raise ValueError(f"over {FILE_OCTETS_MAX} octets")
        fields = json.loads(octets)
    except (ValueError, RecursionError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"not JSON: {exc}") from exc
    if not isinstance(fields, dict) or fields.get("format") != form:
        raise ZaibeiError(Code.MALFORMED, f"not of format {form}")
    return fields


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is wanted")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("a number is wanted")
    return value
