"""The registration port: gRPC with mutual TLS that lets in the registrars of this member's hosted sources, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hosting.tenant.edge_service import RegistrationService
from hosting.tenant.limits import REQUEST_OCTETS_MAX, RESPONSE_OCTETS_MAX
from hosting.tenant.offices import Offices
from hosting.v1 import registration_pb2, registration_pb2_grpc
from replica.model.edge_identity import Identity
from replica.model.errors import Code, ZaibeiError

CALLS_MAX = 4_096
STREAMS_MAX = 1_024  # of one connection
HANDSHAKE_MS_MAX = 5_000
IDLE_MS_MAX = 60_000
KEEPALIVE_MS = 10_000
GRACE_S = 0.5
LOOK_S = 0.5
TELL_S_MAX = 1.0
NAME = registration_pb2.DESCRIPTOR.services_by_name["Registration"].full_name


class RegistrationPort:
    """One gRPC server. `addresses`: as bound, in the order asked for; empty while there is no registrar to let in."""

    def __init__(self, identity: Identity, offices: Offices) -> None:
        self.addresses: tuple[tuple[str, int], ...] = ()
        self.offices = offices
        self._identity, self._offices = identity, offices
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._looking: asyncio.Task[None] | None = None

    async def start(self, listen: Sequence[tuple[str, int]]) -> None:
        """Raises ZaibeiError(INVALID_CONFIG): an address is taken or not ours."""
        pins = self._offices.pins()
        if not listen or not pins.peers:
            return  # nobody is pinned, so nobody could come in
        self._server = server = grpc.aio.server(
            maximum_concurrent_rpcs=CALLS_MAX,
            options=[
                ("grpc.max_receive_message_length", REQUEST_OCTETS_MAX),
                ("grpc.max_send_message_length", RESPONSE_OCTETS_MAX),
                ("grpc.max_concurrent_streams", STREAMS_MAX),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS_MAX),
                ("grpc.max_connection_idle_ms", IDLE_MS_MAX),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 2),
                ("grpc.so_reuseport", 0),  # a second process on the port must fail, not share it
            ],
        )
        registration_pb2_grpc.add_RegistrationServicer_to_server(RegistrationService(self._offices), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        pair = (self._identity.tls_key_pem, self._identity.certificate_pem)
        credentials = grpc.ssl_server_credentials([pair], root_certificates=pins.roots_pem(), require_client_auth=True)
        bound = []
        for host, port in listen:
            text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                bound.append((host, server.add_secure_port(text, credentials)))
            except RuntimeError as exc:
                raise ZaibeiError(Code.INVALID_CONFIG, f"cannot listen for registrations on {text}: {exc}") from exc
        await server.start()
        self.addresses = tuple(bound)
        self._looking = asyncio.create_task(self._look(), name="health of registration")

    async def _look(self) -> None:
        told: bool | None = None
        while True:
            serving = self._offices.serving()
            if serving is not told and await self._tell(serving):
                told = serving
            await asyncio.sleep(LOOK_S)

    async def _tell(self, serving: bool) -> bool:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        try:
            async with asyncio.timeout(TELL_S_MAX):
                for name in ("", NAME):
                    await self._health.set(name, status)
        except TimeoutError:
            return False  # a watcher does not read: told again at the next look
        return True

    async def stop(self) -> None:
        """Who watches hears it; what is not proposed is refused; then the port closes."""
        self._offices.close()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._server is not None:
            with contextlib.suppress(TimeoutError):  # a watcher that does not read keeps nobody here
                async with asyncio.timeout(TELL_S_MAX):
                    await self._health.enter_graceful_shutdown()
            await self._server.stop(GRACE_S)
