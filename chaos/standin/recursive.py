"""A stand-in recursive node: `python -m chaos.standin.recursive --roots tcp://127.0.0.1:2641,tcp://… [--ttl-cap 0] …`.

Clients know only this node. It asks its roots, in order, for a prefix's HS_SITE, keeps that by ttl, and fetches the record from
the FIRST site's FIRST TCP interface, as the national SDK does: no second site. A dead upstream fails at once where its
connection is refused or reset. The prefix's own record is answered with all values, so that better clients see every site.
When it serves, it prints one line of JSON: {"ready": true, "ports": {"udp": …, "tcp": …, "http": …}}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence

from chaos.standin.control import Control
from chaos.standin.edge_serve import Ports, Standin, bind, serve
from chaos.standin.forced import PrefixTable
from chaos.standin.given import Given
from hosting.client.edge_resolver import ClientConfig, HandleClient, prefix_of
from hosting.client.lookup import Question, Reply, Server, Turn
from hosting.client.sites import DELEGATE_TYPES, first_tcp, ttl_of
from replica.model.edge_collector import settle
from replica.model.errors import ZaibeiError
from replica.model.handle.answers import Peeked
from replica.model.handle.codes import ResponseCode
from replica.model.handle.values import HandleValue, encode_record, encode_values
from replica.native import filter_values

UPSTREAM_S_MAX = 1.0
HOPS_MAX = 5
SITE_TYPES = ("HS_SITE", "HS_SITE.6", "HS_SITE.PREFIX", "HS_NA_DELEGATE", "HS_SERV")


class Recursive:
    """Answers for clients; owns the connections upstream."""

    def __init__(self, roots: Sequence[Server], table: PrefixTable, upstream_s_max: float = UPSTREAM_S_MAX) -> None:
        self._roots, self._table = tuple(roots), table
        self._client = HandleClient(ClientConfig(self._roots, deadline_s=upstream_s_max))
        self._asking: dict[str, asyncio.Task[tuple[HandleValue, ...]]] = {}

    async def close(self) -> None:
        await self._client.close()

    async def answer(self, asked: Peeked) -> Given:
        """One client's question; trouble upstream is code 2, so that the client may go elsewhere."""
        try:
            name = asked.handle.decode()
            if name == "0":  # the national SDK's heartbeat
                return Given(ResponseCode.HANDLE_NOT_FOUND)
            if "/" not in name or name.upper().startswith("0.NA/"):
                return self._chosen(asked, await self._found(name.rpartition("/")[2]))
            return _given(await self._fetch(asked, name))
        except UnicodeDecodeError:
            return Given(ResponseCode.INVALID_HANDLE, text="a name is UTF-8")
        except ZaibeiError as exc:
            return Given(ResponseCode.ERROR, text=exc.trouble.message)

    @staticmethod
    def _chosen(asked: Peeked, values: tuple[HandleValue, ...]) -> Given:
        if not values:
            return Given(ResponseCode.HANDLE_NOT_FOUND)
        ordered = [HandleValue(place, value.type, value.data, value.ttl_type, value.ttl) for place, value in enumerate(values, 1)]
        chosen = filter_values(encode_record(ordered), asked.indexes, asked.types, asked.public_only)
        return Given(ResponseCode.VALUES_NOT_FOUND) if chosen in (None, bytes(4)) else Given(ResponseCode.SUCCESS, chosen or b"")

    async def _fetch(self, asked: Peeked, name: str) -> Reply:
        question = Question(name, asked.indexes, tuple(kind.decode("utf-8", "replace") for kind in asked.types))
        prefix = prefix_of(name)
        values = await self._sites(prefix)
        while not values and "." in prefix:  # an enterprise's prefix may be known to its parent alone
            prefix = prefix.rpartition(".")[0]
            values = await self._sites(prefix)
        reply = Reply(ResponseCode.HANDLE_NOT_FOUND)
        for _ in range(HOPS_MAX):
            server = first_tcp(values)
            if server is None:
                return reply
            reply = await self._client.ask(server, question)
            if reply.turn is not Turn.REFERRAL:
                return reply
            values = reply.values
        return reply

    async def _found(self, prefix: str) -> tuple[HandleValue, ...]:
        """Site values of a prefix; one that the roots do not know is asked for at the nearest ancestor's first site."""
        values, above = await self._sites(prefix), prefix
        while not values and "." in above:
            above = above.rpartition(".")[0]
            server = first_tcp(await self._sites(above))
            if server is not None:
                reply = await self._client.ask(server, Question(f"0.NA/{prefix}", types=SITE_TYPES))
                return reply.values if reply.code == ResponseCode.SUCCESS else ()
        return values

    async def _sites(self, prefix: str) -> tuple[HandleValue, ...]:
        """Site values of a prefix: kept, forced, or from the roots; one question upstream however many wait."""
        found = self._table.find(prefix, time.monotonic())
        if found is not None:
            return found
        task = self._asking.get(prefix.upper())
        if task is None:
            task = self._asking[prefix.upper()] = asyncio.create_task(self._ask_roots(prefix))
            task.add_done_callback(lambda _: self._asking.pop(prefix.upper(), None))
        return await asyncio.shield(task)

    async def _ask_roots(self, prefix: str) -> tuple[HandleValue, ...]:
        question = Question(f"0.NA/{prefix}", types=SITE_TYPES)
        last: ZaibeiError | None = None
        for root in self._roots:
            try:
                reply = await self._client.ask(root, question)
                if reply.code == ResponseCode.PREFIX_REFERRAL:
                    reply = await self._delegated(reply, question)
            except ZaibeiError as exc:
                last = exc
                continue
            if reply.turn is Turn.NEXT or reply.code == ResponseCode.SERVER_NOT_RESP:
                continue
            values = reply.values if reply.code == ResponseCode.SUCCESS else ()
            self._table.keep(prefix, values, ttl_of(values, int(time.time())), time.monotonic())
            return values
        if last is not None:
            raise last
        return ()

    async def _delegated(self, reply: Reply, question: Question) -> Reply:
        sites = tuple(
            HandleValue(value.index, b"HS_SITE", value.data) for value in reply.values if value.type.upper() in DELEGATE_TYPES
        )
        server = first_tcp(sites)
        return reply if server is None else await self._client.ask(server, question)


def _given(reply: Reply) -> Given:
    return Given(reply.code, encode_values(reply.values), reply.message)


async def run(arguments: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    table = PrefixTable(None if arguments.ttl_cap < 0 else arguments.ttl_cap)
    recursive = Recursive([Server.parse(root) for root in arguments.roots.split(",")], table, arguments.upstream_s)
    ports, sockets = bind(arguments.hosts.split(","), Ports(arguments.udp, arguments.tcp, arguments.http))
    await serve(Standin(recursive.answer, control=Control(table, time.monotonic, arguments.token)), sockets)
    print(json.dumps({"ready": True, "ports": ports.view()}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in recursive node.")
    parser.add_argument("--roots", required=True, help="servers that know prefixes, asked in order, comma between them")
    parser.add_argument("--hosts", default="127.0.0.1,::1")
    for name in ("udp", "tcp", "http"):
        parser.add_argument(f"--{name}", type=int, default=0, help="port, 0: any")
    parser.add_argument("--ttl-cap", type=int, default=-1, help="keep answers at most so many seconds; -1: as their ttl says")
    parser.add_argument("--upstream-s", type=float, default=UPSTREAM_S_MAX, help="patience with one server upstream")
    parser.add_argument("--token", default="", help="bearer token of the control API")
    try:
        settle()
        asyncio.run(run(parser.parse_args()))
    except ZaibeiError as exc:
        sys.exit(f"recursive: {exc.trouble.message}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
