"""The outside clients of a drill: one hung lookup hides nothing, each of them is written down once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from chaos.drills.outside import Lane, Lookup, read_history
from chaos.drills.prober import CLIENTS, Client, History, Names, Tail
from chaos.standin.registries import url_of
from hosting.client.lookup import Lookup as Answer
from hosting.client.lookup import Reply, Server
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue

WHOLE_S_MAX = 30.0
NAME = "88.118.1/N-1"
RATE = 400.0


class Site:
    """What clients ask: silent until it is told to answer; what was asked in the silence ends when it is given up."""

    def __init__(self) -> None:
        self.answers, self.hung, self.given_up = False, 0, asyncio.Event()

    async def ask(self, name: str) -> Answer:
        if not self.answers:
            self.hung += 1
            await self.given_up.wait()
            raise ZaibeiError(Code.UNREACHABLE, "nobody answered in time")
        reply = Reply(1, values=(HandleValue(1, b"URL", url_of(name, "v1").encode()),))
        return Answer(name, reply, Server("tcp", "127.0.0.1", 1), 0.1, 0)


def names_of(folder: Path) -> Names:
    (folder / "acks").write_text(json.dumps({"name": NAME, "text": "v1"}) + "\n", "utf-8")
    (folder / "receipts").write_text(json.dumps({"name": NAME, "text": "v1"}) + "\n", "utf-8")
    names = Names(Tail(folder / "acks"), Tail(folder / "receipts"))
    names.follow()
    return names


async def until(reached: Any) -> None:
    async with asyncio.timeout(WHOLE_S_MAX):
        while not reached():  # noqa: ASYNC110 - no event tells how many were asked
            await asyncio.sleep(0.002)


async def test_the_first_answer_is_seen_while_earlier_lookups_still_hang_and_each_of_them_fails_once(tmp_path: Path) -> None:
    site, history, names = Site(), History(tmp_path / "history"), names_of(tmp_path)

    def lookups() -> list[Lookup]:
        history.flush()
        return read_history((tmp_path / "history").read_bytes())[0]

    clients = [
        asyncio.create_task(Client(history, Lane.HEDGED, "a", names, site.ask, place, RATE, "1").ask_for_ever())
        for place in range(CLIENTS)
    ]
    await until(lambda: site.hung >= 3 * CLIENTS)
    assert not lookups(), "all of them hang"
    site.answers = True
    await until(lookups)
    assert all(one.right for one in lookups()), "answered before one of the hung ones has ended"
    hung = site.hung
    site.given_up.set()
    await until(lambda: sum(not one.right for one in lookups()) >= hung)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    assert sum(not one.right for one in lookups()) == hung


async def test_a_fault_of_a_client_ends_the_prober_and_is_not_passed_over(tmp_path: Path) -> None:
    async def broken(_: str) -> Answer:
        raise RuntimeError("a bug of the client")

    client = Client(History(tmp_path / "history"), Lane.PORT, "a", names_of(tmp_path), broken, 0, RATE, "1")
    ended = await asyncio.gather(asyncio.create_task(client.ask_for_ever()), return_exceptions=True)
    assert isinstance(ended[0], ExceptionGroup)
