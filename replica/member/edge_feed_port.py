"""The feed's port: what sources push to and read back from, with health by service; pinned peers alone come in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from replica.feed.edge_push_server import PushService, add_feed_services
from replica.feed.edge_source_server import SourceService
from replica.feed.edge_tls import SERVER_OPTIONS, server_credentials
from replica.member.settings import Address
from replica.model.edge_identity import Identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Trusts
from replica.v1 import feed_pb2, source_pb2

SERVER_GRACE_S = 0.5
TELL_S_MAX = 1.0
PUSHES = feed_pb2.DESCRIPTOR.services_by_name["ChangeFeed"].full_name
READS = source_pb2.DESCRIPTOR.services_by_name["RegistrySource"].full_name


class FeedPort:
    """One gRPC server. `addresses`: as bound, in the order asked for."""

    def __init__(self, identity: Identity, trusts: Trusts, push: PushService, source: SourceService) -> None:
        self.addresses: tuple[Address, ...] = ()
        self._identity, self._trusts = identity, trusts
        self._server = grpc.aio.server(options=list(SERVER_OPTIONS))
        names = add_feed_services(self._server, push, source)
        self._health = health.aio.HealthServicer()
        self._told: dict[str, bool] = {}
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, listen: Sequence[Address]) -> None:
        """Raises ZaibeiError(INVALID_CONFIG): an address is taken or not ours."""
        bound = []
        for host, port in listen:
            text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                bound.append((host, self._server.add_secure_port(text, server_credentials(self._identity, self._trusts))))
            except RuntimeError as exc:
                raise ZaibeiError(Code.INVALID_CONFIG, f"cannot listen for feeds on {text}: {exc}") from exc
        await self._server.start()
        self.addresses = tuple(bound)

    async def tell(self, *, takes: bool, reads: bool) -> None:
        """What each service can do now; the whole port serves while one of them does."""
        now: Mapping[str, bool] = {PUSHES: takes, READS: reads, "": takes or reads}
        for name, serving in now.items():
            if self._told.get(name) is serving:
                continue
            status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
            try:
                async with asyncio.timeout(TELL_S_MAX):
                    await self._health.set(name, status)
            except TimeoutError:
                continue  # a watcher does not read: told again at the next look
            self._told[name] = serving

    async def stop(self) -> None:
        """Who watches hears it, then the port closes."""
        with contextlib.suppress(TimeoutError):  # a watcher that does not read keeps nobody here
            async with asyncio.timeout(TELL_S_MAX):
                await self._health.enter_graceful_shutdown()
        await self._server.stop(SERVER_GRACE_S)
