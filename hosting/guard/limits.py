"""Limits of the guard, each with its unit; 0: no such limit. Generous: an honest recursive node stays far below them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from replica.model.errors import Code, ZaibeiError

LOOPBACK = ("127.0.0.0/8", "::1/128")
NETWORKS_MAX = 10_000
SLIP = 4  # of datagrams over the limit every 4th is told to come by TCP: an honest client behind a forged address gets through
TOLD_PER_S_MAX = 2_000  # telling costs as much as answering: in a flood it must not eat the time of those who are answered
CLIENTS_MAX = 131_072  # counted at once; beyond it all are counted from 0 again, so that forged addresses cost no memory
NAMES_MAX = 262_144
BEHIND_S = 1.0  # reads of a socket that never came to its end for so long: more comes than can be read, which is a flood too
FLOOD_S = 10  # after its last second a flood counts as going on for so long


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """Of one answering process. A client is a network of 256 IPv4 addresses (/24), or a /56 of IPv6.

    Args:
        udp_requests_per_s: of one client; more datagrams are dropped, every 4th of them is told to ask over TCP.
        udp_calm_per_s: of all clients together; from there on it is a flood, and only who has proved its address is answered
            over UDP: of the others every 4th is told to ask over TCP, in no more octets than it sent.
        udp_answer_octets_max: longer answers are told to ask over TCP.
        udp_long_octets_per_s: of one client, in answers longer than a datagram; then those are told to come by TCP.
        stream_requests_per_s: of one client over TCP, HTTP and gRPC together; more are answered "cannot answer in time".
        identifier_per_s: questions for one identifier by all clients; more are answered "cannot answer in time".
        trusted: networks whose clients none of this is counted against.
        refused: networks that get no answer at all.
    """

    udp_requests_per_s: int = 20_000
    udp_calm_per_s: int = 100_000
    udp_answer_octets_max: int = 16_384
    udp_long_octets_per_s: int = 1_048_576
    stream_requests_per_s: int = 50_000
    identifier_per_s: int = 50_000
    trusted: tuple[str, ...] = LOOPBACK
    refused: tuple[str, ...] = ()


def networks_of(texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Raises ZaibeiError(INVALID_CONFIG): one of them is no network."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError as exc:
            raise ZaibeiError(Code.INVALID_CONFIG, f"{text[:80]!r} is no network: {exc}; write 192.0.2.0/24") from None
    if len(found) > NETWORKS_MAX:
        raise ZaibeiError(Code.INVALID_CONFIG, f"{len(found)} networks are over the limit of {NETWORKS_MAX}")
    return tuple(found)
