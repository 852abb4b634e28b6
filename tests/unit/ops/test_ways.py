"""Which member answers a call: the table, and answers of several members made one."""

from __future__ import annotations

import pytest

from ops.admin.calls import CALLS
from ops.admin.values import Held
from ops.admin.ways import WAYS, Way, most_telling, outcomes_joined, rows_joined, source_of, way_of
from replica.model.errors import Code, ZaibeiError


def test_every_listed_call_exists_and_names_what_its_way_needs() -> None:
    for name, way in WAYS.items():
        names = set(CALLS[name].parameters)
        of_a_source = {Way.LEADER: {"source", "hold", "order"}, Way.ROWS: {"source"}, Way.PLAN: {"source"}}
        needed = of_a_source.get(way, {"token", "approval", "names"})
        assert names & needed, name


@pytest.mark.parametrize("name", ["stop", "status", "metrics", "reseed_run", "audit_export", "cluster_run", "serving_state"])
def test_what_is_about_one_member_stays_there(name: str) -> None:
    assert way_of(name) is Way.HERE


def test_the_source_of_a_call() -> None:
    assert source_of("takeover_plan", {"source": "node-a", "action": "takeover"}) == "node-a"
    assert source_of("hold_plan", {"hold": "node-a/0017", "decision": "release"}) == "node-a"
    assert source_of("hold_show", {"hold": "0017"}) == ""
    assert source_of("registration_order", {"order": "no order at all"}) == ""


def test_each_row_is_its_leaders() -> None:
    own = [{"source": "a", "by": "one"}, {"source": "b", "by": "one"}, {"source": "c", "by": "one"}]
    told = {"two": [{"source": "a", "by": "two"}, {"source": "b", "by": "two"}, {"source": "d", "by": "two"}]}
    rows = rows_joined(own, told, {"a": "one", "b": "two", "c": "three", "d": "two"})
    assert [(row["source"], row["by"]) for row in rows] == [("a", "one"), ("b", "two"), ("c", "one"), ("d", "two")]


def test_what_is_held_twice_at_one_source_stays_two_rows() -> None:
    own = [Held("a", hold, "batch", "", "", 0) for hold in ("1", "2")]
    assert rows_joined(own, {}, {"a": "two"}) == own


def _outcome(source: str, outcome: str, why: str = "") -> dict[str, str]:
    return {"source": source, "outcome": outcome, "stage": "", "why": why}


def test_of_a_mass_takeover_the_leaders_outcome_counts() -> None:
    """A follower sees at once that the leader has done it: without the leader's word "now" would read "before"."""
    answers = {
        "one": {"token": "t", "sources": [_outcome("a", "done_before"), _outcome("b", "done"), _outcome("c", "refused", "x")]},
        "two": {"token": "t", "sources": [_outcome("a", "done"), _outcome("b", "refused", "y"), _outcome("c", "unknown")]},
    }
    joined = outcomes_joined(answers, {"a": "two", "b": "one"})
    assert {row["source"]: row["outcome"] for row in joined["sources"]} == {"a": "done", "b": "done", "c": "unknown"}
    assert (joined["done"], joined["done_before"], joined["refused"], joined["unknown"]) == (2, 0, 0, 1)


def test_any_reason_tells_more_than_not_found() -> None:
    unknown, refused = ZaibeiError(Code.NOT_FOUND, "no plan"), ZaibeiError(Code.REFUSED, "the world changed")
    assert most_telling([unknown, refused]) is refused
    assert most_telling([unknown]) is unknown
