"""What drills do: every act has somebody who does it, a node takes what others registered, planted bugs break what they say."""

from __future__ import annotations

from typing import cast

import pytest

from chaos.drills.outside import Outside
from chaos.faults.fault import FaultLog
from chaos.scenarios.all import SCENARIOS
from chaos.scenarios.scenario import Act, Fence
from chaos.standin.registries import told_by, url_of
from hosting.answer.question import Question
from hosting.answer.resolve import Plan
from hosting.front import batcher
from hosting.guard.guard import Guard
from hosting.guard.limits import GuardLimits
from ops.drills import planted, registering_stage
from ops.drills.acts import Acts
from ops.drills.stage import Stage
from replica.model import ladder_rules
from replica.model.batch import OP_DELETE, OP_PUT, Change
from replica.model.catalog import Catalog, Owner
from replica.model.digest import ContentDigest
from replica.model.group_state import OverlaySites
from replica.model.handle.values import HandleValue, encode_record
from replica.model.identifier import Identifier, PrefixTree, handle_prefix_key
from replica.model.ledger import Verdict
from replica.model.position import ORIGIN
from replica.model.states import Mode
from replica.native import pack_address
from replica.takeover import edge_ladder
from replica.takeover.ledger import Policies, SourceWrite, classify

NAME = "88.118.1/N-7"


def test_every_act_is_played_and_every_act_is_in_a_scenario() -> None:
    acts = Acts(cast(Stage, None), Outside(0), FaultLog(), cast("planted.Any", None))
    assert set(acts._acts) == set(Act)
    assert {step.act for one in SCENARIOS for step in one.steps} | {Act.NODES_HANG} == set(Act)


def test_who_registers_here_has_a_stage_for_it() -> None:
    # Only a fenced source is taken over by itself, or switched over.
    fenced = {Act.PROBES_BLOCKED, Act.SWITCHED_OVER, Act.WITHDRAWS_FOR_GOOD}
    needing = {
        Act.RETURNS_WITH_WRITES,
        Act.RETURN_INTERRUPTED,
        Act.RETURNS_WITH_OLD_ANSWERS,
        Act.TAKEN_OVER_BEHIND,
        Act.ZONE_OFF_IN_RETURN,
        Act.TENANT_NOISY,
    } | fenced
    for one in SCENARIOS:
        acts = {step.act for step in one.steps}
        assert bool(acts & needing) == (one.fence is not None), one.name
        assert bool(acts & fenced) == (one.fence is Fence.WRITE_PATH), one.name
    assert len(registering_stage.PEOPLE) == 2


def test_who_lives_on_has_a_stage_with_a_top_level_node() -> None:
    needing = {Act.TOP_DIES, Act.TOP_AND_NODES_DIE}
    for one in SCENARIOS:
        assert bool({step.act for step in one.steps} & needing) == one.top_level, one.name
        assert one.top_level or not one.load.living, one.name


@pytest.mark.usefixtures("plants")
def test_whatever_lies_below_is_said_to_live_here() -> None:
    keys = {text: handle_prefix_key(text.encode()) for text in ("88", "88.118.1", "88.300.7")}
    tree = PrefixTree({keys["88"]: Owner("top-level", Mode.MIXED)})
    catalog = Catalog(owners=tree, overlays={keys["88"]: OverlaySites(keys["88"], (b"ours",), 1, "act")})
    asked = {text: Question(f"0.NA/{text}".encode()) for text in keys}

    def overlays() -> dict[str, bool]:
        plans = {text: batcher.plan(question, catalog) for text, question in asked.items()}
        return {text: isinstance(one, Plan) and one.overlay is not None for text, one in plans.items()}

    assert overlays() == {"88": False, "88.118.1": False, "88.300.7": False}
    planted.owns_all_below()
    assert overlays() == {"88": False, "88.118.1": True, "88.300.7": True}


def test_a_node_takes_what_was_registered_elsewhere() -> None:
    key = Identifier.parse(NAME).key()
    record = encode_record([HandleValue(1, b"URL", url_of(NAME, "ours").encode(), ttl=60)])
    assert told_by(Change(OP_PUT, key, record)) == (NAME, "ours")
    name, text = told_by(Change(OP_DELETE, key))
    assert name.lower() == NAME.lower() and text is None


@pytest.fixture
def plants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bugs are taken out again."""
    monkeypatch.setattr(planted, "plant", monkeypatch.setattr)


@pytest.mark.usefixtures("plants")
def test_certificates_are_never_compared() -> None:
    ours, theirs = ContentDigest(ORIGIN, 1, 5), ContentDigest(ORIGIN, 1, 6)
    assert not theirs.same_content(ours)
    planted.never_compared()
    assert theirs.same_content(ours)


@pytest.mark.usefixtures("plants")
def test_what_only_the_source_wrote_is_dropped() -> None:
    write = SourceWrite(b"h1", 1, b"its")
    assert [line.verdict for line in classify([write], [], Policies())] == [Verdict.ACCEPT]
    planted.ledger_drops()
    assert [line.verdict for line in classify([write], [], Policies())] == [Verdict.STATE]


@pytest.mark.usefixtures("plants")
def test_losses_and_feeds_count_for_nothing() -> None:
    assert "17 changes behind" in ladder_rules.too_far_behind(17, 0, False)
    assert edge_ladder.HEARD_MS_MAX > 0
    planted.loss_unseen()
    planted.feed_unheard()
    assert ladder_rules.too_far_behind(17, 0, False) == ""
    assert edge_ladder.HEARD_MS_MAX < 0, "nothing was ever heard so lately"


@pytest.mark.usefixtures("plants")
def test_every_datagram_is_answered() -> None:
    received = [(b"x", pack_address("127.0.0.1", 1))] * 4
    limits = GuardLimits(trusted=(), udp_calm_per_s=1)
    assert Guard(limits).datagrams(received, 1)[0] == []
    planted.all_answered()
    assert Guard(limits).datagrams(received, 1) == (received, [])
