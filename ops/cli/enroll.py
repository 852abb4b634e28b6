"""`zaibei source enroll` at the centre and `zaibei source join` at the node: from nothing to the first receipt by one token."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path

import click

from ops.cli.style import Console, effective, pairs, styled, target_options
from ops.config import Address, MemberConfig
from ops.config.edge_load import enrolled_folder
from ops.config.read import NAME_PATTERN
from ops.pki.edge_join import fetch, source_text
from ops.pki.edge_tokens import HOURS, give_out
from replica.cluster.edge_card import read_card
from replica.enrol.token import decode_token, encode_token
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.trust import Role

HOURS_MAX = 24 * 30
DATA = "zaibei-source"


@click.command()
@click.argument("name")
@click.option(
    "--prefix", "prefixes", multiple=True, required=True, help="What it may write: this prefix and all below. Repeatable."
)
@click.option("--pull", multiple=True, help="Where members call it, host:port; without it the node calls out and pushes.")
@click.option(
    "--hours", type=click.FloatRange(0.01, HOURS_MAX), default=HOURS, show_default=True, help="How long the token is good."
)
@target_options
@styled
def enroll(console: Console, name: str, prefixes: tuple[str, ...], pull: tuple[str, ...], hours: float) -> None:
    """At the member with the CA: print a one-time token with which the source NAME gets its certificate.

    Give it to the node's operator by a way you trust: who has it first is the source. It works once, and this member must be
    up while it is used. The source is copied as soon as it joined; no restart.

    \b
    Examples:
      zaibei source enroll node-a --prefix 88.118.8
      zaibei source enroll node-b --prefix 88.118.9 --pull node-b.example:2645 --hours 2
    """
    config = effective().config
    _check(config, name, prefixes, pull)
    token = give_out(config, Role.SOURCE, name, prefixes=prefixes, pull=pull, hours=hours)
    text = encode_token(token)
    document = {
        "token": text,
        "ticket": token.ticket.hex(),
        "name": name,
        "prefixes": list(prefixes),
        "addresses": list(token.addresses),
        "authority": "sha256:" + token.authority.hex(),
        "expires_s": token.expires_s,
    }
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(token.expires_s))
    console.say(f"Good until {until}, once. At the node, beside its registry.csv:\n")
    console.answer(document, f"zaibei source join {text}")
    if read_card(config.member.data) is not None:
        block = enrolled_folder(config.member.data) / f"{name}.toml"
        console.say(
            f"\nWhen it has joined, copy {block} into sources.d of every other member's data folder: no restart is needed"
        )


def _check(config: MemberConfig, name: str, prefixes: tuple[str, ...], pull: tuple[str, ...]) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise click.UsageError(f"{name!r} is not a name: lower-case letters, digits, dots and dashes, like node-a")
    if name == config.member.name:
        raise ZaibeiError(Code.CONFLICT, f"{name!r} is this member's own name. Next: another name for the source")
    for address in pull:
        try:
            Address.parse(address, names=True)
        except ValueError as exc:
            raise click.UsageError(f"--pull {exc}") from None
    found = next((one for one in config.sources if one.name == name), None)
    if found is not None and (found.peer is None or found.peer.certificate_pem):
        raise ZaibeiError(
            Code.CONFLICT, f"source {name!r} is configured with a pin, or hosted. Next: take its [[source]] block out"
        )
    if found is not None and set(found.prefixes) != set(prefixes):
        where = enrolled_folder(config.member.data) / f"{name}.toml"
        raise ZaibeiError(Code.CONFLICT, f"source {name!r} is configured with {', '.join(found.prefixes)}. Next: look at {where}")
    owned = {prefix_key(prefix): one.name for one in config.sources if one.name != name for prefix in one.prefixes}
    for prefix in prefixes:
        owner = owned.get(prefix_key(prefix))
        if owner is not None:
            raise ZaibeiError(Code.CONFLICT, f"{prefix} belongs to source {owner!r}. Next: each prefix at one source")


@click.command()
@click.argument("token")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("source.toml"),
    show_default=True,
    help="The source's file, to be written.",
)
@click.option("--data", default=DATA, show_default=True, help="Its data folder, relative to that file.")
@click.option(
    "--input", "inputs", multiple=True, default=("registry.csv",), show_default=True, help="Registry files. Repeatable."
)
@click.option("--listen", multiple=True, help="Where it listens, if members call it and reach it under another address.")
@styled
def join(console: Console, token: str, config_path: Path, data: str, inputs: tuple[str, ...], listen: tuple[str, ...]) -> None:
    """At the node: take up a token of `zaibei source enroll`. Makes keys, fetches the certificate, writes the source's file.

    TOKEN - is read from standard input. The member proves to be of the CA that the token names before the secret is sent.
    Broken off? The same command again.

    \b
    Examples:
      zaibei source join zaibei1-...
      zaibei source join - --input /srv/registry/export.csv < token.txt
    """
    taken = decode_token(sys.stdin.readline() if token == "-" else token)
    if taken.role is not Role.SOURCE:
        raise click.UsageError(f"that token is for a {taken.role}: see `zaibei cluster join --help`")
    if taken.expires_s <= time.time():
        raise ZaibeiError(Code.NOT_AUTHORISED, "this token has ended. Next: ask the centre for a new one")
    if config_path.exists():
        raise ZaibeiError(Code.CONFLICT, f"{config_path} exists and stays as it is. Next: --config another file, or move it away")
    folder = config_path.absolute().parent
    identity, answer = asyncio.run(fetch(folder / data, taken))
    config_path.write_text(source_text(taken, answer, data, inputs, listen), encoding="utf-8")
    missing = [path for path in inputs if not (folder / path).exists()]
    document = {
        "name": identity.name,
        "fingerprint": identity.fingerprint,
        "config": str(config_path),
        "data": str(folder / data),
        "prefixes": list(answer.prefixes),
        "members": [{"name": one.name, "feeds": list(one.feeds)} for one in answer.members],
        "missing": missing,
    }
    console.answer(
        document,
        pairs([("source", identity.name), ("writes", " ".join(answer.prefixes)), ("file", config_path), ("data", folder / data)]),
        *(f"Not there yet: {path}" for path in missing),
        f"Next: zaibei source serve --config {config_path}",
    )
