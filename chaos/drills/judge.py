"""What a drill was worth: reads only what was seen from outside, never asks the system. Pure.

| figure | meaning |
| --- | --- |
| rto_first_ms | fault to the end of the first right answer of a lookup that began after it, through the recursive node, TTL 0 |
| rto_steady_ms | fault to the start of the first 5 s in which 99.9 % of those lookups were right |
| rto_port_ms | as rto_first_ms, for clients that know our address |
| rto_hedged_ms | longest lookup of a hedging client that began within 5 s of the fault |

What could not be measured is inconclusive: a late prober where a time is measured, too little traffic, a node that had answered
nobody before it died.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chaos.drills.outside import LATE_MS, NS_PER_MS, Lane, Lookup, Lost, Outside
from chaos.evidence.bundle import Figure, Finding, Verdict, worst
from chaos.faults.fault import FaultState
from chaos.scenarios.scenario import Invariant, Scenario

PROBER_CHECK = "prober in time"
PROBER_LATE_MS_MAX = 100
EXCUSED_TIMES = 10  # its worst lateness so often over: more slowness than that is not the prober's own
LIVE_CHECK = "who lives is reached"
ANSWERED_BEFORE_MS_MAX = 1_000
STEADY_MS, STEADY_SHARE_MIN = 5_000, 0.999
STEADY_LOOKUPS_MIN = 20
FAILED_MS = 3_000  # the patience of a standard client
SHOWN_MAX = 3
Measure = Callable[[Sequence[Lookup], Lost], float | None]


@dataclass(slots=True)
class Judged:
    """Figures, findings and their worst."""

    figures: list[Figure] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    beyond: set[str] = field(default_factory=set)  # checks that failed by more than any lateness of the prober explains

    @property
    def verdict(self) -> Verdict:
        return worst([one.verdict for one in self.findings])

    def say(self, check: str, held: bool | None, why: str) -> None:
        verdict = Verdict.INCONCLUSIVE if held is None else Verdict.PASS if held else Verdict.FAIL
        self.findings.append(Finding(check, verdict, why[:1_900]))


def judge(scenario: Scenario, outside: Outside) -> Judged:
    """Measure and decide."""
    told = Judged()
    _usable(scenario, outside, told)
    _times(scenario, outside, told)
    told.figures += outside.measured
    for invariant in scenario.invariants:
        _CHECKS[invariant](scenario, outside, told)
    told.findings = [_excused(one, scenario, outside, told) for one in told.findings]
    return told


def late_ms(scenario: Scenario, outside: Outside) -> float | None:
    """How late the prober was where something is measured: while a fault was on, if that is all; else throughout."""
    worst = outside.prober_late_ms
    if worst is None or not outside.lates or not outside.lost or _THROUGHOUT.intersection(scenario.invariants):
        return worst
    began = [one.at_ns for one in outside.faults if one.what is FaultState.ACTIVE]
    healed = [one.at_ns for one in outside.faults if one.what is FaultState.HEALED]
    ends = [next((end for end in healed if end > begin), outside.ended_ns) for begin in began]
    spans = list(zip(began, ends, strict=True))
    within = [ms for at_ns, ms in outside.lates if any(a <= at_ns and at_ns - ms * NS_PER_MS <= b for a, b in spans)]
    return max(within, default=min(worst, LATE_MS))


def _excused(one: Finding, scenario: Scenario, outside: Outside, told: Judged) -> Finding:
    """A late prober sees slowness that is its own, as far as its lateness goes; loss and lies stay what they are."""
    if one.verdict is not Verdict.FAIL or one.check not in _TIMED or one.check in told.beyond:
        return one
    late = outside.prober_late_ms if one.check == LIVE_CHECK else late_ms(scenario, outside)
    if late is not None and late <= PROBER_LATE_MS_MAX:
        return one
    return Finding(one.check, Verdict.INCONCLUSIVE, f"{one.why} (the prober was late)")


def _usable(scenario: Scenario, outside: Outside, told: Judged) -> None:
    late = late_ms(scenario, outside)
    if late is None:
        told.say(PROBER_CHECK, None, "it said nothing")
    elif scenario.timed or outside.lost:
        held = True if late <= PROBER_LATE_MS_MAX else None
        told.say(PROBER_CHECK, held, f"at most {late:.0f} ms late, allowed {PROBER_LATE_MS_MAX}")
    else:
        told.say(PROBER_CHECK, True, f"at most {late:.0f} ms late; no time is measured here")
    count, least = len(outside.lookups), scenario.budgets.lookups_min
    told.say("enough traffic", True if count >= least else None, f"{count} lookups of clients, at least {least} say something")
    for one in outside.lost:
        before = one.answered_ns
        own = before is not None and one.at_ns - before <= ANSWERED_BEFORE_MS_MAX * NS_PER_MS
        told.say("answered by the node before", True if own else None, "its own last answer " + (
            "is unknown" if before is None else f"was {(one.at_ns - before) / NS_PER_MS:.0f} ms before its death"))  # fmt: skip
    for doubt in outside.doubts:
        told.say("the drill itself", None, doubt)
    if outside.aborted:
        told.say("the drill itself", None, f"aborted: {outside.aborted}")


def _times(scenario: Scenario, outside: Outside, told: Judged) -> None:
    if not outside.lost:
        return
    budgets = scenario.budgets
    rows = (
        ("rto_first_ms", _over(outside, _first, Lane.RECURSIVE), budgets.rto_first_ms, "fault to first right answer, TTL 0"),
        ("rto_port_ms", _over(outside, _first, Lane.PORT), budgets.rto_first_ms, "fault to first right answer at our address"),
        ("rto_steady_ms", _over(outside, _steady, Lane.RECURSIVE), budgets.rto_steady_ms, "fault to the first 5 s of 99.9 %"),
        ("rto_hedged_ms", _over(outside, _longest, Lane.HEDGED), None, "longest lookup of a hedging client in the 5 s after"),
    )
    for name, value, most, meaning in rows:
        rounded = None if value is None else round(value)
        told.figures.append(Figure(name, "ms", rounded, most, meaning))
        if most is not None:
            held = None if value is None else value < most
            told.say(name, held, f"{'not measured' if value is None else f'{value:.0f} ms'}, below {most} ms is asked")
            late = late_ms(scenario, outside)
            if value is not None and late is not None and value > most + EXCUSED_TIMES * late:
                told.beyond.add(name)


def _over(outside: Outside, measure: Measure, lane: Lane) -> float | None:
    """The worst over all sources of all deaths; None as soon as one could not be measured."""
    found = [measure(_of(outside, one, source, lane), one) for one in outside.lost for source in one.sources]
    known = [value for value in found if value is not None]
    return max(known) if known and len(known) == len(found) else None


def _of(outside: Outside, lost: Lost, source: str, lane: Lane) -> list[Lookup]:
    chosen = [one for one in outside.lookups if one.lane is lane and one.source == source and one.began_ns >= lost.at_ns]
    return sorted(chosen, key=lambda one: one.began_ns)


def _first(lookups: Sequence[Lookup], lost: Lost) -> float | None:
    ends = [one.ended_ns for one in lookups if one.right]
    return (min(ends) - lost.at_ns) / NS_PER_MS if ends else None


def _longest(lookups: Sequence[Lookup], lost: Lost) -> float | None:
    window = [one.took_ms for one in lookups if one.began_ns - lost.at_ns <= STEADY_MS * NS_PER_MS]
    return max(window, default=None)


def _steady(lookups: Sequence[Lookup], lost: Lost) -> float | None:
    starts, wrong = [one.began_ns for one in lookups], [0]
    for one in lookups:
        wrong.append(wrong[-1] + (not one.right))
    for place, began in enumerate(starts):
        end = bisect_left(starts, began + STEADY_MS * NS_PER_MS)
        whole = starts[-1] >= began + STEADY_MS * NS_PER_MS
        count = end - place
        if whole and count >= STEADY_LOOKUPS_MIN and wrong[end] - wrong[place] <= (1 - STEADY_SHARE_MIN) * count:
            return (began - lost.at_ns) / NS_PER_MS
    return None


# ---------------------------------------------------------------------------------------------------------------- invariants


def _no_lie(scenario: Scenario, outside: Outside, told: Judged) -> None:
    judged = [one for one in outside.lookups if one.lane in scenario.lanes_judged]
    lies = [one for one in judged if one.lied]
    shown = "; ".join(f"{one.name} ({one.lane}): {one.note}" for one in lies[:SHOWN_MAX])
    told.say("no wrong answer", not lies if judged else None, f"{len(lies)} of {len(judged)} answers were wrong. {shown}".strip())


def _no_failure(scenario: Scenario, outside: Outside, told: Judged) -> None:
    judged = [one for one in outside.lookups if one.lane in scenario.lanes_judged]
    failed = [one for one in judged if not one.right or one.took_ms > FAILED_MS]
    shown = "; ".join(f"{one.name} ({one.lane}): {one.note or f'{one.took_ms:.0f} ms'}" for one in failed[:SHOWN_MAX])
    told.say("no failed lookup", not failed if judged else None, f"{len(failed)} of {len(judged)} failed. {shown}".strip())


def _hedged(scenario: Scenario, outside: Outside, told: Judged) -> None:
    hedged = [one for one in outside.lookups if one.lane is Lane.HEDGED]
    failed = [one for one in hedged if not one.right or one.took_ms > FAILED_MS]
    shown = "; ".join(f"{one.name}: {one.note or f'{one.took_ms:.0f} ms'}" for one in failed[:SHOWN_MAX])
    told.say(
        "hedging clients lose nothing", not failed if hedged else None, f"{len(failed)} of {len(hedged)} failed. {shown}".strip()
    )


def _port(scenario: Scenario, outside: Outside, told: Judged) -> None:
    asked = [one for one in outside.lookups if one.lane is Lane.PORT]
    failed = [one for one in asked if not one.right or one.took_ms > FAILED_MS]
    shown = "; ".join(f"{one.name}: {one.note or f'{one.took_ms:.0f} ms'}" for one in failed[:SHOWN_MAX])
    told.say("our address answers", not failed if asked else None, f"{len(failed)} of {len(asked)} failed. {shown}".strip())


def _live(scenario: Scenario, outside: Outside, told: Judged) -> None:
    """While others are dead: from the death to the end of the drill."""
    dead = {source for one in outside.lost for source in one.sources}
    since_ns = min((one.at_ns for one in outside.lost), default=0)
    lane = [one for one in outside.lookups if one.lane is Lane.RECURSIVE and one.source not in dead and one.began_ns >= since_ns]
    failed = [one for one in lane if not one.right or one.took_ms > FAILED_MS]
    shown = "; ".join(f"{one.name}: {one.note or f'{one.took_ms:.0f} ms'}" for one in failed[:SHOWN_MAX])
    held = not failed if lane and outside.lost else None
    told.say(LIVE_CHECK, held, f"{len(failed)} of {len(lane)} through the recursive node failed. {shown}".strip())


def _kept(scenario: Scenario, outside: Outside, told: Judged) -> None:
    lost = outside.not_honoured
    why = "not looked up" if lost is None else f"{len(lost)} of {outside.receipts} receipted names, {lost[:SHOWN_MAX]}"
    told.say("receipts honoured", None if lost is None or not outside.receipts else not lost, why)


def _equal(scenario: Scenario, outside: Outside, told: Judged) -> None:
    after: dict[str, dict[str, tuple[str, int, str]]] = {}
    for one in outside.contents:
        if one.when == "after":
            after.setdefault(one.source, {})[one.place] = (one.position, one.records, one.total)
    differ = [source for source, places in after.items() if len(set(places.values())) > 1]
    alone = [source for source, places in after.items() if len(places) < 2]
    held = None if alone or not after else not differ
    told.say("contents equal", held, f"{len(after)} sources compared, different: {differ}, seen at one place only: {alone}")


def _no_takeover(scenario: Scenario, outside: Outside, told: Judged) -> None:
    taken = [one for one in outside.seen if one.authority != "SOURCE"]
    shown = f"; {taken[0].source}: {taken[0].authority}" if taken else ""
    told.say("no takeover", not taken if outside.seen else None, f"{len(taken)} looks saw one{shown}")


def _no_writer(scenario: Scenario, outside: Outside, told: Judged) -> None:
    taken = [one for one in outside.seen if one.authority not in ("SOURCE", "RESOLUTION")]
    told.say(
        "no second writer", not taken if outside.seen else None, f"{len(taken)} looks saw another authority than the source's"
    )


def _facts(scenario: Scenario, outside: Outside, told: Judged) -> None:
    for name in scenario.facts:
        told.say(name, outside.facts.get(name), outside.notes.get(name, "never looked at"))


_CHECKS = {
    Invariant.NO_LIE: _no_lie,
    Invariant.NO_FAILURE: _no_failure,
    Invariant.HEDGED: _hedged,
    Invariant.RECEIPTS: _kept,
    Invariant.EQUAL: _equal,
    Invariant.NO_TAKEOVER: _no_takeover,
    Invariant.NO_SECOND_WRITER: _no_writer,
    Invariant.PORT_ANSWERS: _port,
    Invariant.LIVE_REACHED: _live,
    Invariant.FACTS: _facts,
}
_THROUGHOUT = {Invariant.HEDGED, Invariant.NO_FAILURE, Invariant.PORT_ANSWERS, Invariant.NO_TAKEOVER}
_TIMED = (
    "rto_first_ms", "rto_port_ms", "rto_steady_ms", "hedging clients lose nothing", "our address answers", "no takeover",
    "no failed lookup", LIVE_CHECK,
)  # fmt: skip
