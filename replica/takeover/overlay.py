"""Sites answered in place of a source's own: which octets, which serial, and the entries that commit them (SEMANTICS 7).

HS_SITE data: u16 format, two octets protocol version, u16 serial, u8 flags, … ; serial and flags are changed in place, so that
everything else of a site (key, attributes, interfaces) is passed on octet for octet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState, OverlaySites
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.types import decode_site, encode_site
from replica.model.identifier import prefix_text
from replica.model.states import Authority
from replica.v1 import entry_pb2

ENTRY_FORMAT = 1
SITE_OCTETS_MIN = 24  # the fixed fields and empty lists
SERIAL_OFFSET = 4
FLAGS_OFFSET = 6
PRIMARY_FLAGS = 0xC0  # primary, multi-primary
SERIAL_MAX = 0xFFFE  # 0xFFFF means "unknown" in requests
SITES_MAX = 16  # of one prefix: ours and the node's


def site_serial(site: bytes) -> int:
    """Serial of HS_SITE data. Raises ZaibeiError(MALFORMED)."""
    _check(site)
    return int.from_bytes(site[SERIAL_OFFSET : SERIAL_OFFSET + 2], "big")


def site_with(site: bytes, *, serial: int, primary: bool) -> bytes:
    """The same site with another serial and both primary flags as asked.

    Raises:
        ZaibeiError(MALFORMED): not HS_SITE data; ZaibeiError(CONFLICT): serials are used up.
    """
    _check(site)
    if not 0 <= serial <= SERIAL_MAX:
        raise ZaibeiError(
            Code.CONFLICT, f"the site serial would be {serial}, at most {SERIAL_MAX}: re-publish the node's site anew"
        )
    flags = site[FLAGS_OFFSET] & ~PRIMARY_FLAGS | (0x80 if primary else 0)
    return site[:SERIAL_OFFSET] + serial.to_bytes(2, "big") + bytes((flags,)) + site[FLAGS_OFFSET + 1 :]


def is_site(site: bytes) -> bool:
    """HS_SITE data as far as we change it; a registry may publish octets that are none."""
    return len(site) >= SITE_OCTETS_MIN and site[:2] == b"\0\x01"


def _check(site: bytes) -> None:
    if not is_site(site):
        raise ZaibeiError(Code.MALFORMED, f"not HS_SITE data: {site[:16].hex()}")


def is_listed(own_site: bytes, node_sites: Mapping[bytes, tuple[bytes, ...]]) -> bool | None:
    """Our site stands among the node's for each of its prefixes, whatever its serial and flags; None: nothing is known of either.

    Raises:
        ZaibeiError(MALFORMED): not HS_SITE data.
    """
    if not node_sites or not own_site:
        return None
    wanted = {site_with(one, serial=0, primary=False) for one in (own_site, without_keys(own_site))}
    return all(any(site_with(site, serial=0, primary=False) in wanted for site in sites) for sites in node_sites.values())


def without_keys(site: bytes) -> bytes:
    """The same site without its servers' public keys: as who lists it may have it, of before it had any."""
    try:
        decoded = decode_site(site)
    except ProtocolFault:
        return site
    return encode_site(replace(decoded, servers=tuple(replace(one, public_key=b"") for one in decoded.servers)))


def serial_above(state: GroupState, sites: Iterable[bytes]) -> int:
    """A serial above any seen: the group's own history and every site given."""
    return 1 + max([state.serial_highest, *map(site_serial, sites)])


def resolution_sites(own_site: bytes, node_sites: Iterable[bytes], serial: int) -> tuple[bytes, ...]:
    """Our site first with the primary flags clear, the node's kept second: registration stays with the node."""
    return (site_with(own_site, serial=serial, primary=False), *tuple(node_sites)[: SITES_MAX - 1])


def live_overlays(state: GroupState) -> dict[bytes, OverlaySites]:
    """Overlays in force by prefix key, drills' shadows left out."""
    return {overlay.prefix: overlay for overlay in state.overlays if not overlay.shadow}


def overlay_entry(
    prefix: bytes, sites: Iterable[bytes], serial: int, act: str, *, withdrawn: bool = False, shadow: bool = False, at_ms: int
) -> entry_pb2.Entry:
    """The entry that puts an overlay in force or withdraws it; `at_ms`: Unix time, shown to people."""
    overlay = entry_pb2.Overlay(
        prefix=prefix_text(prefix), sites=list(sites), serial=serial, act=act, withdrawn=withdrawn, shadow=shadow
    )
    return entry_pb2.Entry(format=ENTRY_FORMAT, admitted_ms=at_ms, overlay=overlay)


def authority_entry(kind: Authority, act: str, reason: str, *, at_ms: int) -> entry_pb2.Entry:
    """The entry that says who answers for the source from here on."""
    authority = entry_pb2.Authority(kind=entry_pb2.Authority.Kind.ValueType(int(kind)), act=act, reason=reason, decided_ms=at_ms)
    return entry_pb2.Entry(format=ENTRY_FORMAT, admitted_ms=at_ms, authority=authority)
