"""Our own published addresses: who answers, who is dead, and what is published then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replica.model.errors import InvariantBroken
from replica.model.handle.types import Interface, InterfaceUse, Protocol, decode_site, encode_site, site_of
from replica.model.node import Endpoint
from replica.model.states import Result
from replica.takeover.families import (
    ANSWERED_MIN,
    FAILED_MIN,
    KNOWN_MS_MAX,
    MS,
    Families,
    Look,
    Reach,
    Watched,
    endpoints_of,
    hosts_of,
    is_outdated,
    site_without,
)
from replica.takeover.overlay import is_listed, site_with
from replica.takeover.readiness import assess, ready
from tests.unit.takeover.test_readiness import GOOD

FOUR, SIX = "192.0.2.7", "2001:db8::7"
FACES = tuple(Interface(InterfaceUse.QUERY, protocol, 2641) for protocol in (Protocol.TCP, Protocol.UDP))
SITE = encode_site(site_of((FOUR, SIX), FACES, serial=1, description="ours"))
BOTH, NONE = Look(here=True, outside={"m2": True}), Look(here=True, outside={"m2": False, "m3": False})


def watched(*looks: Look) -> Watched:
    one = Watched(FOUR, 0)
    for number, look in enumerate(looks):
        one.look(look, number * 2_000 * MS)
    return one


def test_a_family_is_dead_after_some_looks_and_comes_back_after_more() -> None:
    assert watched(BOTH).state is Reach.ANSWERS
    assert watched(BOTH, *[NONE] * (FAILED_MIN - 1)).state is Reach.ANSWERS
    dead = watched(BOTH, *[NONE] * FAILED_MIN)
    assert dead.state is Reach.DEAD
    for _ in range(ANSWERED_MIN - 1):
        dead.look(BOTH, 60_000 * MS)
        assert dead.state is Reach.DEAD
    dead.look(NONE, 60_000 * MS)  # it flaps: counted anew
    for number in range(ANSWERED_MIN):
        assert dead.state is Reach.DEAD, number
        dead.look(BOTH, 60_000 * MS)
    assert dead.state is Reach.ANSWERS


def test_one_other_member_that_is_answered_is_enough() -> None:
    assert Look(here=False, outside={"m2": False, "m3": True}).answered is True


def test_our_own_answer_proves_nothing_where_others_could_look() -> None:
    """The kernel brings us to our own address whatever is dead between it and the world."""
    assert Look(here=True).answered is None and Look(here=False).answered is False
    assert Look(here=True, alone=True).answered is True
    dead = watched(*[NONE] * FAILED_MIN)
    for number in range(100):
        dead.look(Look(here=True), (100 + number) * 2_000 * MS)
    assert dead.state is Reach.DEAD


def test_what_was_seen_long_ago_is_known_no_more() -> None:
    one = watched(BOTH)
    one.look(Look(here=True), KNOWN_MS_MAX * MS)
    assert one.state is Reach.ANSWERS
    one.look(Look(here=True), (KNOWN_MS_MAX + 1) * MS)
    assert one.state is Reach.UNKNOWN


def test_moves_are_those_of_the_table() -> None:
    with pytest.raises(InvariantBroken, match="cannot move"):
        watched(*[NONE] * FAILED_MIN)._move(Reach.UNKNOWN, 1)


def test_the_site_without_a_family_keeps_all_else() -> None:
    four, six = decode_site(site_without(SITE, {SIX})), decode_site(site_without(SITE, {FOUR}))
    whole = decode_site(SITE)
    assert four.hosts(four.servers[0]) == (FOUR,) and six.hosts(six.servers[0]) == (SIX,)
    for one in (four, six):
        assert replace(one, servers=(), attributes=()) == replace(whole, servers=(), attributes=())
        assert one.servers[0].interfaces == FACES and (b"desc", b"ours") in one.attributes
    assert site_without(SITE, set()) == SITE == site_without(SITE, {"192.0.2.9"})
    assert site_without(SITE, {FOUR, SIX}) == SITE, "nobody knows anything better"
    assert site_without(b"no site", {FOUR}) == b"no site"


def test_a_site_of_two_servers_loses_the_one_that_has_no_address_left() -> None:
    whole = decode_site(SITE)
    second = replace(whole.servers[0], server_id=2, address=decode_site(site_without(SITE, {FOUR})).servers[0].address)
    site = encode_site(replace(whole, servers=(whole.servers[0], second), attributes=()))
    assert hosts_of(site) == (FOUR, SIX) and hosts_of(site_without(site, {SIX})) == (FOUR,)
    assert [server.server_id for server in decode_site(site_without(site, {SIX})).servers] == [1]


def test_what_leads_elsewhere_than_our_site_should_now_is_outdated() -> None:
    published = site_with(SITE, serial=9, primary=True)
    assert not is_outdated(published, SITE, ())
    assert is_outdated(published, SITE, {SIX})
    assert is_outdated(site_without(published, {SIX}), SITE, ())
    assert is_outdated(site_without(published, {SIX}), SITE, {FOUR})
    assert not is_outdated(site_without(published, {SIX}), SITE, {SIX})
    anothers = encode_site(site_of(("192.0.2.8", "2001:db8::8"), FACES, serial=1, description="ours"))
    assert is_outdated(anothers, SITE, {SIX})
    assert not is_outdated(b"", SITE, {SIX}) and not is_outdated(published, b"", {SIX})


def test_each_address_is_asked_over_tcp_and_over_udp_where_there_is_no_tcp() -> None:
    assert endpoints_of(SITE) == {host: (Endpoint("tcp", host, 2641),) for host in (FOUR, SIX)}
    udp = encode_site(site_of((FOUR,), FACES[1:], serial=1))
    assert endpoints_of(udp) == {FOUR: (Endpoint("udp", FOUR, 2641),)} and endpoints_of(b"no site") == {}


def test_people_are_told_which_family_is_dead_and_what_is_published() -> None:
    families = Families(SITE, 0)
    assert {row["state"] for row in families.rows(0)} == {"unknown"} and families.warnings(0) == []
    for _ in range(FAILED_MIN):
        families.looked({FOUR: BOTH, SIX: NONE}, 1)
    assert families.dead() == {SIX}
    assert [(row["family"], row["state"], row["published"]) for row in families.rows(1)] == [
        ("IPv4", "answers", True), ("IPv6", "dead", False),
    ]  # fmt: skip
    [told] = families.warnings(1)
    assert "our address 2001:db8::7 (IPv6) answers nobody, seen from m2, m3" in told
    assert "published without it, to clients of IPv6 alone we cannot be found" in told
    for _ in range(FAILED_MIN):
        families.looked({FOUR: NONE, SIX: NONE}, 1)
    assert len(families.warnings(1)) == 2 and all("published as it is configured" in text for text in families.warnings(1))


def test_readiness_says_it_too() -> None:
    families = Families(SITE, 0)

    def check() -> tuple[Result, str, Result]:
        checks = assess(replace(GOOD, addresses=families.rows(0)))
        found = {one.name: one for one in checks}["addresses"]
        return found.result, found.detail, ready(checks)

    assert check()[0] is Result.UNKNOWN is check()[2]
    families.looked({FOUR: BOTH, SIX: BOTH}, 0)
    assert check() == (Result.PASS, f"IPv4 {FOUR} answers, IPv6 {SIX} answers (seen from m2)", Result.PASS)
    for _ in range(FAILED_MIN):
        families.looked({FOUR: BOTH, SIX: NONE}, 0)
    assert check()[0] is Result.FAIL is check()[2] and f"IPv6 {SIX} dead" in check()[1]


def test_a_site_that_is_listed_without_our_key_is_listed() -> None:
    keyed = encode_site(site_of((FOUR, SIX), FACES, serial=1, public_key=b"ours", description="ours"))
    other = encode_site(site_of((FOUR, SIX), FACES, serial=1, public_key=b"another's", description="ours"))
    assert is_listed(keyed, {b"p": (site_with(SITE, serial=9, primary=True),)}), "of before we had a key"
    assert is_listed(keyed, {b"p": (site_with(keyed, serial=9, primary=True),)})
    assert not is_listed(keyed, {b"p": (other,)}) and not is_listed(SITE, {b"p": (keyed,)})
    assert is_outdated(site_with(SITE, serial=9, primary=True), keyed, ()), "what we publish ourselves is renewed"
