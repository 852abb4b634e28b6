"""`zaibei source diff`: which identifiers differ between a source and its copy here, found by bisection of sums."""

from __future__ import annotations

import click

from ops.cli.exits import VERDICTS
from ops.cli.style import Console, admin, pairs, styled, table, target_options
from replica.model.position import Position
from replica.model.states import Result

SHOWN_MAX = 50
SIDES = {"other_value": "another value here", "only_ours": "only here", "only_theirs": "only at the source"}


@click.command()
@click.argument("name")
@target_options
@styled
def diff(console: Console, name: str) -> int:
    """At the centre: compare the copy of the source NAME with the source itself, at the newest certificate both sides hold.

    Three rounds of questions, whatever differs. The copy is never edited: the source publishes the difference as changes, or its
    content is loaded anew. Run it where the source's group is led.
    Exit 0: equal; 9: something differs (it is listed); 11: not to be told now; 8: no stream of the source ends here.

    \b
    Example:
      zaibei source diff node-a
    """
    found = admin().difference(name)
    result = Result.PASS if found["equal"] else Result.FAIL
    rows: list[tuple[str, object]] = [
        ("compared at", Position.parse(found["position"]).short()),
        ("verdict", "equal" if found["equal"] else found["told"]),
        ("parts that differ", f"{found['buckets']:,} of 65,536"),
        ("cost", f"{found['round_trips']} round trips, {found['octets']:,} octets, {found['took_ms']} ms"),
    ]
    lines = [[key, label] for side, label in SIDES.items() for key in found[side]]
    listed = [table(["key", "how"], lines[:SHOWN_MAX])] if lines else []
    console.answer({"difference": {**found, "result": result.value}}, pairs(rows), *listed)
    return VERDICTS[result]


@click.command()
@click.argument("name")
@target_options
@styled
def mirror(console: Console, name: str) -> int:
    """At the centre: if we took over the source NAME now, how many answers would differ from its own, and why?

    The member asks the node itself for a random record every two seconds, as any client would, and compares with what it holds. A
    difference that goes away once the copy has caught up is lag; one that stays is content.
    Exit 0: no content differs; 9: some does; 11: too few samples, or the node does not answer.

    \b
    Example:
      zaibei source mirror node-a
    """
    found = admin().comparison(name)
    rows: list[tuple[str, object]] = [
        ("verdict", found["result"]),
        ("says", found["detail"]),
        ("ppm because of lag", found["lag_ppm"]),
        ("ppm because of content", found["content_ppm"]),
        ("samples", found["samples"]),
        ("not answered", found["untold"]),
    ]
    listed = [table(["differs in content"], [[key] for key in found["examples"]])] if found["examples"] else []
    console.answer({"mirror": found}, pairs(rows), *listed)
    return VERDICTS[Result(found["result"])]
