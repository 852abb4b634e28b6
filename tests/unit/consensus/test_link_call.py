"""A call that hangs, without a network: finding out who answers takes for ever."""

from __future__ import annotations

import asyncio
from random import Random

from prometheus_client import CollectorRegistry

from replica.consensus.edge_link_call import MemberCall, Phase
from replica.consensus.edge_link_metrics import LinkMetrics
from replica.consensus.link_book import LinkBook
from replica.consensus.link_port import Answerer, LinkKeys, LinkLimits, Place
from replica.v1 import peer_pb2
from tests.unit.consensus.link_world import Heard, until

HASTY = LinkLimits(hello_ms_max=10, hello_ms_slow=60_000, backoff_ms_max=20)


class Hanging:
    """A trust whose first question is never answered; counts the questions."""

    def __init__(self) -> None:
        self.asked = 0

    async def answerer(self, _member: int, _address: str) -> Answerer:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError("nobody answers")

    def member_of(self, _chain_pem: object) -> tuple[int, str]:
        raise AssertionError("nobody answers")

    def credentials(self) -> LinkKeys:
        raise AssertionError("nobody answers")


async def test_a_call_that_is_being_given_up_may_be_poked_again() -> None:
    """Several connections of one member, started again, may reach us in the very turn of the loop in which its call runs out."""
    trust = Hanging()

    def own() -> peer_pb2.Hello:
        return peer_pb2.Hello(member=1)

    call = MemberCall(
        2,
        Place(("[::1]:1",)),
        LinkBook(own, Heard(), LinkMetrics(CollectorRegistry())),
        trust,
        own,
        HASTY,
        Random(1),
    )
    runs = asyncio.create_task(call.run())
    try:
        await until(lambda: trust.asked == 8)  # by now it may take 10 ms << 7 = 1.28 s
        await asyncio.sleep(2 * HASTY.hello_ms_max / 1_000)
        assert call.phase is Phase.CALLING
        call.poke()
        await asyncio.sleep(0)  # its time is over: the loop has the cancellation in hand
        call.poke()
        await until(lambda: trust.asked == 9)
    finally:
        runs.cancel()
        await asyncio.gather(runs, return_exceptions=True)
    assert runs.cancelled()
