"""Who answers at an address: its certificate chain out of a TLS handshake, before a byte of ours is said."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from replica.model.errors import Code, ZaibeiError
from replica.model.identity import CHAIN_CERTIFICATES_MAX, TLS_NAME

LOOK_S_MAX = 5.0
ENCODING_PEM = 1  # of the ssl module's own certificate objects


async def look(address: str) -> list[bytes]:
    """The chain shown at an address, the leaf first, one PEM each. Nothing is judged here, and nothing is sent.

    The holder of the first certificate has proved in this handshake to have its key. Who goes on talking must pin it.

    Args:
        address: `host:port`, IPv6 as `[::1]:port`.
    Raises:
        ZaibeiError(UNREACHABLE): nobody answers there, or not in TLS.
    """
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(LOOK_S_MAX):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=_context(), server_hostname=TLS_NAME)
    except (OSError, ValueError, TimeoutError) as exc:
        raise ZaibeiError(Code.UNREACHABLE, f"{address}: no TLS handshake: {exc or 'no answer in time'}", retry=True) from exc
    try:
        shown: Any = writer.get_extra_info("ssl_object")
        return _chain(shown)
    finally:
        writer.transport.abort()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # earlier ones want our certificate before they show all of theirs
    context.check_hostname = False  # the caller judges the chain by its own rules
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _chain(shown: Any) -> list[bytes]:
    """Python 3.13 has a method for it; before, the object below has."""
    if hasattr(shown, "get_unverified_chain"):
        return [ssl.DER_cert_to_PEM_cert(der).encode() for der in shown.get_unverified_chain()[:CHAIN_CERTIFICATES_MAX]]
    inner: Any = getattr(shown, "_sslobj", None)
    if hasattr(inner, "get_unverified_chain"):
        return [one.public_bytes(ENCODING_PEM).encode() for one in inner.get_unverified_chain()[:CHAIN_CERTIFICATES_MAX]]
    return [ssl.DER_cert_to_PEM_cert(shown.getpeercert(True)).encode()]
