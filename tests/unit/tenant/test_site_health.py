"""Health of enterprises' sites: what is probed, what never is, three values, and how long each may be believed."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from hosting.client.lookup import Server
from hosting.tenant.site_health import (
    CHECKS_MAX,
    FAILED_MIN,
    NS,
    SLACK_S,
    Check,
    Found,
    Health,
    SiteBook,
    named_in,
    not_to_probe,
)
from replica.model.handle.types import Interface, InterfaceUse, Protocol, encode_site, site_of
from replica.model.handle.values import HandleValue, encode_record

V4, V6 = "8.8.8.8", "2606:4700::1111"
FACES = [Interface(InterfaceUse.BOTH, protocol, 2641) for protocol in (Protocol.UDP, Protocol.TCP, Protocol.HTTP)]
PREFIX, INTERVAL_S = "88.118.9.5", 60.0
UP = Server("tcp", V4, 2641)


def site(*hosts: str) -> HandleValue:
    return HandleValue(1, b"HS_SITE", encode_site(site_of(hosts, FACES, serial=1)))


def test_every_interface_of_both_families_is_named() -> None:
    found = named_in(encode_record([site(V4, V6), HandleValue(2, b"HS_SERV", b"0.SERV/A"), HandleValue(3, b"URL", b"x")]))
    assert set(found.servers) == {Server(one, host, 2641) for one in ("udp", "tcp", "http") for host in (V4, V6)}
    assert found.services == ("0.SERV/A",) and found.left_out == 0
    assert named_in(b"no record") == Found() == named_in(encode_record([HandleValue(1, b"HS_SITE", b"no site")]))
    hidden = replace(site(V4), permissions=0x0C)
    off = HandleValue(1, b"HS_SITE", encode_site(site_of([V4], [Interface(InterfaceUse.ADMIN, Protocol.TCP, 1)], serial=1)))
    assert named_in(encode_record([hidden])) == Found() == named_in(encode_record([off]))


def test_what_one_record_names_is_bounded() -> None:
    many = [HandleValue(n, b"HS_SITE", encode_site(site_of([f"8.8.8.{n}"], FACES, serial=1))) for n in range(1, 30)]
    found = named_in(encode_record(many))
    assert len(found.servers) == CHECKS_MAX and found.left_out == 29 * 3 - CHECKS_MAX


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255",
        "100.64.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "2001:db8::1", "name.example",
    ],
)  # fmt: skip
def test_no_address_of_our_own_network_is_probed(address: str) -> None:
    assert not_to_probe(Server("tcp", address, 2641), [], frozenset())


def test_public_ones_are_and_configured_networks_and_never_ourselves() -> None:
    for address in (V4, V6):
        assert not_to_probe(Server("tcp", address, 2641), [], frozenset()) == ""
        assert "our own" in not_to_probe(Server("tcp", address, 2641), [], frozenset({(address, 2641)}))
    allowed = [ipaddress.ip_network("10.8.0.0/16"), ipaddress.ip_network("fd00::/8")]
    for address, may in (("10.8.1.1", True), ("10.9.1.1", False), ("fd00::1", True), ("fe80::1", False)):
        assert (not_to_probe(Server("udp", address, 1), allowed, frozenset()) == "") is may


def probed(check: Check, *answers: bool | None, at_s: float = 0.0) -> Health:
    for answered in answers:
        check.probed(answered, "why", int(at_s * NS), int(at_s * NS))
    return check.health


def test_three_values_and_what_each_needs() -> None:
    assert probed(Check(UP, 0)) is Health.UNKNOWN
    check = Check(UP, 0)
    assert probed(check, True) is Health.OK
    assert probed(check, False) is Health.UNKNOWN, "one failure is no proof, and no OK either"
    assert probed(check, *[False] * (FAILED_MIN - 2)) is Health.UNKNOWN
    assert probed(check, False) is Health.FAILED and "why" in check.why
    assert probed(check, True) is Health.OK and check.failures == 0
    assert probed(check, None, None, None) is Health.OK and check.failures == 0, "a late probe of ours says nothing"


def test_none_reads_ok_longer_than_its_interval_and_two_seconds() -> None:
    check = Check(UP, 0)
    probed(check, True, at_s=100)
    last_s = 100 + INTERVAL_S + SLACK_S
    assert SLACK_S == 2 and check.at(INTERVAL_S, int(last_s * NS)) is Health.OK
    assert check.at(INTERVAL_S, int(last_s * NS) + 1) is Health.UNKNOWN
    probed(check, None, at_s=last_s)
    check.age(INTERVAL_S, int(last_s * NS) + 1)
    assert check.health is Health.UNKNOWN and check.why == "not probed lately", "late probes do not keep it"
    probed(check, *[False] * FAILED_MIN, at_s=200)
    check.age(INTERVAL_S, int((201 + INTERVAL_S + SLACK_S) * NS))
    assert check.health is Health.UNKNOWN and check.failures == 0


def book(*servers: Server, note: str = "", per_s: float = 5) -> SiteBook:
    made = SiteBook(INTERVAL_S, per_s)
    made.found("region-9", {PREFIX: (Found(servers), note)}, frozenset(), 0)
    return made


def test_an_enterprise_is_ok_only_when_all_of_it_is() -> None:
    servers = (UP, replace(UP, address=V6))
    made = book(*servers)
    enterprise = made.tenants["region-9"][PREFIX]
    first, second = enterprise.checks.values()
    probed(first, True)
    assert enterprise.judge(INTERVAL_S, 0) is Health.UNKNOWN
    probed(second, True)
    assert enterprise.judge(INTERVAL_S, 0) is Health.OK and made.counts("region-9", 0)[Health.OK] == 1
    assert made.counts("region-9", int(70 * NS)) == {Health.UNKNOWN: 1, Health.OK: 0, Health.FAILED: 0}
    probed(second, *[False] * FAILED_MIN)
    assert enterprise.judge(INTERVAL_S, 0) is Health.FAILED and V6 in enterprise.why
    for other in (book(UP, note="its service handle is not held here"), book(UP, replace(UP, address="10.0.0.1"))):
        one = other.tenants["region-9"][PREFIX]
        probed(one.checks[UP], True)
        assert one.judge(INTERVAL_S, 0) is Health.UNKNOWN, "what is not probed is not OK"


def test_events_once_when_it_begins_and_when_it_is_over() -> None:
    made = book(UP)
    enterprise = made.tenants["region-9"][PREFIX]
    probed(enterprise.checks[UP], *[False] * FAILED_MIN)
    assert [(one.prefix, failed) for _, one, failed in made.turned(0)] == [(PREFIX, True)]
    enterprise.told = "event"
    assert made.turned(0) == []
    enterprise.checks[UP].age(INTERVAL_S, int(200 * NS))
    assert made.turned(int(200 * NS)) == [], "not known is not over"
    probed(enterprise.checks[UP], True, at_s=200)
    assert [failed for _, _, failed in made.turned(int(200 * NS))] == [False]


def test_turns_are_by_time_and_what_is_refused_has_none() -> None:
    refused = replace(UP, address="127.0.0.1")
    made = book(UP, refused, replace(UP, protocol="udp"))
    seen = []
    while (one := made.due(0)) is not None:
        seen.append(one[2].server)
        made.wait(*one, due_ns=int((10 + len(seen)) * NS))
    assert refused not in seen and len(seen) == 2
    assert made.due(int(10.5 * NS)) is None
    again = made.due(int(11 * NS))
    assert again is not None and again[2].server == seen[0]


def test_many_checks_stretch_the_interval_and_it_says_so() -> None:
    assert book(UP).interval_s == INTERVAL_S
    named = {f"88.118.9.{n}": (Found((UP,)), "") for n in range(1_000)}
    made = SiteBook(INTERVAL_S, 5)
    made.found("region-9", named, frozenset(), 0)
    assert made.interval_s == pytest.approx(240)


def test_a_new_reading_keeps_what_is_known_and_drops_what_is_gone() -> None:
    made = book(UP)
    probed(made.tenants["region-9"][PREFIX].checks[UP], True)
    other = replace(UP, address=V6)
    made.found("region-9", {PREFIX: (Found((UP, other)), "")}, frozenset(), 0)
    checks = made.tenants["region-9"][PREFIX].checks
    assert (checks[UP].health, checks[other].health) == (Health.OK, Health.UNKNOWN)
    made.found("region-9", {}, frozenset(), 0)
    assert made.tenants["region-9"] == {} and made.due(10**18) is None
    made.forget(["region-9"])
    assert made.tenants == {}
