"""`zaibei source reseed`: load a source anew whose copy here is damaged; the damaged store is kept aside."""

from __future__ import annotations

import click
import msgspec

from ops.cli.style import Console, admin, styled, target_options


@click.group()
def reseed() -> None:
    """At the centre: load a source anew that is OUT_OF_SERVICE because its copy or its log here is damaged.

    A source in service is never touched. The damaged store is moved aside, not deleted.

    \b
    Examples:
      zaibei source reseed plan node-a            prints a token
      zaibei source reseed run --plan TOKEN
    """


@reseed.command()
@click.argument("name")
@target_options
@styled
def plan(console: Console, name: str) -> None:
    """Show what would happen to the source NAME, change nothing; prints the token that `run` needs.

    \b
    Example:
      zaibei source reseed plan node-a
    """
    planned = admin().reseed_plan(name)
    next_step = f"Next: zaibei source reseed run --plan {planned.token}"
    console.answer({"plan": msgspec.to_builtins(planned)}, planned.text, f"token {planned.token}", next_step)


@reseed.command()
@click.option("--plan", "token", required=True, metavar="TOKEN", help="Token printed by `plan`.")
@target_options
@styled
def run(console: Console, token: str) -> None:
    """Carry out a plan: the damaged store goes aside, the source's content is loaded anew.

    Refused with 4 when the world is no longer as planned. Loading goes on after the command; `zaibei status` shows it.

    \b
    Example:
      zaibei source reseed run --plan 1f2e3d4c5b6a7988
    """
    done = admin().reseed_run(token)
    console.answer(
        {"done": msgspec.to_builtins(done)},
        f"{done.source} is in service again and loads; the damaged store is kept in {done.aside}.",
        f"Next: zaibei status {done.source} --watch",
    )
