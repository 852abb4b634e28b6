"""The part of `zaibei takeover` about registrations: planned, signed by people, run, and what is owed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import click

from ops.admin.values import Approval
from ops.cli.exits import Exit
from ops.cli.operator import ask_passphrase, confirm
from ops.cli.style import Console, admin, pairs, styled, target_options
from ops.operators import edge_keys
from ops.operators.approval import approve, token_of
from ops.operators.orders import FILE_OCTETS_MAX, octets_of
from replica.model.errors import Code, ZaibeiError

Row = Mapping[str, Any]  # JSON of the admin API


class RegistrationAdmin(Protocol):
    """What these commands ask a member; the admin client offers it."""

    def registration_plan(self, source: str, loss: int = 0, unknown_loss: bool = False, break_glass: bool = False) -> Row: ...

    def switchover_plan(self, source: str) -> Row: ...

    def registration_plan_of(self, token: str) -> Row: ...

    def registration_sign(self, approval: Approval) -> Row: ...

    def registration_run(self, source: str, token: str, reason: str) -> Row: ...

    def registration_abort(self, source: str, reason: str) -> Row: ...

    def registration_order(self, order: str) -> Row: ...

    def registration_review_text(self, source: str, verdict: str) -> Row: ...

    def registration_review(self, source: str, verdict: str, approval: Approval) -> Row: ...


def _member() -> RegistrationAdmin:
    found: RegistrationAdmin = admin()
    return found


def plan_registration(console: Console, source: str, loss: int, unknown_loss: bool, break_glass: bool) -> int:
    """`takeover plan SOURCE --registration`."""
    return _show_plan(console, _member().registration_plan(source, loss, unknown_loss, break_glass))


def plan_switchover(console: Console, source: str) -> int:
    """`takeover plan SOURCE --switchover`."""
    return _show_plan(console, _member().switchover_plan(source))


def _show_plan(console: Console, row: Row) -> int:
    behind = "UNKNOWN" if row["behind"] is None else f"{row['behind']} changes stated and not held here"
    age = "UNKNOWN" if row["age_ms"] is None else f"{row['age_ms']} ms"
    facts = [
        ("copy", f"{row['records']} records, position {age} old"),
        ("expected loss", "none" if row["switchover"] else f"{behind}; what it wrote since its last word is not known"),
        ("fence", _fence(row)),
        ("stands at", row["stage"]),
        ("signed", ", ".join(row["approvals"]) or "nobody yet"),
    ]
    refused = f"refused: {row['refusal']}"
    console.answer(dict(row), row["text"], pairs(facts), f"token {row['token']}", refused if row["refusal"] else _next(row))
    return Exit.REFUSED if row["refusal"] else Exit.DONE


def run_registration(console: Console, source: str, token: str, reason: str) -> None:
    """`takeover run SOURCE --registration`."""
    row = _member().registration_run(source, token, reason)
    if row.get("switchover"):
        pause = "UNKNOWN" if row["write_pause_ms"] is None else f"{row['write_pause_ms']} ms"
        text = f"{source}: switched over, it stands at {row['stage']}. Nobody registered for at most {pause}"
        console.answer(dict(row), f"{text}. Back: zaibei failback plan {source}")
        return
    word = "begun" if row["changed"] else "was begun before"
    console.answer(
        dict(row),
        f"{source}: takeover of registrations {word}, it stands at {row['stage']}. Next: zaibei takeover status {source}",
    )


@click.command()
@click.argument("token")
@click.option("--key", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Your key file.")
@click.option("--as", "name", help="Your name in the member's file. Default: the key file's name.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts that asked already.")
@target_options
@styled
def sign(console: Console, token: str, key: Path, name: str | None, yes: bool) -> None:
    """Approve a takeover of registrations with your key. The text is shown first and has to be confirmed.

    \b
    Example:
      zaibei takeover sign 1f2e3d4c5b6a7988 --key li.wei.key
    """
    member = _member()
    row = member.registration_plan_of(token)
    signed = member.registration_sign(_approve(str(row["text"]), token, key, name, yes))
    console.answer(dict(signed), f"Signed by {', '.join(signed['approvals'])}.", _next(signed))


@click.command()
@click.argument("source")
@click.option("--reason", required=True, help="Why; kept with the act.")
@target_options
@styled
def abort(console: Console, source: str, reason: str) -> None:
    """Give up a takeover of registrations before the source's epoch is closed. Afterwards only a failback leads back.

    \b
    Example:
      zaibei takeover abort node-a --reason "its operator called: it registers again"
    """
    row = _member().registration_abort(source, reason)
    console.answer(dict(row), f"{source}: given up, it stands at {row['stage']}.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@target_options
@styled
def order(console: Console, file: Path) -> None:
    """Hand in a signed order of a top-level node: takeover, end, standing order or probe report. Each counts once.

    A TakeoverOrder stands for one of the two people who approve; a standing order approves a source that holds write leases.

    \b
    Example:
      zaibei takeover order order-17.bin
    """
    hand_in(console, file)


@click.command()
@click.argument("source")
@click.option("--verdict", required=True, help="What you found, one sentence; kept with the act.")
@click.option("--key", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Your key file.")
@click.option("--as", "name", help="Your name in the member's file. Default: the key file's name.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts that asked already.")
@target_options
@styled
def review(console: Console, source: str, verdict: str, key: Path, name: str | None, yes: bool) -> None:
    """Review a break-glass act of somebody else. Until then it alarms, and no other one is possible.

    \b
    Example:
      zaibei takeover review node-a --verdict "right: the hall was dark" --key wang.fang.key
    """
    member = _member()
    row = member.registration_review_text(source, verdict)
    done = member.registration_review(source, verdict, _approve(str(row["text"]), str(row["token"]), key, name, yes))
    console.answer(dict(done), f"{source}: reviewed by {done['by']}.")


def hand_in(console: Console, file: Path) -> None:
    """Hand an order's file to the member, which judges it. Raises ZaibeiError."""
    with file.open("rb") as opened:
        octets = octets_of(opened.read(FILE_OCTETS_MAX + 1))
    row = _member().registration_order(octets.hex())
    console.answer(dict(row), f"{row['source']}: order {row['number']} taken in ({row['kind']} of {row['function']}).")


def _approve(text: str, token: str, key: Path, name: str | None, yes: bool) -> Approval:
    if token_of(text) != token:  # the text is what is signed: never trust the token beside it
        raise ZaibeiError(Code.VERIFICATION_FAILED, "the member's plan text does not have this token. Nothing was signed")
    confirm(text, yes)
    return approve(name or key.name.removesuffix(edge_keys.SUFFIX), edge_keys.load(key, ask_passphrase), text)


def _fence(row: Row) -> str:
    if row["switchover"]:
        return "write-path: its guard is asked to end the writing; when it does not in time, nothing happened and it goes on"
    if row["fence"] == "none":
        return "none: the source may go on writing; its own writes from here on wait for the failback"
    return "write-path: its guard stops when its lease has run out"


def _next(row: Row) -> str:
    names = ", ".join(row["approvals"]) or "nobody yet"
    if row.get("mass"):
        return mass_next(row)
    needed = 1 if row["break_glass"] else 2
    if len(row["approvals"]) < needed and row["lacks"]:
        return f"signed by {names}\nNext: zaibei takeover sign {row['token']} --key FILE"
    return f"signed by {names}\nNext: zaibei takeover run {row['source']} --registration --plan {row['token']} --reason TEXT"


def mass_next(row: Row) -> str:
    """What comes next with a mass takeover."""
    if row["lacks"]:
        names = ", ".join(row["approvals"]) or "nobody yet"
        return f"signed by {names}\nNext: zaibei takeover sign {row['token']} --key FILE"
    return f"Next: zaibei takeover mass run --plan {row['token']} --reason TEXT"


def ladder_lines(row: Row) -> list[str]:
    """Lines of `takeover status` about one source's ladder; none while it stands at NORMAL and nothing is owed."""
    ladder = row.get("ladder")
    if ladder is None or (ladder["stage"] == "NORMAL" and ladder["review"] is None and not ladder["held_off"]):
        return []
    since = datetime.fromtimestamp(ladder["since_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"{row['source']}: registrations: {ladder['stage']} since {since}: {ladder['shown']} ({ladder['reason']})"]
    if ladder["switchover"] and ladder["write_pause_ms"] is not None:
        lines.append(f"  switchover: nobody registered for at most {ladder['write_pause_ms']} ms")
    if ladder["waits_for"]:
        lines.append(f"  waits for: {ladder['waits_for']}")
    if ladder["approvals"] or ladder["orders"]:
        orders = [f"{one['kind']} order {one['number']}" for one in ladder["orders"]]
        lines.append(f"  approved by: {', '.join([*ladder['approvals'], *orders])}")
    if ladder["held_off"]:
        lines.append("  no takeover begins by itself before it was seen well again")
    if ladder["review"] is not None:
        lines.append(f"  review owed: break-glass by {ladder['review']['operator']}")
    return lines
