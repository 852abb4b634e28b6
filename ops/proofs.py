"""What a running member proves on request, as sealed files: the state it serves, and what was decided."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hosting.tenant.edge_denials import DenialBook
from hosting.tenant.own_records import GROUP as DENIALS
from ops.mirror import Sampler
from replica.cluster.state import CONTROL_NAME
from replica.feed.difference import KeyDifference
from replica.feed.edge_difference import Located
from replica.member.copy import SourceCopy
from replica.member.differences import locate, told
from replica.member.member import Member
from replica.member.scrubs import Scrubs
from replica.model.audit import FORMAT as AUDIT_FORMAT
from replica.model.audit import NO_CHAIN, AuditHead
from replica.model.audit_personal import about, joined, masked
from replica.model.audit_seal import AuditKeys
from replica.model.edge_audit_keys import AUDIT_KEY_FILE
from replica.model.edge_identity import Identity, sync_folder
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import key_text
from replica.model.sealed import write_sealed
from replica.model.serving_state import ServingState, write_state
from replica.store.edge_audit import AuditPage
from replica.store.edge_store import SourceStore
from replica.store.scrub import Scrubbed

PAGE_RECORDS_MAX = 1_000
KEYS_SHOWN_MAX = 1_000  # of each side
DIFFERENCE_ATTEMPTS, DIFFERENCE_PAUSE_S = 5, 2.0


class MemberProofs:
    """Part of MemberCalls."""

    _member: Member
    _sampler: Sampler
    _denials: DenialBook | None

    def _copy_of(self, source: str) -> SourceCopy:
        copy = self._member.copies.get(source)
        if copy is None:
            known = ", ".join(sorted(self._member.copies)) or "none"
            raise ZaibeiError(Code.NOT_FOUND, f"{source!r} is not in service at this member (it serves: {known})")
        return copy

    async def serving_state(self, source: str, path: str) -> dict[str, Any]:
        copy = self._copy_of(source)
        identity, member = self._member.settings.identity, self._member.settings.name
        return await asyncio.to_thread(write_serving_state, copy.store, identity, member, Path(path))

    # -- equality

    async def difference(self, source: str) -> dict[str, Any]:
        copy = self._copy_of(source)
        for _ in range(DIFFERENCE_ATTEMPTS - 1):
            try:
                return _difference(source, await locate(copy))
            except ZaibeiError as exc:
                if exc.code is not Code.UNKNOWN:
                    raise
            await asyncio.sleep(DIFFERENCE_PAUSE_S)  # the content moved on: the next certificate is compared soon
        return _difference(source, await locate(copy))

    async def comparison(self, source: str) -> dict[str, Any]:
        self._copy_of(source)
        found = self._sampler.comparison(source)
        return {"source": source, **asdict(found), "result": found.result.value}

    # -- the files themselves

    def _scrubs(self) -> Scrubs:
        if self._member.scrubs is None:
            raise ZaibeiError(Code.BUSY, "this member is still starting", retry=True)
        return self._member.scrubs

    async def copies(self) -> list[dict[str, Any]]:
        scrubs = self._scrubs()
        waiting = scrubs.asked()
        return [
            {"source": name, "reading": name == scrubs.running, "waiting": name in waiting, **_scrubbed(found)}
            for name, found in sorted(scrubs.found().items())
        ]

    async def scrub(self, source: str) -> dict[str, Any]:
        asked_ms = time.time_ns() // 1_000_000
        self._scrubs().ask(source)
        return {"source": source, "asked_ms": asked_ms}

    # -- audit

    def _audit(self, group: str, after: int, limit: int) -> AuditPage:
        if group == DENIALS and self._denials is not None and group not in self._member.copies:
            return AuditPage(*self._denials.page(after, limit))
        if group != CONTROL_NAME:
            return self._copy_of(group).store.audit_page(after, limit)
        if self._member.life is None:
            raise ZaibeiError(Code.NOT_FOUND, "this member works alone: it has no control group")
        state = self._member.life.side.machine.state
        first = state.audit_head.first
        lines = [line.encode() for line in state.audit[max(0, after + 1 - first) :][:limit]]
        return AuditPage(state.audit_head, lines)

    async def audit_page(self, group: str, after: int, limit: int, person: str = "") -> dict[str, Any]:
        page = await asyncio.to_thread(self._audit, group, after, min(limit, PAGE_RECORDS_MAX))
        return page_of(group, page, after, self._member.settings.audit_keys, person)

    async def audit_reveal(self, group: str, numbers: list[int], by: str, why: str) -> dict[str, Any]:
        keys, book = self._member.settings.audit_keys, self._denials
        if not by.strip() or not why.strip():
            raise ZaibeiError(Code.MALFORMED, "who looks and for what reason is kept in the audit: name both")
        if book is None:
            raise ZaibeiError(Code.BUSY, "this member keeps no audit of its own yet, so nothing is shown", retry=True)
        if not keys:
            raise ZaibeiError(
                Code.NOT_AUTHORISED, f"this member has no key of the audit. Next: at one that has, or put {AUDIT_KEY_FILE} there"
            )
        if any(number < 1 for number in numbers):
            raise ZaibeiError(Code.MALFORMED, "records are numbered from 1")
        if len(numbers) > PAGE_RECORDS_MAX:
            raise ZaibeiError(
                Code.MALFORMED, f"at most {PAGE_RECORDS_MAX} records are shown at once. Next: --last, --who or --since"
            )
        pages = [await asyncio.to_thread(self._audit, group, number - 1, 1) for number in sorted(set(numbers))]
        lines = [line for page in pages for line in page.lines]
        head = pages[-1].head if pages else AuditHead()
        told = page_of(group, AuditPage(head, lines), 0, keys, plain=True)
        if lines:  # on the disk before a word of it is told
            await asyncio.to_thread(book.reveal, group, [json.loads(line)["number"] for line in lines], by.strip(), why.strip())
        return told

    async def audit_export(self, group: str, path: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._write_audit, group, Path(path))

    def _write_audit(self, group: str, path: Path) -> dict[str, Any]:
        page = self._audit(group, 0, 1)
        head, identity = page.head, self._member.settings.identity.latest()
        before = before_of(page)
        about = {
            "group": group,
            "first": head.first,
            "before": before.hex(),
            "last": str(head),
            "stated_ms": time.time_ns() // 1_000_000,
        }
        lines = self._records(group, head)
        name = self._member.settings.name
        write_new(path, write_sealed(AUDIT_FORMAT, name, about, lines, identity.signer, identity.certificate_pem))
        return {"group": group, "path": str(path), "head": str(head), "first": head.first}

    def _records(self, group: str, head: AuditHead) -> Iterator[bytes]:
        after = head.first - 1
        while after < head.number:
            page = self._audit(group, after, min(PAGE_RECORDS_MAX, head.number - after))
            if not page.lines:
                raise ZaibeiError(Code.CONFLICT, "the audit moved on while it was read out: try again", retry=True)
            yield from page.lines
            after += len(page.lines)


def _scrubbed(found: Scrubbed | None) -> dict[str, Any]:
    """None: it was not read through yet, as far as is known."""
    if found is None:
        return {"finding": None, "at_ms": None, "records": 0, "octets": 0, "took_ms": 0, "text": ""}
    return {
        "finding": found.finding.value,
        "at_ms": found.at_ms,
        "records": found.records,
        "octets": found.octets,
        "took_ms": found.took_ms,
        "text": found.text,
    }


def _difference(source: str, located: Located) -> dict[str, Any]:
    found = located.found
    return {
        "source": source,
        "position": str(located.position),
        "equal": found.complete and not len(found),
        "complete": found.complete,
        "buckets": found.buckets,
        "told": told(found),
        "counts": {name: len(keys) for name, keys in _sides(found).items()},
        **{name: [key_text(key) for key in keys[:KEYS_SHOWN_MAX]] for name, keys in _sides(found).items()},
        "round_trips": located.round_trips,
        "octets": located.octets,
        "took_ms": located.took_ms,
    }


def _sides(found: KeyDifference) -> dict[str, list[bytes]]:
    return {"only_ours": found.only_ours, "only_theirs": found.only_theirs, "other_value": found.other_value}


def page_of(group: str, page: AuditPage, after: int, keys: AuditKeys, person: str = "", *, plain: bool = False) -> dict[str, Any]:
    """A page of records as it is told: personal words masked, or with `plain` as they are; `sealed` those that stay closed here.

    Args:
        person: only records about exactly this name, key or address; empty: all.
    """
    records, closed = [], 0
    for line in page.lines:
        fields = json.loads(line)
        words = keys.open(fields)
        closed += words is None
        if person and (words is None or not about(joined(fields, words), person)):
            continue
        shown = joined(fields, words) if plain and words is not None else masked(fields, words)
        records.append(json.dumps(shown, ensure_ascii=False))
    head = page.head
    told = {"group": group, "number": head.number, "chain": head.chain.hex(), "first": head.first, "records": records}
    last = json.loads(page.lines[-1])["number"] if page.lines else after
    return {**told, "last": last, "closed": closed}


def before_of(page: AuditPage) -> bytes:
    """The chain before the first record of a page that begins with the oldest one kept."""
    if page.head.first == 1 or not page.lines:
        return NO_CHAIN
    return bytes.fromhex(json.loads(page.lines[0])["before"])


def write_new(path: Path, pieces: Iterable[bytes]) -> None:
    """A new file, mode 0600, on the disk when it returns. Raises ZaibeiError(MALFORMED, CONFLICT), OSError."""
    if not path.is_absolute():
        raise ZaibeiError(Code.MALFORMED, f"{path}: name an absolute path: the member writes it, in its own folder")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ZaibeiError(Code.CONFLICT, f"{path} is there already: name another file") from None
    try:
        with os.fdopen(handle, "wb") as out:
            out.writelines(pieces)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_serving_state(store: SourceStore, identity: Identity, member: str, path: Path) -> dict[str, Any]:
    """Write what this store serves to a new file. Blocks; any thread.

    Raises:
        ZaibeiError(CONFLICT): the file is there already. Errors of the store and of the system.
    """
    head, boundaries = store.boundaries()
    digest = store.digest_at(head)
    state = ServingState(
        store.source,
        member,
        head,
        {},
        time.time_ns() // 1_000_000,
        store.state().verified,
        0 if digest is None else digest.records,
        "" if digest is None else f"{digest.total:032x}",
    )
    mine = identity.latest()
    write_new(path, write_state(state, boundaries, mine.signer, mine.certificate_pem))
    return {"source": store.source, "path": str(path), "position": str(head), "boundaries": len(boundaries)}
