"""Looks at a source for a while: beats, certificates and changes as they come."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from replica.kit.content import Contents
from replica.kit.edge_watch import BATCHES_MANY, Watch, watching
from replica.kit.judges import HeadJudge, HistoryJudge, judge_certificate
from replica.kit.settings import Settings
from replica.kit.sheet import Sheet
from replica.model.identity import Peer
from replica.model.position import Position
from replica.v1 import source_pb2

if TYPE_CHECKING:
    from replica.v1 import source_pb2_grpc

NONCE_OCTETS = 16
NONCE_GRACE_S = 0.5  # a beat on its way when we sent a nonce may still echo the one before
LATE_LOOK_S = 0.05
LATE_S_MAX = 0.1  # who is later than that itself cannot say of others that they were


class OwnLateness:
    """How much too late this process itself was while the block ran."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run(), name="own lateness")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LATE_LOOK_S
            await asyncio.sleep(LATE_LOOK_S)
            self.worst_s = max(self.worst_s, loop.time() - due)


@dataclass(slots=True)
class Live:
    """What came, and when."""

    judge: HistoryJudge
    nonces: list[tuple[bytes, float]] = field(default_factory=list)
    echoed: int = 0
    beats: list[float] = field(default_factory=list)
    certificates: list[float] = field(default_factory=list)


async def look_live(
    stub: source_pb2_grpc.RegistrySourceAsyncStub,
    pin: Peer,
    start: Position,
    contents: Contents | None,
    sheet: Sheet,
    heads: HeadJudge,
    settings: Settings,
    beat_interval_ms: int,
) -> None:
    """Watch from a position for `watch_s`.

    Args:
        contents: the snapshot at `start`, to which changes are added; None: there is none.
    """
    loop = asyncio.get_running_loop()
    live, late = Live(HistoryJudge(pin.name, start, sheet, contents)), OwnLateness()
    began = loop.time()
    async with watching(stub) as watch, late.watch():
        await watch.resume(start, BATCHES_MANY)
        next_nonce = began
        while not watch.ended and (now := loop.time()) - began < settings.watch_s:
            if now >= next_nonce:
                await _nonce(watch, live, now)
                next_nonce = now + settings.nonce_every_s
            message = await watch.receive(min(next_nonce, began + settings.watch_s) - loop.time())
            if message is not None:
                _take(message, live, pin, contents, sheet, heads, loop.time())
        ended = watch.ended
    if ended:
        for ident in ("beats.nonce", "beats.interval", "certificate.interval", "certificate.equal"):
            sheet.unknown(ident, f"the stream ended early: {ended}")
    over = loop.time()
    _judge_beats(live, sheet, settings, beat_interval_ms, began, over, late.worst_s)
    _judge_certificates(live, sheet, settings, began, over, late.worst_s)


async def _nonce(watch: Watch, live: Live, now: float) -> None:
    octets = os.urandom(NONCE_OCTETS)
    live.nonces.append((octets, now))
    await watch.nonce(octets)


def _take(
    message: source_pb2.SourceMessage,
    live: Live,
    pin: Peer,
    contents: Contents | None,
    sheet: Sheet,
    heads: HeadJudge,
    now: float,
) -> None:
    match message.WhichOneof("body"):
        case "offer":
            heads.take(message.offer.description.head)
        case "batch":
            live.judge.take(message.batch)
        case "beat":
            live.beats.append(now)
            heads.take(message.beat.head)
            _judge_nonce(message.beat.nonce, live, sheet, now)
        case "certificate":
            live.certificates.append(now)
            judge_certificate(message.certificate, pin.name, pin.signing_key, live.judge.at, contents, sheet)
        case "fault":
            sheet.unknown("certificate.equal", f"the source says {message.fault.code}: {message.fault.message[:100]}")


def _judge_nonce(nonce: bytes, live: Live, sheet: Sheet, now: float) -> None:
    """Right: the newest nonce, or an older one while the newest was sent less than NONCE_GRACE_S ago; empty only at the start."""
    settled = [octets for octets, sent in live.nonces if now - sent >= NONCE_GRACE_S]
    fresh = [octets for octets, sent in live.nonces if now - sent < NONCE_GRACE_S]
    allowed = {*settled[-1:], *fresh} or {b""}
    if not settled:
        allowed.add(b"")
    if sheet.judge("beats.nonce", nonce in allowed, "a beat echoes a nonce that is not the newest") and nonce:
        live.echoed += 1


def _judge_beats(live: Live, sheet: Sheet, settings: Settings, interval_ms: int, began: float, over: float, late: float) -> None:
    if live.beats and not live.echoed:
        sheet.fail("beats.nonce", "no beat echoed a nonce")
    allowed = 2 * interval_ms / 1_000 + settings.beat_slack_s
    if over - began <= allowed:
        sheet.unknown("beats.interval", f"looked for {over - began:.1f} s only, beats may be {allowed:.1f} s apart")
        return
    widest = _widest(live.beats, began, over)
    if widest > allowed and late > LATE_S_MAX:
        sheet.unknown("beats.interval", f"{widest:.1f} s without a beat, but {_late(late)}")
        return
    sheet.judge("beats.interval", widest <= allowed, f"{widest:.1f} s without a beat, {interval_ms} ms is stated")


def _judge_certificates(live: Live, sheet: Sheet, settings: Settings, began: float, over: float, late: float) -> None:
    allowed = settings.certificate_s_max + settings.certificate_slack_s
    widest = _widest(live.certificates, began, over)
    if widest > allowed and late > LATE_S_MAX:
        sheet.unknown("certificate.interval", f"{widest:.1f} s without a certificate, but {_late(late)}")
    elif widest > allowed:
        sheet.fail("certificate.interval", f"{widest:.1f} s without a certificate")
    elif over - began < 2 * settings.certificate_s_max:
        sheet.unknown("certificate.interval", f"looked for {over - began:.1f} s only: give it at least twice the interval")
    else:
        sheet.saw("certificate.interval", len(live.certificates))


def _late(late_s: float) -> str:
    return f"this machine was itself {late_s:.1f} s late: look again when it is quiet"


def _widest(times: list[float], began: float, over: float) -> float:
    marks = [began, *times, over]
    return max(later - earlier for earlier, later in pairwise(marks))
