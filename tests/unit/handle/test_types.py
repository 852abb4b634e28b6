"""Sites, administrators and lists of them."""

from __future__ import annotations

import pytest
from hypothesis import given

from replica.model.handle import keys, types
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.types import HsAdmin, HsSite, Interface, InterfaceUse, Protocol, Server, SiteFlag, site_of
from replica.model.handle.values import Reference
from tests.unit.handle import strategies as some
from tests.unit.handle.golden import OCTETS

FACES = (Interface(InterfaceUse.QUERY, Protocol.UDP, 2641), Interface(InterfaceUse.BOTH, Protocol.TCP, 3641))


@given(some.sites)
def test_a_site_survives(site: HsSite) -> None:
    assert types.decode_site(types.encode_site(site)) == site


@given(some.admins)
def test_an_admin_survives(admin: HsAdmin) -> None:
    assert types.decode_admin(types.encode_admin(admin)) == admin


def test_two_trailing_zeros_of_old_encoders_are_kept() -> None:
    legacy = types.decode_admin(OCTETS["hs_admin"] + b"\0\0")
    assert legacy.legacy_byte_length
    assert types.encode_admin(legacy) == OCTETS["hs_admin"] + b"\0\0"
    for tail in (b"\0", b"\0\x01", b"\0\0\0"):
        with pytest.raises(ProtocolFault):
            types.decode_admin(OCTETS["hs_admin"] + tail)


@pytest.mark.parametrize(
    ("octets", "host"),
    [
        (bytes(12) + b"\x7f\0\0\x01", "127.0.0.1"),
        (bytes(10) + b"\xff\xff\xc0\0\x02\x07", "192.0.2.7"),
        (bytes(15) + b"\x01", "::1"),
        (bytes(16), "0.0.0.0"),
        (b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01", "2001:db8::1"),
    ],
)
def test_addresses_of_both_families(octets: bytes, host: str) -> None:
    assert types.address_text(octets) == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "2001:db8::7", "0.0.0.0"])
def test_a_host_survives(host: str) -> None:
    assert types.address_text(types.address_octets(host)) == host


def test_ipv4_is_written_after_twelve_zeros() -> None:
    assert types.address_octets("192.0.2.7") == bytes(12) + b"\xc0\0\x02\x07"
    with pytest.raises(CodecMisuse, match="numeric"):
        types.address_octets("node.example.cn")


def test_a_dual_stack_site_publishes_both_addresses() -> None:
    site = site_of(["192.0.2.7", "2001:db8:0:0::7"], FACES, serial=9, primary=True, description="DR")
    assert site.primary
    assert site.attributes == ((b"desc", b"DR"), (b"alt_addr", b"2001:db8::7"))
    again = types.decode_site(types.encode_site(site))
    assert again == site
    assert again.hosts(again.servers[0]) == ("192.0.2.7", "2001:db8::7")
    assert again.servers[0].port(Protocol.TCP) == 3641
    assert again.servers[0].port(Protocol.UDP, InterfaceUse.ADMIN) is None
    assert again.servers[0].port(Protocol.HTTP) is None


def test_alternate_addresses_belong_to_their_server() -> None:
    servers = tuple(Server(number, types.address_octets(f"192.0.2.{number}"), b"", FACES) for number in (1, 2))
    attributes = (
        (b"alt_addr", b"2001:db8::9"),
        (b"alt_addr.2", b" 2001:db8::2 "),
        (b"alt_addr.2", b"nonsense"),
        (b"alt_addr.2", b"\xff"),
    )
    site = HsSite(1, servers, attributes=attributes)
    assert site.hosts(servers[0]) == ("192.0.2.1",)  # a bare alt_addr speaks of a site's only server
    assert site.hosts(servers[1]) == ("192.0.2.2", "2001:db8::2")
    assert not site.primary
    assert HsSite(1, (), SiteFlag.MULTI_PRIMARY).primary is False


@pytest.mark.parametrize(
    "make",
    [
        lambda: site_of([], FACES, serial=1),
        lambda: types.encode_site(HsSite(0x10000, ())),
        lambda: types.encode_site(HsSite(1, (Server(1, bytes(16), b"", (Interface(256, 0, 0),)),))),
        lambda: Server(1, bytes(4), b"", ()),
        lambda: Server(-1, bytes(16), b"", ()),
        lambda: types.encode_admin(HsAdmin(0x10000, Reference(b"", 0))),
    ],
)
def test_misuse(make: object) -> None:
    with pytest.raises(CodecMisuse):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("cut", [1, 8, 20, -1])
def test_a_site_cut_off_or_with_something_behind_is_refused(cut: int) -> None:
    with pytest.raises(ProtocolFault):
        types.decode_site(OCTETS["hs_site"][:cut])
    with pytest.raises(ProtocolFault, match="trail"):
        types.decode_site(OCTETS["hs_site"] + b"\0")


def test_names_of_service_handles() -> None:
    assert types.decode_name(b" 0.SERV/88 \n") == b"0.SERV/88"
    for bad in (b"", b"  ", b"\xff"):
        with pytest.raises(ProtocolFault):
            types.decode_name(bad)


def test_keys() -> None:
    modulus = b"\x91\x32\xa8" + bytes(range(125))
    data = bytes.fromhex("0000000b5253415f5055425f4b455900000000000301000100000081 00".replace(" ", "")) + modulus
    assert keys.decode_key(data) == ("RSA", {"n": modulus, "e": b"\x01\0\x01"})
    assert keys.encode_key("rsa", {"n": modulus, "e": b"\0\x01\0\x01"}) == data
    dsa = {"y": b"\x7f", "p": b"\x80", "q": b"\x02", "g": b"\x03"}
    assert keys.decode_key(keys.encode_key("DSA", dsa)) == ("DSA", dsa)
    assert keys.encode_key("DSA", dsa).endswith(bytes.fromhex("0000000102000000020080000000010300000001 7f"))
    for bad in (b"", data[:-1], data + b"\0", data.replace(b"RSA", b"SM2")):
        with pytest.raises(ProtocolFault):
            keys.decode_key(bad)
    for kty, numbers in (("SM2", {}), ("RSA", {"n": b"\x01"})):
        with pytest.raises(ProtocolFault):
            keys.encode_key(kty, numbers)
