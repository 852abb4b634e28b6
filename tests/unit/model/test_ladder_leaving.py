"""A source that lives here leaves: what the moves require at apply, and that what fails leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replica.model.digest import ContentDigest
from replica.model.errors import Code
from replica.model.group_state import HOSTED, GroupState
from replica.model.ladder import GIVEN_UP_AT, Ladder, Stage
from replica.model.ladder_rules import move, registrations_refused
from replica.model.ladder_values import Judged, Moment, Moved, Refused
from replica.model.ledger import Ledger
from replica.model.node import Endpoint
from replica.model.position import ORIGIN, Position, epoch_start
from replica.model.states import Authority
from replica.v1 import entry_pb2, source_pb2
from tests.unit.store.support import LINEAGE, SOURCE

START = epoch_start(ORIGIN, LINEAGE, 1)
HERE = replace(START, seq=9, chain=b"h" * 32)
DIGEST = ContentDigest(HERE, 9, 4_711)
ACT = "graduation:7"
LIVES = GroupState(
    SOURCE,
    ready=True,
    position=HERE,
    granted=START,
    grant_taken=True,
    authority=Authority.REGISTRATION,
    authority_act=HOSTED,
    ladder=Ladder(known=(), acts=3),
)
LEAVING = replace(LIVES, ladder=Ladder(Stage.FROZEN, ACT, acts=4, closed_at=ORIGIN), ledger=Ledger(ORIGIN, ORIGIN, complete=True))


def moved(state: GroupState, stage: Stage, act: str = ACT, **parts: object) -> Judged:
    body = entry_pb2.Ladder(stage=entry_pb2.Ladder.Stage.ValueType(int(stage)), act=act, reason="why", **parts)  # type: ignore[arg-type]
    setattr(body, "from", int(state.ladder.stage))
    return move(state, body, Moment(41, HERE, DIGEST))


def why(judged: Judged) -> str:
    assert isinstance(judged, Refused), judged
    return judged.why


def test_it_begins_at_the_empty_beginning_and_goes_on_registering() -> None:
    began = moved(LIVES, Stage.RETURN_REQUESTED)
    assert isinstance(began, Moved)
    assert (began.group.ladder.act, began.group.ladder.acts, began.group.ladder.closed_at) == (ACT, 4, ORIGIN)
    assert began.group.lives_here and registrations_refused(began.group) is None


def test_only_what_lives_here_and_began_with_nothing_can_leave() -> None:
    fed = replace(LIVES, authority=Authority.SOURCE, authority_act="")
    assert "does not live here" in why(moved(fed, Stage.RETURN_REQUESTED))
    assert "does not live here" in why(moved(replace(LIVES, authority_act="act"), Stage.RETURN_REQUESTED))
    later = replace(LIVES, granted=epoch_start(Position(LINEAGE, 1, 4, b"p" * 32), LINEAGE, 2))
    assert "does not begin with nothing" in why(moved(later, Stage.RETURN_REQUESTED))
    assert "an act of its own" in why(moved(LIVES, Stage.RETURN_REQUESTED, "act"))


@pytest.mark.parametrize("stage", sorted(GIVEN_UP_AT), ids=lambda stage: stage.name.lower())
def test_what_fails_leads_back_and_leaves_nothing(stage: Stage) -> None:
    under_way = replace(LEAVING, ladder=replace(LEAVING.ladder, stage=stage))
    back = moved(under_way, Stage.NORMAL)
    assert isinstance(back, Moved) and back.moved is None
    ladder = back.group.ladder
    assert replace(back.group, ladder=LIVES.ladder, ledger=None) == LIVES
    assert (ladder.act, ladder.closed_at, ladder.held_off, ladder.stage) == ("", None, False, Stage.NORMAL)
    assert "lives here" in why(moved(under_way, Stage.SERVING))
    taken = replace(under_way, authority_act="act")
    assert "taken over" in why(moved(taken, Stage.NORMAL)) and isinstance(moved(taken, Stage.SERVING), Moved)


def test_nobody_registers_while_both_sides_are_compared_and_then_the_node_alone() -> None:
    assert registrations_refused(LEAVING) == (Code.BUSY, f"registrations of {SOURCE} wait: frozen")
    other = replace(DIGEST, total=1).to_wire()
    assert "other content" in why(moved(LEAVING, Stage.SOURCE_EQUAL, digest=other))
    equal = moved(LEAVING, Stage.SOURCE_EQUAL, digest=DIGEST.to_wire())
    assert isinstance(equal, Moved)
    start = epoch_start(HERE, LINEAGE, 2)
    grant = source_pb2.Grant(source=SOURCE, parent=HERE.to_wire(), start=start.to_wire(), reason="r", holder=SOURCE)
    handed = moved(equal.group, Stage.HANDED_BACK, grant=grant)
    assert isinstance(handed, Moved) and handed.moved == start
    node = replace(handed.group, node=(Endpoint("tcp", "192.0.2.9", 2641),))
    assert not node.lives_here and not node.closed
    assert registrations_refused(node) == (
        Code.REFUSED,
        f"we are not the authority of {SOURCE}: it registers itself at tcp://192.0.2.9:2641",
    )
    assert "stands at" in why(moved(node, Stage.NORMAL)), "there is no way back but a new takeover"
