"""Where a node itself answers, as its source describes it. Without an address nothing is probed, and what was not probed is never
called dead: so every member must know it, also one that never had the source's stream (it is committed in the source's group).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from replica.v1 import source_pb2

ENDPOINTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the node itself answers: "udp", "tcp"; a numeric IPv4 or IPv6 address."""

    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.protocol}://{host}:{self.port}"


def endpoints_of(said: Iterable[source_pb2.Endpoint]) -> tuple[Endpoint, ...]:
    """What a source said, without what is no numeric address or no port: a source must not be able to name what breaks us.

    Returns:
        The first ENDPOINTS_MAX that are usable, in the source's order.
    """
    found = (Endpoint(one.protocol, one.address, one.port) for one in said)
    return tuple(one for one in found if _usable(one))[:ENDPOINTS_MAX]


def _usable(endpoint: Endpoint) -> bool:
    try:
        ipaddress.ip_address(endpoint.address)
    except ValueError:
        return False
    return 0 < endpoint.port < 65_536
