"""`zaibei takeover`: look at who answers for a source, plan a takeover or a return, and run exactly what was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import click

from ops.cli.exits import Exit
from ops.cli.style import Console, admin, pairs, styled, table, target_options
from ops.cli.takeover_mass import mass
from ops.cli.takeover_registration import (
    abort,
    ladder_lines,
    order,
    plan_registration,
    plan_switchover,
    review,
    run_registration,
    sign,
)

READY_EXIT = {"fail": Exit.VERIFICATION_FAILED, "unknown": Exit.UNKNOWN}
MARKS = {"pass": "✓ pass", "fail": "✗ fail", "unknown": "? UNKNOWN"}  # a shape beside the word: colour alone tells not everybody
Row = Mapping[str, Any]  # JSON of the admin API


class TakeoverAdmin(Protocol):
    """What these commands ask a member; the admin client offers it, with the same ZaibeiErrors as replica/takeover/service.py."""

    def takeover_status(self, source: str = "") -> Sequence[Row]: ...

    def takeover_plan(self, source: str, action: str) -> Row: ...

    def takeover_run(self, source: str, action: str, token: str, reason: str) -> Row: ...

    def takeover_rehearse(self, source: str) -> Row: ...


def _member() -> TakeoverAdmin:
    found: TakeoverAdmin = admin()
    return found


@click.group()
def takeover() -> None:
    """Answer for a source whose node cannot, and give it back.

    \b
    Examples:
      zaibei takeover status                    who answers, and would a takeover be found now?
      zaibei takeover plan SOURCE               look; prints a token
      zaibei takeover run SOURCE --plan TOKEN   do exactly that
      zaibei takeover withdraw SOURCE           the same two steps for the way back
      zaibei takeover plan SOURCE --registration    its registrations too: two people sign, then run
      zaibei takeover plan SOURCE --switchover      the same for a living source that is to rest: nothing is lost
      zaibei takeover mass plan --dead              many sources lost at once, as one act
    """


@takeover.command()
@click.argument("source", default="")
@click.option("--ready", is_flag=True, help="Exit 9 when a source is not takeover-ready, 11 when that is not known.")
@target_options
@styled
def status(console: Console, source: str, ready: bool) -> int:
    """Who answers for each source, and whether a takeover would be found if it happened now.

    \b
    Example:
      zaibei takeover status node-a
    """
    rows = _member().takeover_status(source)
    parts: list[object] = [_status_table(rows)]
    parts += [_checks_table(row) for row in rows if source or row["ready"] != "pass"]
    parts += [_adapters_table(row) for row in rows if not all(one["confirmed"] for one in row["publications"])]
    parts += [line for row in rows for line in ladder_lines(row)]
    parts += [f"! {row['source']}: {alarm.removeprefix(row['source'] + ': ')}" for row in rows for alarm in row["alarms"]]
    console.answer([dict(row) for row in rows], *parts)
    found = {row["ready"] for row in rows}
    return next((READY_EXIT[word] for word in ("fail", "unknown") if ready and word in found), Exit.DONE)


@takeover.command()
@click.argument("source")
@click.option("--withdraw", "back", is_flag=True, help="Plan the return to the source instead.")
@click.option("--registration", is_flag=True, help="Take over its registrations, not resolution alone.")
@click.option("--accept-loss", "loss", type=click.IntRange(min=0), default=0, help="Accept that so many of its changes are lost.")
@click.option("--accept-unknown-loss", "unknown_loss", is_flag=True, help="Accept a loss that nobody can count.")
@click.option("--break-glass", is_flag=True, help="Approved by one person, with a typed reason; reviewed the next day.")
@click.option("--switchover", is_flag=True, help="Of a living source: it ends its own writing first. Nothing is lost.")
@target_options
@styled
def plan(
    console: Console,
    source: str,
    back: bool,
    registration: bool,
    loss: int,
    unknown_loss: bool,
    break_glass: bool,
    switchover: bool,
) -> int:
    """Show what would happen, change nothing; prints the token that `run` needs.

    \b
    Example:
      zaibei takeover plan node-a
      zaibei takeover plan node-a --registration
      zaibei takeover plan node-a --switchover
    """
    if (registration or switchover) and back:
        raise click.UsageError("Registrations are given back by `zaibei failback`.")
    if switchover:
        if loss or unknown_loss or break_glass:
            raise click.UsageError("A switchover loses nothing and is planned: these options belong to a takeover.")
        return plan_switchover(console, source)
    if registration:
        return plan_registration(console, source, loss, unknown_loss, break_glass)
    if loss or unknown_loss or break_glass:
        raise click.UsageError("These options belong to --registration.")
    return _plan(console, source, "withdraw" if back else "takeover")


@takeover.command()
@click.argument("source")
@click.option("--plan", "token", required=True, help="Token printed by `plan`.")
@click.option("--reason", default="by an operator", help="Kept with the act.")
@click.option("--registration", is_flag=True, help="The plan is about its registrations.")
@target_options
@styled
def run(console: Console, source: str, token: str, reason: str, registration: bool) -> None:
    """Take over resolution as planned. Refused (4) when the world is no longer the one looked at; repeating it is harmless.

    \b
    Example:
      zaibei takeover run node-a --plan 0123456789abcdef
    """
    if registration:
        run_registration(console, source, token, reason)
        return
    _run(console, _member().takeover_run(source, "takeover", token, reason))


@takeover.command()
@click.argument("source")
@click.option("--plan", "token", default="", help="Token printed by `plan --withdraw`; without it the plan is shown.")
@click.option("--reason", default="by an operator", help="Kept with the act.")
@target_options
@styled
def withdraw(console: Console, source: str, token: str, reason: str) -> int:
    """Give resolution back to the source; without --plan it shows what that would do.

    \b
    Example:
      zaibei takeover withdraw node-a
    """
    if not token:
        return _plan(console, source, "withdraw")
    _run(console, _member().takeover_run(source, "withdraw", token, reason))
    return Exit.DONE


@takeover.command()
@click.argument("source")
@target_options
@styled
def rehearse(console: Console, source: str) -> int:
    """Publish and withdraw a shadow prefix through every adapter; the real prefixes are not touched.

    \b
    Example:
      zaibei takeover rehearse node-a
    """
    row = _member().takeover_rehearse(source)
    console.answer(dict(row), f"{MARKS[row['result']]}: {row['detail']}")
    return Exit.DONE if row["result"] == "pass" else Exit.VERIFICATION_FAILED


for _command in (sign, abort, order, review, mass):
    takeover.add_command(_command)


def _status_table(rows: Sequence[Row]) -> object:
    body = []
    for row in rows:
        confirmed = sum(1 for publication in row["publications"] if publication["confirmed"])
        found = f"{confirmed} of {len(row['publications'])}" if row["publications"] else "-"
        body.append([row["source"], row["shown"], row["verdict"], _age(row), MARKS[row["ready"]], found])
    return table(["source", "answers", "source seen", "position", "takeover-ready", "published"], body)


def _checks_table(row: Row) -> object:
    body = [[check["name"], MARKS[check["result"]], check["detail"]] for check in row["readiness"]]
    return table(["check", "result", "seen"], body, title=f"takeover-ready: {row['source']}")


def _adapters_table(row: Row) -> object:
    """Each adapter's last word about each prefix; publishing.md says whose turn it is then."""
    body = [
        [one["adapter"], one["prefix"], "✓ confirmed" if one["confirmed"] else "✗ not yet", one["serial"], one["detail"]]
        for one in row["publications"]
    ]
    return table(["adapter", "prefix", "confirmed", "serial", "its last word"], body, title=f"published: {row['source']}")


def _age(row: Row) -> str | None:
    return None if row["age_ms"] is None else f"{row['age_ms']} ms old"


def _plan(console: Console, source: str, action: str) -> int:
    row = _member().takeover_plan(source, action)
    parts: list[object] = [
        pairs(
            [
                ("plan", f"{row['action']} of {row['source']}"),
                ("source seen", row["verdict"]),
                ("prefixes", ", ".join(row["prefixes"])),
                ("position", row["position"]),
                ("age", _age(row)),
                ("records", row["records"]),
                ("publishes", f"serial {row['serial_from']} and up, through {', '.join(row['adapters']) or 'own answers alone'}"),
            ]
        )
    ]
    parts += [f"! {warning}" for warning in row["warnings"]]
    verb = "run" if row["action"] == "takeover" else "withdraw"
    next_step = f"Next: zaibei takeover {verb} {row['source']} --plan {row['token']}"
    parts.append(f"refused: {row['refusal']}" if row["refusal"] else next_step)
    console.answer(dict(row), *parts)
    return Exit.REFUSED if row["refusal"] else Exit.DONE


def _run(console: Console, row: Row) -> None:
    word = "committed" if row["changed"] else "was committed before"
    console.answer(
        dict(row), f"{row['source']}: {row['action']} {word} ({row['act']}). Next: zaibei takeover status {row['source']}"
    )
