"""From a run on real processes to the lines of a signed bundle: what its history, fault log and verdict say. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chaos.check import final, resolution
from chaos.check.history import Op, Operation
from chaos.check.judge import judge
from chaos.check.verdict import Verdict
from chaos.evidence import bundle
from chaos.evidence.bundle import Broken, Figure, Finding, Made, Moment, Part, RedProof, Rpo, Said, What, text
from chaos.faults.fault import Event, FaultState
from tests.faults.scenario import Layer, Scenario

NS_PER_MS = 1_000_000
MINUTES_MAX = 5  # of one scenario, as the runner allows
WORDS = {Verdict.PASS: bundle.Verdict.PASS, Verdict.FAIL: bundle.Verdict.FAIL, Verdict.UNKNOWN: bundle.Verdict.INCONCLUSIVE}
NO_RULE = "none: no bug is planted for this scenario"
WRITES = (Op.PUT, Op.APPEND, Op.CAS)
RUN_CHECK = "run"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run left. Moments of operations and events: CLOCK_MONOTONIC, ns; `began_ms`: Unix. verdict, why: the runner's own.

    operations: empty, when it was not run or could not be judged."""

    verdict: Verdict
    why: Sequence[str] = ()
    figures: Mapping[str, object] = field(default_factory=dict)
    operations: Sequence[Operation] = ()
    events: Sequence[Event] = ()
    began_ns: int = 0
    took_ms: int = 0


@dataclass(frozen=True, slots=True)
class Where:
    """Around a run. system: cluster, or the stand-in with the rule that was turned off; hashes: (of, name) -> SHA-256, hex."""

    system: str
    seed: int
    began_ms: int
    by: str
    machine: str
    hashes: Mapping[tuple[str, str], str]
    remark: str = ""


def name_of(scenario: Scenario) -> str:
    """Its name in bundles; the same for each run."""
    layer = "-root" if scenario.layer is Layer.ROOT else ""
    return f"s{scenario.number:02}-{re.sub(r'[^a-z0-9]+', '-', scenario.story.lower()).strip('-')[:48]}{layer}"


def command_of(scenario: Scenario) -> str:
    """What plays all of its layer."""
    return "make faults-root" if scenario.layer is Layer.ROOT else "make faults"


def parts_of(scenario: Scenario, seen: Seen, where: Where, red: RedProof) -> list[Part]:
    """All lines of the bundle. The history is judged again, so that each check is a line of its own."""
    planted = where.system if ":" in where.system else ""

    def us(at_ns: int) -> int:
        return max(0, (at_ns - seen.began_ns) // 1_000)

    parts: list[Part] = [
        bundle.Drill(
            name_of(scenario), scenario.number, text(f"{scenario.story} (system: {where.system}){where.remark}"), where.seed,
            str(scenario.layer), planted, where.began_ms, seen.took_ms, text(where.machine), text(where.by),
            f"members of its own on this machine, played by {command_of(scenario)}", "nothing: no running cluster is touched",
            "Ctrl-C: faults heal, processes end", MINUTES_MAX,
        )
    ]  # fmt: skip
    parts += [Made(of, text(name), value) for (of, name), value in where.hashes.items()]
    parts += [Broken(us(one.at_ns), text(one.fault), one.what.value, text(one.detail)) for one in seen.events]
    moments = {FaultState.ACTIVE: What.FAULT, FaultState.HEALED: What.HEAL}
    parts += [Moment(us(one.at_ns), moments.get(one.what, What.NOTE), "", text(one.fault)) for one in seen.events]
    lost, unread = _losses(seen.operations)
    receipts = None if unread or not seen.operations else lost
    findings = _findings(scenario, seen)
    if seen.verdict is Verdict.PASS and receipts is None:
        findings.append(Finding(final.CHECK, bundle.Verdict.INCONCLUSIVE, "not every key was read at the end"))
    parts += [*_figures(scenario, seen, receipts), Rpo(receipts, None, None), *findings]
    return [*parts, red, Said(bundle.worst([one.verdict for one in findings]))]


def _findings(scenario: Scenario, seen: Seen) -> list[Finding]:
    """The runner's own verdict, and each check of the history, unless the run was broken off before it was judged."""
    figures = "; ".join(f"{name} {value}" for name, value in seen.figures.items())
    out = [Finding(RUN_CHECK, WORDS[seen.verdict], text("; ".join(seen.why) or figures))]
    if seen.operations:
        wanted = {str(one) for one in scenario.invariants}
        for one in judge(seen.operations):
            if one.check in wanted:
                out.append(Finding(text(f"{one.check} {one.about}".strip()), WORDS[one.verdict], text(one.why)))
    return out


def _figures(scenario: Scenario, seen: Seen, lost: int | None) -> list[Figure]:
    acked = sum(one.ok is True and one.op in WRITES for one in seen.operations) if seen.operations else None
    unknown = sum(one.ok is None and one.op in WRITES for one in seen.operations) if seen.operations else None
    pause, healed = seen.figures.get("longest pause ms"), seen.figures.get("healed ms")
    budgets = scenario.budgets
    return [
        Figure("acknowledged", "writes", acked, None, f"at least {budgets.acked_min} are needed to say anything"),
        Figure("lost", "writes", lost, 0, "acknowledged, and not in what all members end with"),
        Figure("unknown", "writes", unknown, None, "clients were told neither yes nor no"),
        Figure("pause_ms", "ms", _whole(pause), round(budgets.pause_ms_max), "longest time without an acknowledged write"),
        Figure("healed_ms", "ms", _whole(healed), round(budgets.heal_s_max * 1_000), "last heal until all members take part"),
    ]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _losses(operations: Sequence[Operation]) -> tuple[int, list[str]]:
    answered = resolution.keys_with_answers(operations)
    lost, unread = final.losses([one for one in operations if one.key not in answered])
    return len(lost), unread
