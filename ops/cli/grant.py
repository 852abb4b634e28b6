"""`zaibei source grant`: after a fork was looked at, a new epoch at the source's head."""

from __future__ import annotations

import click

from ops.cli.style import Console, admin, styled, target_options
from replica.model.position import Position


@click.group()
def grant() -> None:
    """At the centre: grant a FORKED or FENCED source a new epoch, once people have looked at both histories.

    The live copy is not touched by it: the source's content is loaded beside, and stays there until two people release or discard
    it wherever the source cannot show that it holds our position.

    \b
    Examples:
      zaibei source grant plan node-a             prints a token
      zaibei source grant run node-a --plan TOKEN --reason "agent's disk replaced"
    """


@grant.command()
@click.argument("name")
@target_options
@styled
def plan(console: Console, name: str) -> None:
    """Show both sides of the fork of the source NAME, change nothing; prints the token that `run` needs.

    \b
    Example:
      zaibei source grant plan node-a
    """
    planned = admin().grant_plan(name)
    heads = f"the source stands at {Position.parse(planned['theirs']).short()}, we at {Position.parse(planned['ours']).short()}"
    next_step = f"Next: zaibei source grant run {name} --plan {planned['token']}"
    console.answer({"plan": planned}, planned["text"], heads, f"token {planned['token']}", next_step)


@grant.command()
@click.argument("name")
@click.option("--plan", "token", required=True, metavar="TOKEN", help="Token printed by `plan`.")
@click.option("--reason", default="", help="Kept with the grant.")
@target_options
@styled
def run(console: Console, name: str, token: str, reason: str) -> None:
    """Grant the epoch; the source writes it to its disk, then its content is loaded beside.

    Refused with 4 when the world is no longer as planned; 8: its head moved meanwhile, run it again.

    \b
    Example:
      zaibei source grant run node-a --plan 1f2e3d4c5b6a7988
    """
    done = admin().grant_run(name, token, reason)
    console.answer(
        {"done": done},
        f"{name} goes on in a new epoch from {Position.parse(done['start']).short()}; its content is loaded beside.",
        f"Next: zaibei status {name} --watch, and zaibei hold list: it may wait for two people",
    )
