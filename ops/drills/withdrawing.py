"""The act of a node that withdraws for good: switched over, ended, adopted, handed to another provider's node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from chaos.faults.fault import Fault, nothing
from chaos.scenarios.scenario import Act, Step
from chaos.standin.tally import last_answer_ns
from ops.cli.exits import Exit
from ops.drills.returning import Returning
from ops.drills.switching import published, switched
from ops.drills.transfer_stage import PROVIDER, PROVIDER_PORT, TransferStage
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import Stage as Rung

if TYPE_CHECKING:
    from ops.drills.acts import Acts

TRANSFER_S_MAX, ANSWER_S_MAX, CAUGHT_UP_S_MAX = 40.0, 10.0, 15.0
PROVIDERS_FIRST, PROVIDERS = 800_000, 5  # names that the provider registers by itself, when it may
LOOK_S = 0.05
WHY = ("--why", "its operator leaves the market", "--by", "drill")

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The acts of this file."""
    return {Act.WITHDRAWS_FOR_GOOD: lambda _: _withdraws(acts)}


@asynccontextmanager
async def _withdraws(acts: Acts) -> AsyncIterator[None]:
    stage, source = acts.stage, acts.stage.sources[0]
    assert isinstance(stage, TransferStage), "this act needs a stage with a CA on which registrations may be taken over"
    await acts.settled()
    texts = {name: str(text) for name, text in acts.told(source)[1].items() if text is not None}
    ours = Returning(acts)

    async def begin() -> None:
        code, told, _ = await switched(stage, source)
        row = await stage.ladder(source)
        held = not code and row["stage"] == Rung.SERVING.name and bool(told.get("switchover"))
        acts.fact("switched over by two people", held, f"exit {code}, stands at {row['stage']}, approved by {row['approvals']}")
        await published(stage, source)  # from here on the node may be switched off
        await acts.kill_nodes()

    async with Fault("a node is switched over and ends for good", begin, nothing, acts.log):
        await _adopt(acts, stage, source, ours)
        yield
    await asyncio.to_thread(stage.write_provider, source)
    stage.parent_names(source, provider_first=False)
    await stage.start("nodes")
    await stage.ask(do="follow", node=source)
    await _transfer(acts, stage, source)
    await _look(acts, stage, source, texts | ours.ours)


async def _adopt(acts: Acts, stage: TransferStage, source: str, ours: Returning) -> None:
    """Rights count from then on, for the registrar too. Raises ZaibeiError(REFUSED)."""
    member = stage.member_words()
    words = ["tenant", "adopt", source, *WHY]
    _, planned = await stage.zaibei(*words, *member)
    code, told = await stage.zaibei(*words, "--plan", str(planned["plan"]["token"]), *member)
    _, shown = await stage.zaibei("tenant", "show", source, *member)
    acts.fact("adopted", code == 0 and shown["tenant"]["state"] == "active", f"exit {code}: {told}"[:300])
    name = f"{stage.prefix_of[source]}/WITHOUT-A-RIGHT"
    code, told = await stage.zaibei("register", "put", name, "--value", "URL=https://example.cn/", *stage.register_words())
    acts.fact("nobody registers without a right", code == Exit.NOT_AUTHORISED, f"exit {code}: {told}"[:300])
    person = ensure_identity(stage.folder / "tenant-a", "tenant-a").fingerprint
    right = f'{{"who": "{person}", "operations": ["create", "modify"], "under": "{stage.prefix_of[source]}"}}'
    code, told = await stage.zaibei("tenant", "set", source, "right", "registrar", "--json-body", right, *WHY, *member)
    if code:
        raise ZaibeiError(Code.REFUSED, f"the right was not written: {told}")
    await ours.register()


async def _transfer(acts: Acts, stage: TransferStage, source: str) -> None:
    """Plan and run, as an operator types them."""
    member = stage.member_words()
    code, told = await stage.zaibei("tenant", "transfer", source, *member)
    if code:
        raise ZaibeiError(Code.REFUSED, f"the transfer was not planned: {told}")
    words = ["tenant", "transfer", source, "--plan", str(told["plan"]["token"]), "--timeout", f"{TRANSFER_S_MAX:.0f}"]
    code, told = await stage.zaibei(*words, *member)
    row = told.get("transfer", {})
    held = code == 0 and row.get("stage") == Rung.NORMAL.name
    acts.fact("transferred", held, f"exit {code}, {row.get('stage')} at {row.get('position')}: {row.get('alarms') or told}"[:400])


async def _look(acts: Acts, stage: TransferStage, source: str, texts: dict[str, str]) -> None:
    """What the old node and we had acknowledged is at both; the provider goes on alone, and clients come to it."""
    port = stage.ports[PROVIDER_PORT]
    wrong = await acts.wrong_of(texts, port)
    acts.fact("the provider has all", not wrong if texts else None, f"{len(wrong)} of {len(texts)} lack, {wrong[:3]}")
    wrong = await acts.wrong_of(texts)
    acts.fact("none is lost", not wrong if texts else None, f"{len(wrong)} of {len(texts)} are not answered here, {wrong[:3]}")
    names = {f"{stage.prefix_of[source]}/N-{number}": "own" for number in range(PROVIDERS_FIRST, PROVIDERS_FIRST + PROVIDERS)}
    wrong, until = list(names), time.monotonic() + CAUGHT_UP_S_MAX
    with suppress(ZaibeiError):
        await stage.ask(do="put", node=source, first=PROVIDERS_FIRST, count=PROVIDERS, text="own")
        while wrong and time.monotonic() < until:
            wrong = await acts.wrong_of(names)
            await asyncio.sleep(LOOK_S)
    acts.fact("the provider registers", not wrong, f"{len(wrong)} of {len(names)} did not reach its copy here, {wrong[:3]}")
    stage.parent_names(source, provider_first=True)
    said_ns, until = time.monotonic_ns(), time.monotonic() + ANSWER_S_MAX
    while (last_answer_ns(stage.tally_of(PROVIDER)) or 0) < said_ns and time.monotonic() < until:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(LOOK_S)
    answers = (last_answer_ns(stage.tally_of(PROVIDER)) or 0) >= said_ns
    acts.fact(
        "the provider answers", answers, "a client that asks the recursive node came to it" if answers else "nobody came to it"
    )
