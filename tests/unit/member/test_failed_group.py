"""A group out of service: whoever asks is told why, however often, and nothing of the question is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from replica.member.group_port import GroupPort
from replica.member.hosted import HostedPort
from replica.model.errors import Code, ZaibeiError
from replica.v1 import entry_pb2
from tests.unit.consensus.test_group import Rig

ENTRY = entry_pb2.Entry(format=1, no_op=entry_pb2.NoOp())
NOTHING: Any = SimpleNamespace(name="g", source="g")  # a store, and settings: they are not looked at


async def _propose(rig: Rig) -> None:
    rig.group.propose(ENTRY)


async def _barrier(rig: Rig) -> None:
    await rig.group.barrier(5)


async def _feed(rig: Rig) -> None:
    GroupPort(rig.group, NOTHING).propose(ENTRY)


async def _register(rig: Rig) -> None:
    HostedPort(rig.group, NOTHING, NOTHING, lambda _key: None).propose(ENTRY)


async def _read(rig: Rig) -> None:
    await HostedPort(rig.group, NOTHING, NOTHING, lambda _key: None).wait()


@pytest.mark.parametrize("asks", [_propose, _barrier, _feed, _register, _read])
async def test_a_group_out_of_service_keeps_nothing_of_those_who_ask(asks: Callable[[Rig], Awaitable[None]]) -> None:
    """Sources and clients come again and again: with the error they were told, their requests would stay in memory."""
    rig = Rig()
    await rig.started()
    rig.group._out_of_service(ZaibeiError(Code.DAMAGED, "planted"))
    for _ in range(3):
        with pytest.raises(ZaibeiError, match="planted") as caught:
            await asks(rig)
        assert caught.value.code is Code.DAMAGED
    assert rig.group.failure is not None and rig.group.failure.__traceback__ is None
