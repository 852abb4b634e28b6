"""A run's lines say what its history says: what was lost is counted, what was not judged is no pass."""

from __future__ import annotations

from chaos.check.history import Op, Operation
from chaos.check.verdict import Verdict
from chaos.evidence import bundle
from chaos.evidence.bundle import RedProof, Rpo, Said
from tests.faults.evidence import NO_RULE, Seen, Where, name_of, parts_of
from tests.faults.run import all_scenarios
from tests.faults.scenario import Scenario

SCENARIO = Scenario(1, "leader killed", ())
WHERE = Where("cluster", 1, 0, "somebody", "a machine", {})


def lines(seen: Seen) -> tuple[bundle.Verdict, int | None]:
    parts = parts_of(SCENARIO, seen, WHERE, RedProof(NO_RULE, None, "", ""))
    bundle.check(parts)
    said = next(one.verdict for one in parts if isinstance(one, Said))
    return said, next(one.receipts for one in parts if isinstance(one, Rpo))


def history(final: tuple[int, ...]) -> list[Operation]:
    return [
        Operation("c0", "list-0", Op.APPEND, 7, None, None, False, True, 1, 2),
        Operation("final", "list-0", Op.GET, None, None, final, True, True, 3, 4),
    ]


def test_kept_and_lost_are_told_apart() -> None:
    assert lines(Seen(Verdict.PASS, operations=history((7,)))) == (bundle.Verdict.PASS, 0)
    assert lines(Seen(Verdict.FAIL, ["lost"], operations=history(()))) == (bundle.Verdict.FAIL, 1)


def test_what_was_not_judged_or_not_read_is_inconclusive() -> None:
    assert lines(Seen(Verdict.UNKNOWN, ["no root"])) == (bundle.Verdict.INCONCLUSIVE, None)
    assert lines(Seen(Verdict.PASS, operations=history((7,))[:1])) == (bundle.Verdict.INCONCLUSIVE, None)


def test_each_scenario_has_a_name_of_its_own() -> None:
    names = [name_of(one) for one in all_scenarios()]
    assert len(set(names)) == len(names)
