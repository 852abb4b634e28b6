"""Which client an address belongs to, and whether it is trusted or refused. Pure."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from hosting.guard.limits import networks_of

SOCKADDR_IN: Final = slice(4, 7)  # octets of a sockaddr_in: the /24 of its address
SOCKADDR_IN6: Final = slice(8, 15)  # of a sockaddr_in6: the /56
KNOWN_MAX: Final = 65_536  # addresses whose verdict is remembered
_IPV4_OCTETS, _IPV6_OCTETS = 3, 7


def client_of(host: str) -> bytes:
    """The client behind an address as text; empty for what is no address (a Unix socket)."""
    try:
        return socket.inet_pton(socket.AF_INET, host)[:_IPV4_OCTETS]
    except OSError:
        pass
    try:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:_IPV6_OCTETS]
    except OSError:
        return b""


def share_of(host: str, *, forgeable: bool = False) -> str:
    """Whose share of places what this address leaves waiting takes.

    Who has an IPv6 address has a network full of them; in IPv4 many clients stand behind one network, so that there each address
    counts. What comes in datagrams counts apart: whoever forges an address must not push out what its owner left waiting.
    """
    network = client_of(host) if ":" in host and "." not in host else b""
    return (network.hex() or host) + " udp" * forgeable


def address_of(host: str) -> bytes:
    """An address as text in 4 or 16 octets; empty for what is none."""
    try:
        return ip_address(host.partition("%")[0]).packed
    except ValueError:
        return b""


def address_in(peer: bytes) -> bytes:
    """The address in a sockaddr_in or sockaddr_in6: 4 or 16 octets."""
    return peer[8:24] if len(peer) > 16 else peer[4:8]


def network_text(client: bytes) -> str:
    """A client as people write it: `192.0.2.0/24`, `2001:db8::/56`."""
    if len(client) == _IPV4_OCTETS:
        return f"{socket.inet_ntop(socket.AF_INET, client + bytes(1))}/24"
    if len(client) == _IPV6_OCTETS:
        return f"{socket.inet_ntop(socket.AF_INET6, client + bytes(9))}/56"
    return "local"


class Networks:
    """Is an address in one of some networks? Verdicts are remembered; false when there are no networks."""

    __slots__ = ("_known", "_networks")

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = networks_of(texts)
        self._known: dict[bytes, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def has(self, address: bytes) -> bool:
        """`address`: 4 or 16 octets."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            at = ip_address(address)
            known = self._known[address] = any(at.version == one.version and at in one for one in self._networks)
        return known

    def has_host(self, host: str) -> bool:
        """As text; what is no address is in no network."""
        address = address_of(host)
        return bool(address) and self.has(address)
