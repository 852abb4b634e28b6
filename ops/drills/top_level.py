"""Acts in which the top-level node dies, alone or with secondary nodes: what recursive nodes are told meanwhile is looked up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from chaos.drills.outside import Lost
from chaos.faults.fault import Fault
from chaos.scenarios.scenario import Act, Step
from chaos.standin.tally import last_answer_ns
from hosting.answer.sites import Endpoints, endpoints_of
from hosting.client.lookup import Rc, Reply
from ops.drills.top_stage import DELEGATED, NODES, SERVED, SERVICE, TOP, TopStage
from replica.model.errors import ZaibeiError

if TYPE_CHECKING:
    from ops.drills.acts import Acts

TAKEN_S_MAX = 10.0
LOOK_S = 0.05
SHOWN_MAX = 3

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The acts of this file."""
    return {
        Act.TOP_DIES: lambda _: _die(acts, (TOP,)),
        Act.TOP_AND_NODES_DIE: lambda _: _die(acts, (TOP, NODES)),
    }


@asynccontextmanager
async def _die(acts: Acts, processes: tuple[str, ...]) -> AsyncIterator[None]:
    stage = acts.stage
    assert isinstance(stage, TopStage), "this act needs a stage whose top-level node is copied"
    dead = {source for child in processes for source in stage.hosted_by(child)}

    async def begin() -> None:
        for child in processes:
            os.kill(stage.pid(child), signal.SIGKILL)
        at_ns = time.monotonic_ns()
        for child in processes:
            acts.outside.lost.append(Lost(at_ns, tuple(stage.hosted_by(child)), last_answer_ns(stage.tally_of(child))))
            await stage.gone(child)

    async def heal() -> None:
        await acts.count_source_lost()
        await asyncio.gather(*(stage.start(child) for child in processes))

    async with Fault(f"{' and '.join(processes)} SIGKILLed", begin, heal, acts.log):
        await _taken(acts, dead)
        await _prefixes(acts, stage, dead)
        await _referrals(acts, stage)
        yield
        await _prefixes(acts, stage, dead)
        rows = await stage.rows()
        replaced = sorted(source for source, row in rows.items() if source not in dead and row.authority != "SOURCE")
        acts.fact("who lives is not taken over", not replaced if rows else None, f"taken over although they live: {replaced}")


async def _taken(acts: Acts, dead: set[str]) -> None:
    """Until all of the dead are found with us, or the time is over: what follows says what is wrong then."""
    until = time.monotonic() + TAKEN_S_MAX
    while time.monotonic() < until:
        with suppress(ZaibeiError):
            rows = await acts.stage.rows()
            if all(rows[source].takeover == "serving, found" for source in dead):
                return
        await asyncio.sleep(max(LOOK_S, acts.stage.look_s / 2))


async def _prefixes(acts: Acts, stage: TopStage, dead: set[str]) -> None:
    """What the recursive node is told of every prefix: whether anything, who stands first, and whether anybody else is named."""
    wanted = stage.owners(dead)
    answers = await acts.ask_us([f"0.NA/{prefix}" for prefix in wanted], port=stage.ports["recursive"])
    found = {prefix: _sites(answers[f"0.NA/{prefix}"]) for prefix in wanted}
    missing = [prefix for prefix, sites in found.items() if not sites]
    acts.fact("every prefix is given", not missing, f"{len(missing)} of {len(wanted)} are not: {missing[:SHOWN_MAX]}")
    wrong = {
        prefix: sites
        for prefix, sites in found.items()
        if sites and (sites[0] != wanted[prefix][0] or not set(sites) <= set(wanted[prefix]))
    }
    shown = {prefix: [sorted(one) for one in sites] for prefix, sites in list(wrong.items())[:SHOWN_MAX]}
    known = len(found) - len(missing)
    said = f"{len(wrong)} of {known} prefixes are said to live elsewhere {shown or ''}".strip()
    acts.fact("no wrong owner", not wrong if known else None, said)


def _sites(reply: Reply | None) -> list[Endpoints]:
    """Where a prefix is said to be served, in order; who is named twice (by us and by the node as its second) counts once."""
    if reply is None or reply.code != Rc.SUCCESS:
        return []
    return list(dict.fromkeys(endpoints_of(value.data) for value in reply.values if value.type.upper() == b"HS_SITE"))


async def _referrals(acts: Acts, stage: TopStage) -> None:
    """At our own address: who serves the prefixes below another province's, and where its names are served."""
    below, name, served = f"0.NA/{DELEGATED}.7", f"{DELEGATED}/N-1", f"{SERVED}/N-1"
    answers = await acts.ask_us([below, name, served])
    reply = answers[below]
    held = reply is not None and reply.code == Rc.PREFIX_REFERRAL
    held = held and [(one.type, one.data) for one in reply.values] == [(b"HS_SITE.PREFIX", stage.delegation)]  # type: ignore[union-attr]
    acts.fact("prefixes below are referred", held, f"{below}: {_said(reply)}")
    reply, by_handle = answers[name], answers[served]
    held = reply is not None and reply.code == Rc.SERVICE_REFERRAL and [one.data for one in reply.values] == [stage.delegation]
    held = held and by_handle is not None and (by_handle.code, by_handle.message) == (Rc.SERVICE_REFERRAL, SERVICE)
    acts.fact("services are referred", held, f"{name}: {_said(reply)}; {served}: {_said(by_handle)}")


def _said(reply: Reply | None) -> str:
    return "no answer" if reply is None else f"{reply.code} {reply.message} {[one.type.decode() for one in reply.values]}".strip()
