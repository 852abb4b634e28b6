"""`zaibei takeover`: look at who answers for a source, plan a takeover or a return, and run exactly what was looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import click
from rich.console import Console
from rich.table import Table

from replica.model.errors import Code, ZaibeiError

EXIT_OF: Mapping[Code, int] = {
    Code.MALFORMED: 2,
    Code.INVALID_CONFIG: 2,
    Code.NOT_AUTHORISED: 3,
    Code.REFUSED: 4,
    Code.NOT_FOUND: 6,
    Code.CONFLICT: 7,
    Code.BUSY: 8,
    Code.STOPPING: 8,
    Code.UNREACHABLE: 8,
    Code.VERIFICATION_FAILED: 9,
    Code.UNKNOWN: 11,
    Code.WOULD_LOSE_DATA: 12,
}
NOT_READY_EXIT = {"fail": 9, "unknown": 11}
MARKS = {"pass": "[green]✓ pass[/]", "fail": "[red]✗ fail[/]", "unknown": "[yellow]? unknown[/]"}
Row = Mapping[str, Any]  # JSON of the admin API


class TakeoverAdmin(Protocol):
    """What these commands ask a member; the admin client offers it, with the same ZaibeiErrors as replica/takeover/service.py."""

    def takeover_status(self, source: str = "") -> Sequence[Row]: ...

    def takeover_plan(self, source: str, action: str) -> Row: ...

    def takeover_run(self, source: str, action: str, token: str, reason: str) -> Row: ...

    def takeover_rehearse(self, source: str) -> Row: ...


def _ask(context: click.Context) -> TakeoverAdmin:
    """`context.obj` is the admin client, or a mapping that makes it under "admin" when first used."""
    return context.obj["admin"]() if isinstance(context.obj, Mapping) else context.obj  # type: ignore[no-any-return]


class _Group(click.Group):
    """Turns our errors into one clear line and the exit code of the command style."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except ZaibeiError as exc:
            click.echo(f"zaibei takeover: {exc.trouble.message}", err=True)
            raise SystemExit(EXIT_OF.get(exc.code, 1)) from exc


@click.group(cls=_Group)
def takeover() -> None:
    """Answer for a source whose node cannot, and give it back."""


as_json = click.option("--json", "json_", is_flag=True, help="One JSON document; a stable contract.")


@takeover.command()
@click.argument("source", default="")
@click.option("--ready", is_flag=True, help="Exit 9 when a source is not takeover-ready, 11 when that is not known.")
@as_json
@click.pass_context
def status(context: click.Context, source: str, ready: bool, json_: bool) -> None:
    """Who answers for each source, and whether a takeover would be found if it happened now."""
    rows = _ask(context).takeover_status(source)
    if json_:
        click.echo(json.dumps(list(rows), sort_keys=True))
    else:
        _show_status(rows)
        for row in rows:
            if source or row["ready"] != "pass":
                _show_checks(row["source"], row["readiness"])
    worst = {row["ready"] for row in rows}
    if ready:
        raise SystemExit(next((NOT_READY_EXIT[word] for word in ("fail", "unknown") if word in worst), 0))


@takeover.command()
@click.argument("source")
@click.option("--withdraw", "back", is_flag=True, help="Plan the return to the source instead.")
@as_json
@click.pass_context
def plan(context: click.Context, source: str, back: bool, json_: bool) -> None:
    """Show what would happen, change nothing; prints the token that `run` needs."""
    row = _ask(context).takeover_plan(source, "withdraw" if back else "takeover")
    if json_:
        click.echo(json.dumps(row, sort_keys=True))
    else:
        _show_plan(row)
    if row["refusal"]:
        raise SystemExit(4)


@takeover.command()
@click.argument("source")
@click.option("--plan", "token", required=True, help="Token printed by `plan`.")
@click.option("--reason", default="by an operator", help="Kept with the act.")
@as_json
@click.pass_context
def run(context: click.Context, source: str, token: str, reason: str, json_: bool) -> None:
    """Take over resolution as planned. Refused (4) when the world is no longer the one looked at; repeating it is harmless."""
    _show_run(_ask(context).takeover_run(source, "takeover", token, reason), json_)


@takeover.command()
@click.argument("source")
@click.option("--plan", "token", default="", help="Token printed by `plan --withdraw`; without it the plan is shown.")
@click.option("--reason", default="by an operator", help="Kept with the act.")
@as_json
@click.pass_context
def withdraw(context: click.Context, source: str, token: str, reason: str, json_: bool) -> None:
    """Give resolution back to the source."""
    if not token:
        context.invoke(plan, source=source, back=True, json_=json_)
        return
    _show_run(_ask(context).takeover_run(source, "withdraw", token, reason), json_)


@takeover.command()
@click.argument("source")
@as_json
@click.pass_context
def rehearse(context: click.Context, source: str, json_: bool) -> None:
    """Publish and withdraw a shadow prefix through every adapter; the real prefixes are not touched."""
    row = _ask(context).takeover_rehearse(source)
    click.echo(json.dumps(row, sort_keys=True) if json_ else f"{row['result']}: {row['detail']}")
    if row["result"] != "pass":
        raise SystemExit(9)


def _show_status(rows: Sequence[Row]) -> None:
    table = Table("source", "answers", "seen", "age", "ready", "publications")
    for row in rows:
        age = "unknown" if row["age_ms"] is None else f"{row['age_ms']} ms"
        done = sum(1 for publication in row["publications"] if publication["confirmed"])
        table.add_row(
            row["source"], row["shown"], row["verdict"], age, MARKS[row["ready"]], f"{done}/{len(row['publications'])} confirmed"
        )
    console = Console()
    console.print(table)
    for row in rows:
        for alarm in row["alarms"]:
            console.print(f"[red]![/] {alarm}", highlight=False)


def _show_checks(source: str, checks: Sequence[Row]) -> None:
    table = Table("check", "result", "seen", title=f"takeover-ready: {source}", title_justify="left")
    for check in checks:
        table.add_row(check["name"], MARKS[check["result"]], check["detail"])
    Console().print(table)


def _show_plan(row: Row) -> None:
    console = Console(highlight=False)
    age = "unknown" if row["age_ms"] is None else f"{row['age_ms']} ms"
    console.print(f"{row['action']} of [bold]{row['source']}[/] (seen {row['verdict']})")
    console.print(f"  prefixes   {', '.join(row['prefixes'])}")
    console.print(f"  position   {row['position']}, {age} old, {row['records']} records")
    console.print(f"  publishes  serial {row['serial_from']} and up, through {', '.join(row['adapters']) or 'own answers alone'}")
    for warning in row["warnings"]:
        console.print(f"  [yellow]![/] {warning}")
    if row["refusal"]:
        console.print(f"[red]refused:[/] {row['refusal']}")
        return
    verb = "run" if row["action"] == "takeover" else "withdraw"
    console.print(f"zaibei takeover {verb} {row['source']} --plan {row['token']}", soft_wrap=True)


def _show_run(row: Row, json_: bool) -> None:
    if json_:
        click.echo(json.dumps(row, sort_keys=True))
    else:
        click.echo(f"{row['source']}: {row['action']} {'committed' if row['changed'] else 'was committed before'} ({row['act']})")
