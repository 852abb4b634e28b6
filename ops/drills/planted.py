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


PLANTS: dict[Plant, Callable[[], None]] = {
    Plant.TAKES_OVER_ON_SILENCE: silence_is_death,
    Plant.NO_BRAKE: no_brake,
    Plant.REWINDS_ACCEPTED: rewinds_accepted,
    Plant.UNPROVED_ACCEPTED: unproved_accepted,
    Plant.MISSING_IS_SAID: missing_is_said,
    Plant.NO_SNAPSHOT: no_snapshot,
}
BY_CONFIGURATION = (Plant.NEVER_TAKES_OVER,)  # a rule that the member's own file turns off


if __name__ == "__main__":
    PLANTS[Plant[sys.argv.pop(1)]]()
    cli(prog_name="zaibei")
