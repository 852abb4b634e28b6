"""What the story takes for a quorum receipt after a fault, and for the same content everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops.demo.looking import Looking
from ops.demo.members import HOSTED, NAMES
from ops.demo.stage import SOURCES, Stage
from ops.demo.story import Story
from replica.model.errors import Code, ZaibeiError

KILLED = 1_000


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path / "stage")
    (made.folder / "manufacturers-own").mkdir(parents=True)
    return made


def written(stage: Stage, acks: dict[str, int], receipts: dict[str, int]) -> Looking:
    own = stage.folder / "manufacturers-own"
    for file, times in (("acks.jsonl", acks), ("receipts.jsonl", receipts)):
        lines = [json.dumps({"name": name, "value": "v", "at_ns": at_ns}) for name, at_ns in times.items()]
        (own / file).write_text("\n".join(lines) + "\n")
    return Looking(stage, lambda *_: None)


def test_a_receipt_that_was_on_its_way_at_the_fault_is_none_of_the_next_leader(stage: Stage) -> None:
    look = written(stage, {"old": KILLED - 5, "new": KILLED + 50}, {"old": KILLED + 1, "new": KILLED + 400})
    assert look.receipt_after(KILLED, 0.1) == KILLED + 400


def test_without_a_receipt_for_something_new_nothing_is_known(stage: Stage) -> None:
    look = written(stage, {"old": KILLED - 5, "new": KILLED + 50}, {"old": KILLED + 1})
    with pytest.raises(ZaibeiError) as caught:
        look.receipt_after(KILLED, 0.1)
    assert caught.value.code is Code.UNKNOWN
    assert look.unreceipted() == {"new": "v"}


def differing(stage: Stage, found: dict[str, dict[str, tuple[str, int, str]]]) -> list[str]:
    story = Story(stage, lambda _: None, lambda *_: None)
    story._look.digests = lambda: found  # type: ignore[method-assign]
    return story._differing(dict.fromkeys(SOURCES, (1, "sum")))


def test_equal_is_what_every_member_holds_at_one_position_and_its_node_too(stage: Stage) -> None:
    same = {group: dict.fromkeys(NAMES, ("1/7", 1, "sum")) for group in (*SOURCES, HOSTED)}
    assert differing(stage, same) == []
    lagging = {**same, HOSTED: {**same[HOSTED], NAMES[1]: ("1/6", 1, "sum")}}
    assert differing(stage, lagging) and HOSTED in differing(stage, lagging)[0]
    unseen = {**same, SOURCES[0]: dict.fromkeys(NAMES[:2], ("1/7", 1, "sum"))}
    assert differing(stage, unseen) == [f"{SOURCES[0]} was not seen at {NAMES[2]}"]
    other = {**same, SOURCES[1]: dict.fromkeys(NAMES, ("1/7", 2, "more"))}
    assert "its node" in differing(stage, other)[0]
