"""Many messages of one read: whatever is answered at once, the stack does not grow with their number."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hosting.front import service as service_module
from hosting.front.connections import Connections, StreamLimits
from hosting.front.edge_tcp import TcpConnection
from hosting.front.service import FrontService
from replica.model.handle.codes import OpCode
from replica.model.handle.stream import Deframer
from tests.unit.front.world import NAME, code_of, operation, request_id_of, resolution, world

MANY = 1_500


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.octets = bytearray()

    def write(self, data: bytes) -> None:
        self.octets += data

    def get_extra_info(self, _name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        return

    resume_reading = close = abort = pause_reading

    def answers(self) -> list[bytes]:
        return Deframer().feed(bytes(self.octets))


def connected(service: FrontService) -> tuple[TcpConnection, Wire]:
    connection, wire = TcpConnection(service, Connections(StreamLimits())), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    return connection, wire


async def test_what_one_peer_sends_at_once_loses_nobody_elses_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own questions fill its places; the rest of its messages is taken in the turn in which all answers are given."""
    monkeypatch.setattr(service_module, "VIEW_CALLS_MAX", 0)  # as while others' are under way: the next are answered at once
    service = FrontService(world())
    greedy, greedy_wire = connected(service)
    others = [connected(service) for _ in range(20)]
    questions = b"".join(resolution(NAME, request_id=number) for number in range(greedy.connections.limits.in_flight_max))
    greedy.data_received(questions + b"".join(operation(OpCode.GET_SITE_INFO, request_id=number) for number in range(MANY)))
    for other, _ in others:
        other.data_received(resolution(NAME, request_id=7))
    await asyncio.sleep(0.05)
    for _, wire in others:
        assert [(request_id_of(one), code_of(one)) for one in wire.answers()] == [(7, 1)]
    assert len(greedy_wire.answers()) == greedy.connections.limits.in_flight_max + MANY
    service.close()


async def test_many_that_are_answered_at_once_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "VIEW_CALLS_MAX", 0)
    service = FrontService(world())
    connection, wire = connected(service)
    connection.data_received(b"".join(operation(OpCode.GET_SITE_INFO, request_id=number) for number in range(MANY)))
    assert sorted(map(request_id_of, wire.answers())) == list(range(MANY))
    service.close()
