"""A mere sink for registrations: `python -m chaos.standin.edge_sink CONFIG.json`. It refuses all, a second later.

Config (JSON): port (of loopback), identity (folder; made here), callers (PEM, certificate of who may call).
So a noise that goes to it makes the machine as busy as one that a member refuses, and no member does anything of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc

from hosting.tenant.limits import REQUEST_OCTETS_MAX
from hosting.v1 import registration_pb2
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code

NAME: Final = "sink"
HELD_S: Final = 1.0
SERVICE: Final = registration_pb2.DESCRIPTOR.services_by_name["Registration"].full_name


async def put_many(
    request_iterator: AsyncIterator[registration_pb2.PutManyRequest], context: Any
) -> AsyncIterator[registration_pb2.PutManyResponse]:
    """Every change is read, and refused HELD_S later, as one over a quota is."""
    refusal = registration_pb2.Refusal(code=Code.OVER_QUOTA.value, message="a sink", definite=True)
    async for request in request_iterator:
        await asyncio.sleep(HELD_S)
        results = [registration_pb2.Result(number=one.number, refusal=refusal) for one in request.changes]
        yield registration_pb2.PutManyResponse(results=results)


async def served(port: int, identity: Identity, callers: bytes) -> grpc.aio.Server:
    """The sink at a port of loopback, for these callers."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", REQUEST_OCTETS_MAX)])
    method = grpc.stream_stream_rpc_method_handler(
        put_many, registration_pb2.PutManyRequest.FromString, registration_pb2.PutManyResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"PutMany": method}),))
    keys = [(identity.tls_key_pem, identity.certificate_pem)]
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials(keys, callers, require_client_auth=True))
    await server.start()
    return server


async def main(config: dict[str, Any]) -> None:
    """Until the input ends."""
    identity = ensure_identity(Path(config["identity"]), NAME)
    server = await served(config["port"], identity, config["callers"].encode())
    print(json.dumps({"ready": True}), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        pass
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
