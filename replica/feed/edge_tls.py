"""mTLS of the feed: credentials from our identity and pins, and who is on the other side, by certificate alone (promise 13)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from replica.feed.limits import KEEPALIVE_MS, MESSAGE_OCTETS_MAX, STREAMS_MAX
from replica.model.edge_identity import Identity
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identity import TLS_NAME, Peer, Pins

Context = grpc.aio.ServicerContext[Any, Any]
Options = Sequence[tuple[str, int | str]]

CONNECT_MS_MAX = 5_000
STATUS_S_MAX = 1.0  # until a call that failed has its status
HANDSHAKE_MS_MAX = 5_000
IDLE_MS_MAX = 60_000  # a connection without a stream

COMMON_OPTIONS: Options = (
    ("grpc.max_receive_message_length", MESSAGE_OCTETS_MAX),
    ("grpc.max_send_message_length", MESSAGE_OCTETS_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 2),
    ("grpc.keepalive_permit_without_calls", 1),
)
SERVER_OPTIONS: Options = (
    *COMMON_OPTIONS,
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS_MAX),  # strangers hold a connection no longer
    ("grpc.max_connection_idle_ms", IDLE_MS_MAX),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.so_reuseport", 0),  # a second process on the port must fail, not share it
)
CLIENT_OPTIONS: Options = (
    *COMMON_OPTIONS,
    ("grpc.ssl_target_name_override", TLS_NAME),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS_MAX),  # how long one attempt to connect may take
    ("grpc.use_local_subchannel_pool", 1),  # a new stream after a fault begins on a new connection
)

_STATUS = {
    Code.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.WRONG_SOURCE: grpc.StatusCode.PERMISSION_DENIED,
    Code.NOT_AUTHORISED: grpc.StatusCode.PERMISSION_DENIED,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.NO_CREDIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Code.STOPPING: grpc.StatusCode.UNAVAILABLE,
}


def server_credentials(identity: Identity, pins: Pins) -> grpc.ServerCredentials:
    """Only pinned certificates are let in at all."""
    pair = (identity.tls_key_pem, identity.certificate_pem)
    return grpc.ssl_server_credentials([pair], root_certificates=pins.roots_pem(), require_client_auth=True)


def open_channel(address: str, identity: Identity, peer: Peer) -> grpc.aio.Channel:
    """A channel on which nobody but this peer can answer.

    Args:
        address: `host:port`, IPv6 as `[::1]:port`.
    """
    credentials = grpc.ssl_channel_credentials(peer.certificate_pem, identity.tls_key_pem, identity.certificate_pem)
    return grpc.aio.secure_channel(address, credentials, options=list(CLIENT_OPTIONS))


def identify(context: Context, pins: Pins) -> Peer:
    """The pinned peer behind a call.

    Raises:
        ZaibeiError(NOT_AUTHORISED): its certificate is not pinned (a pin may be a CA's later; the check stays).
    """
    certificates = list(context.auth_context().get("x509_pem_cert", []))
    peer = pins.by_certificate(bytes(certificates[0])) if certificates else None
    if peer is None:
        raise ZaibeiError(Code.NOT_AUTHORISED, "this certificate is not pinned here: add its fingerprint to the configuration")
    return peer


def status_of(trouble: Trouble) -> grpc.StatusCode:
    """gRPC status for a trouble that ends a call; the code travels in the details too."""
    return _STATUS.get(trouble.code, grpc.StatusCode.FAILED_PRECONDITION)


def translate(exc: grpc.RpcError, whom: str) -> ZaibeiError:
    """A failed call as our error, once."""
    if isinstance(exc, grpc.aio.AioRpcError):
        return refusal(exc.code(), exc.details() or "", whom)
    return refusal(grpc.StatusCode.UNKNOWN, str(exc), whom)


async def end_of(call: grpc.aio.StreamStreamCall[Any, Any], whom: str) -> ZaibeiError:
    """Why a stream can be written or read no more: the status it ended with; what a failed write says is none."""
    try:
        async with asyncio.timeout(STATUS_S_MAX):
            code, details = await call.code(), await call.details()
    except TimeoutError:
        code, details = grpc.StatusCode.UNKNOWN, "the stream broke"
    return refusal(code, details or "the stream is over", whom)


def refusal(code: grpc.StatusCode, details: str, whom: str) -> ZaibeiError:
    """A call's final status as our error."""
    text = f"{whom}: {code.name.lower()}: {details[:300]}"
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return ZaibeiError(Code.NOT_AUTHORISED, text)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ZaibeiError(Code.NOT_FOUND, text)
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL):
        return ZaibeiError(Code.MALFORMED, text)
    if code is grpc.StatusCode.FAILED_PRECONDITION:  # refused as things stand; the text names the code
        return ZaibeiError(Code.CONFLICT, text, retry=True)
    return ZaibeiError(Code.UNREACHABLE, text, definite=False, retry=True)
