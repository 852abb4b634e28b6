"""`zaibei` with one planted bug, for red runs: `python -m ops.drills.planted PLANT up …`. Only a drill's stage starts this.

A scenario whose planted bug does not turn it red proves nothing by being green.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from chaos.scenarios.scenario import Plant
from ops.cli.main import cli
from replica.model.brake import BrakeWindows


def plant(where: object, name: str, planted: object) -> None:
    """Put the bug in the place of a rule that is there. Raises AttributeError: the rule has another name by now."""
    getattr(where, name)
    setattr(where, name, planted)


def silence_is_death() -> None:
    from replica.takeover import edge_runner
    from replica.takeover.detector import Look, Verdict

    def decide(observations: Any) -> tuple[Verdict, str]:
        silent = any(one.look is not Look.WATCHING for one in observations)
        return (Verdict.DEAD, "planted: silence") if silent else (Verdict.ALIVE, "")

    plant(edge_runner, "decide", decide)


def no_brake() -> None:
    plant(BrakeWindows, "trips", lambda *_: [])


def rewinds_accepted() -> None:
    from replica.feed import session
    from replica.feed.placing import FOLLOWS

    plant(session, "place_head", lambda *_: FOLLOWS)


def unproved_accepted() -> None:
    from replica.feed.load import Load

    plant(Load, "_unfit", property(lambda _: "", lambda _, why: None))  # why the result may not be switched to: never anything


def missing_is_said() -> None:
    from hosting.answer import standing

    row_of = standing.row_of
    plant(standing, "row_of", lambda view: replace(row_of(view), missing=standing.NO_SUCH_NAME))  # over every row


def no_snapshot() -> None:
    from replica.feed.load import Load

    begin = Load.begin

    def only_the_first(load: Load, reason: str) -> None:
        if load._desk.state.position.seq == 0:
            begin(load, reason)

    plant(Load, "begin", only_the_first)


def never_compared() -> None:
    from replica.model.digest import ContentDigest

    plant(ContentDigest, "same_content", lambda *_: True)


def ledger_drops() -> None:
    from replica.model.ledger import Verdict, kept
    from replica.takeover import ledger

    last_word = ledger._last_word

    def dropped(*given: Any, **named: Any) -> Any:
        line = last_word(*given, **named)
        return replace(line, verdict=kept(line.written)) if line.verdict is Verdict.ACCEPT else line

    plant(ledger, "_last_word", dropped)


def return_forgotten() -> None:
    from replica.model.ladder import RETURNING
    from replica.takeover.failback import Failback

    step, begun = Failback.step, set[str]()

    def forgetful(failback: Failback, world: Any) -> Any:
        if world.state.ladder.stage not in RETURNING:
            begun.add(failback.source)
        return step(failback, world) if failback.source in begun else ()

    plant(Failback, "step", forgetful)


def old_answers_unseen() -> None:
    from replica.takeover.hand_back import Answers

    plant(Answers, "agreed", property(lambda _: True))


def loss_unseen() -> None:
    from replica.model import ladder_rules
    from replica.takeover import ladder, ladder_plan

    for where in (ladder_rules, ladder, ladder_plan):
        plant(where, "too_far_behind", lambda *_: "")


def revoked_let_in() -> None:
    from replica.model.trust import Authority

    parse = Authority.parse
    plant(Authority, "parse", staticmethod(lambda roots, _lists=(): parse(roots)))


def owns_all_below() -> None:
    from hosting.answer.resolve import Plan
    from hosting.answer.resolve import plan as rightly
    from hosting.front import batcher, edge_grpc
    from replica.model.identifier import ancestors

    def planned(question: Any, catalog: Any, now_ms: int = 0) -> Any:
        found = rightly(question, catalog, now_ms)
        if not isinstance(found, Plan) or not found.route:
            return found
        above = (catalog.overlays.get(prefix) for prefix in ancestors(found.prefix))
        return replace(found, overlay=next((one for one in above if one is not None), None))

    for where in (batcher, edge_grpc):
        plant(where, "plan", planned)


def feed_unheard() -> None:
    from replica.takeover import edge_ladder

    plant(edge_ladder, "HEARD_MS_MAX", -1)


def interrupted_blocks() -> None:
    from replica.feed.load import Load

    begin = Load.begin

    def blocked(load: Load, reason: str) -> None:
        side = load._desk.state.side
        if side is None or side.staged:
            begin(load, reason)

    plant(Load, "begin", blocked)


def other_chain_accepted() -> None:
    from replica.feed import session
    from replica.feed.load import Load, Step
    from replica.feed.placing import FOLLOWS

    unproved_accepted()
    plant(session, "place_head", lambda *_: FOLLOWS)
    plant(Load, "proved", lambda load, _proof: load._header() if load.step is Step.PROOF else None)


def incident_unseen() -> None:
    from chaos.drills.abort import Glimpse, Watch

    saw = Watch.saw
    plant(Watch, "saw", lambda watch, _glimpse, now_ns: saw(watch, Glimpse(), now_ns))


def drain_unasked() -> None:
    from replica.model import ladder_epochs
    from replica.model.digest import ContentDigest
    from replica.takeover.switchover import Close, Draining

    plant(ladder_epochs, "_not_drained", lambda *_: "")
    plant(Draining, "next", lambda _draining, state, *_: Close(ContentDigest(state.position, 0, 0)))


def handed_uncompared() -> None:
    from replica.model import ladder_rules
    from replica.model.ladder import Stage
    from replica.takeover.failback import Failback

    frozen = Failback._frozen

    def handed(failback: Any, world: Any) -> Any:
        equal = world.state.ladder.stage is Stage.SOURCE_EQUAL
        return frozen(failback, world) if equal else (failback._move(world, Stage.SOURCE_EQUAL, "planted"),)

    plant(Failback, "_near", lambda failback, world: (failback._move(world, Stage.FROZEN, "planted"),))
    plant(Failback, "_frozen", handed)
    ladder_rules._STAGES[Stage.SOURCE_EQUAL] = ladder_rules._STAGES[Stage.FROZEN]


def all_answered() -> None:
    from hosting.guard.guard import Guard

    plant(Guard, "datagrams", lambda _, received, second: (received, []))


def tenants_unmetered() -> None:
    from hosting.tenant.edge_turns import Turns
    from hosting.tenant.offices import Office

    plant(Office, "has_room", lambda _: None)
    plant(Office, "full", lambda _: False)
    plant(Office, "_over_rate", lambda *_: None)
    plant(Turns, "over", lambda _: False)


PLANTS: dict[Plant, Callable[[], None]] = {
    Plant.TAKES_OVER_ON_SILENCE: silence_is_death,
    Plant.NO_BRAKE: no_brake,
    Plant.REWINDS_ACCEPTED: rewinds_accepted,
    Plant.UNPROVED_ACCEPTED: unproved_accepted,
    Plant.MISSING_IS_SAID: missing_is_said,
    Plant.NO_SNAPSHOT: no_snapshot,
    Plant.NEVER_COMPARED: never_compared,
    Plant.LEDGER_DROPS: ledger_drops,
    Plant.RETURN_FORGOTTEN: return_forgotten,
    Plant.OLD_ANSWERS_UNSEEN: old_answers_unseen,
    Plant.LOSS_UNSEEN: loss_unseen,
    Plant.REVOKED_LET_IN: revoked_let_in,
    Plant.OWNS_ALL_BELOW: owns_all_below,
    Plant.FEED_UNHEARD: feed_unheard,
    Plant.INTERRUPTED_BLOCKS: interrupted_blocks,
    Plant.INCIDENT_UNSEEN: incident_unseen,
    Plant.OTHER_CHAIN_ACCEPTED: other_chain_accepted,
    Plant.DRAIN_UNASKED: drain_unasked,
    Plant.ALL_ANSWERED: all_answered,
    Plant.TENANTS_UNMETERED: tenants_unmetered,
    Plant.HANDED_UNCOMPARED: handed_uncompared,
}
BY_CONFIGURATION = (Plant.NEVER_TAKES_OVER,)  # a rule that the member's own file turns off


if __name__ == "__main__":
    PLANTS[Plant[sys.argv.pop(1)]]()
    cli(prog_name="zaibei")
