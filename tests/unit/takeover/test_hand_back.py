"""When our sites may be withdrawn at a hand-back: only the node's own answers say so."""

from __future__ import annotations

import pytest

from replica.takeover.hand_back import RECORDS_MAX, SHOWN_MAX, Answers, answers_of, spread

NAMES = ("88.1/new", "88.1/changed", "88.1/deleted")
RIGHT = dict.fromkeys(NAMES, True)


@pytest.mark.parametrize(
    ("said", "agreed"),
    [
        ({"a": RIGHT}, True),
        ({"a": RIGHT, "b": RIGHT}, True),
        ({"a": RIGHT | {NAMES[2]: False}}, False),  # a name that was deleted is still answered
        ({"a": RIGHT, "b": RIGHT | {NAMES[0]: False}}, False),  # one of two reads its old files
        ({"a": RIGHT | {NAMES[0]: None}}, False),  # it cannot say
        ({"a": dict.fromkeys(NAMES)}, False),  # nobody answers
        ({"a": RIGHT, "b": dict.fromkeys(NAMES)}, True),  # one of two is not reached from here, the other one is right
        ({"a": RIGHT | {NAMES[0]: False}, "b": dict.fromkeys(NAMES)}, False),
    ],
)
def test_all_that_answer_must_answer_all_as_it_is_held(said: dict[str, dict[str, bool | None]], agreed: bool) -> None:
    found = answers_of(NAMES, said)
    assert (found.agreed, found.trouble("node-a") == "") == (agreed, agreed)


def test_what_differs_and_what_to_do_is_told() -> None:
    found = answers_of(NAMES, {"192.0.2.1:2641": RIGHT | {NAMES[1]: False}, "192.0.2.2:2641": dict.fromkeys(NAMES)})
    told = found.trouble("node-a")
    assert NAMES[1] in told and NAMES[0] not in told and "192.0.2.1:2641" in told and "1 of 3" in told
    assert "let it read its new content" in told and "zaibei takeover withdraw node-a" in told
    assert found.mute == ("192.0.2.2:2641",)
    silent = answers_of(NAMES, {"192.0.2.1:2641": dict.fromkeys(NAMES)}).trouble("node-a")
    assert "does not answer" in silent and "zaibei takeover withdraw node-a" in silent


def test_an_address_that_did_not_answer_is_named_where_the_sites_go() -> None:
    found = answers_of(NAMES, {"192.0.2.1:2641": RIGHT, "192.0.2.2:2641": dict.fromkeys(NAMES)})
    assert found.agreed and "3 records" in found.reason() and "192.0.2.2:2641" in found.reason()


def test_nothing_to_compare_holds_nothing_up_and_says_so() -> None:
    found = Answers(why_none="no address of its own resolver is known")
    assert found.agreed and "no address" in found.reason()


def test_many_names_are_counted_not_listed() -> None:
    names = [f"88.1/{number}" for number in range(SHOWN_MAX + 3)]
    told = answers_of(names, {"a": dict.fromkeys(names, False)}).trouble("node-a")
    assert names[SHOWN_MAX - 1] in told and names[SHOWN_MAX] not in told and "3 more" in told


@pytest.mark.parametrize("count", [0, 1, RECORDS_MAX, RECORDS_MAX + 1, 1_000, 123_457])
def test_places_are_spread_to_the_last(count: int) -> None:
    found = spread(count)
    assert len(found) == len(set(found)) == min(count, RECORDS_MAX) and found == sorted(found)
    assert not count or found[-1] == count - 1
    gaps = [after - before for before, after in zip([-1, *found], found, strict=False)]
    assert not gaps or max(gaps) - min(gaps) <= 1
