"""gRPC health and reflection of a front: SERVING follows whether answers can be given."""

# ruff: noqa: SIM117 - a server, and inside it who asks it
from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hosting.answer.port import MemoryAnswerPort
from hosting.front import edge_health
from hosting.front.edge_front import FrontConfig
from replica.model.catalog import Catalog
from replica.model.errors import Code, ZaibeiError
from replica.model.states import Freshness
from tests.unit.front.world import CATALOG, fresh, serving, world

HOSTS = ("127.0.0.1", "::1")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
WAIT_S = 20


class Gone(MemoryAnswerPort):
    """An owner that may be away."""

    away = False

    def catalog(self) -> Catalog:
        if self.away:
            raise ZaibeiError(Code.UNREACHABLE, "the owner is gone", retry=True)
        return super().catalog()


def address_of(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.mark.parametrize("host", HOSTS)
async def test_serving_follows_whether_answers_can_be_given(host: str) -> None:
    port = Gone(CATALOG, {"gd": fresh("gd")}, {})
    expired = replace(fresh("gd"), freshness=Freshness.EXPIRED, age_ms=400_000)
    async with serving(port, host=host, config=FrontConfig(grpc=((host, 0),))) as (_, bound):
        async with grpc.aio.insecure_channel(address_of(host, bound.grpc[0][1])) as channel:
            stub: health_pb2_grpc.HealthAsyncStub = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=edge_health.RESOLVER))
            seen = []
            async with asyncio.timeout(WAIT_S):
                async for status in watch:
                    seen.append(status.status)
                    if seen == [NOT_SERVING, SERVING] or seen == [SERVING]:
                        port.away = True
                    elif seen[-2:] == [SERVING, NOT_SERVING] and port.away:
                        port.away = False
                        port.views["gd"] = expired
                        await asyncio.sleep(2 * edge_health.LOOK_S)
                        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
                        port.views["gd"] = fresh("gd")
                    elif not port.away and status.status == SERVING:
                        break
            assert seen[-3:] == [SERVING, NOT_SERVING, SERVING]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Check(health_pb2.HealthCheckRequest(service="no.such"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            async for status in stub.Watch(health_pb2.HealthCheckRequest(service="no.such")):
                assert status.status == UNKNOWN
                break


async def test_who_watches_hears_the_end() -> None:
    seen = []
    async with serving(world(), config=FrontConfig(grpc=(("127.0.0.1", 0),))) as (front, bound):
        async with grpc.aio.insecure_channel(address_of("127.0.0.1", bound.grpc[0][1])) as channel:
            stub: health_pb2_grpc.HealthAsyncStub = health_pb2_grpc.HealthStub(channel)
            async with asyncio.timeout(WAIT_S):
                async for status in stub.Watch(health_pb2.HealthCheckRequest()):
                    seen.append(status.status)
                    if status.status == SERVING:
                        stopping = asyncio.create_task(front.stop())
                    elif SERVING in seen:
                        break
                await stopping
    assert seen[-2:] == [SERVING, NOT_SERVING]


async def test_reflection_lists_what_is_there() -> None:
    async with serving(world(), config=FrontConfig(grpc=(("127.0.0.1", 0),))) as (_, bound):
        async with grpc.aio.insecure_channel(address_of("127.0.0.1", bound.grpc[0][1])) as channel:
            stub: reflection_pb2_grpc.ServerReflectionAsyncStub = reflection_pb2_grpc.ServerReflectionStub(channel)
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            call = stub.ServerReflectionInfo(iter([question]))
            async for answer in call:
                names = {service.name for service in answer.list_services_response.service}
                assert {edge_health.RESOLVER, "grpc.health.v1.Health"} < names


async def test_streams_that_stay_open_have_their_own_small_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_health, "WATCHERS_MAX", 2)
    monkeypatch.setattr(edge_health, "REFLECTIONS_MAX", 1)
    async with serving(world(), config=FrontConfig(grpc=(("127.0.0.1", 0),))) as (_, bound):
        async with grpc.aio.insecure_channel(address_of("127.0.0.1", bound.grpc[0][1])) as channel:
            health: health_pb2_grpc.HealthAsyncStub = health_pb2_grpc.HealthStub(channel)
            watching = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
            for call in watching:
                await call.read()
            third = health.Watch(health_pb2.HealthCheckRequest())
            assert await third.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            watching[0].cancel()
            async with asyncio.timeout(WAIT_S):
                while True:  # the server hears of the cancellation a moment later
                    again = health.Watch(health_pb2.HealthCheckRequest())
                    if await again.read() is not grpc.aio.EOF:
                        break
            asking: reflection_pb2_grpc.ServerReflectionAsyncStub = reflection_pb2_grpc.ServerReflectionStub(channel)
            first = asking.ServerReflectionInfo()
            await first.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            await first.read()
            second = asking.ServerReflectionInfo()
            assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            first.cancel()
