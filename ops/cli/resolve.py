"""`zaibei resolve ID`: look an identifier up at any Handle server, one after another or hedged over its published sites."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from hosting.client.lookup import Lookup, Server
from hosting.client.resolver import ClientConfig, HandleClient, NoAnswer
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import ResponseCode
from replica.model.handle.json_api import resolution_json
from replica.model.handle.values import HandleValue, encode_values

DEFAULT_SERVER = "127.0.0.1:2641"
EXIT_OF_CODE: dict[int, int] = {ResponseCode.SUCCESS: 0, ResponseCode.VALUES_NOT_FOUND: 6, ResponseCode.HANDLE_NOT_FOUND: 6}
EXIT_UNREACHABLE, EXIT_USAGE, EXIT_FAILED = 8, 2, 1
DATA_CHARS_SHOWN = 120


@click.command()
@click.argument("identifier")
@click.option(
    "--server", "servers", multiple=True, help=f"[udp://|tcp://|http://]host[:port], may be repeated; {DEFAULT_SERVER}."
)
@click.option("--protocol", type=click.Choice(["udp", "tcp", "http"]), default="udp", help="When the server names none.")
@click.option("--type", "types", multiple=True, help="Only values of this type (and its subtypes).")
@click.option("--index", "indexes", multiple=True, type=int, help="Only the value with this index.")
@click.option("--walk", is_flag=True, help="Ask the servers for the prefix's sites, and the sites for the record.")
@click.option("--hedge", is_flag=True, help="Race the published sites (means --walk, unless several servers are given).")
@click.option("--hedge-ms", default=50, help="Silence after which the next site is asked as well.")
@click.option("--timeout-ms", default=3_000, help="Patience of the whole lookup.")
@click.option("--verbose", is_flag=True, help="Show every exchange.")
@click.option("--json", "json_", is_flag=True, help="One JSON document; a stable contract.")
def resolve(identifier: str, servers: tuple[str, ...], protocol: str, json_: bool, verbose: bool, **options: Any) -> None:
    """Resolve IDENTIFIER, for example 88.118.8/XYZ-001.

    Exit codes: 0 found, 1 another answer, 6 not found, 8 nobody could say (try again).
    """
    try:
        asked = tuple(Server.parse(server, protocol) for server in servers or (DEFAULT_SERVER,))
    except ZaibeiError as exc:
        raise click.UsageError(exc.trouble.message) from exc
    several = len(asked) > 1
    config = ClientConfig(
        asked,
        walk=options["walk"] or (options["hedge"] and not several),
        protocols=tuple(dict.fromkeys((protocol, "udp", "tcp", "http"))),
        hedge=options["hedge"],
        hedge_delay_s=options["hedge_ms"] / 1_000,
        deadline_s=options["timeout_ms"] / 1_000,
    )
    try:
        lookup = asyncio.run(_look(config, identifier, options["types"], options["indexes"]))
    except ZaibeiError as exc:
        _show_trouble(identifier, exc, json_)
        raise SystemExit(EXIT_USAGE if exc.code is Code.MALFORMED else EXIT_UNREACHABLE) from exc
    click.echo(json.dumps(_document(lookup))) if json_ else _show(lookup, verbose)
    raise SystemExit(EXIT_OF_CODE.get(lookup.reply.code, EXIT_FAILED))


async def _look(config: ClientConfig, identifier: str, types: tuple[str, ...], indexes: tuple[int, ...]) -> Lookup:
    async with HandleClient(config) as client:
        return await client.resolve(identifier, types=types, indexes=indexes)


def _name(code: int) -> str:
    return ResponseCode(code).name if code in ResponseCode.__members__.values() else f"code {code}"


def _document(lookup: Lookup) -> dict[str, Any]:
    values = json.loads(resolution_json(lookup.name.encode(), encode_values(lookup.reply.values)))["values"]
    return {
        "handle": lookup.name,
        "response_code": lookup.reply.code,
        "response": _name(lookup.reply.code),
        "values": values,
        "message": lookup.reply.message,
        "server": str(lookup.server),
        "took_ms": lookup.took_ms,
        "hops": lookup.hops,
        "vouch": dict(lookup.reply.vouch),
        "attempts": [
            {"server": str(one.server), "started_ms": one.started_ms, "ended_ms": one.ended_ms, "outcome": one.outcome}
            for one in lookup.attempts
        ],
    }


def _show(lookup: Lookup, verbose: bool) -> None:
    console = Console(highlight=False)
    reply = lookup.reply
    if reply.values:
        table = Table("index", "type", "ttl", "data")
        for value in reply.values:
            table.add_row(str(value.index), value.type.decode("utf-8", "replace"), str(value.ttl), _data(value))
        console.print(table)
    word = "" if reply.code == ResponseCode.SUCCESS else f"{_name(reply.code)} ({reply.code}) {reply.message}  "
    console.print(f"{word}{lookup.name} from {lookup.server} in {lookup.took_ms:.1f} ms", soft_wrap=True)
    for name, value_text in reply.vouch:
        console.print(f"  {name}: {value_text}", soft_wrap=True)
    for one in lookup.attempts if verbose else ():
        console.print(f"  {one.started_ms:8.1f} to {one.ended_ms:.1f} ms  {one.server}  {one.outcome}", soft_wrap=True)


def _data(value: HandleValue) -> str:
    try:
        text = value.data.decode()
    except UnicodeDecodeError:
        text = value.data.hex()
    shown = text if text.isprintable() else value.data.hex()
    return shown if len(shown) <= DATA_CHARS_SHOWN else shown[:DATA_CHARS_SHOWN] + "…"


def _show_trouble(identifier: str, error: ZaibeiError, json_: bool) -> None:
    reply = error.reply if isinstance(error, NoAnswer) else None
    if json_:
        code = None if reply is None else reply.code
        click.echo(json.dumps({"handle": identifier, "response_code": code, "values": [], "message": error.trouble.message}))
    else:
        click.echo(f"zaibei resolve: {error.trouble.message}", err=True)
