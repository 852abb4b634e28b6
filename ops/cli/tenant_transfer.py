"""`zaibei tenant transfer`: a tenant whose node withdrew for good goes to another provider's node, and we go on as its copy."""

from __future__ import annotations

from typing import Any, Protocol

import click

from ops.cli.exits import Exit
from ops.cli.failback import FailbackAdmin
from ops.cli.style import Console, admin, styled, target_options
from ops.cli.tenant_leaving import Leaving, leave

TRANSFER = Leaving("transfer", "transfer", "SERVING", "registers at the other provider's node")


class TransferAdmin(FailbackAdmin, Protocol):
    """What this command asks a member."""

    def tenant_show(self, source: str) -> dict[str, Any]: ...


@click.command()
@click.argument("name")
@click.option("--plan", "token", default="", metavar="TOKEN", help="Do what was planned; without it only look.")
@click.option("--abort", is_flag=True, help="Go on registering here; possible until the provider is handed its epoch.")
@click.option("--reason", default="by an operator", help="Kept with the act.")
@click.option("--timeout", "timeout_s", default=600.0, show_default=True, help="Stop watching after so many seconds; it goes on.")
@target_options
@styled
def transfer(console: Console, name: str, token: str, abort: bool, reason: str, timeout_s: float) -> int:
    """Hand the tenant NAME, whose node withdrew for good, to another provider's node.

    That node copies everything, registrations wait for a moment, both sides are compared, and the next epoch is that node's: from
    then on it registers, and we go on as its copy. What fails before that leaves the tenant registering here.

    Before: adopt it (zaibei tenant adopt); let the certificate of NAME be the provider's (the CA issues it one and revokes the
    old; or the [[source]] block names it); and start its node, empty, with `zaibei source follow`. Without --plan this looks,
    changes nothing, and prints a token. Interrupting it stops nothing: run it again to go on watching.

    Exit 4: the world is no longer as planned, or it cannot be handed over. Exit 1: given up, and it registers here as before.

    \b
    Examples:
      zaibei tenant transfer node-a
      zaibei tenant transfer node-a --plan 0123456789abcdef
      zaibei tenant transfer node-a --abort
    """
    member: TransferAdmin = admin()
    shown = member.tenant_show(name)
    why = ""
    if shown["lives_here"]:
        why = f"{name} never had a node of its own. Next: zaibei tenant graduate {name}, with the provider's node in its block"
    elif shown["state"] == "none":
        why = f"{name} was not adopted, so its own node may come back: zaibei failback. Next: zaibei tenant adopt {name}"
    if why:
        console.answer({"refusal": why}, f"refused: {why}")
        return Exit.REFUSED
    return leave(console, TRANSFER, name, token, reason, timeout_s, abort=abort)
