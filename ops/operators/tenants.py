"""Acts about a tenant: what each requires of the documents as they are, and which document it writes. Pure.

| act | of a source | requires | danger |
| --- | --- | --- | --- |
| create | that lives here | no tenant document | none |
| adopt | whose registrations we took over | no tenant document | its clients meet rights: plan, then run |
| suspend | | a tenant that is not suspended, or not answered meanwhile | registrations are refused: plan, then run |
| suspend-unanswered | | a tenant that is not suspended, or answered meanwhile | nor is it resolved here: plan, then run |
| resume | | a suspended tenant | none |

An act that was carried out already, for the same reason and by the same person, is done: running it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from hosting.tenant.enterprise import PrefixState, begun, moved
from hosting.tenant.papers import KIND_OF, Enterprise, Papers, Tenant, paper_of, value_of
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import document_key, prefix_key, prefix_text

PLAN_VERSION = "zaibei tenant plan 1"
TOKEN_DIGITS = 16
SUSPEND, UNANSWERED = "suspend", "suspend-unanswered"
ACTS = ("create", "adopt", SUSPEND, UNANSWERED, "resume")
PLANNED = ("adopt", SUSPEND, UNANSWERED)
HOSTED = "hosted"  # act of a group whose source lives here
VISIBILITIES = ("public", "tenant")


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody wants. `title`, `visibility`: of a tenant that begins."""

    source: str
    act: str
    by: str
    why: str
    title: str = ""
    visibility: str = "public"


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """What would be done. `paper` None: it is done already."""

    text: str
    paper: Tenant | None

    @property
    def token(self) -> str:
        return sha256(self.text.encode()).hexdigest()[:TOKEN_DIGITS]


def plan(act: Act, papers: Papers, state: GroupState, now_ms: int) -> TenantPlan:
    """Look; changes nothing.

    Args:
        now_ms: Unix milliseconds; not part of the plan's text, so not of its token.
    Raises:
        ZaibeiError: MALFORMED (no such act, nobody or no reason named), CONFLICT, NOT_FOUND, REFUSED by the table above.
    """
    if act.act not in ACTS:
        raise ZaibeiError(Code.MALFORMED, f"no act {act.act[:40]!r} about a tenant: {', '.join(ACTS)}")
    if not act.by.strip() or not act.why.strip():
        raise ZaibeiError(Code.MALFORMED, "an act about a tenant names who acts, and why: both are kept in its audit")
    was = papers.tenant
    made = _begun(act, was, state, now_ms) if act.act in ("create", "adopt") else _changed(act, was)
    lines = [
        PLAN_VERSION,
        f"source {act.source}",
        f"act {act.act}",
        f"by {act.by}",
        f"why {act.why}",
        f"the tenant's document now {'none' if was is None else sha256(value_of(was)).hexdigest()}",
        _consequence(act.act),
    ]
    return TenantPlan("\n".join(lines) + "\n", made)


def _begun(act: Act, was: Tenant | None, state: GroupState, now_ms: int) -> Tenant | None:
    if was is not None:
        if (was.by, was.why, was.title) == (act.by, act.why, act.title):
            return None
        raise ZaibeiError(Code.CONFLICT, f"{act.source} is a tenant already, since {was.since_ms} ms: zaibei tenant show")
    lives_here = state.authority_act == HOSTED
    if lives_here is not (act.act == "create"):
        told = (
            "lives here: `create` it"
            if lives_here
            else "has a node of its own: take its registrations over first, then `adopt` it"
        )
        raise ZaibeiError(Code.REFUSED, f"{act.source} {told}. Nothing was done")
    if act.visibility not in VISIBILITIES:
        raise ZaibeiError(Code.MALFORMED, f"visibility is one of {', '.join(VISIBILITIES)}")
    return Tenant(
        title=act.title or act.source,
        visibility="tenant" if act.visibility == "tenant" else "public",
        prefixes=tuple(sorted(map(prefix_text, state.prefixes))),
        case_sensitive=tuple(sorted(map(prefix_text, state.case_sensitive))),
        since_ms=now_ms,
        by=act.by,
        why=act.why,
    )


def _changed(act: Act, was: Tenant | None) -> Tenant | None:
    if was is None:
        raise ZaibeiError(Code.NOT_FOUND, f"{act.source} is no tenant so far. Next: zaibei tenant create {act.source}")
    suspends, answered = act.act != "resume", act.act != UNANSWERED
    if suspends is bool(was.suspended) and (not suspends or answered is was.answered_while_suspended):
        if (was.by, was.why) == (act.by, act.why):
            return None
        raise ZaibeiError(
            Code.CONFLICT, f"{act.source} is {'suspended already: ' + was.suspended if suspends else 'not suspended'}"
        )
    suspended = act.why if suspends else ""
    return msgspec.structs.replace(was, suspended=suspended, answered_while_suspended=answered, by=act.by, why=act.why)


def _consequence(act: str) -> str:
    return {
        "create": "from now on its people register by the rights its documents grant, and nobody without",
        "adopt": "from now on registrations here ask for rights in its documents; who has none is refused",
        SUSPEND: "all its registrations are refused until it is resumed; resolution goes on",
        UNANSWERED: "all its registrations are refused until it is resumed, and each of its identifiers is answered 401 (final)",
        "resume": "its people register again by their rights",
    }[act]


def document(kind: str, ident: str, body: Mapping[str, Any], by: str, why: str) -> tuple[bytes, bytes]:
    """Key and value of a document out of a person's words: fields left out have their defaults.

    Raises:
        ZaibeiError(MALFORMED): as `paper_of`; or the tenant's own document, which only acts write.
    """
    if kind == "tenant":
        raise ZaibeiError(Code.MALFORMED, "the tenant's own document is written by create, adopt, suspend and resume alone")
    made = filled(f"hosting.{kind}", {**body, "by": by, "why": why})
    key = document_key(f"hosting.{kind}", ident)
    paper_of(key, made)
    return key, made


def filled(kind: str, body: Mapping[str, Any]) -> bytes:
    """Canonical octets with every field written. Raises ZaibeiError(MALFORMED)."""
    of = next((one for one, name in KIND_OF.items() if name == kind), None)
    if of is None:
        raise ZaibeiError(Code.MALFORMED, f"no documents of kind {kind[:40]!r}: {', '.join(KIND_OF.values())}")
    try:
        return value_of(msgspec.convert(dict(body), of))
    except msgspec.ValidationError as exc:
        raise ZaibeiError(Code.MALFORMED, f"{kind}: {exc}") from None


def enterprise_step(
    was: Enterprise | None, prefix: str, to: str, title: str, administrators: tuple[str, ...], now_ms: int, by: str, why: str
) -> Enterprise:
    """The next step of an enterprise's prefix. Raises ZaibeiError: MALFORMED, REFUSED (no legal move)."""
    prefix_key(prefix)
    if to not in set(PrefixState):
        raise ZaibeiError(Code.MALFORMED, f"a prefix is never {to[:40]!r}: {', '.join(PrefixState)}")
    state = PrefixState(to)
    if was is None:
        if state is not PrefixState.APPLIED:
            raise ZaibeiError(Code.REFUSED, f"nobody applied for {prefix}: its life begins with `applied`")
        return Enterprise(title=title or prefix, steps=begun(now_ms), administrators=administrators, by=by, why=why)
    steps = moved(was.steps, state, max(now_ms, was.steps[-1][1]))
    return Enterprise(title=title or was.title, steps=steps, administrators=administrators or was.administrators, by=by, why=why)
