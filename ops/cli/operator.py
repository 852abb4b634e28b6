"""`zaibei operator`: people whose signatures count, and their keys."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click
import msgspec

from ops.cli.style import Console, effective, styled, table, target_options
from ops.config.read import NAME_PATTERN
from ops.operators import edge_keys
from ops.operators.approval import approve, token_of
from ops.operators.blocks import VERSION as BLOCK_VERSION
from ops.text import printable
from replica.feed.decision import PLAN_VERSION
from replica.model.errors import Code, ZaibeiError

PLAN_OCTETS_MAX = 64 * 1024


@click.group()
def operator() -> None:
    """People whose signatures count. Release or discard of what is held needs two of them.

    \b
    Examples:
      zaibei operator add li.wei             on that person's own machine
      zaibei operator list
    """


@operator.command()
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Key file. Default: ~/.config/zaibei/operators/NAME.key"
)
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase and lock the key with it.")
@styled
def add(console: Console, name: str, out: Path | None, passphrase: bool) -> None:
    """Make a key for an operator, and print the block for the member's file.

    The private key stays in its file (mode 0600) and is never printed. Each person makes their own, on their own machine:
    two keys in one hand are one person.

    \b
    Examples:
      zaibei operator add li.wei --passphrase
      zaibei operator add zhang.min --out /media/usb/zhang.min.key
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise click.UsageError(f"{name!r} is not a name: lower-case letters, digits, dots and dashes, like li.wei")
    path = out or edge_keys.default_folder() / f"{name}{edge_keys.SUFFIX}"
    secret = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True) if passphrase else ""
    public = edge_keys.create(path, secret.encode()).public.hex()
    block = f'[[operator]]\nname = "{name}"\npublic_key = "{public}"\n'
    console.say(
        f"Private key in {path}. Keep it; nobody else needs it.\nNext: this block into the member's file, then restart it:\n"
    )
    console.answer({"name": name, "public_key": public, "key_file": str(path), "toml": block}, block)


@operator.command("list")
@target_options
@styled
def list_(console: Console) -> None:
    """Operators the configuration names, and the key files of this user.

    \b
    Example:
      zaibei operator list --config zaibei.toml
    """
    configured = effective().config.operators
    files = edge_keys.listing(edge_keys.default_folder())
    console.answer(
        {
            "operators": [{"name": one.name, "public_key": one.public_key.hex()} for one in configured],
            "key_files": [str(file) for file in files],
        },
        table(["operator", "public key"], [[one.name, one.public_key.hex()] for one in configured], title="configured"),
        table(["key file"], [[str(file)] for file in files], title="keys of this user"),
        ""
        if len(configured) > 1
        else "Fewer than two operators: what is held could not be decided. Next: zaibei operator add NAME",
    )


@operator.command()
@click.argument("plan", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--key", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Your key file.")
@click.option("--as", "name", help="Your name in the member's file. Default: the key file's name.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts that asked already.")
@styled
def sign(console: Console, plan: Path, key: Path, name: str | None, yes: bool) -> None:
    """Sign a plan's text away from the member's machine; prints the approval as one JSON line.

    \b
    Example:
      zaibei hold plan node-a/ID release --out plan.txt
      zaibei operator sign plan.txt --key li.wei.key > approval.json
      zaibei hold sign TOKEN --approval approval.json
    """
    with plan.open("rb") as file:
        text = file.read(PLAN_OCTETS_MAX).decode("utf-8", "replace")
    if not text.startswith((PLAN_VERSION + "\n", BLOCK_VERSION + "\n")):
        raise ZaibeiError(
            Code.MALFORMED, f"{plan} is no plan of this version. Next: zaibei hold plan, or block plan, with --out FILE"
        )
    confirm(text, yes)
    approval = approve(name or key.name.removesuffix(edge_keys.SUFFIX), edge_keys.load(key, ask_passphrase), text)
    console.answer(msgspec.to_builtins(approval), json.dumps(msgspec.to_builtins(approval)))


def ask_passphrase() -> str:
    """Of a locked key, at the terminal."""
    answer: str = click.prompt("Passphrase of the key", hide_input=True, err=True)
    return answer


def confirm(plan_text: str, yes: bool) -> None:
    """Show the plan and have its token's first digits typed: a signature is given to what was read.

    Raises:
        click.Abort: stopped by hand. click.ClickException: something else was typed, or standard input ended.
    """
    click.echo(printable(plan_text, keep="\n"), err=True)
    if yes:
        return
    token = token_of(plan_text)
    said = dict(line.split(" ", 1) for line in plan_text.splitlines() if " " in line)
    act, source = said.get("act", ""), said.get("source", "")
    word = act if act and " " not in act else source  # what is done, or to whom
    wanted = f"{word} {token[:4]}"
    try:
        typed = click.prompt(f"To sign, type: {wanted}", err=True, default="", show_default=False)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.ClickException(f"not signed: standard input ended before {wanted!r} was typed. In a script: --yes") from None
    if typed != wanted:
        raise click.ClickException(f"not signed: {wanted!r} was to be typed")
