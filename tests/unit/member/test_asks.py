"""Questions on one kept connection: one that fails ends no task, and no question that was asked on a later connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from replica.consensus.link_port import Answerer, LinkKeys, Place
from replica.member import edge_peers
from replica.member.edge_asks import ask
from replica.member.edge_peers import Peers
from replica.model.errors import Code, ZaibeiError
from replica.v1 import peer_pb2, peer_pb2_grpc

FAILS, HANGS, HANGS_ON, ANSWERED = 1, 2, 3, 4


class Trust:
    """Whoever answers is believed."""

    async def answerer(self, _member: int, _address: str) -> Answerer:
        return Answerer(b"certificate")

    def credentials(self) -> LinkKeys:
        return LinkKeys(b"", b"", b"")


class Other(peer_pb2_grpc.MemberCallsServicer):
    """Another member: what it does with a question is the question's group."""

    def __init__(self) -> None:
        self.came = {FAILS: asyncio.Event(), HANGS: asyncio.Event(), HANGS_ON: asyncio.Event()}
        self.goes_on = {FAILS: asyncio.Event(), HANGS: asyncio.Event(), HANGS_ON: asyncio.Event()}

    async def Ask(self, request: peer_pb2.MemberQuestion, context: Any) -> peer_pb2.MemberAnswer:
        if request.group in self.came:
            self.came[request.group].set()
            await self.goes_on[request.group].wait()
        if request.group in (FAILS, HANGS):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return peer_pb2.MemberAnswer(index=request.group)


@asynccontextmanager
async def talking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Other, Peers]]:
    server, other, trust = grpc.aio.server(), Other(), Trust()
    peer_pb2_grpc.add_MemberCallsServicer_to_server(other, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setattr(edge_peers, "open_channel", lambda address, *_: grpc.aio.insecure_channel(address))
    peers = Peers(trust, lambda: {2: Place((f"127.0.0.1:{port}",))})  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(30):
            yield other, peers
    finally:
        await peers.close()
        await server.stop(0)


def asked(peers: Peers, what: int) -> asyncio.Task[peer_pb2.MemberAnswer]:
    return asyncio.create_task(ask(peers, 2, peer_pb2.MemberQuestion(group=what), 20.0))


async def test_a_failed_question_does_not_cancel_who_asked_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that ended as if cancelled is told to nobody: a member would fetch no loaded content any more."""
    async with talking(monkeypatch) as (other, peers):
        failing, hanging = asked(peers, FAILS), asked(peers, HANGS)
        await asyncio.gather(other.came[FAILS].wait(), other.came[HANGS].wait())
        other.goes_on[FAILS].set()
        await asyncio.wait([failing, hanging])
        assert not hanging.cancelled()
        for task in (failing, hanging):
            trouble = task.exception()
            assert isinstance(trouble, ZaibeiError)
            assert (trouble.code, trouble.trouble.definite, trouble.trouble.retry) == (Code.UNKNOWN, False, True)


async def test_who_is_cancelled_while_asking_ends_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(monkeypatch) as (other, peers):
        hanging = asked(peers, HANGS)
        await other.came[HANGS].wait()
        hanging.cancel()
        await asyncio.wait([hanging])
        assert hanging.cancelled()


async def test_what_failed_on_an_earlier_connection_leaves_the_next_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(monkeypatch) as (other, peers):
        late = await peers.kept(2)
        del peers._kept[2]  # as if dropped already, by a question that failed before
        hanging = asked(peers, HANGS_ON)
        await other.came[HANGS_ON].wait()
        await peers.drop(2, late)
        other.goes_on[HANGS_ON].set()
        assert (await hanging).index == HANGS_ON
        assert (await asked(peers, ANSWERED)).index == ANSWERED
        await late.close()


async def test_a_question_on_a_closed_connection_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two connected at once, the one that is kept was dropped meanwhile: gRPC says that in an error of its own kind."""
    async with talking(monkeypatch) as (_, peers):
        await (await peers.kept(2)).close()
        with pytest.raises(ZaibeiError, match="closed on our side"):
            await asked(peers, ANSWERED)
