"""Where clients of a source that left for a node of its own are sent: a site made of what the node says of itself (node.py).

It is a bridge until the record of the prefix, in the registry of its parent, names the node: our answers about that prefix would
otherwise go on naming us. The address is the present one, so a site is made when asked and never stored. Sites of a takeover in
force go before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from replica.model.group_state import GroupState
from replica.model.handle.types import Interface, InterfaceUse, Protocol, encode_site, site_of
from replica.model.ladder import GRADUATION
from replica.model.node import Endpoint
from replica.model.states import Authority

PROTOCOLS = {
    "tcp": Protocol.TCP,
    "udp": Protocol.UDP,
}  # as a site lists them: national clients take the first TCP


def left_for(state: GroupState) -> tuple[Endpoint, ...]:
    """Where the node answers for which this source left; empty: it did not, nobody knows, or it was taken over since."""
    return state.node if state.authority is Authority.SOURCE and GRADUATION in state.authority_act else ()


@lru_cache(maxsize=1_024)
def site_of_node(node: tuple[Endpoint, ...]) -> bytes:
    """HS_SITE data of a node, primary, for reading and writing; b"": it names no Handle service.

    A site has one port for each protocol on all of its addresses: those of the first address it names.
    """
    spoken = [one for one in node if one.protocol in PROTOCOLS]
    if not spoken:
        return b""
    ports = {one.protocol: one.port for one in spoken if one.address == spoken[0].address}
    faces = [Interface(InterfaceUse.BOTH, protocol, ports[name]) for name, protocol in PROTOCOLS.items() if name in ports]
    hosts = dict.fromkeys(one.address for one in spoken if ports.get(one.protocol) == one.port)
    return encode_site(site_of(_ipv4_first(hosts), faces, serial=1, primary=True))


def _ipv4_first(hosts: Iterable[str]) -> list[str]:
    return sorted(hosts, key=lambda host: ":" in host)
