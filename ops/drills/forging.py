"""The act of forgers: agents that publish names as a node's own, with certificates that count for nothing; and a renewal."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.faults.fault import Fault
from chaos.scenarios.scenario import Act, Step
from ops.admin.edge_client import AdminClient
from ops.drills.certified_stage import CertifiedStage
from ops.pki.edge_folder import PkiFolder
from ops.pki.edge_own import issue_into
from replica.model.trust import Claims, Role

if TYPE_CHECKING:
    from ops.drills.acts import Acts

WATCH_S = 4.0  # a forger calls again every second or two
GAP_MS_MAX = 2_000  # between receipts of the node while its certificate is renewed: the copy stays fresh
ENDED_S = 1.0  # how long the certificate that ended had lasted
STRANGER, OTHER, ENDED, THIEF = "stranger", "other", "ended", "thief"
FACT_OF = {
    STRANGER: "another CA's certificate gets nothing",
    OTHER: "another node's certificate gets nothing",
    ENDED: "an ended certificate gets nothing",
    THIEF: "a revoked certificate gets nothing",
}
OTHER_NAME = "node-99"
TOLD = {OTHER: OTHER_NAME, THIEF: "revoked"}  # words of the refusal; the others fail in the TLS handshake

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The acts of this file."""
    return {Act.FORGED_AND_ROTATED: lambda _: _forged_and_rotated(acts)}


@asynccontextmanager
async def _forged_and_rotated(acts: Acts) -> AsyncIterator[None]:
    stage = acts.stage
    assert isinstance(stage, CertifiedStage), "this act needs a stage with a CA"
    source = stage.sources[0]
    old = await asyncio.to_thread(_make_keys, stage, source)
    await asyncio.sleep(ENDED_S)

    async def begin() -> None:
        for forger in (STRANGER, OTHER, ENDED):
            stage.forge(forger, source, stage.folder / "keys" / forger, OTHER_NAME if forger == OTHER else source)
        await asyncio.gather(*(stage.start(forger) for forger in (STRANGER, OTHER, ENDED)))

    async def heal() -> None:
        for forger in FACT_OF:
            if forger in stage.children:
                with suppress(ProcessLookupError):
                    os.kill(stage.pid(forger), signal.SIGTERM)
                await stage.gone(forger)

    async with Fault("forgers with three certificates call; then one with a stolen key that is revoked", begin, heal, acts.log):
        await asyncio.sleep(WATCH_S)
        await _got_nothing(acts, stage, source, (STRANGER, OTHER, ENDED))
        renewed_ns = time.monotonic_ns()
        await asyncio.to_thread(issue_into, stage.authority, stage.identity_of(source), Claims(Role.SOURCE, source))
        await asyncio.to_thread(stage.authority.revoke, frozenset((old,)))
        await asyncio.sleep(WATCH_S)
        gap_ms = _longest_gap_ms(stage.told / f"{source}-receipts.jsonl", renewed_ns, time.monotonic_ns())
        held = None if gap_ms is None else gap_ms <= GAP_MS_MAX
        acts.fact("renewed without a gap", held, f"longest time without a receipt: {gap_ms} ms, allowed {GAP_MS_MAX}")
        stage.forge(THIEF, source, stage.folder / "keys" / THIEF, source)
        await stage.start(THIEF)
        await asyncio.sleep(WATCH_S)
        await _got_nothing(acts, stage, source, (THIEF,))
        await _told(acts, stage)
        yield


def _make_keys(stage: CertifiedStage, source: str) -> str:
    """What each forger shows; the thief's were copied from the node. Returns the serial of the certificate that was stolen."""
    ca, node, keys = stage.authority, Claims(Role.SOURCE, source), stage.folder / "keys"
    [stolen] = ca.book().named(source)
    shutil.copytree(stage.identity_of(source), keys / THIEF)
    issue_into(PkiFolder.create(stage.folder / "other-pki", "another CA"), keys / STRANGER, node)
    issue_into(ca, keys / OTHER, Claims(Role.SOURCE, OTHER_NAME))
    issue_into(ca, keys / ENDED, node, ENDED_S)
    return stolen.serial


async def _got_nothing(acts: Acts, stage: CertifiedStage, source: str, forgers: Iterable[str]) -> None:
    """No forged name is answered, the feed of the node itself flows, and the forgers' agents were never received."""
    answers = await acts.ask_us(stage.forged_names(source))
    forged = [name for name, reply in answers.items() if reply is not None and reply.code == 1]
    row = (await stage.rows())[source]
    for forger in forgers:
        said = json.loads((stage.folder / forger / "agent" / "status.json").read_text("utf-8"))
        let_in = any(one.get("connected") for one in said["push"])
        note = f"{len(forged)} forged names answered; feed {row.feed}; its agent was {'let in' if let_in else 'not let in'}"
        acts.fact(FACT_OF[forger], not forged and row.feed == "FLOWING" and not let_in, note)


async def _told(acts: Acts, stage: CertifiedStage) -> None:
    """The member's status names each reason."""

    def look() -> list[str]:
        with AdminClient(stage.folder / "member" / "admin.sock") as admin:
            return list(admin.status().warnings)

    warnings = [one for one in await asyncio.to_thread(look) if "refused" in one]
    missing = [forger for forger, word in TOLD.items() if not any(word in one for one in warnings)]
    acts.fact("refusals are told", not missing, f"not told: {missing}; told: {warnings}"[:1_500])


def _longest_gap_ms(path: Path, from_ns: int, to_ns: int) -> int | None:
    """Between two receipts in that time, and at its two ends; None: there was none at all."""
    times = [at_ns for line in path.read_bytes().splitlines() if from_ns <= (at_ns := int(json.loads(line)["at_ns"])) <= to_ns]
    if not times:
        return None
    points = [from_ns, *sorted(times), to_ns]
    return max(after - before for before, after in pairwise(points)) // 1_000_000
