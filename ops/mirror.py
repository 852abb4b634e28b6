"""Samples each source's own answers while it lives, and holds them against what we would answer (hosting/answer/mirror.py).

One question about every two seconds and source, for a random record, asked as any client asks; where the source's group is
led, so that each source is asked by one member.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from hosting.answer.mirror import LOOKS_MAX, Comparison, Mirror, Verdict, random_key
from hosting.client.edge_answers import answered
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Server
from replica.member.copy import SourceCopy
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.values import Content, content_of, decode_record
from replica.model.identifier import key_text
from replica.model.position import Position
from replica.model.states import Authority

log = logging.getLogger("zaibei.mirror")

PAUSE_S = 2.0  # at most INTERVAL_MS between two samples, whatever one of them takes
ASK_S_MAX = 1.5
CAUGHT_UP_S_MAX = 3.0
LOOK_S = 0.05
PROTOCOLS = ("udp", "tcp")
HANDLES, HANDLES_END = b"h", b"i"  # keys of Handle identifiers: routes and documents are not resolved


class Sampler:
    """All sources of a member. `run` until cancelled."""

    def __init__(self, copies: Callable[[], Mapping[str, SourceCopy]], pause_s: float = PAUSE_S) -> None:
        self._copies, self._pause_s = copies, pause_s
        self.mirrors: dict[str, Mirror] = {}

    def comparison(self, source: str) -> Comparison:
        return self.mirrors.setdefault(source, Mirror()).comparison(_now_ms())

    async def run(self) -> None:
        """One round after another; what goes wrong with one source does not stop the others."""
        while True:
            await asyncio.sleep(self._pause_s)
            ours = [copy for copy in self._copies().values() if servers_of(copy) and _speaks(copy)]
            await asyncio.gather(*(self._sample(copy) for copy in ours), return_exceptions=True)

    async def _sample(self, copy: SourceCopy) -> None:
        found = await asyncio.to_thread(pick, copy)
        if found is None:
            return
        name, key = found
        config = ClientConfig(tuple(servers_of(copy)), deadline_s=ASK_S_MAX)
        async with HandleClient(config) as client:
            verdict = await judged(copy, client, name, key)
        self.mirrors.setdefault(copy.store.source, Mirror()).sampled(key_text(key), verdict, _now_ms())
        if verdict is Verdict.CONTENT:
            fields = {"source": copy.store.source, "key": key_text(key)}
            log.warning("a node answers otherwise than its copy", extra={"fields": fields})


def _speaks(copy: SourceCopy) -> bool:
    """It answers for itself, and its changes come in here."""
    state = copy.store.state()
    return state.ready and state.authority is Authority.SOURCE and copy.log.leader


def servers_of(copy: SourceCopy) -> list[Server]:
    """Where the node itself answers, as it says."""
    said = copy.driver.description
    if said is None:
        return []
    return [Server(one.protocol, one.address, one.port) for one in said.resolution if one.protocol in PROTOCOLS]


def pick(copy: SourceCopy) -> tuple[str, bytes] | None:
    """A record at a random place: its name as it was spelled, and its key. None: there is none. Blocks."""

    def first_from(place: bytes) -> bytes | None:
        found = copy.store.scan(place, HANDLES_END, 1)
        return found[0][0] if found else None

    key = random_key(first_from, HANDLES, secrets.randbelow)
    if key is None:
        return None
    [record], _ = copy.store.get_many([key])
    return _named(key, record) if record else None


def _named(key: bytes, record: bytes) -> tuple[str, bytes] | None:
    with suppress(ProtocolFault, UnicodeDecodeError):
        spelled = decode_record(record).spelling
        return (spelled.decode() if spelled else key_text(key)), key
    return None


async def judged(copy: SourceCopy, client: HandleClient, name: str, key: bytes) -> Verdict:
    """Ask, compare, and where they differ look again once our copy has caught up."""
    for look in range(LOOKS_MAX):
        before = held(copy, key)
        theirs = await answered(client, name)
        if theirs is None:
            return Verdict.UNTOLD
        if theirs in (before, held(copy, key)):
            return Verdict.LAG if look else Verdict.SAME
        if not await caught_up(copy):
            return Verdict.UNTOLD
        if theirs == held(copy, key):
            return Verdict.LAG
    return Verdict.CONTENT


def held(copy: SourceCopy, key: bytes) -> Content:
    """What we would answer; nothing held is the empty content."""
    [record], _ = copy.store.get_many([key])
    if not record:
        return frozenset()
    try:
        return content_of(decode_record(record).values)
    except ProtocolFault:
        return frozenset()


async def caught_up(copy: SourceCopy) -> bool:
    """True once our position covers a head that the source stated after now."""
    asked_ns, end = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.monotonic() + CAUGHT_UP_S_MAX
    while time.monotonic() < end:
        heard = copy.driver.age.heard
        if heard is not None and heard[1] >= asked_ns and _covers(copy.store.state().position, heard[0]):
            return True
        await asyncio.sleep(LOOK_S)
    return False


def _covers(ours: Position, theirs: Position) -> bool:
    return ours.covers(theirs)


def _now_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
