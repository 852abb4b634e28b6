"""A running member's answers about prefixes that move to another source; part of its admin calls (SEMANTICS 9).

Each step is one entry of one group, so each may be asked for again after a crash of anybody: what is committed says what is left.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from hashlib import sha256
from typing import Any

from hosting.tenant.offices import Office, Offices
from hosting.tenant.port import HostedGroup
from replica.cluster.entries import prefix_moved
from replica.cluster.state import CONTROL_ID
from replica.member.member import Member
from replica.member.moves import record_of_move
from replica.model.batch import OP_DELETE, OP_PUT, Change
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import ancestors, prefix_key, prefix_text
from replica.model.move_rules import body_of, unfit_to_come, unfit_to_leave
from replica.model.outcome import OutcomeKind
from replica.model.precondition import Precondition
from replica.model.prefix_moves import LEAVING, MoveStep, PrefixMove, RangeDigest, newest, ranges_of, stepped
from replica.v1 import entry_pb2

PLAN_VERSION = "zaibei prefix move plan 1"
TOKEN_DIGITS = 16
PAGE_OCTETS_MAX = 1024 * 1024  # as stored; hex doubles it, and an answer between members has at most 3 MiB
PAGE_ROWS_MAX = 1_000
SCAN_ROWS_MAX = 256
DROP_ROWS_MAX = 5_000  # of one call
DROP_AFTER_MS = 3_000  # since ACQUIRED: a member that was not heard for 2 s answers no "not found" any more (SEMANTICS 4)
COMMIT_S_MAX = 20.0
Row = dict[str, Any]


class MemberMoves:
    """Part of MemberCalls."""

    _offices: Offices
    _member: Member

    async def move_list(self, prefix: str) -> Row:
        wanted = prefix_key(prefix) if prefix else None
        rows = [row_of(move, group) for group, move in self._known() if wanted is None or move.prefix == wanted]
        owner = "" if wanted is None else self._member.owner_of(wanted) or ""
        return {
            "prefix": prefix,
            "owner": owner,
            "moves": sorted(rows, key=lambda row: (row["prefix"], row["number"], row["at_ms"])),
        }

    async def move_plan(self, source: str, prefix: str, to: str) -> Row:
        office, key = self._offices.office_of(source), prefix_key(prefix)
        if to == source or all(to != one.source for one in self._offices.settings):
            fault = "owns it already" if to == source else "is no source that registrations are made in here"
            raise ZaibeiError(Code.REFUSED, f"{to[:80]} {fault}. Nothing was done. Next: zaibei tenant list")
        await office.clerk.barrier()
        state = office.clerk.group.state()
        begun = newest(state.moves).get(key)
        if begun is not None and begun.step in LEAVING:
            if begun.target != to:
                raise ZaibeiError(Code.CONFLICT, f"{prefix} is on its way to {begun.target} already. Nothing was done")
            return {"text": f"{prefix} is on its way to {to}: {begun.step.name}\n", "token": begun.act, "begun": True}
        planned, text = self._move_planned(state, key, to)
        if (why := unfit_to_leave(state, key, planned.case_sensitive)) is not None:
            raise ZaibeiError(Code.REFUSED, f"{why}. Nothing was done")
        if to in self._member.copies:  # else its own leader says so before anything is copied
            other = self._member.copies[to].store.state()
            if (why := unfit_to_come(other, key, planned.case_sensitive)) is not None:
                raise ZaibeiError(Code.REFUSED, f"{why}. Nothing was done")
        return {"text": text, "token": planned.act, "begun": False}

    async def move_look(self, source: str, prefix: str, token: str) -> Row:
        office = self._offices.office_of(source)
        await office.clerk.barrier()
        row = _of(office.clerk.group.state(), token)
        recorded = self._recorded(token)
        return {
            "source": source,
            "row": None if row is None else row_of(row, source),
            "recorded": None if recorded is None else row_of(recorded, "control"),
            "alone": self._member.life is None,
        }

    async def move_step(self, source: str, prefix: str, to: str, token: str, step: str, by: str, reason: str) -> Row:
        office, key = self._offices.office_of(source), prefix_key(prefix)
        group = office.clerk.group
        await office.clerk.barrier()
        state = group.state()
        row = _of(state, token)
        if step == "freeze":
            planned, _ = self._move_planned(state, key, to)
            if row is None:
                if planned.act != token:
                    raise ZaibeiError(Code.REFUSED, f"{prefix} is not as that plan saw it. Nothing was done: plan it again")
                row = replace(planned, by=by, reason=reason)
                await _commit(group, stepped(row, MoveStep.FROZEN, _now_ms()))
            return {"done": True}
        if row is None:
            raise ZaibeiError(Code.NOT_FOUND, f"no move {token[:40]} in {source}")
        match step:
            case "release":
                summed = await _range(group, row.prefix)
                await _commit(group, stepped(row, MoveStep.RELEASED, _now_ms(), records=summed.records, digest=summed.digest()))
            case "cancel":
                await _commit(group, stepped(row, MoveStep.CANCELLED, _now_ms()))
            case "drop":
                return await self._drop(office, row)
            case _:
                raise ZaibeiError(Code.MALFORMED, f"no step {step[:40]!r}")
        return {"done": True}

    async def move_record(self, source: str, token: str) -> Row:
        life = self._member.life
        if life is None:
            return {"done": True, "alone": True}
        office = self._offices.office_of(source)
        await office.clerk.barrier()
        row = _of(office.clerk.group.state(), token)
        if row is None or row.step is MoveStep.FROZEN:
            raise ZaibeiError(Code.REFUSED, f"{source} has not released or acquired anything by the move {token[:40]}")
        recorded = self._recorded(token)
        acquired = row.step is MoveStep.ACQUIRED
        if acquired and recorded is None:
            raise ZaibeiError(Code.BUSY, "this member does not know yet that it was recorded: again later", retry=True)
        record = record_of_move(recorded if acquired and recorded is not None else row, _now_ms(), acquired=acquired)
        reached = await life.propose(CONTROL_ID, prefix_moved(_now_ms(), record))
        if reached.outcome.kind not in (OutcomeKind.APPLIED, OutcomeKind.ALREADY):
            raise ZaibeiError(Code.CONFLICT, f"not recorded: {reached.outcome.detail}")
        return {"done": True, "alone": False}

    async def move_page(self, source: str, token: str, after: str) -> Row:
        group = self._offices.office_of(source).clerk.group
        row = _of(group.state(), token)
        if row is None or row.step is not MoveStep.RELEASED:
            raise ZaibeiError(Code.REFUSED, f"{source} has released nothing by the move {token[:40]}, or drops it by now")
        rows, more = await _page(group, row.prefix, bytes.fromhex(after))
        return {"rows": [[key.hex(), value.hex()] for key, value in rows], "more": more}

    async def move_take(self, source: str, token: str, rows: list[list[str]]) -> Row:
        office = self._offices.office_of(source)
        released = self._to_take(office, token)
        ranges = ranges_of(released.prefix)
        pairs = [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in rows]
        if not all(any(start <= key < stop for start, stop in ranges) for key, _ in pairs):
            raise ZaibeiError(Code.MALFORMED, f"a record that is not below {prefix_text(released.prefix)}")
        held, _ = office.clerk.group.get_many([key for key, _ in pairs]) if pairs else ([], None)
        lacking = [pair for pair, there in zip(pairs, held, strict=True) if pair[1] != there]
        need = Precondition(move=token)
        await _all(office, [(Change(OP_PUT, key, value), need) for key, value in lacking])
        return {"taken": len(lacking)}

    async def move_acquire(self, source: str, token: str) -> Row:
        office = self._offices.office_of(source)
        await office.clerk.barrier()
        group = office.clerk.group
        if (own := _of(group.state(), token)) is not None and own.step is MoveStep.ACQUIRED:
            return {"done": True, "records": own.records}
        released = self._to_take(office, token)
        summed = await _range(group, released.prefix)
        if (summed.records, summed.digest()) != (released.records, released.digest):
            raise ZaibeiError(
                Code.VERIFICATION_FAILED,
                f"{source} holds {summed.records} records below {prefix_text(released.prefix)}, {released.records} were "
                "released; their digests differ. Nothing was acquired: the same command copies what is missing",
            )
        await _commit(group, stepped(released, MoveStep.ACQUIRED, _now_ms()))
        return {"done": True, "records": summed.records}

    # ------------------------------------------------------------------------------------------------------------ parts
    def _known(self) -> list[tuple[str, PrefixMove]]:
        local = [(name, move) for name, copy in self._member.copies.items() for move in copy.store.state().moves]
        return [*local, *(("control", move) for move in self._member.recorded_moves())]

    def _recorded(self, token: str) -> PrefixMove | None:
        return next((move for move in self._member.recorded_moves() if move.act == token), None)

    def _to_take(self, office: Office, token: str) -> PrefixMove:
        """What was released to this source: by the control group, and at a member alone by the old group. Raises ZaibeiError."""
        found = self._recorded(token)
        if found is None and self._member.life is None:
            found = next((move for _, move in self._known() if move.act == token and move.step is MoveStep.RELEASED), None)
        if found is None or found.target != office.source:
            raise ZaibeiError(Code.REFUSED, f"nothing is recorded as released to {office.source} by {token[:40]}", retry=True)
        return found

    def _move_planned(self, state: GroupState, key: bytes, to: str) -> tuple[PrefixMove, str]:
        """The move as it would begin now, and its text; the token is its act."""
        numbers = [move.number for _, move in self._known() if move.prefix == key and move.step is not MoveStep.CANCELLED]
        number = max([0, *numbers]) + 1
        sensitive = any(above in state.case_sensitive for above in ancestors(key))
        lines = [
            PLAN_VERSION,
            f"prefix {prefix_text(key)}, with all identifiers and prefix records below it",
            f"from {state.source}, ownership version {state.ownership_version}",
            f"to {to}",
            f"its move number {number}; {'case-sensitive' if sensitive else 'case-insensitive'} suffixes",
            "meanwhile it is answered from the old source, and registrations are told to come again (7)",
            "documents about the tenant stay where they are: rights below it are the new tenant's to give",
        ]
        text = "\n".join(lines) + "\n"
        act = sha256(text.encode()).hexdigest()[:TOKEN_DIGITS]
        return PrefixMove(act, key, number, MoveStep.FROZEN, state.source, to, case_sensitive=sensitive), text

    async def _drop(self, office: Office, row: PrefixMove) -> Row:
        """A part of the old content goes; only once the new group has it all, for so long that every member knows."""
        group = office.clerk.group
        if row.step is MoveStep.DROPPED:
            return {"done": True, "dropped": 0}
        if row.step is MoveStep.RELEASED:
            since_ms = self._acquired_ms(row)
            if since_ms is None:
                raise ZaibeiError(Code.REFUSED, f"{row.target} has not acquired {prefix_text(row.prefix)}: nothing is dropped")
            if (left_ms := since_ms + DROP_AFTER_MS - _now_ms()) > 0:
                raise ZaibeiError(Code.BUSY, f"dropped in {left_ms} ms: so long members may still read here", retry=True)
            await _commit(group, stepped(row, MoveStep.DROPPING, _now_ms()))
        dropped, more = 0, True
        while more and dropped < DROP_ROWS_MAX:
            rows, more = await _page(group, row.prefix, b"")
            need = Precondition(move=row.act)
            await _all(office, [(Change(OP_DELETE, key, b""), need) for key, _ in rows])
            dropped += len(rows)
        if not more:
            await _commit(group, stepped(_of(group.state(), row.act) or row, MoveStep.DROPPED, _now_ms()))
        return {"done": not more, "dropped": dropped}

    def _acquired_ms(self, row: PrefixMove) -> int | None:
        """When the new group acquired it, as committed: by the control group, and at a member alone by the new group."""
        found = [move for _, move in self._known() if move.act == row.act and move.step is MoveStep.ACQUIRED]
        recorded = self._recorded(row.act)
        if self._member.life is not None:
            return recorded.at_ms if recorded is not None and recorded.step is MoveStep.ACQUIRED else None
        return found[0].at_ms if found else None


def row_of(move: PrefixMove, group: str) -> Row:
    """A move for people and programs, as `group` knows it."""
    return {
        "act": move.act,
        "prefix": prefix_text(move.prefix),
        "number": move.number,
        "step": move.step.name,
        "group": group,
        "from": move.source,
        "to": move.target,
        "version": move.version,
        "position": move.position,
        "records": move.records,
        "digest": f"sha256:{move.digest.hex()}" if move.digest else "",
        "case_sensitive": move.case_sensitive,
        "at_ms": move.at_ms,
        "by": move.by,
        "reason": move.reason,
    }


def _of(state: GroupState, token: str) -> PrefixMove | None:
    return next((move for move in state.moves if move.act == token), None)


async def _commit(group: HostedGroup, move: PrefixMove) -> None:
    """One step as an entry of the group. Raises ZaibeiError: CONFLICT, UNKNOWN (no outcome in time), or as the log refuses."""
    version = group.state().ownership_version + 1
    body = body_of(replace(move, version=version))
    entry = entry_pb2.Entry(format=1, admitted_ms=move.at_ms, prefix_move=body)
    proposal = group.propose(entry)
    try:
        async with asyncio.timeout(COMMIT_S_MAX):
            outcome = await asyncio.shield(proposal.applied)
    except TimeoutError:
        raise ZaibeiError(
            Code.UNKNOWN, f"{move.step.name} of {body.prefix}: no outcome within {COMMIT_S_MAX:.0f} s", definite=False, retry=True
        ) from None
    if outcome.kind not in (OutcomeKind.APPLIED, OutcomeKind.ALREADY):
        unknown = outcome.kind is OutcomeKind.UNKNOWN
        raise ZaibeiError(
            Code.UNKNOWN if unknown else Code.CONFLICT,
            f"{move.step.name} of {body.prefix}: {outcome.kind}: {outcome.detail}",
            definite=not unknown,
            retry=unknown,
        )


async def _all(office: Office, changes: list[tuple[Change, Precondition]]) -> None:
    """Changes through the source's own desk, in its ordinary batches. Raises ZaibeiError: the first that did not end well."""
    verdicts = await asyncio.gather(*(office.clerk.change(change, need) for change, need in changes))
    trouble = next((one.trouble for one in verdicts if one.trouble is not None), None)
    if trouble is not None:
        raise ZaibeiError(trouble.code, trouble.message, definite=trouble.definite, retry=trouble.retry)


async def _range(group: HostedGroup, prefix: bytes) -> RangeDigest:
    """Digest of what a group holds of a moved range. It stands still: nothing is registered there meanwhile."""
    summed, after, more = RangeDigest(), b"", True
    while more:
        rows, more = await _page(group, prefix, after)
        for key, value in rows:
            summed.add(key, value)
        after = rows[-1][0] if rows else after
    return summed


async def _page(group: HostedGroup, prefix: bytes, after: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Records of a range behind a key, ascending, by number and octets limited; and whether there are more."""
    rows: list[tuple[bytes, bytes]] = []
    octets, limit = 0, 4
    for start, stop in sorted(ranges_of(prefix)):
        begin = max(start, after + b"\0") if after else start
        while begin < stop:
            found = await group.scan(begin, stop, limit)
            for key, value in found:
                rows.append((key, value))
                octets += len(key) + len(value)
                if len(rows) >= PAGE_ROWS_MAX or octets >= PAGE_OCTETS_MAX:
                    return rows, True
            if len(found) < limit:
                break
            begin, limit = found[-1][0] + b"\0", SCAN_ROWS_MAX
    return rows, False


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
