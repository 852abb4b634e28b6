"""TLS keys of a server's port, renewed while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from replica.model.errors import ZaibeiError


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """key_pem is secret. roots_pem: who may call; None: clients show nothing."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    roots_pem: bytes | None = None


def port_credentials(keys: Callable[[], ServerKeys], failed: Callable[[ZaibeiError], None]) -> grpc.ServerCredentials:
    """Credentials of one port; each port needs its own, else a renewed certificate would be taken into use at one alone.

    gRPC asks at each connection, and what it is given replaces its own without a lock: two connections in one moment then end the
    process (seen: "sync.cc: Check failed: prior > 0"). So it is given something only when something changed.

    Args:
        keys: as they are now; called on threads of gRPC.
        failed: they could not be read, and stay as they were.
    """
    first = keys()
    fetch: Any = renewal(first, keys, failed)  # None is no change, as its text says and its types do not
    required = first.roots_pem is not None
    return grpc.dynamic_ssl_server_credentials(_configuration(first), fetch, require_client_authentication=required)


def renewal(
    first: ServerKeys, keys: Callable[[], ServerKeys], failed: Callable[[ZaibeiError], None]
) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """What gRPC asks for at each connection: a configuration that is new since it was asked before, else None."""
    used = first

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        try:
            now = keys()
        except ZaibeiError as exc:
            failed(exc)
            return None
        if now == used:
            return None
        used = now
        return _configuration(now)

    return renewed


def _configuration(keys: ServerKeys) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(keys.key_pem, keys.certificate_pem)], root_certificates=keys.roots_pem)
