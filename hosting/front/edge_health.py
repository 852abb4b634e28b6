"""Health and reflection on the resolver's port: SERVING follows whether answers can be given, not whether the process runs.

Anybody may ask, so each kind of stream that stays open has its own small number: it cannot take the resolver's places.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from hosting.answer.standing import FOUND, standing_of
from hosting.front.service import FrontService
from hosting.v1 import resolve_pb2
from replica.model.errors import ZaibeiError

RESOLVER: Final = resolve_pb2.DESCRIPTOR.services_by_name["Resolver"].full_name
NAMES: Final = ("", RESOLVER)
LOOK_S: Final = 0.5
LOOK_S_MAX: Final = 2.0
WATCHERS_MAX: Final = 16
REFLECTIONS_MAX: Final = 8
REFLECTION_S_MAX: Final = 30.0

Context = grpc.aio.ServicerContext[Any, Any]


async def can_answer(service: FrontService) -> bool:
    """True when the owner of the stores is there, and some source may be answered from (or there are none)."""
    try:
        async with asyncio.timeout(LOOK_S_MAX):
            sources = {owner.source for _, owner in service.port.catalog().owners.items()}
            found = await service.port.get_many(dict.fromkeys(sources, ()))
    except (ZaibeiError, TimeoutError):
        return False
    return not sources or any(standing_of(view).row.found == FOUND for _, view in found.values())


class FrontHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """grpc.health.v1.Health of a front; `run` keeps it true."""

    def __init__(self, service: FrontService) -> None:
        self._service = service
        self._serving = False
        self._changed = asyncio.Event()  # a new one at each change
        self._watchers = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.tell(await can_answer(self._service))
            await asyncio.sleep(LOOK_S)

    def tell(self, serving: bool) -> None:
        """What holds from now on."""
        if serving != self._serving:
            self._serving = serving
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _status(self, name: str) -> HealthCheckResponse:
        if name not in NAMES:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        return HealthCheckResponse(status=HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING)

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if request.service not in NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"services here: {', '.join(NAMES[1:])}")
        return self._status(request.service)

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        if self._watchers >= WATCHERS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{WATCHERS_MAX} watch already: use Check")
        self._watchers += 1
        try:
            while True:
                changed = self._changed
                yield self._status(request.service)
                await changed.wait()
        finally:
            self._watchers -= 1


class Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]
    """The library's, for few at a time and not for ever."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._open = 0

    async def ServerReflectionInfo(self, request_iterator: Any, context: Context) -> AsyncIterator[Any]:
        if self._open >= REFLECTIONS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{REFLECTIONS_MAX} ask already")
        self._open += 1
        try:
            async for answer in super().ServerReflectionInfo(_for_a_while(request_iterator), context):
                yield answer
        finally:
            self._open -= 1


async def _for_a_while(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    end_s = asyncio.get_running_loop().time() + REFLECTION_S_MAX
    while True:
        try:
            async with asyncio.timeout_at(end_s):
                request = await anext(requests)
        except (StopAsyncIteration, TimeoutError):
            return
        yield request


def add_health(server: grpc.aio.Server, service: FrontService) -> FrontHealth:
    """Put health and reflection on a front's server, before it starts."""
    made = FrontHealth(service)
    health_pb2_grpc.add_HealthServicer_to_server(made, server)
    names = (RESOLVER, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(Reflection(names), server)
    return made
