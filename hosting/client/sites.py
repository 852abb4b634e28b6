"""From published sites to servers in the order in which they are asked. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hosting.client.lookup import Server
from replica.model.handle.codes import TTL_S_MAX
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.names import HashOption, server_number
from replica.model.handle.types import HsSite, InterfaceUse, Protocol, decode_site
from replica.model.handle.values import TTL_RELATIVE, HandleValue, type_matches

SITE_TYPES = (b"HS_SITE", b"HS_SITE.6")
DELEGATE_TYPES = (b"HS_SITE.PREFIX", b"HS_NA_DELEGATE")
SITES_MAX = 32  # of one prefix; the rest of a longer list is not asked
PROTOCOLS = {"udp": Protocol.UDP, "tcp": Protocol.TCP, "http": Protocol.HTTP}


@dataclass(frozen=True, slots=True)
class Place:
    """A server to ask, and whether it speaks for the primary site (its "not found" ends a race at once)."""

    server: Server
    primary: bool = True


def sites_in(values: Iterable[HandleValue], types: Sequence[bytes] = SITE_TYPES) -> list[HsSite]:
    """Sites of the given types in the order of the answer; what does not decode is left out, as deployed resolvers do."""
    sites = []
    for value in values:
        if value.type.upper() not in types:
            continue
        try:
            sites.append(decode_site(value.data))
        except ProtocolFault:
            continue
    return sites[:SITES_MAX]


def ttl_of(values: Iterable[HandleValue], now_s: int, ttl_s_max: int = TTL_S_MAX) -> int:
    """Seconds for which the sites among these values may be kept; 0: not at all."""
    ttls = [
        value.ttl if value.ttl_type == TTL_RELATIVE else value.ttl - now_s
        for value in values
        if any(type_matches(kind, value.type) for kind in SITE_TYPES)
    ]
    return max(0, min([*ttls, ttl_s_max])) if ttls else 0


def places_of(sites: Sequence[HsSite], name: bytes, protocols: Sequence[str]) -> list[Place]:
    """Servers for a name: for each protocol all sites, each site's first address before anyone's second.

    Source: HSv9's walk; the server of a site is chosen by the hash its site states.
    """
    found: list[Place] = []
    for protocol in protocols:
        rows = [_hosts(site, name, protocol) for site in sites]
        for rank in range(max(map(len, rows), default=0)):
            found.extend(row[rank] for row in rows if rank < len(row))
    return list(dict.fromkeys(found))


def _hosts(site: HsSite, name: bytes, protocol: str) -> list[Place]:
    if not site.servers or site.hash_option not in (0, 1, 2):
        return []
    server = site.servers[server_number(name, HashOption(site.hash_option), len(site.servers))]
    port = server.port(PROTOCOLS[protocol], InterfaceUse.QUERY)
    return [] if port is None else [Place(Server(protocol, host, port), site.primary) for host in site.hosts(server)]


def first_tcp(values: Iterable[HandleValue]) -> Server | None:
    """The national SDK's choice: first HS_SITE value, its first server with a TCP interface; None when it finds none."""
    for value in values:
        if value.type.upper() != b"HS_SITE":
            continue
        try:
            site = decode_site(value.data)
        except ProtocolFault:
            return None
        for server in site.servers:
            port = server.port(Protocol.TCP, InterfaceUse.QUERY)
            if port is not None:
                return Server("tcp", server.host, port)
        return None
    return None
