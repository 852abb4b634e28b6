"""What a tenant's registry says about the tenant itself: business documents in its own group, so that a takeover finds them.

    kind                 id                      says
    hosting.tenant       the source's name       state, visibility, spelling, what is answered while it is suspended
    hosting.person       index:handle            who it is, and the groups it is in
    hosting.key          sha256:fingerprint      a certificate, and whose it is
    hosting.right        free                    who may do what below which prefix, until when
    hosting.quota        tenant                  how much, and how fast
    hosting.enterprise   prefix                  the life of an enterprise's prefix, and its administrators

A body is JSON of format 1 in canonical octets: keys sorted, no spaces, every field written. What is not is refused at admission.
A field that this version does not know is a fault: half-understood rights must not be acted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from hosting.tenant.enterprise import PrefixState, Step, fault_of
from replica.model.audit_documents import TENANTS
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.names import fold
from replica.model.identifier import END, Identifier, PrefixTree, document_key, prefix_key

FORMAT = 1
PAPERS_MAX = 20_000  # of one tenant
NAMES_MAX = 1_000  # of one list in a document
TEXT_CHARS_MAX = 1_000
VALUE_HEAD = b"\x01"  # of every business document
KINDS_FROM, KINDS_TO = TENANTS, TENANTS[:-1] + b"/"  # key range of all kinds here

OperationName = Literal["create", "delete", "add", "modify", "remove", "read", "list", "administer"]


class Paper(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of every document. `format`: of its body; `by`, `why`: who wrote it last, and for what reason, for the audit."""

    format: int = FORMAT
    by: str = ""
    why: str = ""


class Tenant(Paper, frozen=True, kw_only=True):
    """The tenant.

    Args:
        suspended: why its registrations are refused; empty: they are not.
        answered_while_suspended: resolution goes on meanwhile; else all its identifiers are answered 401 (views.py).
        visibility: who reads records at the registration port: `public`, or `tenant`: those with a right to.
        case_sensitive: prefixes whose suffixes keep their case.
    """

    title: str
    suspended: str = ""
    answered_while_suspended: bool = True
    visibility: Literal["public", "tenant"] = "public"
    prefixes: tuple[str, ...] = ()
    code_types: tuple[str, ...] = ()
    case_sensitive: tuple[str, ...] = ()
    since_ms: int = 0


class Person(Paper, frozen=True, kw_only=True):
    """Somebody of the tenant. `active`: False takes all rights away, whoever grants them."""

    title: str
    active: bool = True
    groups: tuple[str, ...] = ()


class Key(Paper, frozen=True, kw_only=True):
    """A certificate of a person. `until_ms`: Unix milliseconds; 0: as long as the certificate itself."""

    person: str
    active: bool = True
    until_ms: int = 0


class Right(Paper, frozen=True, kw_only=True):
    """Who may do what.

    Args:
        who: index:handle, sha256:fingerprint, or group:NAME.
        under: prefix; this one and all below it.
        until_ms: Unix milliseconds; 0: no end.
    """

    who: str
    operations: tuple[OperationName, ...]
    under: str
    until_ms: int = 0


class Quota(Paper, frozen=True, kw_only=True):
    """Limits; None: no limit. Octets: of identifiers' keys and values. At once: as much as `burst_s` seconds of a rate give."""

    identifiers: int | None = None
    octets: int | None = None
    registrations_per_s: float | None = None
    resolutions_per_s: float | None = None
    burst_s: float = 2.0


class Enterprise(Paper, frozen=True, kw_only=True):
    """An enterprise's prefix. `administrators`: who may do everything below it but administer, while it is in effect."""

    title: str
    steps: tuple[Step, ...]
    administrators: tuple[str, ...] = ()

    @property
    def state(self) -> PrefixState:
        return self.steps[-1][0]


AnyPaper = Tenant | Person | Key | Right | Quota | Enterprise
_DECODERS: dict[str, msgspec.json.Decoder[AnyPaper]] = {
    "hosting.tenant": msgspec.json.Decoder(Tenant),
    "hosting.person": msgspec.json.Decoder(Person),
    "hosting.key": msgspec.json.Decoder(Key),
    "hosting.right": msgspec.json.Decoder(Right),
    "hosting.quota": msgspec.json.Decoder(Quota),
    "hosting.enterprise": msgspec.json.Decoder(Enterprise),
}
KIND_OF: dict[type[AnyPaper], str] = {
    Tenant: "hosting.tenant", Person: "hosting.person", Key: "hosting.key",
    Right: "hosting.right", Quota: "hosting.quota", Enterprise: "hosting.enterprise",
}  # fmt: skip
QUOTA_ID = "tenant"


@dataclass(frozen=True, slots=True)
class Papers:
    """A tenant's documents at one moment, indexed. `tenant` None: nothing is said; only whom the configuration names registers.

    Args:
        out: persons out of use, by `one_spelling`: who spells himself otherwise is still the same.
        damaged: keys whose octets say nothing that can be acted on; while there is one, every change is refused.
        count: documents read.
    """

    tenant: Tenant | None = None
    persons: Mapping[str, Person] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    rights: Mapping[str, tuple[tuple[bytes, Right], ...]] = field(default_factory=dict)  # by `who`; with key part of `under`
    quota: Quota = field(default_factory=Quota)
    enterprises: PrefixTree[Enterprise] = field(default_factory=PrefixTree)
    damaged: tuple[bytes, ...] = ()
    out: frozenset[str] = frozenset()
    count: int = 0


def key_of(paper: AnyPaper, ident: str) -> bytes:
    """Raises ZaibeiError(MALFORMED)."""
    return document_key(KIND_OF[type(paper)], ident)


def is_paper(key: bytes) -> bool:
    """Is this the key of a document about a tenant?"""
    return KINDS_FROM <= key < KINDS_TO


def value_of(paper: AnyPaper) -> bytes:
    """Canonical octets."""
    return VALUE_HEAD + msgspec.json.encode(paper, order="sorted")


def paper_of(key: bytes, value: bytes) -> tuple[str, AnyPaper]:
    """Id and document back: what may be kept, and nothing else.

    Raises:
        ZaibeiError(MALFORMED): a kind, format, field or id that is not known or not allowed, or octets that are not canonical.
    """
    kind_octets, _, ident_octets = key[1:].partition(END)
    try:
        kind, ident = kind_octets.decode(), ident_octets.decode()
        decoder = _DECODERS[kind]
        paper = decoder.decode(value[1:])
    except (KeyError, UnicodeDecodeError, msgspec.DecodeError) as exc:
        raise _bad(key, f"{exc}") from None
    if paper.format != FORMAT:
        raise _bad(key, f"format {paper.format}, this version knows {FORMAT}: a newer zaibei wrote it")
    if value_of(paper) != value:
        raise _bad(key, "its octets are not canonical: keys sorted, no spaces, every field written")
    if fault := _fault(ident, paper):
        raise _bad(key, fault)
    return ident, paper


def papers_of(rows: Iterable[tuple[bytes, bytes]]) -> Papers:
    """Documents out of stored rows; what cannot be read is counted, not skipped."""
    tenant, quota = None, Quota()
    persons: dict[str, Person] = {}
    keys: dict[str, Key] = {}
    rights: dict[str, list[tuple[bytes, Right]]] = {}
    enterprises: PrefixTree[Enterprise] = PrefixTree()
    damaged, count = [], 0
    for key, value in rows:
        count += 1
        try:
            ident, paper = paper_of(key, value)
        except ZaibeiError:
            damaged.append(key)
            continue
        match paper:
            case Tenant():
                tenant = paper
            case Person():
                persons[ident] = paper
            case Key():
                keys[ident] = paper
            case Right():
                rights.setdefault(paper.who, []).append((prefix_key(paper.under), paper))
            case Quota():
                quota = paper
            case Enterprise():
                enterprises.put(prefix_key(ident), paper)
    frozen = {who: tuple(found) for who, found in rights.items()}
    out = frozenset(one_spelling(who) for who, person in persons.items() if not person.active)
    return Papers(tenant, persons, keys, frozen, quota, enterprises, tuple(damaged), out, count)


def is_person(text: str) -> bool:
    """`index:handle`."""
    index, colon, handle = text.partition(":")
    return bool(colon) and index.isascii() and index.isdigit() and 0 < len(index) <= 10 and "/" in handle


def one_spelling(who: str) -> str:
    """A person's name under which all its spellings are one: letters' case, `0.NA/` left out. Any other name as it is."""
    index, colon, handle = who.partition(":")
    if not (colon and index.isascii() and index.isdigit()) or len(index) > 10:
        return who
    try:
        return f"{int(index)}:{Identifier.parse(handle).key().hex()}"
    except ZaibeiError:
        return f"{int(index)}:{fold(handle.encode()).decode()}"


def is_certificate(text: str) -> bool:
    """`sha256:` and 64 hex digits."""
    name, _, digits = text.partition(":")
    return name == "sha256" and len(digits) == 64 and not set(digits) - set("0123456789abcdef")


def _fault(ident: str, paper: AnyPaper) -> str:
    """What a well-formed document must not say; empty: nothing is wrong."""
    if fault := _long((paper.by, paper.why)):
        return fault
    match paper:
        case Tenant():
            texts = (paper.title, paper.suspended)
            return _long(texts, paper.prefixes, paper.code_types) or _prefixes((*paper.prefixes, *paper.case_sensitive))
        case Person():
            return _long((paper.title,), paper.groups) or ("" if is_person(ident) else "a person is named INDEX:HANDLE")
        case Key():
            if not is_certificate(ident):
                return "a key is named by a certificate's fingerprint, sha256: and 64 hex digits"
            return "" if is_person(paper.person) else "a key belongs to a person, INDEX:HANDLE"
        case Right():
            named = is_person(paper.who) or is_certificate(paper.who) or paper.who.startswith("group:")
            if not named:
                return "a right is of INDEX:HANDLE, sha256:FINGERPRINT or group:NAME"
            return _prefixes((paper.under,)) or ("" if paper.operations else "a right without operations grants nothing")
        case Quota():
            limits = (paper.identifiers, paper.octets, paper.registrations_per_s, paper.resolutions_per_s)
            if ident != QUOTA_ID:
                return f"the one quota is named {QUOTA_ID!r}"
            if any(limit is not None and limit < 0 for limit in limits) or not 0 < paper.burst_s <= 3_600:
                return "limits are 0 or more, and burst_s over 0 to 3,600"
            return ""
        case Enterprise():
            if not all(map(is_person, paper.administrators)):
                return "administrators are named INDEX:HANDLE"
            return _long((paper.title,), paper.administrators) or _prefixes((ident,)) or fault_of(paper.steps)


def _prefixes(texts: Iterable[str]) -> str:
    for text in texts:
        try:
            prefix_key(text)
        except ZaibeiError as exc:
            return exc.trouble.message
    return ""


def _long(texts: Iterable[str], *lists: tuple[str, ...]) -> str:
    if any(len(text) > TEXT_CHARS_MAX for text in texts):
        return f"a text has at most {TEXT_CHARS_MAX} characters"
    return f"a list has at most {NAMES_MAX} names" if any(len(one) > NAMES_MAX for one in lists) else ""


def _bad(key: bytes, why: str) -> ZaibeiError:
    return ZaibeiError(Code.MALFORMED, f"document {key[1:].replace(END, b'/')[:120].decode('utf-8', 'backslashreplace')}: {why}")
