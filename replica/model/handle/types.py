"""Data of the built-in types: HS_SITE, HS_ADMIN, HS_VLIST, and the ones that are plain text.

Source: protocol 2.11 (HSv9). RFC 3651 §3.2 orders HS_ADMIN and the flags of HS_SITE differently; nobody deploys that.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from replica.model.handle.codes import VALUES_MAX, ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault, within_u32
from replica.model.handle.values import Reference
from replica.model.handle.wire import U32, Reader, string

HS_SITE = b"HS_SITE"
HS_SITE_6 = b"HS_SITE.6"
HS_SITE_PREFIX = b"HS_SITE.PREFIX"
HS_NA_DELEGATE = b"HS_NA_DELEGATE"  # old name of HS_SITE.PREFIX
HS_SERV = b"HS_SERV"
HS_SERV_PREFIX = b"HS_SERV.PREFIX"
HS_ADMIN = b"HS_ADMIN"
HS_VLIST = b"HS_VLIST"
HS_ALIAS = b"HS_ALIAS"
HS_PUBKEY = b"HS_PUBKEY"
HS_NAMESPACE = b"HS_NAMESPACE"
ALT_ADDR = b"alt_addr"
ADDRESS_OCTETS = 16
_SITE_HEAD = struct.Struct(">H2BH2B")
_INTERFACE = struct.Struct(">BBI")
_V4_ZERO = bytes(12)
_V4_MAPPED = bytes(10) + b"\xff\xff"


class SiteFlag(IntFlag):
    MULTI_PRIMARY = 0x40
    PRIMARY = 0x80


class InterfaceUse(IntFlag):
    OUT_OF_SERVICE = 0
    ADMIN = 1
    QUERY = 2
    BOTH = 3


class Protocol(IntEnum):
    UDP = 0
    TCP = 1
    HTTP = 2
    HTTPS = 3


class AdminPermission(IntFlag):
    ADD_HANDLE = 0x001
    DELETE_HANDLE = 0x002
    ADD_DERIVED_PREFIX = 0x004
    DELETE_DERIVED_PREFIX = 0x008
    MODIFY_VALUE = 0x010
    REMOVE_VALUE = 0x020
    ADD_VALUE = 0x040
    MODIFY_ADMIN = 0x080
    REMOVE_ADMIN = 0x100
    ADD_ADMIN = 0x200
    READ_VALUE = 0x400
    LIST_HANDLES = 0x800


ADMIN_ALL = 0xFFF


def address_octets(host: str) -> bytes:
    """A numeric host as 16 octets; IPv4 is 12 zero octets and 4, as all live sites write it. Raises CodecMisuse."""
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError as exc:
        raise CodecMisuse(f"a site's address is numeric, not {host!r}") from exc
    return packed if len(packed) == ADDRESS_OCTETS else _V4_ZERO + packed


def address_text(octets: bytes) -> str:
    """The host of 16 octets: IPv4 after 12 zeros or ::ffff:, but ::1 and its kin (0.x.y.z is no host) stay IPv6."""
    if octets[:12] == _V4_MAPPED or (octets[:12] == _V4_ZERO and (octets[12] or not any(octets))):
        return str(ipaddress.IPv4Address(octets[12:]))
    return str(ipaddress.IPv6Address(octets))


@dataclass(frozen=True, slots=True)
class Interface:
    """One way to reach a server: InterfaceUse bits, Protocol number (others are kept), port."""

    use: int
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a site.

    Args:
        server_id: unique in its site.
        address: 16 octets, see `address_octets`.
        public_key: encoded HS_PUBKEY data, may be empty.
        interfaces: in the order of preference.
    """

    server_id: int
    address: bytes
    public_key: bytes
    interfaces: tuple[Interface, ...]

    def __post_init__(self) -> None:
        within_u32("a server id", self.server_id)
        if len(self.address) != ADDRESS_OCTETS:
            raise CodecMisuse(f"a server's address is {ADDRESS_OCTETS} octets, not {len(self.address)}")

    @property
    def host(self) -> str:
        return address_text(self.address)

    def port(self, protocol: Protocol, use: InterfaceUse = InterfaceUse.QUERY) -> int | None:
        """Port of the first interface that speaks a protocol for a use; None when there is none."""
        return next((face.port for face in self.interfaces if face.protocol == protocol and face.use & use), None)


@dataclass(frozen=True, slots=True)
class HsSite:
    """A service site: what a client needs to ask its servers.

    Args:
        serial: rises with each change of the site, 0..65535.
        flags: SiteFlag bits; others are kept.
        hash_option: names.HashOption number; which part of the name chooses the server.
        attributes: (name, value), order kept; `alt_addr` publishes the address of the other family.
        servers: at least one in a site that works.
        format_version, protocol: 1 and (2, 11) today.
    """

    serial: int
    servers: tuple[Server, ...]
    flags: int = 0
    hash_option: int = 2
    attributes: tuple[tuple[bytes, bytes], ...] = ()
    hash_filter: bytes = b""
    format_version: int = 1
    protocol: tuple[int, int] = (2, 11)

    @property
    def primary(self) -> bool:
        return bool(self.flags & SiteFlag.PRIMARY)

    def hosts(self, server: Server) -> tuple[str, ...]:
        """Addresses of one server: its own, then the alternates its site publishes. Unreadable alternates are left out."""
        names = [ALT_ADDR + b"." + str(server.server_id).encode()]
        if len(self.servers) == 1:
            names.append(ALT_ADDR)
        hosts = [server.host]
        for name, value in self.attributes:
            if name in names:
                try:
                    hosts.append(str(ipaddress.ip_address(value.decode("ascii", "replace").strip())))
                except ValueError:
                    continue
        return tuple(dict.fromkeys(hosts))


def site_of(
    hosts: Sequence[str],
    interfaces: Iterable[Interface],
    *,
    serial: int,
    primary: bool = False,
    public_key: bytes = b"",
    description: str = "",
) -> HsSite:
    """A site of one server, dual stack when two hosts are given: the first is its address, the others `alt_addr`.

    Raises:
        CodecMisuse: no host, or one that is not numeric.
    """
    if not hosts:
        raise CodecMisuse("a site needs an address")
    attributes = [(b"desc", description.encode())] if description else []
    attributes += [(ALT_ADDR, address_text(address_octets(host)).encode()) for host in hosts[1:]]
    server = Server(1, address_octets(hosts[0]), public_key, tuple(interfaces))
    return HsSite(serial, (server,), SiteFlag.PRIMARY if primary else 0, attributes=tuple(attributes))


def encode_site(site: HsSite) -> bytes:
    """Data of an HS_SITE value. Raises CodecMisuse: a number does not fit its field."""
    try:
        parts = [
            _SITE_HEAD.pack(site.format_version, *site.protocol, site.serial, site.flags, site.hash_option),
            string(site.hash_filter),
            U32.pack(len(site.attributes)),
        ]
        for name, value in site.attributes:
            parts += (string(name), string(value))
        parts.append(U32.pack(len(site.servers)))
        for server in site.servers:
            parts += (U32.pack(server.server_id), server.address, string(server.public_key), U32.pack(len(server.interfaces)))
            parts += [_INTERFACE.pack(face.use, face.protocol, face.port) for face in server.interfaces]
    except struct.error as exc:
        raise CodecMisuse(f"a site's number does not fit its field: {exc}") from exc
    return b"".join(parts)


def decode_site(data: bytes) -> HsSite:
    """Inverse of `encode_site`. Raises ProtocolFault(INVALID_VALUE), also when octets trail."""
    reader = Reader(data, code=ResponseCode.INVALID_VALUE)
    version, major, minor, serial, flags, hash_option = _SITE_HEAD.unpack(reader.take(_SITE_HEAD.size))
    hash_filter = reader.string()
    attributes = tuple([(reader.string(), reader.string()) for _ in range(reader.count(VALUES_MAX, 8))])
    servers = tuple([_read_server(reader) for _ in range(reader.count(VALUES_MAX, 28))])
    reader.done()
    return HsSite(serial, servers, flags, hash_option, attributes, hash_filter, version, (major, minor))


def _read_server(reader: Reader) -> Server:
    server_id, address, public_key = reader.u32(), reader.take(ADDRESS_OCTETS), reader.string()
    count = reader.count(VALUES_MAX, _INTERFACE.size)
    interfaces = [Interface(*_INTERFACE.unpack(reader.take(_INTERFACE.size))) for _ in range(count)]
    return Server(server_id, address, public_key, tuple(interfaces))


@dataclass(frozen=True, slots=True)
class HsAdmin:
    """Who may administer a handle.

    Args:
        permissions: AdminPermission bits; others are kept.
        admin: the administrator's key, or an HS_VLIST of them.
        legacy_byte_length: two zero octets trail, as old encoders write it.
    """

    permissions: int
    admin: Reference
    legacy_byte_length: bool = False


def encode_admin(admin: HsAdmin) -> bytes:
    """Data of an HS_ADMIN value. Raises CodecMisuse."""
    if not 0 <= admin.permissions <= 0xFFFF:
        raise CodecMisuse(f"admin permissions are 16 bits, not {admin.permissions}")
    tail = b"\0\0" if admin.legacy_byte_length else b""
    return admin.permissions.to_bytes(2, "big") + string(admin.admin.handle) + U32.pack(admin.admin.index) + tail


def decode_admin(data: bytes) -> HsAdmin:
    """Inverse of `encode_admin`. Raises ProtocolFault(INVALID_VALUE)."""
    reader = Reader(data, code=ResponseCode.INVALID_VALUE)
    permissions, admin = reader.u16(), Reference(reader.string(), reader.u32())
    legacy = data[reader.at :] == b"\0\0"
    if not legacy:
        reader.done()
    return HsAdmin(permissions, admin, legacy)


def encode_vlist(references: Sequence[Reference]) -> bytes:
    """Data of an HS_VLIST value: a group of administrators."""
    return b"".join((U32.pack(len(references)), *(string(one.handle) + U32.pack(one.index) for one in references)))


def decode_vlist(data: bytes) -> tuple[Reference, ...]:
    """Inverse of `encode_vlist`. Raises ProtocolFault(INVALID_VALUE)."""
    reader = Reader(data, code=ResponseCode.INVALID_VALUE)
    references = tuple([Reference(reader.string(), reader.u32()) for _ in range(reader.count(VALUES_MAX, 8))])
    reader.done()
    return references


def decode_name(data: bytes) -> bytes:
    """The handle that an HS_SERV, HS_SERV.PREFIX or HS_ALIAS value names. Raises ProtocolFault(INVALID_VALUE)."""
    name = data.strip()
    try:
        name.decode()
    except UnicodeDecodeError as exc:
        raise ProtocolFault(f"a handle's name is UTF-8: {exc}", ResponseCode.INVALID_VALUE) from exc
    if not name:
        raise ProtocolFault("an empty name names nothing", ResponseCode.INVALID_VALUE)
    return name
