"""`zaibei block`: identifiers and prefixes that are not answered, by a signed order with a number and a deadline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import click

from ops.admin.values import Approval
from ops.cli.hold import read_approval
from ops.cli.operator import ask_passphrase, confirm
from ops.cli.style import Console, admin, styled, table, target_options
from ops.operators import edge_keys
from ops.operators.approval import approve, token_of
from replica.model.blocks import time_text
from replica.model.errors import Code, ZaibeiError

Row = Mapping[str, Any]  # JSON of the admin API
TIMES = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d")


class BlockAdmin(Protocol):
    """What these commands ask a member; the admin client offers it."""

    def block_list(self, source: str = "") -> list[Row]: ...

    def block_plan(self, identifiers: list[str], prefixes: list[str], number: int, until_ms: int, reason: str) -> Row: ...

    def block_lift_plan(self, order: str, reason: str) -> Row: ...

    def block_plan_of(self, token: str) -> Row: ...

    def block_run(self, approval: Approval) -> Row: ...


def _member() -> BlockAdmin:
    found: BlockAdmin = admin()
    return found


@click.group()
def block() -> None:
    """Identifiers and prefixes that are not answered (401, HTTP 403), by a signed order with a number and a deadline.

    An order holds at every member within seconds, over every protocol, and ends by itself at its deadline. The copy and its
    digest know nothing of it; the audit of each source keeps who ordered what and why.

    \b
    Examples:
      zaibei block plan --identifier 88.118.8/bad --number 17 --until 2027-03-01 --reason "decision 17 of the regulator"
      zaibei block run --plan TOKEN --key li.wei.key
      zaibei block list
      zaibei block lift li.wei/17 --reason "appeal upheld"      prints a token, to be run likewise
    """


@block.command("list")
@click.argument("source", default="")
@target_options
@styled
def list_(console: Console, source: str) -> None:
    """Orders in force, of one SOURCE or of all.

    \b
    Example:
      zaibei block list
    """
    found = _member().block_list(source)
    rows = [
        [
            one["order"],
            _targets(one),
            time_text(one["since_ms"]),
            time_text(one["until_ms"]),
            one["reason"],
            ", ".join(one["sources"]),
        ]
        for one in found
    ]
    columns = ["order", "not answered", "since", "until", "why", "in"]
    console.answer({"blocks": [dict(one) for one in found]}, table(columns, rows) if rows else "Nothing is blocked.")


@block.command()
@click.option("--identifier", "identifiers", multiple=True, metavar="ID", help="One identifier; repeatable.")
@click.option("--prefix", "prefixes", multiple=True, metavar="PREFIX", help="A prefix and everything below it; repeatable.")
@click.option("--number", required=True, type=int, help="Number of the order; higher than any before that you signed.")
@click.option("--until", required=True, metavar="TIME", help="Deadline in UTC: 2027-03-01, or 2027-03-01T12:00Z.")
@click.option("--reason", required=True, help="Why, one line; kept in the audit, never told to those who ask.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan here, to be signed elsewhere.")
@target_options
@styled
def plan(
    console: Console,
    identifiers: tuple[str, ...],
    prefixes: tuple[str, ...],
    number: int,
    until: str,
    reason: str,
    out: Path | None,
) -> None:
    """Look at an order: prints the text that is signed, and its token. Changes nothing.

    \b
    Example:
      zaibei block plan --prefix 88.118.8 --number 18 --until 2027-03-01T12:00Z --reason "decision 18 of the regulator"
    """
    _show(console, _member().block_plan(list(identifiers), list(prefixes), number, until_ms(until), reason), out)


@block.command()
@click.argument("order", metavar="SIGNER/NUMBER")
@click.option("--reason", required=True, help="Why, one line; kept in the audit.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan here, to be signed elsewhere.")
@target_options
@styled
def lift(console: Console, order: str, reason: str, out: Path | None) -> None:
    """Look at lifting an order before its deadline: prints the text that is signed, and its token. Changes nothing.

    \b
    Example:
      zaibei block lift li.wei/17 --reason "appeal upheld"
    """
    _show(console, _member().block_lift_plan(order, reason), out)


@block.command()
@click.option("--plan", "token", required=True, metavar="TOKEN", help="Token printed by `plan` or `lift`.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Your key file.")
@click.option("--as", "name", help="Your name in the member's file. Default: the key file's name.")
@click.option("--approval", type=click.Path(path_type=Path, dir_okay=False), help="A signature made elsewhere, as JSON.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts that asked already.")
@target_options
@styled
def run(console: Console, token: str, key: Path | None, name: str | None, approval: Path | None, yes: bool) -> None:
    """Sign a plan and carry it out, or carry out one that was signed elsewhere. The text is shown first and has to be confirmed.

    Who may: the operators and top-level nodes of the member's file. Exit 3: another key, or the plan changed. Running it again is
    harmless.

    \b
    Example:
      zaibei block run --plan 1f2e3d4c5b6a7988 --key li.wei.key
    """
    if (key is None) == (approval is None):
        raise click.UsageError("Name your key with --key FILE, or a signature with --approval FILE.")
    member = _member()
    if key is not None:
        given = _approve(str(member.block_plan_of(token)["text"]), token, key, name, yes)
    else:
        assert approval is not None
        given = read_approval(approval)
        if given.token != token:
            raise ZaibeiError(Code.CONFLICT, f"that signature is for plan {given.token[:32]}, not {token[:32]}. Nothing was done")
    done = member.block_run(given)
    said = f"lifted in {', '.join(done['sources'])}"
    if done["act"] == "block":
        said = f"in force in {', '.join(done['sources'])} until {time_text(done['until_ms'])}"
    console.answer({"done": dict(done)}, f"Order {done['order']}: {said}. Next: zaibei block list")


def until_ms(text: str) -> int:
    """A deadline as people write it, in Unix milliseconds. Raises ZaibeiError(MALFORMED)."""
    for form in TIMES:
        try:
            return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp() * 1_000)
        except ValueError:
            continue
    raise ZaibeiError(Code.MALFORMED, f"{text[:40]!r} is no time: write 2027-03-01 or 2027-03-01T12:00Z, in UTC")


def _show(console: Console, row: Row, out: Path | None) -> None:
    if out is not None:
        out.write_text(row["text"], encoding="utf-8")
    who = ", ".join(row["signers"]) or "nobody: add an [[operator]]"
    step = f"who may sign: {who}\nNext: zaibei block run --plan {row['token']} --key FILE"
    console.answer({"plan": dict(row)}, row["text"], f"token {row['token']}", step)


def _approve(text: str, token: str, key: Path, name: str | None, yes: bool) -> Approval:
    if token_of(text) != token:  # the text is what is signed: never trust the token beside it
        raise ZaibeiError(Code.VERIFICATION_FAILED, "the member's plan text does not have this token. Nothing was signed")
    confirm(text, yes)
    return approve(name or key.name.removesuffix(edge_keys.SUFFIX), edge_keys.load(key, ask_passphrase), text)


def _targets(one: Row) -> str:
    return ", ".join([*one["identifiers"], *(f"all below {prefix}" for prefix in one["prefixes"])])
