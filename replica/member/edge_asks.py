"""Questions between members: what only a group's leader, or only that very member, can do. One call, one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from replica.consensus.edge_link_tls import chain_of
from replica.consensus.link_port import MemberTrust
from replica.member.edge_peers import Peers
from replica.model.edge_calls import channel_closed
from replica.model.errors import Code, ZaibeiError
from replica.v1 import peer_pb2, peer_pb2_grpc

ANSWER_S_MORE = 1.0  # the call waits so much longer than the answerer may

Answerer = Callable[[int, peer_pb2.MemberQuestion], Awaitable[peer_pb2.MemberAnswer]]


class AskService(peer_pb2_grpc.MemberCallsServicer):
    """Takes questions of members.

    Args:
        answer: (number of the asker, question); ZaibeiErrors it raises travel in the answer.
    """

    def __init__(self, trust: MemberTrust, answer: Answerer) -> None:
        self._trust, self._answer = trust, answer

    def add_to(self, server: grpc.aio.Server) -> None:
        peer_pb2_grpc.add_MemberCallsServicer_to_server(self, server)

    async def Ask(self, request: peer_pb2.MemberQuestion, context: Any) -> peer_pb2.MemberAnswer:
        """See the proto."""
        try:
            member, _ = self._trust.member_of(chain_of(context))
        except ZaibeiError as exc:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, exc.trouble.message)
        try:
            return await self._answer(member, request)
        except ZaibeiError as exc:
            trouble = exc.trouble
            return peer_pb2.MemberAnswer(
                code=trouble.code.value, message=trouble.message, definite=trouble.definite, retry=trouble.retry
            )


async def ask(peers: Peers, member: int, question: peer_pb2.MemberQuestion, limit_s: float) -> peer_pb2.MemberAnswer:
    """Ask a member.

    Raises:
        ZaibeiError: as it answered; UNREACHABLE (it was not asked), UNKNOWN (asked, and no answer came).
    """
    question.limit_ms = int(limit_s * 1_000)
    channel = await peers.kept(member)
    stub: peer_pb2_grpc.MemberCallsAsyncStub = peer_pb2_grpc.MemberCallsStub(channel)
    try:
        answer = await stub.Ask(question, timeout=limit_s + ANSWER_S_MORE)
    except (grpc.aio.UsageError, asyncio.CancelledError) as exc:
        raise channel_closed(f"member {member} did not answer", Code.UNKNOWN) from exc  # another question on it failed
    except grpc.RpcError as exc:
        await peers.drop(member, channel)
        refused = isinstance(exc, grpc.aio.AioRpcError) and exc.code() is grpc.StatusCode.PERMISSION_DENIED
        code = Code.NOT_AUTHORISED if refused else Code.UNKNOWN
        details = exc.details() if isinstance(exc, grpc.aio.AioRpcError) else exc
        raise ZaibeiError(code, f"member {member} did not answer: {details}", definite=refused, retry=not refused) from exc
    if answer.code:
        try:
            code = Code(answer.code)
        except ValueError:
            code = Code.UNKNOWN
        raise ZaibeiError(code, answer.message, definite=answer.definite, retry=answer.retry)
    return answer
