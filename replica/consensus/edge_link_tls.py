"""mTLS and gRPC settings of the links between members: who may call us, and a channel on which one member alone can answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import grpc

from replica.consensus.link_port import GRPC_OCTETS_MAX, Answerer, LinkKeys, MemberTrust, Reason, Refused
from replica.model.edge_server_keys import ServerKeys, port_credentials
from replica.model.errors import ZaibeiError
from replica.model.identity import TLS_NAME
from replica.v1 import peer_pb2

LOGGER = logging.getLogger("zaibei.consensus.link")

Context = grpc.aio.ServicerContext[Any, Any]
Call = grpc.aio.StreamStreamCall[Any, Any]
Options = Sequence[tuple[str, int | str]]

SERVICE = peer_pb2.DESCRIPTOR.services_by_name["Members"]
METHOD = SERVICE.methods_by_name["Link"].name
LINK_PATH = f"/{SERVICE.full_name}/{METHOD}"
CONNECT_MS_MAX = 1_000
HANDSHAKE_MS_MAX = 5_000
IDLE_MS_MAX = 60_000  # a connection without a call
STREAMS_MAX = 64  # of one connection

# A link lives as long as its beats are answered, so gRPC's own keepalive is off. Windows are fixed: they bound what lies in
# memory for a member that does not read, and a long line is filled from its first message on.
COMMON_OPTIONS: Options = (
    ("grpc.max_receive_message_length", GRPC_OCTETS_MAX),
    ("grpc.max_send_message_length", GRPC_OCTETS_MAX),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", GRPC_OCTETS_MAX),
)
SERVER_OPTIONS: Options = (
    *COMMON_OPTIONS,
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS_MAX),  # strangers hold a connection no longer
    ("grpc.max_connection_idle_ms", IDLE_MS_MAX),
    ("grpc.so_reuseport", 0),  # a second process on the port must fail, not share it
)
CLIENT_OPTIONS: Options = (
    *COMMON_OPTIONS,
    ("grpc.ssl_target_name_override", TLS_NAME),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),  # a new call after a fault begins on a new connection
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS_MAX),  # how long one attempt to connect may take
)

STATUS = {
    Reason.CERTIFICATE: grpc.StatusCode.PERMISSION_DENIED,
    Reason.MEMBER: grpc.StatusCode.PERMISSION_DENIED,
    Reason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.OVERSIZED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.SILENT: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def server_credentials(trust: MemberTrust) -> grpc.ServerCredentials:
    """Of one port: only what the trust roots in is let in at all; read again at each handshake, so that members come and go."""

    def keys() -> ServerKeys:
        mine = trust.credentials()
        return ServerKeys(mine.key_pem, mine.certificate_pem, mine.roots_pem)

    def failed(exc: ZaibeiError) -> None:
        LOGGER.error("the server's certificates stay as they are", extra={"fields": {"why": str(exc)}})

    return port_credentials(keys, failed)


def open_channel(address: str, keys: LinkKeys, answerer: Answerer) -> grpc.aio.Channel:
    """A channel on which nobody but this answerer can answer.

    Args:
        address: `host:port`, IPv6 as `[::1]:port`.
    """
    credentials = grpc.ssl_channel_credentials(answerer.certificate_pem, keys.key_pem, keys.certificate_pem)
    return grpc.aio.secure_channel(address, credentials, options=list(CLIENT_OPTIONS))


def chain_of(context: Context) -> tuple[bytes, ...]:
    """Certificates that the calling side presented, its own first."""
    about = context.auth_context()
    return tuple(bytes(pem) for part in ("x509_pem_cert", "x509_pem_cert_chain") for pem in about.get(part, []))


def status_of(refused: Refused) -> grpc.StatusCode:
    """gRPC status for a refusal; the reason travels in the details too."""
    return STATUS.get(refused.reason, grpc.StatusCode.FAILED_PRECONDITION)
