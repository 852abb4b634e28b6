"""The judge of drills: what outside clients saw decides; what could not be measured is inconclusive, never a pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.drills.judge import judge
from chaos.drills.outside import NS_PER_MS, Content, Lane, Lookup, Lost, Outside, Seen, first_seen, read_history
from chaos.drills.report import LOOKS_MAX, Ran, moments, parts_of, thinned
from chaos.evidence.bundle import FIRST, RedProof, Verdict, What
from chaos.evidence.seal import read, seal
from chaos.faults.fault import Event, FaultState
from chaos.scenarios.all import SCENARIOS, named
from chaos.scenarios.scenario import Act, Budgets, Invariant, Plant, Scenario, Step
from ops.drills.planted import BY_CONFIGURATION, PLANTS
from replica.model.errors import ZaibeiError
from tests.unit.chaos.sample import signer

KILL = 3_000 * NS_PER_MS
END = 15_000 * NS_PER_MS
SCENARIO = Scenario(
    "s00-sample", 0, "a node dies", (Step(Act.NODES_DIE, 8.0),),
    (Invariant.NO_LIE, Invariant.HEDGED, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    Plant.NEVER_TAKES_OVER, "nothing", 4, budgets=Budgets(lookups_min=100), facts=("back",),
)  # fmt: skip


def lookups(lane: Lane, *, back_ms: float, took_ms: float = 2, every_ms: int = 25) -> list[Lookup]:
    """Right but between the kill and `back_ms` after it, where each fails after 30 ms."""
    out = []
    for at_ms in range(0, 15_000, every_ms):
        began = at_ms * NS_PER_MS
        wrong = KILL <= began < KILL + back_ms * NS_PER_MS
        out.append(Lookup(lane, "a", "88.1/x", began, began + int((30 if wrong else took_ms) * NS_PER_MS), not wrong, False, "2"))
    return out


def outside(**changes: object) -> Outside:
    seen = [Seen(0, "a", "FLOWING", "SOURCE", "normal", "fresh", True), Seen(KILL + 500, "a", "FLOWING", "RESOLUTION",
            "serving, found", "degraded", True), Seen(END, "a", "FLOWING", "SOURCE", "normal", "fresh", True)]  # fmt: skip
    made = Outside(
        0, END, [*lookups(Lane.RECURSIVE, back_ms=600), *lookups(Lane.HEDGED, back_ms=0), *lookups(Lane.PORT, back_ms=0)], 12.0,
        seen, [Event(KILL, "nodes SIGKILLed", FaultState.ACTIVE), Event(KILL * 3, "nodes SIGKILLed", FaultState.HEALED)],
        [Lost(KILL, ("a",), KILL - 20 * NS_PER_MS)],
        [Content("after", "a", place, "1:9", 9, "ff") for place in ("node", "member-1")],
        50, [], 2, 40, {"back": True}, {"back": "it is"},
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def bad(given: Outside, scenario: Scenario = SCENARIO) -> dict[str, Verdict]:
    return {one.check: one.verdict for one in judge(scenario, given).findings if one.verdict is not Verdict.PASS}


def test_a_good_drill_passes_and_its_times_are_measured() -> None:
    told = judge(SCENARIO, outside())
    assert told.verdict is Verdict.PASS and not bad(outside())
    figures = {one.name: one.value for one in told.figures}
    assert figures == {"rto_first_ms": 602, "rto_port_ms": 2, "rto_steady_ms": 600, "rto_hedged_ms": 2}


def test_what_clients_saw_decides() -> None:
    slow = [*lookups(Lane.RECURSIVE, back_ms=1_400), *lookups(Lane.HEDGED, back_ms=0), *lookups(Lane.PORT, back_ms=0)]
    assert bad(outside(lookups=slow)) == {"rto_first_ms": Verdict.FAIL}
    lost = [*lookups(Lane.RECURSIVE, back_ms=600), *lookups(Lane.HEDGED, back_ms=50), *lookups(Lane.PORT, back_ms=0)]
    assert bad(outside(lookups=lost)) == {"hedging clients lose nothing": Verdict.FAIL}
    lie = [*outside().lookups, Lookup(Lane.PORT, "a", "88.1/y", 5, 6, False, True, "100")]
    assert bad(outside(lookups=lie)) == {"no wrong answer": Verdict.FAIL}
    assert not bad(outside(lookups=lie), replace(SCENARIO, lanes_judged=(Lane.RECURSIVE,)))
    assert bad(outside(not_honoured=["88.1/z"])) == {"receipts honoured": Verdict.FAIL}
    other = [Content("after", "a", "node", "1:9", 9, "ff"), Content("after", "a", "member-1", "1:9", 9, "fe")]
    assert bad(outside(contents=other)) == {"contents equal": Verdict.FAIL}
    writer = [*outside().seen, Seen(END, "a", "FLOWING", "REGISTRATION", "", "fresh", True)]
    assert bad(outside(seen=writer)) == {"no second writer": Verdict.FAIL}
    assert bad(outside(facts={"back": False})) == {"back": Verdict.FAIL}
    taken = replace(SCENARIO, invariants=(Invariant.NO_TAKEOVER,))
    assert bad(outside(), taken) == {"no takeover": Verdict.FAIL}
    assert not bad(outside(seen=outside().seen[:1]), taken)


@pytest.mark.parametrize(
    "changes",
    [
        {"prober_late_ms": None},
        {"prober_late_ms": 101.0},
        {"lookups": []},
        {"lost": [Lost(KILL, ("a",), None)]},
        {"lost": [Lost(KILL, ("a",), KILL - 1_001 * NS_PER_MS)]},
        {"lost": [Lost(KILL, ("a", "b"), KILL)]},  # nobody asked for b
        {"contents": []},
        {"contents": [Content("after", "a", "node", "1:9", 9, "ff")]},
        {"not_honoured": None},
        {"receipts": 0},
        {"facts": {}},
        {"facts": {"back": None}},
        {"seen": []},
        {"doubts": ["the stage did not start"]},
        {"aborted": "a real incident"},
    ],
    ids=str,
)
def test_what_is_not_known_is_inconclusive(changes: dict[str, object]) -> None:
    found = bad(outside(**changes))
    assert found and set(found.values()) == {Verdict.INCONCLUSIVE}, found


def test_a_late_prober_excuses_slowness_and_nothing_else() -> None:
    slow = lookups(Lane.RECURSIVE, back_ms=1_400) + lookups(Lane.HEDGED, back_ms=0) + lookups(Lane.PORT, back_ms=0)
    assert set(bad(outside(lookups=slow, prober_late_ms=300.0)).values()) == {Verdict.INCONCLUSIVE}
    assert bad(outside(not_honoured=["x"], prober_late_ms=300.0))["receipts honoured"] is Verdict.FAIL


def test_no_lateness_excuses_far_more_slowness_than_itself() -> None:
    dead = lookups(Lane.RECURSIVE, back_ms=6_000) + lookups(Lane.HEDGED, back_ms=0) + lookups(Lane.PORT, back_ms=0)
    found = bad(outside(lookups=dead, prober_late_ms=300.0))
    assert found == {"prober in time": Verdict.INCONCLUSIVE, "rto_first_ms": Verdict.FAIL, "rto_steady_ms": Verdict.FAIL}
    assert bad(outside(lookups=dead, prober_late_ms=900.0))["rto_first_ms"] is Verdict.INCONCLUSIVE


def test_where_only_a_death_is_timed_lateness_counts_while_it_lasts() -> None:
    timed = replace(SCENARIO, invariants=(Invariant.NO_LIE, Invariant.RECEIPTS))
    for at_ns, late in ((KILL - 1, False), (KILL * 2, True), (KILL * 3 + 90 * NS_PER_MS, True), (KILL * 4, False)):
        given = outside(prober_late_ms=120.0, lates=[(at_ns, 120.0)])
        assert set(bad(given, timed)) == ({"prober in time"} if late else set()), at_ns
        assert set(bad(given)) == {"prober in time"}, "hedging clients are watched throughout"


def test_where_no_time_is_measured_lateness_is_told_and_no_more() -> None:
    calm = replace(SCENARIO, invariants=(Invariant.NO_LIE, Invariant.RECEIPTS), steps=(Step(Act.MASS_DELETE, 1.0),))
    assert bad(outside(prober_late_ms=900.0, lost=[]), calm) == {}
    assert bad(outside(prober_late_ms=None, lost=[]), calm) == {"prober in time": Verdict.INCONCLUSIVE}
    assert bad(outside(prober_late_ms=900.0, lost=[])) == {"prober in time": Verdict.INCONCLUSIVE}, "hedging clients are timed"
    assert bad(outside(prober_late_ms=900.0), calm) == {"prober in time": Verdict.INCONCLUSIVE}, "a death is timed"


def test_who_lives_is_reached_while_others_are_dead() -> None:
    scenario = replace(SCENARIO, invariants=(Invariant.LIVE_REACHED,))
    good = outside().lookups
    living = [replace(one, source="b", right=True) for one in good if one.lane is Lane.RECURSIVE]
    lost = [replace(one, right=one.began_ns != KILL * 2) for one in living]
    before = [replace(one, right=one.began_ns >= KILL) for one in living]
    assert bad(outside(lookups=[*good, *living]), scenario) == {} == bad(outside(lookups=[*good, *before]), scenario)
    assert bad(outside(lookups=[*good, *lost]), scenario) == {"who lives is reached": Verdict.FAIL}
    assert bad(outside(lookups=[*good, *lost], prober_late_ms=120.0), scenario)["who lives is reached"] is Verdict.INCONCLUSIVE
    assert bad(outside(), scenario) == {"who lives is reached": Verdict.INCONCLUSIVE}, "nobody else was asked for"


def test_the_timeline_and_the_bundle() -> None:
    given = outside()
    named_ = {what: at_ns for at_ns, what, _, _ in moments(given)}
    assert named_[What.FAULT] == KILL and named_[What.DECIDE] == KILL + 500 and named_[What.PUBLISH] == KILL + 500
    assert named_[What.FIRST_ANSWER] == KILL + 602 * NS_PER_MS and named_[What.STEADY] == KILL + 600 * NS_PER_MS
    assert named_[What.RETURN] == END and named_[What.HEAL] == KILL * 3
    ran = Ran(7, 1_800_000_000_000, "CI", "two cores", {("build", "zaibei"): "ab" * 32})
    parts = parts_of(SCENARIO, given, judge(SCENARIO, given), ran, RedProof("x", None, "", ""))
    bundle = read(seal(parts, 1, FIRST, signer()), signer().public)
    assert bundle.verdict is Verdict.PASS and bundle.drill.seed == 7


def test_the_picture_stays_small_and_keeps_what_went_wrong() -> None:
    many = [Lookup(Lane.PORT, "a", "x", at, at + 1, at % 97 != 0, False) for at in range(60_000)]
    kept = thinned(many)
    assert len(kept) <= LOOKS_MAX and sum(not one.right for one in kept) == sum(not one.right for one in many)
    assert len(thinned([replace(one, right=False) for one in many])) <= LOOKS_MAX


def test_the_history_of_a_killed_prober_is_read() -> None:
    octets = b'["late", 3.5, 1]\n["port", "a", "x", 1, 2, true, false, ""]\n["late", 2.0, 2]\n["port", "a"'
    found, late_ms = read_history(octets)
    assert (len(found), late_ms) == (1, 3.5) and read_history(b"") == ([], None)
    one = Seen(5, "a", "FORKED", "SOURCE", "", "fresh", True)
    assert first_seen([one], "a", 5, {"feed": ("FORKED",)}) is one and first_seen([one], "a", 6, {"feed": ("FORKED",)}) is None


def test_every_scenario_is_whole() -> None:
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS) == len({one.number for one in SCENARIOS})
    for one in SCENARIOS:
        assert one.red in PLANTS or one.red in BY_CONFIGURATION, f"{one.name}: nothing plants {one.red}"
        assert one.steps and one.invariants and one.minutes_max and one.touches and one.clients_notice and one.how_to_stop
        assert (Invariant.FACTS in one.invariants) == bool(one.facts)
        assert named(one.name) is one is named(str(one.number)) is named(f"s{one.number}")
    for word in ("", "s", "99", "nothing"):
        with pytest.raises(ZaibeiError, match="no scenario"):
            named(word)


def test_a_lookup_that_failed_counts_where_none_may_fail() -> None:
    scenario = replace(SCENARIO, invariants=(Invariant.NO_FAILURE,), facts=())
    calm = outside(lookups=lookups(Lane.RECURSIVE, back_ms=0), lost=[])
    assert not bad(calm, scenario)
    slow = [*calm.lookups, *lookups(Lane.HEDGED, back_ms=0, took_ms=4_000, every_ms=15_000)]
    assert bad(replace(calm, lookups=slow), scenario) == {"no failed lookup": Verdict.FAIL}
    assert not bad(replace(calm, lookups=slow), replace(scenario, lanes_judged=(Lane.RECURSIVE,)))
    failing = replace(calm, lookups=lookups(Lane.RECURSIVE, back_ms=50))
    assert bad(failing, scenario) == {"no failed lookup": Verdict.FAIL}
    assert bad(replace(failing, prober_late_ms=300.0), scenario)["no failed lookup"] is Verdict.INCONCLUSIVE
