"""Sites in answers: overlays before stored ones, referrals out of routes, and our own site with the freshness of its sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

from hosting.answer.standing import Standing, freshness_of
from replica.model.group_state import OverlaySites
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.types import (
    HS_NA_DELEGATE,
    HS_SERV,
    HS_SERV_PREFIX,
    HS_SITE,
    HS_SITE_6,
    HS_SITE_PREFIX,
    decode_site,
    encode_site,
)
from replica.model.handle.values import TTL_RELATIVE, HandleValue, decode_record, encode_record, encode_values

OVERLAY_TTL_S_MAX: Final = 60  # of a published overlay: how long resolvers keep a site that may be withdrawn
ATTRIBUTES_MAX: Final = 256  # sources named in our own site
ROUTE_OCTETS_MAX: Final = 16_384  # longer routes are decoded at each use, never kept

Endpoints = frozenset[tuple[str, int]]
"""Addresses and ports of one site."""

SITE_TYPES: Final = (HS_SITE, HS_SITE_6)
_DELEGATION: Final = (HS_SITE_PREFIX, HS_NA_DELEGATE, HS_SERV_PREFIX)


class RouteReferral(NamedTuple):
    """Where a route sends: u32 count and site values, the name of a service handle that has sites, or both."""

    values: bytes
    handle: bytes


def endpoints_of(site: bytes) -> Endpoints:
    """Every address and port a site serves; none when the octets are no HS_SITE."""
    try:
        decoded = decode_site(site)
    except ProtocolFault:
        return frozenset()
    return frozenset(
        (host, interface.port) for server in decoded.servers for interface in server.interfaces for host in decoded.hosts(server)
    )


def route_referral(route: bytes, ourselves: Endpoints) -> RouteReferral | None:
    """The referral (302) of a prefix's route record; None when it names no site but our own."""
    values = _values(route)
    named = [value for value in values if _kind(value) in SITE_TYPES]
    sites = [value for value in named if not endpoints_of(value.data) & ourselves]
    service = next((value.data for value in values if _kind(value) == HS_SERV), b"")
    if (named and not sites) or not (sites or service):
        return None
    return RouteReferral(encode_values(sites), service)


def delegation(route: bytes, ourselves: Endpoints) -> bytes | None:
    """The values of a 303: u32 count and what delegates everything below a prefix; None when nothing does, or only to us."""
    found = [
        value
        for value in _values(route)
        if _kind(value) in _DELEGATION and (_kind(value) == HS_SERV_PREFIX or not endpoints_of(value.data) & ourselves)
    ]
    return encode_values(found) if found else None


def _kind(value: HandleValue) -> bytes:
    return value.type.upper()


def _values(route: bytes) -> tuple[HandleValue, ...]:
    return _decoded(route) if len(route) <= ROUTE_OCTETS_MAX else _decoded.__wrapped__(route)


@lru_cache(maxsize=1_024)  # at most 16 MiB of octets; routes of a busy enterprise are asked for again and again
def _decoded(route: bytes) -> tuple[HandleValue, ...]:
    """Values anyone may read; none when the record does not parse (its own question then says so)."""
    try:
        return tuple(value for value in decode_record(route).values if value.public)
    except ProtocolFault:
        return ()


def merge_overlay(overlay: OverlaySites, record: bytes | None) -> bytes:
    """A prefix's record with an overlay's sites before the stored ones.

    The first HS_SITE value returned is the one the national SDKs use, so the overlay's first site takes the lowest index of a
    site in the record, and all sites follow in order. An overlay whose first site has the primary flag is a takeover of
    registration too: it replaces the stored sites (SEMANTICS 7).

    Args:
        record: a stored record that parses, or None where the prefix is known by the overlay alone.
    Returns:
        A record in format 1; the stored one unchanged when it does not parse, the overlay alone when there is no room for both.
    """
    if record is None:
        return _merged(overlay, ())
    try:
        values = decode_record(record).values
    except ProtocolFault:
        return record
    try:
        return _merged(overlay, values)
    except CodecMisuse:  # no room beside the stored values: what was decided to be published goes first
        return _merged(overlay, ())


def _merged(overlay: OverlaySites, values: tuple[HandleValue, ...]) -> bytes:
    stored = [value for value in values if _kind(value) in SITE_TYPES]
    others = [value for value in values if _kind(value) not in SITE_TYPES]
    ttl = min([OVERLAY_TTL_S_MAX, *(value.ttl for value in stored if value.ttl_type == TTL_RELATIVE)])
    stamp = max((value.timestamp for value in stored), default=0)
    sites = [HandleValue(0, HS_SITE, octets, ttl=ttl, timestamp=stamp) for octets in overlay.sites]
    if not (overlay.sites and _is_primary(overlay.sites[0])):
        named = [endpoints_of(octets) for octets in overlay.sites]
        sites += [value for value in stored if value.data not in overlay.sites and endpoints_of(value.data) not in named]
    taken = {value.index for value in others}
    first = min((value.index for value in stored), default=1)
    index, placed = first, []
    for site in sites:
        while index in taken:
            index += 1
        placed.append(replace(site, index=index))
        index += 1
    return encode_record([*others, *placed])


def _is_primary(site: bytes) -> bool:
    try:
        return decode_site(site).primary
    except ProtocolFault:
        return False


def site_with_freshness(site: bytes, standings: Sequence[Standing]) -> bytes:
    """Our own site with one attribute for each source: `freshness.NAME` = `fresh 1/234·0a0b0c0d 120 ms`.

    Returns:
        HS_SITE data octets; those given when they do not parse.
    """
    try:
        decoded = decode_site(site)
    except ProtocolFault:
        return site
    told = []
    for standing in standings[:ATTRIBUTES_MAX]:
        view = standing.view
        if view is not None:
            age = "unknown" if view.age_ms is None else f"{view.age_ms} ms"
            text = f"{freshness_of(view, standing.row)} {view.position.short()} {age}"
            told.append((f"freshness.{view.source}".encode(), text.encode()))
    return encode_site(replace(decoded, attributes=(*decoded.attributes, *told)))
