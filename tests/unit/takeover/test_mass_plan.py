"""The text of a mass takeover: the same at every member, one line a source, and a line changes with what matters alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.operators.mass_plan import SOURCES_MAX, Scope, Seen, line_of, lines_in, planned, text_of
from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import Ladder, Stage
from replica.model.states import Authority
from tests.unit.takeover.test_ladder import READY

BOTH, RESOLUTION = Scope(registration=True), Scope(registration=False)


def seen(name: str, refusal: str = "", scope: Scope = BOTH) -> Seen:
    state = replace(READY, source=name)
    return Seen(name, "dead", 7, 3, 0, line_of(state, scope), refusal)


def test_the_text_holds_every_source_that_can_be_taken_and_no_other() -> None:
    text = planned([seen("b"), seen("c", "no complete copy is held"), seen("a")], BOTH)
    assert list(lines_in(text)) == ["a", "b"]
    assert text.startswith("zaibei mass takeover 1\nregistrations and resolution, approved by two\naccepts a loss of at most 0")
    assert all(line in text for line in lines_in(text).values())
    assert planned([seen("a"), seen("b"), seen("c", "no")], BOTH) == text, "in whatever order they were looked at"


def test_what_is_accepted_and_what_is_taken_make_another_text() -> None:
    lines = {"a": line_of(READY, BOTH)}
    texts = {text_of(lines, scope) for scope in (BOTH, RESOLUTION, Scope(True, 5), Scope(True, 0, True), Scope(True, 5, True))}
    assert len(texts) == 5


def test_no_source_and_too_many_are_no_act() -> None:
    for lines in ({}, {f"s{number}": "" for number in range(SOURCES_MAX + 1)}):
        with pytest.raises(ZaibeiError, match="one act takes over 1 to 200") as refused:
            text_of(lines, BOTH)
        assert refused.value.code is Code.MALFORMED


def test_a_line_is_another_one_where_the_world_changed() -> None:
    line = line_of(READY, BOTH)
    moved = replace(READY.position, epoch=9)
    for changed in (
        replace(READY, prefixes=READY.prefixes[:1]),
        replace(READY, position=moved),
        replace(READY, ladder=Ladder(acts=1)),
        replace(READY, ladder=Ladder(lease_ms=30_000, lease_epoch=1, lease_index=4)),
    ):
        assert line_of(changed, BOTH) != line
    assert line_of(replace(READY, position=moved), RESOLUTION) != line_of(READY, RESOLUTION)


def test_a_line_is_the_same_while_the_source_writes_on_and_while_its_act_waits_for_approval() -> None:
    line = line_of(READY, BOTH)
    assert line_of(replace(READY, position=replace(READY.position, seq=99, chain=b"x" * 32), records=1), BOTH) == line
    assert line_of(replace(READY, ladder=Ladder(stage=Stage.PROPOSED, acts=1, act="registration:x")), BOTH) == line
    taken = replace(READY, authority=Authority.RESOLUTION, authority_act="auto:s:1")
    assert line_of(taken, BOTH) == line, "its resolution was taken over by itself meanwhile"
