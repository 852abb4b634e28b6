"""Socket addresses as the opaque octets `Datagrams` hands out and takes: the kernel's own sockaddr form."""

from __future__ import annotations

import socket
import struct

ADDRESS_OCTETS = 28  # sizeof(struct sockaddr_in6), the longer of the two
_IN = struct.Struct("=H2s4s8x")
_IN6 = struct.Struct("=H2sI16sI")


def pack_address(host: str, port: int, flow: int = 0, scope: int = 0) -> bytes:
    """A numeric IPv4 or IPv6 host and a port as sockaddr octets (16 or 28).

    Raises:
        ValueError: not a numeric address, or the port is not 0..65535.
    """
    if not 0 <= port <= 65_535:
        raise ValueError(f"not a port: {port}")
    try:
        if ":" in host:
            return _IN6.pack(
                socket.AF_INET6, port.to_bytes(2, "big"), socket.htonl(flow), socket.inet_pton(socket.AF_INET6, host), scope
            )
        return _IN.pack(socket.AF_INET, port.to_bytes(2, "big"), socket.inet_pton(socket.AF_INET, host))
    except (OSError, struct.error) as exc:
        raise ValueError(f"not a numeric address: {host!r}") from exc


def unpack_address(octets: bytes) -> tuple[str, int]:
    """(host, port) of sockaddr octets.

    Raises:
        ValueError: neither IPv4 nor IPv6.
    """
    family = int.from_bytes(octets[:2], "little" if struct.pack("=H", 1)[0] else "big")
    if family == socket.AF_INET and len(octets) == _IN.size:
        _, port, host = _IN.unpack(octets)
        return socket.inet_ntop(socket.AF_INET, host), int.from_bytes(port, "big")
    if family == socket.AF_INET6 and len(octets) == _IN6.size:
        _, port, _, host, _ = _IN6.unpack(octets)
        return socket.inet_ntop(socket.AF_INET6, host), int.from_bytes(port, "big")
    raise ValueError(f"neither an IPv4 nor an IPv6 address: {octets[:32].hex()}")


def unpack_full(octets: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    """The tuple the standard library's sockets take, scope and flow kept. Raises ValueError."""
    host, port = unpack_address(octets)
    if len(octets) == _IN.size:
        return host, port
    _, _, flow, _, scope = _IN6.unpack(octets)
    return host, port, socket.ntohl(flow), scope
