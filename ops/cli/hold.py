"""`zaibei hold`: what the brake stopped; looked at, signed by two people, released or discarded."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from ops.admin.values import Approval, Held, HoldPlan
from ops.cli.exits import Exit
from ops.cli.operator import ask_passphrase, confirm
from ops.cli.style import Console, admin, pairs, styled, table, target_options
from ops.operators import edge_keys
from ops.operators.approval import approve, token_of
from ops.operators.holds import DECISIONS
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position

APPROVAL_OCTETS_MAX = 16 * 1024


@click.group()
def hold() -> None:
    """What the brake stopped: a change that would remove or rewrite too large a share of a prefix waits here for two people.

    \b
    Examples:
      zaibei hold list
      zaibei hold plan SOURCE/ID release          prints a token
      zaibei hold sign TOKEN --key li.wei.key     and a second operator likewise
      zaibei hold run --plan TOKEN
    """


@hold.command("list")
@click.argument("source", default="")
@target_options
@styled
def list_(console: Console, source: str) -> None:
    """Everything that waits, of one SOURCE or of all.

    \b
    Example:
      zaibei hold list
    """
    held = admin().holds(source)
    rows = [[_name(one), one.kind, _counts(one), one.reason, _time(one.held_ms), _signed(one)] for one in held]
    next_step = f"Next: zaibei hold show {_name(held[0])}" if held else "Nothing is held."
    columns = ["hold", "kind", "would do", "why", "since", "signed"]
    console.answer({"held": msgspec.to_builtins(held)}, *([table(columns, rows)] if held else []), next_step)


@hold.command()
@click.argument("ident", metavar="ID")
@target_options
@styled
def show(console: Console, ident: str) -> None:
    """One of them, with some of the identifiers it would remove or rewrite.

    \b
    Example:
      zaibei hold show node-a/00000000000000010000000000001388
    """
    one = admin().hold_show(ident)
    rows = [
        ("source", one.source),
        ("hold", one.hold),
        ("kind", one.kind),
        ("why", one.reason),
        ("would do", _counts(one)),
        ("follows", _position(one.follows)),
        ("since", _time(one.held_ms)),
        ("signed", _signed(one)),
    ]
    examples = table(["for example"], [[sample] for sample in one.samples]) if one.samples else ""
    console.answer(
        {"held": msgspec.to_builtins(one)},
        pairs(rows),
        examples,
        f"Next: zaibei hold plan {_name(one)} release|discard",
    )


@hold.command()
@click.argument("ident", metavar="ID")
@click.argument("decision", type=click.Choice(DECISIONS))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan's text here, to be signed elsewhere."
)
@target_options
@styled
def plan(console: Console, ident: str, decision: str, out: Path | None) -> None:
    """Look at a decision: prints the text that is signed, and its token. Changes nothing.

    release: apply it after all. discard: drop it; the source has to send something else.

    \b
    Example:
      zaibei hold plan node-a/00000000000000010000000000001388 discard
    """
    planned = admin().hold_plan(ident, decision)
    if out is not None:
        out.write_text(planned.text, encoding="utf-8")
    console.answer({"plan": msgspec.to_builtins(planned)}, planned.text, f"token {planned.token}", _progress(planned))


@hold.command()
@click.argument("token")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Your key file.")
@click.option("--as", "name", help="Your name in the member's file. Default: the key file's name.")
@click.option("--approval", type=click.Path(path_type=Path, dir_okay=False), help="An approval made by `zaibei operator sign`.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts that asked already.")
@target_options
@styled
def sign(console: Console, token: str, key: Path | None, name: str | None, approval: Path | None, yes: bool) -> None:
    """Approve a plan with your key, or hand in an approval made elsewhere. The text is shown first and has to be confirmed.

    \b
    Examples:
      zaibei hold sign 1f2e3d4c5b6a7988 --key li.wei.key
      zaibei hold sign 1f2e3d4c5b6a7988 --approval approval.json
    """
    if (key is None) == (approval is None):
        raise click.UsageError("Name your key with --key FILE, or an approval with --approval FILE.")
    member = admin()
    given = read_approval(approval) if approval is not None else _approve(member.hold_plan_of(token), token, key, name, yes)
    if given.token != token:
        raise ZaibeiError(Code.CONFLICT, f"that approval is for plan {given.token[:32]}, not {token[:32]}. Nothing was done")
    signed = member.hold_sign(given)
    console.answer({"plan": msgspec.to_builtins(signed)}, f"Signed by {given.operator}.", _progress(signed))


@hold.command()
@click.option("--plan", "token", required=True, metavar="TOKEN", help="Token printed by `plan`.")
@target_options
@styled
def run(console: Console, token: str) -> int:
    """Carry out a plan that two different operators signed.

    Refused with 3 until they did, with 4 when the world is no longer as planned. Running it again is harmless.

    \b
    Example:
      zaibei hold run --plan 1f2e3d4c5b6a7988
    """
    done = admin().hold_run(token)
    what = {"release": "released", "discard": "discarded"}[done.decision]
    console.answer(
        {"done": msgspec.to_builtins(done)}, f"{done.source}/{done.hold} {what}, approved by {', '.join(done.approved_by)}."
    )
    return Exit.DONE


def _approve(planned: HoldPlan, token: str, key: Path | None, name: str | None, yes: bool) -> Approval:
    assert key is not None
    if token_of(planned.text) != token:  # the text is what is signed: never trust the token beside it
        raise ZaibeiError(Code.VERIFICATION_FAILED, "the member's plan text does not have this token. Nothing was signed")
    confirm(planned.text, yes)
    return approve(name or key.name.removesuffix(edge_keys.SUFFIX), edge_keys.load(key, ask_passphrase), planned.text)


def read_approval(path: Path) -> Approval:
    """An approval made elsewhere, as JSON. Raises ZaibeiError(NOT_FOUND, MALFORMED)."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(APPROVAL_OCTETS_MAX), type=Approval)
    except FileNotFoundError:
        raise ZaibeiError(Code.NOT_FOUND, f"{path} does not exist. Next: zaibei operator sign PLAN --key FILE > {path}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"{path} is no approval: {exc}. Next: zaibei operator sign PLAN --key FILE") from exc


def _progress(planned: HoldPlan) -> str:
    names = ", ".join(planned.approvals) or "nobody yet"
    if len(planned.approvals) < planned.needed:
        return f"signed by {names}; {planned.needed} are needed\nNext: zaibei hold sign {planned.token} --key FILE"
    return f"signed by {names}\nNext: zaibei hold run --plan {planned.token}"


def _name(one: Held) -> str:
    return f"{one.source}/{one.hold}"


def _counts(one: Held) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in one.counts.items()) or "UNKNOWN"


def _signed(one: Held) -> str:
    return "; ".join(f"{decision}: {', '.join(names)}" for decision, names in one.approvals.items() if names) or "nobody"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _position(text: str) -> str:
    try:
        return Position.parse(text).short()
    except ZaibeiError:
        return text
