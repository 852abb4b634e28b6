"""The way out of a fork: after both histories were looked at, a new epoch is granted at the source's head (SEMANTICS 1.2).

Nothing is overwritten by that. The source's content is loaded beside the live copy; where the source cannot show that it holds
our position, or the brake trips, it stays there until two people release or discard it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from hashlib import sha256

from replica.feed.meeting import grant_entry
from replica.member.copy import SourceCopy
from replica.member.group_port import propose_and_wait
from replica.member.member import Member
from replica.model.errors import Code, ZaibeiError
from replica.model.position import NO_LINEAGE, Position
from replica.model.states import Authority, FeedState

PLAN_VERSION = "zaibei grant plan 1"
TOKEN_DIGITS = 16
GRANTABLE = (FeedState.FORKED, FeedState.FENCED)
ATTEMPTS_MAX = 5  # a source that writes on may move from under a grant; its agent then pauses, so the next one wins
TAKEN_S_MAX = 3.0
LOOK_S = 0.05
PROPOSE_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class GrantPlan:
    """What would be done.

    Args:
        why: the feed's reason; ours: the copy's position; theirs: the source's head now, which may move on (not in the token).
    """

    source: str
    feed: str
    why: str
    ours: Position
    records: int
    theirs: Position

    def text(self) -> str:
        """Lines to be read, in this order; the token is made of them."""
        lines = [
            PLAN_VERSION,
            f"source {self.source}",
            f"feed {self.feed}: {self.why}",
            f"copy {self.records} records at {self.ours}",
            f"source's lineage {self.theirs.lineage.hex()} epoch {self.theirs.epoch}",
        ]
        return "\n".join(lines) + "\n"

    def token(self) -> str:
        """What `run` repeats."""
        return sha256(self.text().encode()).hexdigest()[:TOKEN_DIGITS]


def plan_of(member: Member, source: str) -> GrantPlan:
    """Look, change nothing.

    Raises:
        ZaibeiError: NOT_FOUND (no such source), REFUSED (nothing to grant), UNREACHABLE (the source is not connected).
    """
    return _plan(_copy(member, source))


def _copy(member: Member, source: str) -> SourceCopy:
    copy = member.copies.get(source)
    if copy is None or source in member.broken:
        names = ", ".join(name for name in member.copies if name not in member.broken) or "none"
        raise ZaibeiError(Code.NOT_FOUND, f"no source {source!r} is in service here; there are: {names}")
    return copy


def _plan(copy: SourceCopy) -> GrantPlan:
    state, name = copy.store.state(), copy.settings.name
    if state.authority is Authority.REGISTRATION:
        text = f"registrations of {name} are taken over: only a failback gives them back. Next: zaibei failback plan {name}"
        raise ZaibeiError(Code.REFUSED, text)
    if state.feed not in GRANTABLE:
        raise ZaibeiError(Code.REFUSED, f"the feed of {name} is {state.feed.name}: an epoch is granted by hand only after a fork")
    if state.hold is not None:
        raise ZaibeiError(Code.REFUSED, f"something is held at {state.hold.ident}: discard it first. Next: zaibei hold list")
    theirs = copy.driver.stated_head
    if theirs is None:
        raise ZaibeiError(Code.UNREACHABLE, f"{name} is not connected: its head is not known", retry=True)
    if theirs.lineage not in (NO_LINEAGE, copy.lineage):
        raise ZaibeiError(
            Code.WRONG_LINEAGE,
            f"{name} follows another cluster ({theirs.lineage.hex()}): let that one hand it over",
        )
    return GrantPlan(name, state.feed.name, state.feed_reason, state.position, state.records, theirs)


async def run(member: Member, source: str, token: str, reason: str) -> Position:
    """Grant as planned, and wait until the source has it on its disk.

    Returns:
        The first position of the granted epoch.
    Raises:
        ZaibeiError: REFUSED (the world changed, nothing was done), BUSY (granted, and not taken yet: run it again).
    """
    copy = _copy(member, source)
    plan = _plan(copy)
    if plan.token() != token:
        raise ZaibeiError(Code.REFUSED, f"{source} is no longer as that plan saw it. Next: zaibei source grant plan {source}")
    for _ in range(ATTEMPTS_MAX):
        head = copy.driver.stated_head or plan.theirs
        entry = grant_entry(copy.store.state(), head, copy.lineage, reason or "granted by hand", copy.signer)
        entry.format, entry.admitted_ms = 1, time.time_ns() // 1_000_000
        await propose_and_wait(copy.log, entry, PROPOSE_S_MAX)
        start = Position.from_wire(entry.grant.start)
        if await _taken(copy, start):
            return start
    raise ZaibeiError(Code.BUSY, f"{source} was granted an epoch and has not taken it: its head moves. Run it again", retry=True)


async def _taken(copy: SourceCopy, start: Position) -> bool:
    try:
        async with asyncio.timeout(TAKEN_S_MAX):
            while True:
                state = copy.store.state()
                if state.granted == start and state.grant_taken:
                    return True
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        return False
