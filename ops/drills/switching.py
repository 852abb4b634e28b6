"""The act of a planned switchover: a living node's registrations come here while everybody goes on asking, and go back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from chaos.evidence.bundle import Figure
from chaos.faults.fault import Fault, nothing
from chaos.scenarios.scenario import Act, Step
from ops.drills.registering_stage import PEOPLE, RegisteringStage
from ops.drills.registrar import HERE, NODE, Registrar
from ops.drills.returning import BACK_S_MAX, REASON, Returning
from replica.model.errors import ZaibeiError
from replica.model.ladder import Stage as Rung

if TYPE_CHECKING:
    from ops.drills.acts import Acts

EACH = 25  # registered before, here, and after
PAUSE_MS, PAUSE_BACK_MS = 250, 1_000
REACHED_S_MAX = 20.0
LOOK_S = 0.05
AT_ONCE_MAX = 20

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The acts of this file."""
    return {Act.SWITCHED_OVER: lambda _: _switched_over(acts)}


@asynccontextmanager
async def _switched_over(acts: Acts) -> AsyncIterator[None]:
    stage = acts.stage
    assert isinstance(stage, RegisteringStage), "this act needs a stage on which registrations may be taken over"
    source = stage.sources[0]
    async with Registrar(stage, source) as registrar:
        await _until(lambda: registrar.count(NODE) >= EACH, "the node acknowledged nothing")

        async def begin() -> None:
            await _switch(acts, stage, source, registrar)
            await _until(lambda: registrar.count(HERE) >= EACH, "nothing was acknowledged here")
            await _found_at_once(acts, registrar)

        async with Fault("a living node is switched over", begin, nothing, acts.log):
            yield
            await published(stage, source)
        began_ns = time.monotonic_ns()
        await stage.ask(do="follow", node=source)
        await Returning(acts).give_back(BACK_S_MAX)
        with suppress(TimeoutError):  # it is told below, by name
            await _until(lambda: registrar.count(NODE, began_ns) >= EACH, "")
        _pause(acts, registrar, "the write pause on the way back", began_ns, PAUSE_BACK_MS)
        last_ns = began_ns
    counts = {"node before": registrar.count(NODE) - registrar.count(NODE, last_ns), "here": registrar.count(HERE),
              "node after": registrar.count(NODE, last_ns)}  # fmt: skip
    acts.fact("registered on both sides", min(counts.values()) >= EACH or None, f"{counts}")
    registrar.write_down()
    await _look_at_both(acts, stage, source, registrar)


async def _switch(acts: Acts, stage: RegisteringStage, source: str, registrar: Registrar) -> None:
    """As two people do it. Raises ZaibeiError(REFUSED)."""
    code, told, began_ns = await switched(stage, source)
    row = await stage.ladder(source)
    held = not code and row["stage"] == Rung.SERVING.name and sorted(row["approvals"]) == sorted(PEOPLE)
    pause = told.get("write_pause_ms")
    said = f"exit {code}, stands at {row['stage']}, approved by {row['approvals']}; it tells a pause of {pause} ms"
    acts.fact("switched over by two people", held and bool(told.get("switchover")), said)
    with suppress(TimeoutError):
        await _until(lambda: registrar.count(HERE) > 0, "")
    _pause(acts, registrar, "the write pause", began_ns, PAUSE_MS)


async def switched(stage: RegisteringStage, source: str) -> tuple[int, dict[str, Any], int]:
    """Plan, two signatures, run: its exit code, what it said, and when it began. Raises ZaibeiError(REFUSED)."""
    token = await stage.signed(source, "--switchover", patience_s=REACHED_S_MAX)
    began_ns = time.monotonic_ns()
    code, told = await stage.run_signed(source, token, REASON)
    return code, told, began_ns


def _pause(acts: Acts, registrar: Registrar, name: str, since_ns: int, most_ms: int) -> None:
    found = registrar.pause_ms(since_ns, time.monotonic_ns())
    rounded = None if found is None else round(found)
    figure = "write_pause_ms" if most_ms == PAUSE_MS else "write_pause_back_ms"
    acts.outside.measured.append(Figure(figure, "ms", rounded, most_ms, "longest time without an acknowledgement to a registrar"))
    acts.fact(name, None if rounded is None else rounded <= most_ms, f"{rounded} ms, at most {most_ms} are asked")


async def _found_at_once(acts: Acts, registrar: Registrar) -> None:
    """What was acknowledged here a moment ago is answered here."""
    names = dict([(name, by) for _, name, by in registrar.told if by == HERE][-AT_ONCE_MAX:])
    wrong = await acts.wrong_of(names)
    acts.fact("found at once", not wrong if names else None, f"{len(wrong)} of {len(names)} are not answered here, {wrong[:3]}")


async def published(stage: RegisteringStage, source: str) -> None:
    """Recursive nodes have our site: from here on the node might be switched off. Raises TimeoutError."""

    async with asyncio.timeout(REACHED_S_MAX):
        while True:
            with suppress(ZaibeiError):
                places = (await stage.ladder(source))["publications"]
                if places and all(one["confirmed"] for one in places):
                    return
            await asyncio.sleep(LOOK_S)


async def _look_at_both(acts: Acts, stage: RegisteringStage, source: str, registrar: Registrar) -> None:
    row: dict[str, Any] = await stage.failback(source)
    ledger = row["ledger"] or {}
    acts.fact("the node wrote nothing behind its end", not ledger.get("lines"), f"{ledger.get('lines') or 0} lines in the ledger")
    texts = registrar.texts()
    wrong = await acts.wrong_of(texts)
    acts.fact("none is lost", not wrong, f"{len(wrong)} of {len(texts)} are not answered here, {wrong[:3]}")
    wrong = await acts.wrong_of(texts, stage.ports["nodes"])
    acts.fact("the node has ours", not wrong, f"{len(wrong)} of {len(texts)} are not answered by the node, {wrong[:3]}")


async def _until(reached: Callable[[], bool], lacking: str) -> None:
    """Raises TimeoutError."""
    until = time.monotonic() + REACHED_S_MAX
    while not reached():
        if time.monotonic() > until:
            raise TimeoutError(f"{lacking} within {REACHED_S_MAX:.0f} s")
        await asyncio.sleep(LOOK_S)
