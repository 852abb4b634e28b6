"""TLS of the HTTP port: octets of a connection decrypted before HTTP reads them, keys read anew when their files change.

A connection counts from its first octet on, so half-made handshakes fill the same limits as slow requests. Each connection has
the keys and the clients' roots that the files held when it came; a client's certificate is asked for only where roots are named.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from hosting.front.connections import Connections
from hosting.front.edge_http import HttpConnection
from hosting.front.service import FrontService

LOOK_S = 1.0  # how often the files are looked at
READ_OCTETS = 65_536
log = logging.getLogger("zaibei.front")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. `clients`: roots of clients' certificates, or these themselves; None: clients show nothing."""

    certificate: str
    key: str
    clients: str | None = None


class TlsKeys:
    """The context of the next connection. One event loop.

    Raises:
        OSError: the files cannot be used as they are now. Later on that is logged, and what was there stays in use.
    """

    def __init__(self, files: TlsFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files, self._clock = files, clock
        self._looked_s = clock()
        try:
            self._mark, self._held = _mark(files), context_of(files)
        except OSError as exc:
            raise OSError(exc.errno, f"the files of HTTPS cannot be used: {files.certificate}, {files.key}: {exc}") from exc

    def current(self) -> ssl.SSLContext:
        now_s = self._clock()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            try:
                mark = _mark(self._files)
                if mark != self._mark:
                    self._held = context_of(self._files)
                    self._mark = mark
                    log.info("new keys of the HTTPS port are in use", extra={"fields": {"certificate": self._files.certificate}})
            except OSError as exc:  # half-written, or gone: looked at again
                log.error("new keys of the HTTPS port are not used", extra={"fields": {"why": str(exc)}})
        return self._held


def context_of(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 and later. Raises OSError (ssl.SSLError is one)."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.num_tickets = 0  # whoever comes again shows its certificate again
    made.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    made.load_cert_chain(files.certificate, files.key)
    if files.clients is not None:
        made.load_verify_locations(files.clients)
        made.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # a certificate in the file is enough by itself
        made.verify_mode = ssl.CERT_OPTIONAL
    return made


def _mark(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    paths = [files.certificate, files.key, *([files.clients] if files.clients is not None else [])]
    return tuple((about.st_mtime_ns, about.st_size, about.st_ino) for about in map(os.stat, paths))


class TlsConnection(asyncio.Protocol):
    """One peer: decrypts for an HTTP connection, which writes through a `TlsTransport`."""

    def __init__(self, context: ssl.SSLContext, inner: HttpConnection) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.inner = inner
        self.raw: asyncio.Transport | None = None
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.raw = cast(asyncio.Transport, transport)
        self.inner.connection_made(TlsTransport(self, self.raw))
        self.inner.heard(partial=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def eof_received(self) -> bool:
        return self._open and self.inner.eof_received()

    def data_received(self, data: bytes) -> None:
        raw = self.raw
        if raw is None or raw.is_closing():
            return
        self._in.write(data)
        try:
            if not self._open:
                self.tls.do_handshake()
                self._open = True
                self.inner.certificate = self.tls.getpeercert(binary_form=True) or b""
                self.inner.finished_one()
            while not raw.is_closing():
                octets = self.tls.read(READ_OCTETS)
                if not octets:
                    raise ssl.SSLZeroReturnError
                self.inner.data_received(octets)
        except ssl.SSLWantReadError:
            self.flush()
        except ssl.SSLZeroReturnError:
            self.flush()
            if not self.inner.eof_received():
                raw.close()
        except ssl.SSLError:
            self.flush()  # the alert that says why
            raw.close()

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        self.flush()

    def flush(self) -> None:
        if self._out.pending and self.raw is not None and not self.raw.is_closing():
            self.raw.write(self._out.read())

    def farewell(self) -> None:
        """Tell the peer that nothing follows."""
        if self._open:
            try:
                self.tls.unwrap()
            except ssl.SSLError:
                pass  # it has not said so itself yet; we do not wait for it
            self.flush()


class TlsTransport(asyncio.Transport):
    """What HTTP writes to: the same calls as of the socket's transport."""

    def __init__(self, connection: TlsConnection, raw: asyncio.Transport) -> None:
        super().__init__()
        self._connection, self._raw = connection, raw

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self._connection.send(bytes(data))

    def close(self) -> None:
        if not self._raw.is_closing():
            self._connection.farewell()
            self._raw.close()

    def write_eof(self) -> None:
        self._connection.farewell()
        self._raw.write_eof()

    def can_write_eof(self) -> bool:
        return self._raw.can_write_eof()

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._connection.tls if name == "ssl_object" else self._raw.get_extra_info(name, default)


async def listen_https(
    service: FrontService, connections: Connections, keys: TlsKeys, place: tuple[str, int], reuse_port: bool
) -> asyncio.Server:
    """Raises OSError: the address cannot be bound."""
    return await asyncio.get_running_loop().create_server(
        lambda: TlsConnection(keys.current(), HttpConnection(service, connections)), *place, reuse_port=reuse_port, backlog=1_024
    )
