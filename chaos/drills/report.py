"""From what was seen of a drill to the lines of its bundle. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos.drills.judge import Judged
from chaos.drills.outside import NS_PER_MS, Lane, Lookup, Outside, Seen
from chaos.evidence import bundle
from chaos.evidence.bundle import Drill, LaneCount, Look, Made, Moment, Part, RedProof, Rpo, Said, What, text
from chaos.faults.fault import FaultState
from chaos.scenarios.scenario import Plant, Scenario

LOOKS_MAX = 6_000  # drawn; all are counted
SEEN_MAX = 2_000
SLOW_MS = 250
STEADY_NS = 5_000 * NS_PER_MS


@dataclass(frozen=True, slots=True)
class Ran:
    """Around a drill: when, where, by whom, with what. hashes: (of, name) -> SHA-256, hex."""

    seed: int
    began_ms: int
    by: str
    machine: str
    hashes: Mapping[tuple[str, str], str]
    plant: Plant | None = None
    remark: str = ""


def parts_of(scenario: Scenario, outside: Outside, judged: Judged, ran: Ran, red: RedProof) -> list[Part]:
    """All lines of the bundle, in the order in which a person reads them."""

    def us(at_ns: int) -> int:
        return max(0, (at_ns - outside.began_ns) // 1_000)

    parts: list[Part] = [
        Drill(
            scenario.name, scenario.number, text(f"{scenario.story}{ran.remark}"), ran.seed, scenario.layer,
            "" if ran.plant is None else ran.plant.value, ran.began_ms, (outside.ended_ns - outside.began_ns) // NS_PER_MS,
            text(ran.machine), text(ran.by), scenario.touches, scenario.clients_notice, scenario.how_to_stop,
            scenario.minutes_max,
        )
    ]  # fmt: skip
    parts += [Made(of, text(name), value) for (of, name), value in ran.hashes.items()]
    parts += [bundle.Broken(us(one.at_ns), text(one.fault), one.what.value, text(one.detail)) for one in outside.faults]
    parts += [Moment(us(at_ns), what, about, text(said)) for at_ns, what, about, said in moments(outside)]
    parts += [
        Look(us(one.began_ns), max(0, one.ended_ns - one.began_ns) // 1_000, one.lane.value, one.source, one.right)
        for one in thinned(outside.lookups)
    ]
    parts += [_lane(lane, outside.lookups) for lane in Lane]
    parts += judged.figures
    parts.append(
        Rpo(None if outside.not_honoured is None else len(outside.not_honoured), outside.source_lost, outside.source_lost_ms)
    )
    parts += [bundle.Digest(one.when, one.source, one.place, one.position, one.records, one.total) for one in outside.contents]
    parts += judged.findings
    return [*parts, red, Said(judged.verdict)]


def _lane(lane: Lane, lookups: Sequence[Lookup]) -> LaneCount:
    own = [one for one in lookups if one.lane is lane]
    return LaneCount(lane.value, len(own), sum(not one.right for one in own), sum(one.lied for one in own))


def moments(outside: Outside) -> list[tuple[int, What, str, str]]:
    """The timeline: fault, detect, decide, publish, first answer, steady, heal, return; then every change that was seen."""
    out: list[tuple[int, What, str, str]] = []
    for event in outside.faults:
        what = {FaultState.ACTIVE: What.FAULT, FaultState.HEALED: What.HEAL}.get(event.what, What.NOTE)
        out.append((event.at_ns, what, "", event.fault))
    for lost in outside.lost:
        for source in lost.sources:
            out += _of_death(outside, source, lost.at_ns)
    before: dict[str, Seen] = {}
    for one in outside.seen[:SEEN_MAX]:
        known = before.get(one.source)
        before[one.source] = one
        if known is not None:
            what = What.RETURN if known.authority != "SOURCE" and one.authority == "SOURCE" else What.NOTE
            said = f"{one.feed}, {one.authority}, {one.freshness}, takeover {one.takeover}, verified {one.verified} {one.reason}"
            out.append((one.at_ns, what, one.source, said))
    return sorted(out, key=lambda one: one[0])


def _of_death(outside: Outside, source: str, at_ns: int) -> list[tuple[int, What, str, str]]:
    """Detect and decide as the member said them, to the pace of looks; first answer and steady as clients saw them."""
    out: list[tuple[int, What, str, str]] = []
    later = [one for one in outside.seen if one.source == source and one.at_ns >= at_ns]
    for what, found in (
        (What.DETECT, next((one for one in later if one.takeover not in ("", "normal")), None)),
        (What.DECIDE, next((one for one in later if one.authority != "SOURCE"), None)),
        (What.PUBLISH, next((one for one in later if one.takeover == "serving, found"), None)),
    ):
        if found is not None:
            out.append(
                (found.at_ns, what, source, f"seen {(found.at_ns - at_ns) / NS_PER_MS:.0f} ms after the fault: {found.takeover}")
            )
    asked = [one for one in outside.lookups if one.lane is Lane.RECURSIVE and one.source == source and one.began_ns >= at_ns]
    first = min((one for one in asked if one.right), key=lambda one: one.ended_ns, default=None)
    if first is not None:
        took = f"{(first.ended_ns - at_ns) / NS_PER_MS:.0f} ms after the fault"
        out.append((first.ended_ns, What.FIRST_ANSWER, source, f"{first.name}, {took}"))
    wrong_ns = max((one.began_ns for one in asked if not one.right and one.began_ns < at_ns + STEADY_NS), default=at_ns - 1)
    steady = min((one for one in asked if one.right and one.began_ns > wrong_ns), key=lambda one: one.began_ns, default=None)
    if steady is not None:
        out.append((steady.began_ns, What.STEADY, source, "from here on right answers only"))
    return out


def thinned(lookups: Sequence[Lookup]) -> list[Lookup]:
    """Every lookup that was not right or slow, and evenly chosen others: the picture stays small and hides no fault."""
    odd = [one for one in lookups if not one.right or (one.ended_ns - one.began_ns) / NS_PER_MS > SLOW_MS]
    odd = odd[:: max(1, -(-len(odd) * 2 // LOOKS_MAX))]
    step = max(1, -(-len(lookups) // max(1, LOOKS_MAX - len(odd))))
    chosen = {id(one): one for one in (*odd, *lookups[::step])}
    return sorted(chosen.values(), key=lambda one: one.began_ns)[:LOOKS_MAX]
