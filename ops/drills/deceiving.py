"""Acts that deceive: a record that differs and nothing says so, and probes of a healthy node that somebody blocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from chaos.faults.edge_stream_proxy import Way
from chaos.faults.fault import Fault
from chaos.faults.rules import CUT, OPEN
from chaos.scenarios.scenario import Act, Step
from ops.admin.edge_client import AdminClient
from ops.drills.registering_stage import RegisteringStage
from replica.model.errors import ZaibeiError
from replica.model.ladder import OrderKind, Stage
from replica.v1 import entry_pb2

if TYPE_CHECKING:
    from ops.drills.acts import Acts

FOUND_S_MAX = 60.0
THRESHOLD_S_MAX = 20.0
UNMOVED_S = 3.0  # a planted ladder moves within tenths of a second
LOOK_S = 0.1
SEVERAL = 9  # probes of the top-level node, all failing
BEGINNINGS = (Stage.NORMAL.name, Stage.SUSPECT.name, Stage.THRESHOLD.name)

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The acts of this file."""
    return {
        Act.SILENT_DIVERGENCE: lambda _: _silent_divergence(acts),
        Act.PROBES_BLOCKED: lambda _: _probes_blocked(acts),
    }


@asynccontextmanager
async def _silent_divergence(acts: Acts) -> AsyncIterator[None]:
    """The batch of one change carries another record than the source itself came to hold; position and chain are the same."""
    stage, source = acts.stage, acts.stage.sources[0]
    number = acts.chance.randrange(stage.scenario.load.records)
    name, spoilt_ns = f"{stage.prefix_of[source]}/N-{number}", 0

    async def begin() -> None:
        nonlocal spoilt_ns
        spoilt_ns = time.monotonic_ns()
        await stage.ask(do="spoil", node=source, first=number, text="v2", wrong="spoilt")

    async def heal() -> None:
        await stage.ask(do="put", node=source, first=number, count=1, text="v3")

    async with Fault(f"{name} differs from its source, at equal chain", begin, heal, acts.log):
        rows = await acts.until(lambda row: row.feed == "DIVERGED", FOUND_S_MAX)
        found = rows[source].feed == "DIVERGED" if rows else None
        took_ms = (time.monotonic_ns() - spoilt_ns) // 1_000_000
        said = f"after {took_ms} ms: {rows[source].feed_reason}" if found else f"not within {took_ms} ms"
        acts.fact("found within 60 s", found, said)

        def locate() -> dict[str, object]:
            with AdminClient(stage.folder / "member" / "admin.sock") as admin:
                return dict(admin.difference(source))

        try:
            where = await asyncio.to_thread(locate)
            exact = [str(key).lower() for key in where["other_value"]] == [name.lower()]  # type: ignore[attr-defined]
            alone = not where["only_ours"] and not where["only_theirs"] and where["buckets"] == 1
            told = f"{where['other_value']} in {where['round_trips']} round trips, {where['octets']} octets"
            acts.fact("located", exact and alone, f"{told}; it was {name}")
        except ZaibeiError as exc:
            acts.fact("located", False if found is False else None, str(exc)[:300])
        yield
        rows, reply = await stage.rows(), (await acts.ask_us([name]))[name]
        kept = bool(await acts.wrong_of({name: "v2"})) and rows[source].feed == "DIVERGED"
        answer = "nothing" if reply is None else f"{reply.code} {[value.data.decode() for value in reply.values]}"
        acts.fact(
            "the copy does not edit itself", kept, f"{rows[source].feed}; {name} is answered {answer} until its source says more"
        )


@asynccontextmanager
async def _probes_blocked(acts: Acts) -> AsyncIterator[None]:
    """Ours fail at the link, the top-level node reports that its own fail too: only the feed says that the node lives."""
    stage = acts.stage
    assert isinstance(stage, RegisteringStage), "this act needs a stage on which registrations may be taken over"
    source = stage.sources[0]

    async def begin() -> None:
        await _order(acts, stage, OrderKind.STANDING)
        for way in Way:
            stage.probe.set(way, CUT)
        await _order(acts, stage, OrderKind.PROBE_REPORT, entry_pb2.Findings(probes=SEVERAL, failing=SEVERAL, lasting_ms=60_000))

    async def heal() -> None:
        for way in Way:
            stage.probe.set(way, OPEN)

    async with Fault("probes of the healthy node blocked, a standing order in force", begin, heal, acts.log):
        until, seen, row = time.monotonic() + THRESHOLD_S_MAX, list[str](), dict[str, object]()
        quiet_from: float | None = None
        while time.monotonic() < until:
            with suppress(ZaibeiError):
                row = await stage.ladder(source)
                if (at := str(row["stage"])) not in seen[-1:]:
                    seen.append(at)
            if quiet_from is None and Stage.THRESHOLD.name in seen:
                quiet_from = time.monotonic()
            if any(one not in BEGINNINGS for one in seen) or (quiet_from and time.monotonic() - quiet_from > UNMOVED_S):
                break
            await asyncio.sleep(LOOK_S)
        yield
        with suppress(ZaibeiError):
            row = await stage.ladder(source)
            seen.append(str(row["stage"]))
        beyond = [one for one in seen if one not in BEGINNINGS]
        acts.fact("the threshold is reached", Stage.THRESHOLD.name in seen or bool(beyond) or None, f"the ladder stood at {seen}")
        acts.fact("no act begins", not beyond if seen else None, f"the ladder stood at {seen}")
        alarms = [str(one) for one in row.get("alarms", ())]  # type: ignore[attr-defined]
        acts.fact("it says why", any("heard on its feed" in one for one in alarms) if row else None, f"{alarms}")


async def _order(acts: Acts, stage: RegisteringStage, kind: OrderKind, findings: entry_pb2.Findings | None = None) -> None:
    for source in stage.sources:
        code, told = await stage.zaibei("takeover", "order", stage.order(source, kind, findings), *stage.member_words())
        if code:
            acts.outside.doubts.append(f"the order was not taken in: {told}")
