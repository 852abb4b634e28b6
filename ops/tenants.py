"""A running member's answers about tenants; part of its admin calls. What it changes goes through the tenant's own desk."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from hosting.tenant.enterprise import time_to_effect_ms
from hosting.tenant.offices import Office, Offices
from hosting.tenant.papers import KINDS_FROM, KINDS_TO, PAPERS_MAX, Enterprise, Papers, key_of, paper_of, value_of
from ops.operators.tenants import HOSTED, PLANNED, Act, TenantPlan, document, enterprise_step, plan
from ops.sites import SiteProber
from replica.model.batch import OP_PUT, Change
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import document_key, prefix_key, prefix_text
from replica.model.precondition import ABSENT, equal_to

PAGE_ROWS_MAX = 1_000
PAGE_OCTETS_MAX = 4 * 1024 * 1024
SCAN_ROWS = 16  # read at once: with the largest records still 4 MiB
KEY_END = b"\xff"  # above every key
Row = dict[str, Any]


class MemberTenants:
    """Part of MemberCalls."""

    _offices: Offices
    _sites: SiteProber | None

    async def tenant_list(self) -> list[Row]:
        rows = []
        for settings in self._offices.settings:
            try:
                rows.append(await _row(self._offices.office_of(settings.source)))
            except ZaibeiError as exc:
                rows.append({"source": settings.source, "state": None, "detail": str(exc)})
        return rows

    async def tenant_show(self, source: str) -> Row:
        office = self._offices.office_of(source)
        documents = []
        for key, value in await office.clerk.group.scan(KINDS_FROM, KINDS_TO, PAPERS_MAX):
            kind, _, ident = key[len(KINDS_FROM) :].partition(b"\0")
            name = {"kind": kind.decode("utf-8", "backslashreplace"), "id": ident.decode("utf-8", "backslashreplace")}
            try:
                documents.append({**name, "body": msgspec.to_builtins(paper_of(key, value)[1])})
            except ZaibeiError as exc:
                documents.append({**name, "body": None, "fault": str(exc)})
        return {**await _row(office), "documents": documents}

    async def tenant_sites(self, source: str) -> Row:
        office = self._offices.office_of(source)
        if self._sites is None:
            raise ZaibeiError(Code.REFUSED, "nothing is probed at this member")
        if not office.clerk.group.leader:
            raise ZaibeiError(Code.NOT_LEADER, f"this member does not lead {source}, so it probes nothing of it", retry=True)
        settings = self._sites.settings
        return {
            "source": source,
            "per_s": settings.per_s,
            "interval_s": round(self._sites.book.interval_s, 1),
            "enterprises": self._sites.rows(source),
        }

    async def tenant_plan(self, source: str, act: str, by: str, why: str, title: str, visibility: str) -> Row:
        planned = await self._tenant_planned(Act(source, act, by, why, title, visibility))
        return {"source": source, "act": act, "text": planned.text, "token": planned.token, "done": planned.paper is None}

    async def tenant_run(self, source: str, act: str, by: str, why: str, title: str, visibility: str, token: str) -> Row:
        planned = await self._tenant_planned(Act(source, act, by, why, title, visibility))
        if planned.paper is None:
            return {"source": source, "act": act, "changed": False, "position": None}
        if (token or act in PLANNED) and token != planned.token:
            raise ZaibeiError(
                Code.REFUSED, f"{source} is not as that plan saw it, or it was another plan. Nothing was done: plan it again"
            )
        office = self._offices.office_of(source)
        position = await _write(office, key_of(planned.paper, source), value_of(planned.paper))
        return {"source": source, "act": act, "changed": True, "position": position}

    async def _tenant_planned(self, act: Act) -> TenantPlan:
        office = self._offices.office_of(act.source)
        await office.clerk.barrier()  # what a member that was replaced remembers is no ground for an act
        return plan(act, await office.documents(), office.clerk.group.state(), _now_ms())

    async def tenant_document(self, source: str, kind: str, ident: str, body: Row, by: str, why: str) -> Row:
        office = self._offices.office_of(source)
        _check_tenant(source, await office.documents())
        key, value = document(kind, ident, body, by, why)
        position = await _write(office, key, value)
        return {"source": source, "kind": kind, "id": ident, "position": position}

    async def tenant_enterprise(
        self, source: str, prefix: str, to: str, title: str, administrators: list[str], by: str, why: str
    ) -> Row:
        office = self._offices.office_of(source)
        _check_tenant(source, await office.documents())
        ident = prefix_text(prefix_key(prefix))
        if not office.clerk.group.allows(prefix_key(prefix)):
            raise ZaibeiError(Code.NOT_OWNER, f"{prefix} is no prefix of {source}")
        key = document_key("hosting.enterprise", ident)
        [held] = office.clerk.group.get_many([key])[0]
        was = None if held is None else paper_of(key, held)[1]
        made = enterprise_step(
            was if isinstance(was, Enterprise) else None, ident, to, title, tuple(administrators), _now_ms(), by, why
        )
        position = await _write(office, key, value_of(made))
        took = time_to_effect_ms(made.steps)
        return {"source": source, "prefix": ident, "state": made.state.value, "time_to_effect_ms": took, "position": position}

    async def tenant_page(self, source: str, after: str, limit: int) -> Row:
        office = self._offices.office_of(source)
        group, start = office.clerk.group, bytes.fromhex(after) + b"\0" if after else b""
        rows: list[tuple[str, str]] = []
        octets, more = 0, True
        before = group.state().position
        while more and len(rows) < min(limit, PAGE_ROWS_MAX) and octets < PAGE_OCTETS_MAX:
            part = await group.scan(start, KEY_END, SCAN_ROWS)
            for key, value in part:
                rows.append((key.hex(), value.hex()))
                octets += len(key) + len(value)
            more = len(part) == SCAN_ROWS
            start = part[-1][0] + b"\0" if part else start
        moved = group.state().position != before
        return {"source": source, "rows": rows, "more": more, "position": str(before), "moved": moved}


async def _row(office: Office) -> Row:
    """How a tenant stands, in a line."""
    state, papers = office.clerk.group.state(), await office.documents()
    tenant = papers.tenant
    word = "damaged" if papers.damaged else "none" if tenant is None else "suspended" if tenant.suspended else "active"
    return {
        "source": office.source,
        "state": word,
        "title": tenant.title if tenant else "",
        "suspended": tenant.suspended if tenant else "",
        "visibility": tenant.visibility if tenant else None,
        "lives_here": state.authority_act == HOSTED,
        "led_here": office.clerk.group.leader,
        "prefixes": sorted(map(prefix_text, state.prefixes)),
        "case_sensitive": sorted(map(prefix_text, state.case_sensitive)),
        "answered": tenant is None or not tenant.suspended or tenant.answered_while_suspended,
        "identifiers": state.records - papers.count,
        "octets": office.clerk.group.octets(),
        "quota": msgspec.to_builtins(papers.quota),
        "enterprises": len(papers.enterprises),
        "position": str(state.position),
        "detail": "",
    }


def _check_tenant(source: str, papers: Papers) -> None:
    if papers.tenant is None:
        raise ZaibeiError(Code.NOT_FOUND, f"{source} is no tenant so far. Next: zaibei tenant create {source}")


async def _write(office: Office, key: bytes, value: bytes) -> str:
    """Write a document if it is still as it was read last: nothing may be awaited between that and this. Returns the position."""
    [held] = office.clerk.group.get_many([key])[0]
    verdict = await office.clerk.change(Change(OP_PUT, key, value), ABSENT if held is None else equal_to(held))
    if verdict.position is None:
        trouble = verdict.trouble
        if trouble is None:
            raise ZaibeiError(Code.UNKNOWN, "no outcome", definite=False)
        raise ZaibeiError(trouble.code, trouble.message, definite=trouble.definite, retry=trouble.retry)
    return str(verdict.position)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
