"""Re-seeding a source that is out of service or damaged: its store goes aside, its log is forgotten, its content is loaded anew.

The order, so that a crash between any two acts leaves a member that says what is wrong and takes the same command again:
source stopped -> store moved aside -> log retired -> empty store opened -> what clients and recursive nodes were told committed
again (serials, a takeover) -> the feed meets the source as at first contact and loads. A source in service is never touched,
except where a scrub found its copy damaged.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from replica.member.copy import store_folder
from replica.member.edge_aside import next_aside, put_aside
from replica.member.member import Member
from replica.model.edge_threads import ended_in_thread
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import prefix_text
from replica.model.states import Authority
from replica.v1 import entry_pb2

PLAN_VERSION = "zaibei reseed plan 1"
TOKEN_DIGITS = 16
SERIAL_PREFIX = "0.ZAIBEI.RESEED"  # of a withdrawn overlay that keeps the highest serial and nothing else

log = logging.getLogger("zaibei.member")


@dataclass(frozen=True, slots=True)
class ReseedPlan:
    """What would be done.

    Args:
        known: the damaged copy's last state as far as it can be read; None: nothing of it.
        store: its folder; aside: where that goes.
    """

    source: str
    why: str
    store: Path
    aside: Path
    known: GroupState | None

    def text(self) -> str:
        """Lines to be read, in this order; the token is made of them."""
        known = self.known
        held = "unknown" if known is None else f"{known.records} records at {known.position.short()}"
        lines = [
            PLAN_VERSION,
            f"source {self.source}",
            f"out of service {self.why}",
            f"copy {held}",
            f"store {self.store} moved to {self.aside}",
            *self.warnings(),
        ]
        return "\n".join(lines) + "\n"

    def warnings(self) -> list[str]:
        """What a person must know before."""
        known = self.known
        found = [
            "the source's full content is loaded as it is: nothing is there to compare it with, so the brake cannot hold it",
            "until it is loaded nothing of it is answered but code 2 (another site)",
            "it is loaded from the source alone: where that is lost too, this damaged store may be the last copy; it is kept",
        ]
        if known is None:
            found.append("what was held and whether it is taken over cannot be read; serials of publications begin anew")
        elif known.hold is not None:
            found.append(f"held at {known.hold.ident} and not decided: {known.hold.reason}; the source's content may have it")
        if known is not None and known.authority is not Authority.SOURCE:
            found.append(f"it is taken over ({known.authority_act}) and stays so")
        return found

    def token(self) -> str:
        """What `run` repeats."""
        return sha256(self.text().encode()).hexdigest()[:TOKEN_DIGITS]


def plan_of(member: Member, source: str) -> ReseedPlan:
    """Look, change nothing.

    Raises:
        ZaibeiError: NOT_FOUND (no such source), REFUSED (it is in service).
    """
    if source not in {one.name for one in member.settings.sources}:
        names = ", ".join(one.name for one in member.settings.sources) or "none"
        raise ZaibeiError(Code.NOT_FOUND, f"no source {source!r} here; there are: {names}")
    if any(one.hosted == source for one in member.settings.sources):
        raise ZaibeiError(
            Code.REFUSED,
            f"{source} is hosted: it has no node to load it from, and this store may be the only copy. It is kept as it is",
        )
    trouble = trouble_of(member, source)
    if trouble is None:
        raise ZaibeiError(
            Code.REFUSED,
            f"{source} is in service and is not re-seeded: a copy that differs is healed by what its source publishes",
        )
    copy, data = member.copies.get(source), member.settings.data
    aside = next_aside(data, source)
    return ReseedPlan(source, str(trouble), store_folder(data, source), aside, None if copy is None else copy.store.state())


def trouble_of(member: Member, source: str) -> ZaibeiError | None:
    """Why it may be re-seeded: it is out of service, or a scrub found its copy damaged. None: it may not."""
    return member.broken.get(source) or (None if member.scrubs is None else member.scrubs.trouble(source))


def plan_with(member: Member, token: str) -> ReseedPlan:
    """The plan a token names, as the world stands now. Raises ZaibeiError(REFUSED)."""
    for source in [one.name for one in member.settings.sources if one.hosted != one.name and trouble_of(member, one.name)]:
        plan = plan_of(member, source)
        if plan.token() == token:
            return plan
    raise ZaibeiError(Code.REFUSED, "nothing is out of service as that plan saw it. Next: zaibei source reseed plan NAME")


async def run(member: Member, token: str) -> ReseedPlan:
    """Carry out a plan; loading goes on after the return.

    Raises:
        ZaibeiError: REFUSED (the world changed, nothing was done); DISK_FULL, DISK_FAILED and others: the source stays out of
            service, the same command may be planned again.
    """
    async with member.changing:
        plan = plan_with(member, token)
        log.warning("re-seeding", extra={"fields": {"source": plan.source, "aside": str(plan.aside), "why": plan.why}})
        member.broken.setdefault(plan.source, ZaibeiError(Code.DAMAGED, plan.why))
        await member.take_out(plan.source)
        await ended_in_thread(partial(put_aside, plan.store, plan.aside))
        await member.forget_log(plan.source)
        await member.bring_in(plan.source, carried(plan.known))
    if (trouble := member.broken.get(plan.source)) is not None:
        raise trouble
    return plan


def carried(state: GroupState | None) -> list[entry_pb2.Entry]:
    """Entries that tell the new log what the old one had told others: who answers, which sites, which serials are used up."""
    if state is None:
        return []
    at_ms, entries = time.time_ns() // 1_000_000, []
    if state.authority is not Authority.SOURCE:
        kind = entry_pb2.Authority.Kind.ValueType(int(state.authority))
        reason = "as before the re-seed"
        authority = entry_pb2.Authority(kind=kind, act=state.authority_act, reason=reason, decided_ms=at_ms)
        entries.append(entry_pb2.Entry(format=1, admitted_ms=at_ms, authority=authority))
    overlays = [
        entry_pb2.Overlay(prefix=prefix_text(one.prefix), sites=one.sites, serial=one.serial, act=one.act, shadow=one.shadow)
        for one in sorted(state.overlays, key=lambda one: one.serial)
    ]
    if state.serial_highest > max((one.serial for one in overlays), default=0):
        overlays.append(entry_pb2.Overlay(prefix=SERIAL_PREFIX, serial=state.serial_highest, act="re-seed", withdrawn=True))
    return [*entries, *(entry_pb2.Entry(format=1, admitted_ms=at_ms, overlay=one) for one in overlays)]
