"""`zaibei takeover mass`: many sources lost at once, taken over as one act: one plan, one token, one outcome a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import click

from ops.cli.exits import Exit
from ops.cli.style import Console, admin, effective, styled, table, target_options
from ops.cli.takeover_registration import mass_next
from replica.model.errors import Code, ZaibeiError

OUTCOMES = {"done": "taken over", "done_before": "was taken over before", "refused": "✗ refused", "unknown": "? UNKNOWN"}
Row = Mapping[str, Any]  # JSON of the admin API


class MassAdmin(Protocol):
    """What these commands ask a member; the admin client offers it."""

    def mass_plan(self, names: list[str], only_dead: bool, registration: bool, loss: int, unknown_loss: bool) -> Row: ...

    def mass_run(self, token: str, reason: str) -> Row: ...


def _member() -> MassAdmin:
    found: MassAdmin = admin()
    return found


@click.group()
def mass() -> None:
    """Many sources at once: a place burns down. One plan lists them, one token takes them over, each outcome is told.

    \b
    Examples:
      zaibei takeover mass plan --dead                     all that are found dead: their resolution
      zaibei takeover mass plan --dead --registration      their registrations too: two people sign
      zaibei takeover mass plan --zone yichang --dead      those of one place
      zaibei takeover mass run --plan TOKEN --reason "the hall in Yichang burns"
    """


@mass.command()
@click.option("--all", "every", is_flag=True, help="Every source of this member.")
@click.option("--dead", is_flag=True, help="Those that are found dead; with --sources or --zone, of these.")
@click.option("--sources", default="", help="These, with commas between them.")
@click.option("--zone", default="", help="Those whose [[source]] names this zone.")
@click.option("--registration", is_flag=True, help="Their registrations too, not resolution alone.")
@click.option("--accept-loss", "loss", type=click.IntRange(min=0), default=0, help="Of each: so many of its changes are lost.")
@click.option("--accept-unknown-loss", "unknown_loss", is_flag=True, help="Of each: a loss that nobody can count.")
@target_options
@styled
def plan(
    console: Console, every: bool, dead: bool, sources: str, zone: str, registration: bool, loss: int, unknown_loss: bool
) -> int:
    """Show which sources would be taken over and which cannot be, and why. Changes nothing; prints the token.

    \b
    Example:
      zaibei takeover mass plan --sources node-a,node-b --registration --accept-unknown-loss
    """
    names = [name.strip() for name in sources.split(",") if name.strip()]
    if every == bool(names or dead or zone) or (names and zone):
        raise click.UsageError("Say which: --all, --dead, --zone ZONE or --sources A,B.")
    if (loss or unknown_loss) and not registration:
        raise click.UsageError("A loss is accepted with --registration alone: resolution loses nothing.")
    if zone:
        names = _of_zone(zone)
    row = _member().mass_plan(names, dead, registration, loss, unknown_loss)
    rows = row["sources"]
    taken = sum(one["takes"] for one in rows)
    heads = ["source", "seen", "position", "records", "behind", "in it", "in the way"]
    parts: list[object] = [
        row["text"],
        table(heads, [_line(one, registration) for one in rows]),
        f"{taken} of {len(rows)} sources are in it",
        f"token {row['token']}",
        mass_next(row),
    ]
    console.answer(dict(row), *parts)
    return Exit.DONE


@mass.command()
@click.option("--plan", "token", required=True, help="Token printed by `plan`.")
@click.option("--reason", required=True, help="Why; kept with the act of every source.")
@target_options
@styled
def run(console: Console, token: str, reason: str) -> int:
    """Carry it out at each source and tell each outcome. Repeating it does only what is left.

    Exit 0: every source is taken over. 4: some were refused, with their reasons; the others are taken over. 11: of some it is not
    known; look at `zaibei takeover status`, and repeat it.

    \b
    Example:
      zaibei takeover mass run --plan 1f2e3d4c5b6a7988 --reason "the hall in Yichang burns"
    """
    row = _member().mass_run(token, reason)
    body = [[one["source"], OUTCOMES[one["outcome"]], one["stage"], one["why"]] for one in row["sources"]]
    done = row["done"] + row["done_before"]
    lines = [f"{done} of {len(body)} sources are taken over, {row['done']} of them now"]
    if row["refused"] or row["unknown"]:
        lines.append(f"Next: see the reasons; then again: zaibei takeover mass run --plan {token} --reason TEXT")
    console.answer(dict(row), table(["source", "outcome", "stage", "why"], body), *lines)
    return Exit.UNKNOWN if row["unknown"] else Exit.REFUSED if row["refused"] else Exit.DONE


def _of_zone(zone: str) -> list[str]:
    """Sources with a node in that place, by this member's file. Raises ZaibeiError(NOT_FOUND)."""
    sources = [one for one in effective().config.sources if one.peer is not None]
    if names := sorted(one.name for one in sources if one.zone == zone):
        return names
    known = ", ".join(sorted({one.zone for one in sources if one.zone})) or "none"
    raise ZaibeiError(Code.NOT_FOUND, f"no [[source]] has the zone {zone[:80]!r}; there are: {known}. Next: --sources A,B")


def _line(one: Row, registration: bool) -> list[object]:
    age = None if one["age_ms"] is None else f"{one['age_ms']} ms old"
    behind = ("UNKNOWN" if one["behind"] is None else one["behind"]) if registration else "-"
    return [one["source"], one["verdict"], age, one["records"], behind, "yes" if one["takes"] else "✗ no", one["why_not"]]
