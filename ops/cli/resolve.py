"""`zaibei resolve ID`: look an identifier up at any Handle server, one after another or hedged over its published sites."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from hosting.client.edge_resolver import ClientConfig, HandleClient, NoAnswer
from hosting.client.lookup import Attempt, Lookup, Server
from ops.cli.exits import Exit
from ops.cli.style import Console, styled, table
from replica.model.errors import ZaibeiError
from replica.model.handle.codes import ResponseCode
from replica.model.handle.json_api import resolution_json
from replica.model.handle.values import HandleValue, encode_values

DEFAULT_SERVER = "127.0.0.1:2641"
EXIT_OF_CODE: dict[int, Exit] = {
    ResponseCode.SUCCESS: Exit.DONE,
    ResponseCode.VALUES_NOT_FOUND: Exit.NOT_FOUND,
    ResponseCode.HANDLE_NOT_FOUND: Exit.NOT_FOUND,
}
DATA_CHARS_SHOWN = 120


@click.command()
@click.argument("identifier", metavar="ID")
@click.option("--server", "servers", multiple=True, help=f"[udp://|tcp://|http://]host[:port], repeatable; {DEFAULT_SERVER}.")
@click.option("--protocol", type=click.Choice(["udp", "tcp", "http"]), default="udp", help="When the server names none.")
@click.option("--type", "types", multiple=True, help="Only values of this type (and its subtypes).")
@click.option("--index", "indexes", multiple=True, type=click.IntRange(0, 2**32 - 1), help="Only the value with this index.")
@click.option("--walk", is_flag=True, help="Ask the servers for the prefix's sites, and the sites for the record.")
@click.option("--hedge", is_flag=True, help="Race the published sites (means --walk, unless several servers are given).")
@click.option("--hedge-ms", default=50, type=click.IntRange(0), help="Silence after which the next site is asked as well.")
@click.option("--timeout-ms", default=3_000, type=click.IntRange(1), help="Patience of the whole lookup.")
@click.option("--verbose", is_flag=True, help="Show every exchange.")
@styled
def resolve(console: Console, identifier: str, servers: tuple[str, ...], protocol: str, verbose: bool, **options: Any) -> int:
    """Look an identifier up at any Handle server. Exit 0 found, 6 not found, 1 another answer, 8 nobody could say: try again.

    \b
    Examples:
      zaibei resolve 88.118.8/XYZ-001
      zaibei resolve 88.118.8/XYZ-001 --server tcp://192.0.2.1:2641 --type URL
      zaibei resolve 88.118.8/XYZ-001 --server 192.0.2.53:3641 --hedge
    """
    asked = _servers(servers or (DEFAULT_SERVER,), protocol)
    config = ClientConfig(
        asked,
        walk=options["walk"] or (options["hedge"] and len(asked) == 1),
        protocols=tuple(dict.fromkeys((protocol, "udp", "tcp", "http"))),
        hedge=options["hedge"],
        hedge_delay_s=options["hedge_ms"] / 1_000,
        deadline_s=options["timeout_ms"] / 1_000,
    )
    try:
        lookup = asyncio.run(_look(config, identifier, options["types"], options["indexes"]))
    except NoAnswer as exc:
        console.say("\n".join(_exchanges(exc.attempts) if verbose else ()))
        # The lookup changed nothing: that nobody could say is a definite outcome of this command.
        raise ZaibeiError(exc.code, exc.trouble.message, retry=True) from exc
    console.answer(_document(lookup), *_shown(lookup, verbose))
    return EXIT_OF_CODE.get(lookup.reply.code, Exit.FAILED)


def _servers(texts: tuple[str, ...], protocol: str) -> tuple[Server, ...]:
    try:
        return tuple(Server.parse(text, protocol) for text in texts)
    except ZaibeiError as exc:
        raise click.UsageError(exc.trouble.message) from exc


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


def _shown(lookup: Lookup, verbose: bool) -> list[object]:
    reply = lookup.reply
    parts: list[object] = []
    if reply.values:
        rows = [[str(value.index), value.type.decode("utf-8", "replace"), str(value.ttl), _data(value)] for value in reply.values]
        parts.append(table(["index", "type", "ttl", "data"], rows))
    word = "" if reply.code == ResponseCode.SUCCESS else f"{_name(reply.code)} ({reply.code}) {reply.message}: "
    parts.append(f"{word}{lookup.name} from {lookup.server} in {lookup.took_ms:.1f} ms")
    parts += [f"  {name}: {text}" for name, text in reply.vouch]
    return [*parts, *(_exchanges(lookup.attempts) if verbose else ())]


def _exchanges(attempts: tuple[Attempt, ...]) -> list[str]:
    return [f"  {one.started_ms:8.1f} to {one.ended_ms:.1f} ms  {one.server}  {one.outcome}" for one in attempts]


def _data(value: HandleValue) -> str:
    try:
        text = value.data.decode()
    except UnicodeDecodeError:
        text = value.data.hex()
    shown = text if text.isprintable() else value.data.hex()
    return shown if len(shown) <= DATA_CHARS_SHOWN else shown[:DATA_CHARS_SHOWN] + "…"
