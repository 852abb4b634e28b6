"""The act of a noisy tenant: it registers at 100 times its quota, in short slices by turns at the member and at a mere sink."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from chaos.drills.slices import At, Sample, Slice, by_turns, compared, in_time
from chaos.faults.fault import Fault
from chaos.scenarios.scenario import Act, Step
from ops.drills.edge_stage_files import HOST
from ops.drills.registering_stage import REGISTRAR
from ops.drills.tenants_stage import LOUD, TenantsStage
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError

if TYPE_CHECKING:
    from ops.drills.acts import Acts

QUOTA_PER_S: Final = 20
BURST_S: Final = 2.0
TIMES: Final = 100
MORE: Final = 1.4  # asked of the noise, so that it is a hundred times, whatever the member holds up
SLICE_S: Final = 1.0
ORDER: Final = (At.SINK, At.MEMBER, At.MEMBER, At.SINK)  # so that what slowly gets better or worse counts for both
ROUNDS: Final = 12
CALM_S: Final = 1.0
REGISTRATIONS_PER_S, RESOLUTIONS_PER_S = 40.0, 100.0
WHY: Final = ("--why", "scenario 48", "--by", "drill")

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The act of this file."""
    return {Act.TENANT_NOISY: lambda _: _noisy(acts)}


@asynccontextmanager
async def _noisy(acts: Acts) -> AsyncIterator[None]:
    stage = acts.stage
    assert isinstance(stage, TenantsStage), "this act needs a stage with tenants"
    loud, *quiet = stage.tenants
    await _limited(stage, loud)
    _write(stage, loud, quiet)
    await stage.start("sink")
    await asyncio.gather(stage.start("noise"), stage.start("quiet"))
    await stage.ask("quiet", do="begin")
    slices, told = list[Slice](), list[dict[str, Any]]()

    async def turn(at: str) -> dict[str, Any]:
        return await stage.ask("noise", do="turn", at=at)

    async def begin() -> None:
        await asyncio.sleep(CALM_S)

    async def heal() -> None:
        told.append(await turn(""))

    async with Fault(f"{loud} registers at {TIMES} times its quota", begin, heal, acts.log):
        for at in ORDER * ROUNDS:
            told.append(await turn(at))
            began_ns = time.monotonic_ns()
            await asyncio.sleep(SLICE_S)
            slices.append(Slice(at, began_ns, time.monotonic_ns()))
        yield
    await asyncio.sleep(CALM_S)
    told.append(await turn(""))  # what was answered since
    _say(acts, slices, told, await stage.ask("quiet", do="end"))


async def _limited(stage: TenantsStage, loud: str) -> None:
    """The loud tenant has documents: its registrar may create, and so fast. Raises ZaibeiError(REFUSED)."""
    member, prefix = stage.member_words(), stage.tenants[loud]
    who = ensure_identity(stage.folder / LOUD, LOUD).fingerprint
    right = f'{{"who": "{who}", "operations": ["create", "modify"], "under": "{prefix}"}}'
    quota = f'{{"registrations_per_s": {QUOTA_PER_S}, "burst_s": {BURST_S}}}'
    for words in (
        ("tenant", "create", loud, "--title", "Loud"),
        ("tenant", "set", loud, "right", "r1", "--json-body", right),
        ("tenant", "set", loud, "quota", "tenant", "--json-body", quota),
    ):
        code, told = await stage.zaibei(*words, *WHY, *member)
        if code:
            raise ZaibeiError(Code.REFUSED, f"zaibei {' '.join(words[:3])}: {told}")


def _write(stage: TenantsStage, loud: str, quiet: list[str]) -> None:
    """What the three processes read."""
    server, folder = f"{HOST}:{stage.ports['registration']}", stage.folder
    certificate = folder / "member" / "identity" / "certificate.pem"
    sink = ensure_identity(folder / "sink", "sink")
    (folder / "sink.pem").write_bytes(sink.certificate_pem)
    callers = ensure_identity(folder / LOUD, LOUD).certificate_pem.decode()
    at = {
        At.SINK: {"server": f"{HOST}:{stage.ports['sink']}", "member_file": str(folder / "sink.pem")},
        At.MEMBER: {"server": server, "member_file": str(certificate)},
    }
    stage.write_json("sink.json", {"port": stage.ports["sink"], "identity": str(folder / "sink"), "callers": callers})
    stage.write_json(
        "noise.json",
        {"prefix": stage.tenants[loud], "identity": str(folder / LOUD), "per_s": QUOTA_PER_S * TIMES * MORE, "at": at},
    )
    stage.write_json(
        "quiet.json",
        {
            "tenants": {name: stage.tenants[name] for name in quiet}, "identity": str(folder / REGISTRAR), "server": server,
            "member_file": str(certificate), "resolve": [HOST, stage.ports["handle"]],
            "registrations_per_s": REGISTRATIONS_PER_S, "resolutions_per_s": RESOLUTIONS_PER_S,
        },
    )  # fmt: skip


def _say(acts: Acts, slices: list[Slice], told: list[dict[str, Any]], quiet: dict[str, Any]) -> None:
    seconds = sum(one.ended_ns - one.began_ns for one in slices if one.at is At.MEMBER) / 1e9
    sent, registered = (sum(one[At.MEMBER][what] for one in told) for what in ("sent", "registered"))
    refused, at_sink = sum(one[At.MEMBER]["refused"] for one in told), sum(one[At.SINK]["sent"] for one in told)
    per_s, over = sent / seconds, QUOTA_PER_S * TIMES
    acts.fact(
        "100 times its quota", True if per_s >= over and at_sink >= over * seconds else None,
        f"{per_s:,.0f} changes/s sent for {seconds:.0f} s, {per_s / QUOTA_PER_S:.0f} times the {QUOTA_PER_S}/s it has; "
        f"{at_sink / seconds:,.0f}/s at the sink",
    )  # fmt: skip
    whole_s = (slices[-1].ended_ns - slices[0].began_ns) / 1e9 + CALM_S
    most = QUOTA_PER_S * (whole_s + BURST_S)
    acts.fact(
        "it gets no more than its quota", registered <= most if refused + registered else None,
        f"{registered:,} registered, {refused:,} refused; its quota allows {most:,.0f} in {whole_s:.0f} s",
    )  # fmt: skip
    lates = [(int(at_ns), float(ms)) for at_ns, ms in quiet["lates"]]
    usable = in_time(slices, lates)
    for kind in ("registrations", "resolutions"):
        held, note = compared(by_turns((Sample(*one) for one in quiet[kind]), usable))
        acts.fact(f"others' {kind} are as fast", held, f"{note}, {len(slices) - len(usable)} of {len(slices)} slices left out")
    asked = len(quiet["registrations"]) + len(quiet["resolutions"])
    held = None if not asked or (quiet["failed"] and len(usable) < len(slices)) else not quiet["failed"]
    acts.fact("others lose nothing", held, f"{quiet['failed']} of {asked} failed, {quiet['why']}")
