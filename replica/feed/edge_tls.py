"""mTLS of the feed: credentials from our identity and trust, and who is on the other side, by certificate alone (promise 13)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import grpc

from replica.feed.limits import KEEPALIVE_MS, MESSAGE_OCTETS_MAX, STREAMS_MAX
from replica.model.edge_identity import Identity
from replica.model.edge_look import look
from replica.model.edge_server_keys import ServerKeys, port_credentials
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identity import TLS_NAME, Peer, Trusts

Context = grpc.aio.ServicerContext[Any, Any]
Options = Sequence[tuple[str, int | str]]

CONNECT_MS_MAX = 5_000
STATUS_S_MAX = 1.0  # until a call that failed has its status
CORE_LOST = "Internal error from Core"  # grpcio's own words: the call was over before it could begin on it, and why is lost
HANDSHAKE_MS_MAX = 5_000
IDLE_MS_MAX = 60_000  # a connection without a stream
STANDING_S = 1.0  # how often a running stream's right to run is looked at
EARLY_S = 3.0  # a stream is opened anew so long before the other side's certificate ends: a renewed one may be there

log = logging.getLogger("zaibei.feed")

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


def server_credentials(identity: Identity, trusts: Trusts) -> grpc.ServerCredentials:
    """Of one port: only pinned certificates and those of our CA are let in; renewed files count from the next connection on."""

    def keys() -> ServerKeys:
        mine = identity.latest()
        return ServerKeys(mine.tls_key_pem, mine.certificate_pem, trusts.roots_pem())

    def failed(exc: ZaibeiError) -> None:
        log.error("the server's certificates stay as they are", extra={"fields": {"why": str(exc)}})

    return port_credentials(keys, failed)


def open_channel(address: str, identity: Identity, peer: Peer) -> grpc.aio.Channel:
    """A channel on which nobody but the holder of this peer's certificate can answer.

    Args:
        address: `host:port`, IPv6 as `[::1]:port`.
    """
    mine = identity.latest()
    credentials = grpc.ssl_channel_credentials(peer.certificate_pem, mine.tls_key_pem, mine.certificate_pem)
    return grpc.aio.secure_channel(address, credentials, options=list(CLIENT_OPTIONS))


async def find_peer(address: str, peer: Peer, trusts: Trusts | None) -> Peer:
    """The peer with the certificate to expect at an address.

    A pinned one is known. Otherwise the certificate shown there is judged by `trusts` and becomes the pin of the channel that
    is opened next: so a revoked one, another role or another name never gets a byte of ours.

    Raises:
        ZaibeiError(NOT_AUTHORISED, UNREACHABLE).
    """
    if peer.certificate_pem:
        if trusts is not None:
            trusts.identify([peer.certificate_pem], time.time())
        return peer
    if trusts is None:
        raise ZaibeiError(
            Code.NOT_AUTHORISED, f"{peer.name!r} is neither pinned nor known by a CA: add its certificate, or [pki]"
        )
    found = trusts.identify(await look(address), time.time())
    if (found.name, found.role) != (peer.name, peer.role):
        raise ZaibeiError(
            Code.NOT_AUTHORISED, f"at {address} answers {found.role} {found.name!r}, not {peer.role} {peer.name!r}: correct one"
        )
    return found


def chain_of(context: Context) -> list[bytes]:
    """What the other side presented: its certificate, then its issuers."""
    about = context.auth_context()
    return [bytes(pem) for part in ("x509_pem_cert", "x509_pem_cert_chain") for pem in about.get(part, [])]


def caller_of(context: Context) -> str:
    """Address of a caller as gRPC knows it, for people: `192.0.2.1:5000`, `[2001:db8::1]:5000`."""
    kind, _, place = context.peer().partition(":")
    return unquote(place) if kind in ("ipv4", "ipv6") else ""


def identify(context: Context, trusts: Trusts) -> Peer:
    """The peer behind a call. Raises ZaibeiError(NOT_AUTHORISED)."""
    return trusts.identify(chain_of(context), time.time())


@asynccontextmanager
async def standing(check: Callable[[], object]) -> AsyncIterator[None]:
    """Runs the block as long as `check` does not raise.

    Raises:
        ZaibeiError: what `check` raised; the block was cancelled.
    """
    why: list[ZaibeiError] = []
    loop = asyncio.get_running_loop()

    async def watch(limit: asyncio.Timeout) -> None:
        while not why:
            await asyncio.sleep(STANDING_S)
            try:
                check()
            except ZaibeiError as exc:
                why.append(exc)
                limit.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as limit:
            watcher = loop.create_task(watch(limit))
            try:
                yield
            finally:
                watcher.cancel()
    except TimeoutError:
        if not why:
            raise
        raise why[0] from None


def caller_stands(context: Context, trusts: Callable[[], Trusts]) -> Callable[[], object]:
    """Whether a running call's certificate is still good: neither revoked nor ended, and its role still let in."""
    chain = chain_of(context)
    return lambda: trusts().identify(chain, time.time())


def callee_stands(peer: Peer, identity: Identity, trusts: Trusts | None) -> Callable[[], None]:
    """Whether a stream of ours may go on: the other side's certificate is good, and ours was not renewed meanwhile."""
    mine = identity.latest()

    def check() -> None:
        if trusts is not None:
            trusts.identify([peer.certificate_pem + peer.issuers_pem], time.time() + EARLY_S)
        if identity.latest().certificate_pem != mine.certificate_pem:
            raise ZaibeiError(Code.UNREACHABLE, "our certificate was renewed: connecting with the new one", retry=True)

    return check


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
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL) and details != CORE_LOST:
        return ZaibeiError(Code.MALFORMED, text)
    if code is grpc.StatusCode.FAILED_PRECONDITION:  # refused as things stand; the text names the code
        return ZaibeiError(Code.CONFLICT, text, retry=True)
    return ZaibeiError(Code.UNREACHABLE, text, definite=False, retry=True)
