"""From a question to the keys it needs, and from what was read to one answer. Pure; the table of codes is in `standing.py`.

What a name needs, all of it from the one source that owns it:

| name | key asked first | further keys, nearest ancestor first |
| --- | --- | --- |
| identifier, source of records | its record | none |
| identifier, source of routes or mixed | its record | routes of its enterprise prefixes (below the owned prefix) |
| `0.NA/P`, the record of prefix P | route of P, from the owner of P's parent | routes of P's ancestors below the owned prefix |

What is answered where the standing allows an answer:

| found | answer |
| --- | --- |
| record | 1 with what the filters leave, 200 when nothing is left |
| route with HS_SITE, HS_SITE.6 or HS_SERV above an identifier (routes: before its record; mixed: after it) | 302 |
| delegation (HS_SITE.PREFIX, HS_NA_DELEGATE, HS_SERV.PREFIX) above a prefix we do not hold | 303, empty referral handle |
| overlay for a prefix | its sites before the stored ones, or instead of them |
| quarantined octets on the way | 2 |
| owner unknown | 301 |
| an order to block the name or a prefix above it, over all of this | 401, final: no resolver asks another site |
| its tenant is suspended and not answered meanwhile | 401 too |

No referral can lead back to us: sites with an address and port of our own are left out, and ancestors at or above the owned
prefix are never asked, since a delegation there names the very source whose copy this is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from hosting.answer.question import Answer, Question
from hosting.answer.sites import SITE_TYPES, Endpoints, delegation, endpoints_of, merge_overlay, route_referral
from hosting.answer.standing import FOUND, NO_SUCH_NAME, TRY_ANOTHER, Standing
from replica.model.blocks import Blocked
from replica.model.catalog import Catalog
from replica.model.errors import ZaibeiError
from replica.model.group_state import OverlaySites
from replica.model.handle.codes import ResponseCode
from replica.model.identifier import END, ROUTE, Identifier, ancestors, parent
from replica.model.states import Mode
from replica.native import filter_values

NOTHING = bytes(4)  # a count of no values
BLOCKED = ResponseCode.INSUFFICIENT_PERMISSIONS
SUSPENDED = Answer(BLOCKED, b"its tenant is suspended")  # final as a block: 2 would send on, 100 would be a lie
NOT_HERE = b"That prefix doesn't live here"  # the words of deployed servers


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read for one question.

    Args:
        source: asked for all `keys`: the name's own, then those of routes, nearest ancestor first.
        prefix: key part of the name's prefix, or of the prefix that a route question is about.
        mode: of the source; `route`: the question is about a prefix's own record.
        overlay: sites that go before the stored ones.
    """

    source: str
    keys: tuple[bytes, ...]
    prefix: bytes
    mode: Mode
    route: bool
    overlay: OverlaySites | None = None


def plan(question: Question, catalog: Catalog, now_ms: int = 0) -> Plan | Answer:
    """Find what a question needs.

    Args:
        now_ms: Unix milliseconds, for the end of orders to block; 0: every one of the catalog counts.
    Returns:
        A plan, or at once the answer where no source needs to be read: 102 for what is no name, 301 for what is not
        ours, 401 for what is blocked or of a suspended tenant that is not answered.
    """
    try:
        name = Identifier.parse(question.handle)
    except ZaibeiError as exc:
        return Answer(ResponseCode.INVALID_HANDLE, exc.trouble.message.encode())
    asked = parent(name.prefix) if name.route else name.prefix
    owned = catalog.owners.longest(asked)
    if catalog.blocks:
        key = name.key(case_sensitive=owned is not None and owned[1].case_sensitive)
        if (blocked := catalog.blocks.on(name.prefix, key, now_ms)) is not None:
            return _blocked(blocked, None)
    overlay = catalog.overlays.get(name.prefix) if name.route else None
    if owned is None:
        if overlay is not None and not question.authoritative:
            return _filtered(merge_overlay(overlay, None), question, None)
        return Answer(ResponseCode.SERVER_NOT_RESP, NOT_HERE)
    top, owner = owned
    if not catalog.answers(owner.source):
        return SUSPENDED
    routes: tuple[bytes, ...] = ()
    if name.route or owner.mode is not Mode.RECORDS:
        routes = tuple(ROUTE + above + END for above in ancestors(asked) if len(above) > len(top))
    return Plan(
        owner.source,
        (name.key(case_sensitive=owner.case_sensitive), *routes),
        name.prefix,
        owner.mode,
        name.route,
        overlay,
    )


@dataclass(frozen=True, slots=True)
class Head:
    """The short way for one spelling of a prefix: a name below it needs the one key `start` + suffix of `source`."""

    source: str
    start: bytes
    fold: bool
    prefix: bytes


def head_of(prefix: bytes, catalog: Catalog) -> Head | None:
    """The short way for names `prefix`/suffix; None where a name needs a plan (prefix records, routes, blocks, suspended)."""
    if b":" in prefix:
        return None
    try:
        name = Identifier.parse(prefix + b"/")
    except ZaibeiError:
        return None
    owned = catalog.owners.longest(name.prefix)
    if name.route or owned is None or catalog.blocks.near(name.prefix):
        return None
    top, owner = owned
    if (owner.mode is not Mode.RECORDS and top != name.prefix) or not catalog.answers(owner.source):
        return None
    fold = not owner.case_sensitive or name.prefix.startswith(b"h0\x01")
    return Head(owner.source, name.prefix + END, fold, name.prefix)


def answer_record(question: Question, value: bytes | None, standing: Standing, prefix: bytes, key: bytes) -> Answer:
    """The answer to an identifier whose one `key` was read; `value` None: no such record, b"": quarantined."""
    if standing.blocks and (blocked := standing.blocks.on(prefix, key, 0)) is not None:
        return _blocked(blocked, standing)
    row = standing.row
    if row.found != FOUND or (question.authoritative and not row.authoritative):
        return _refused(question, standing)
    if value:
        octets = filter_values(value, question.indexes, question.types, True)
        if octets is not None and octets != NOTHING:
            return Answer(FOUND, octets, standing)
        return _emptied(octets, standing)
    return _missing(prefix, standing) if value is None else _quarantined(standing)


def answer_plan(question: Question, plan: Plan, values: Sequence[bytes | None], standing: Standing, own_site: bytes) -> Answer:
    """The answer to any question from everything its plan read.

    Args:
        values: in the order of `plan.keys`.
        own_site: HS_SITE data octets of this cluster; no referral leads to its addresses.
    """
    if standing.blocks and (blocked := standing.blocks.on(plan.prefix, plan.keys[0], 0)) is not None:
        return _blocked(blocked, standing)
    if plan.route:
        return _answer_prefix(question, plan, values, standing, own_site)
    row = standing.row
    if row.found != FOUND or (question.authoritative and not row.authoritative):
        return _refused(question, standing)
    if plan.mode is Mode.MIXED and values[0] is not None:
        return answer_record(question, values[0], standing, plan.prefix, plan.keys[0])
    for route in values[1:]:
        if route == b"":
            return _quarantined(standing)
        referral = None if route is None else route_referral(route, own_endpoints(own_site))
        if referral is not None:
            return _referred(question, Answer(ResponseCode.SERVICE_REFERRAL, referral.values, standing, referral.handle))
    return answer_record(question, values[0], standing, plan.prefix, plan.keys[0])


def _answer_prefix(question: Question, plan: Plan, values: Sequence[bytes | None], standing: Standing, own_site: bytes) -> Answer:
    row, record, overlay = standing.row, values[0], plan.overlay
    if question.authoritative and not row.authoritative:
        return _refused(question, standing)
    if overlay is not None and not record and row.found == FOUND:
        return _filtered(merge_overlay(overlay, None), question, standing)
    if overlay is not None and row.found != FOUND and _sites_alone(question):
        # A committed overlay is our own act and holds whatever the copy of the parent is worth; nothing beside its sites does.
        return _filtered(merge_overlay(overlay, None), question, standing)
    if row.found != FOUND:
        return _refused(question, standing)
    if record:
        return _filtered(record if overlay is None else merge_overlay(overlay, record), question, standing)
    if record == b"":
        return _quarantined(standing)
    for route in values[1:]:
        if route == b"":
            return _quarantined(standing)
        delegated = None if route is None else delegation(route, own_endpoints(own_site))
        if delegated is not None:
            return _referred(question, Answer(ResponseCode.PREFIX_REFERRAL, delegated, standing))
    return _missing(plan.prefix, standing)


@lru_cache(maxsize=4)  # one catalog at a time; a few more for tests and changes
def own_endpoints(own_site: bytes) -> Endpoints:
    """Addresses and ports that are ourselves."""
    return endpoints_of(own_site)


def _sites_alone(question: Question) -> bool:
    return bool(question.types) and not question.indexes and all(name.upper() in SITE_TYPES for name in question.types)


def _filtered(record: bytes, question: Question, standing: Standing | None) -> Answer:
    octets = filter_values(record, question.indexes, question.types, True)
    if octets is not None and octets != NOTHING:
        return Answer(ResponseCode.SUCCESS, octets, standing)
    return _emptied(octets, standing)


def _emptied(octets: bytes | None, standing: Standing | None) -> Answer:
    if octets is None:
        return Answer(ResponseCode.ERROR, b"the stored record does not parse; ask another site", standing)
    return Answer(ResponseCode.VALUES_NOT_FOUND, b"", standing)


def _referred(question: Question, answer: Answer) -> Answer:
    if question.refer:
        return answer
    return Answer(ResponseCode.SERVER_NOT_RESP, b"served elsewhere, and no referral was wanted", answer.standing)


def _refused(question: Question, standing: Standing) -> Answer:
    """2 and why. For AT too: 301 would be final, and the client must go on to the site with the primary flag."""
    if standing.row.found == FOUND and question.authoritative:
        return Answer(TRY_ANOTHER, f"not the authority; {standing.text}".encode(), standing)
    return Answer(TRY_ANOTHER, standing.text.encode(), standing)


def _blocked(blocked: Blocked, standing: Standing | None) -> Answer:
    """What the view says is in force; who reads the catalog asks at its own moment."""
    return Answer(BLOCKED, blocked.text().encode(), standing)


def _quarantined(standing: Standing) -> Answer:
    return Answer(TRY_ANOTHER, f"the record is quarantined; {standing.text}".encode(), standing)


def _missing(prefix: bytes, standing: Standing) -> Answer:
    if standing.row.missing == NO_SUCH_NAME:
        gaps = standing.view.gaps if standing.view is not None else ()
        if not gaps or not any(above in gaps for above in ancestors(prefix)):
            return Answer(NO_SUCH_NAME, b"", standing)
        return Answer(TRY_ANOTHER, f"changes are missing below this prefix; {standing.text}".encode(), standing)
    return Answer(TRY_ANOTHER, f"missing in this copy; {standing.text}".encode(), standing)
