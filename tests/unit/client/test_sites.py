"""Published sites to servers: order, choice by hash, both families, the national SDK's choice, ttl."""

from __future__ import annotations

import pytest

from hosting.client.edge_resolver import prefix_of
from hosting.client.lookup import Server, Turn, turn_of
from hosting.client.sites import first_tcp, places_of, sites_in, ttl_of
from replica.model.errors import ZaibeiError
from replica.model.handle.types import HsSite, Interface, InterfaceUse, Protocol, encode_site, site_of
from replica.model.handle.values import TTL_ABSOLUTE, HandleValue

TCP = Interface(InterfaceUse.BOTH, Protocol.TCP, 2641)
UDP = Interface(InterfaceUse.QUERY, Protocol.UDP, 2642)
ADMIN = Interface(InterfaceUse.ADMIN, Protocol.TCP, 9)


def site(*hosts: str, faces: tuple[Interface, ...] = (TCP, UDP), primary: bool = False) -> HsSite:
    return site_of(hosts, faces, serial=1, primary=primary)


def value(octets: bytes, kind: bytes = b"HS_SITE", ttl: int = 300, ttl_type: int = 0, index: int = 1) -> HandleValue:
    return HandleValue(index, kind, octets, ttl_type, ttl)


def test_for_each_protocol_all_sites_first_addresses_first() -> None:
    places = places_of([site("192.0.2.1", "2001:db8::1", primary=True), site("192.0.2.2")], b"88.1/x", ("udp", "tcp"))
    assert [str(place.server) for place in places] == [
        "udp://192.0.2.1:2642",
        "udp://192.0.2.2:2642",
        "udp://[2001:db8::1]:2642",
        "tcp://192.0.2.1:2641",
        "tcp://192.0.2.2:2641",
        "tcp://[2001:db8::1]:2641",
    ]
    assert [place.primary for place in places[:2]] == [True, False]


def test_an_interface_for_administration_alone_is_not_asked() -> None:
    assert places_of([site("192.0.2.1", faces=(ADMIN,))], b"88.1/x", ("tcp",)) == []


def test_the_server_of_a_site_is_chosen_by_hash() -> None:
    one = site("192.0.2.1").servers[0]
    servers = tuple(type(one)(number, bytes(12) + bytes((192, 0, 2, number)), b"", (TCP,)) for number in range(1, 5))
    whole = HsSite(1, servers)
    hosts = {places_of([whole], f"88.1/{suffix}".encode(), ("tcp",))[0].server.address for suffix in range(50)}
    assert len(hosts) == 4
    # Vector of the deployed encoder: hash of the whole name 1668129981, modulo 4 servers is 1.
    assert places_of([whole], b"88.118.8/XYZ-001", ("tcp",))[0].server.address == "192.0.2.2"


def test_what_does_not_decode_is_left_out() -> None:
    good = encode_site(site("192.0.2.1"))
    assert len(sites_in([value(b"junk"), value(good), value(good, b"HS_SITE.6"), value(good, b"URL")])) == 2
    assert places_of([HsSite(1, ())], b"88.1/x", ("tcp",)) == []
    assert places_of([HsSite(1, site("192.0.2.1").servers, hash_option=9)], b"88.1/x", ("tcp",)) == []


def test_the_national_choice_is_the_first_value_and_its_first_tcp_interface_or_nothing() -> None:
    first, second = encode_site(site("192.0.2.1", faces=(UDP, TCP))), encode_site(site("192.0.2.2"))
    assert first_tcp([value(b"", b"URL"), value(first), value(second)]) == Server("tcp", "192.0.2.1", 2641)
    without = encode_site(site("192.0.2.1", faces=(UDP,)))
    assert first_tcp([value(without), value(second)]) is None, "no second site"
    assert first_tcp([value(b"junk"), value(second)]) is None
    assert first_tcp([]) is None


def test_sites_are_kept_for_the_shortest_ttl() -> None:
    assert ttl_of([value(b"", ttl=300), value(b"", ttl=60), value(b"", b"URL", 1)], 0) == 60
    assert ttl_of([value(b"", ttl=10_000_000)], 0) == 172_800
    assert ttl_of([value(b"", ttl=1_050, ttl_type=TTL_ABSOLUTE)], 1_000) == 50
    assert ttl_of([value(b"", ttl=900, ttl_type=TTL_ABSOLUTE)], 1_000) == 0
    assert ttl_of([], 0) == 0
    assert ttl_of([value(b"")], 0, 0) == 0


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", Server("tcp", "192.0.2.1", 2641)),
        ("udp://192.0.2.1:99", Server("udp", "192.0.2.1", 99)),
        ("[::1]:99", Server("tcp", "::1", 99)),
        ("::1", Server("tcp", "::1", 2641)),
        ("http://[::1]", Server("http", "::1", 8000)),
    ],
)
def test_servers_as_people_write_them(text: str, server: Server) -> None:
    assert Server.parse(text) == server
    assert Server.parse(str(server)) == server


@pytest.mark.parametrize("text", ["", "ftp://x", "h:port", "h:0", "h:70000", "tcp://"])
def test_bad_servers_are_refused(text: str) -> None:
    with pytest.raises(ZaibeiError):
        Server.parse(text)


def test_only_code_2_goes_on() -> None:
    assert turn_of(2) is Turn.NEXT
    assert {turn_of(code) for code in (302, 303)} == {Turn.REFERRAL}
    assert {turn_of(code) for code in (1, 3, 5, 7, 100, 102, 200, 301, 400)} == {Turn.FINAL}


def test_prefix_of_names() -> None:
    assert prefix_of("88.118.8/a/b") == "88.118.8"
    assert prefix_of("0.NA/88.118.8") == "88.118"
    assert prefix_of("88.118.8") == "88.118"
    assert prefix_of("0.na/88") == "0.NA"
