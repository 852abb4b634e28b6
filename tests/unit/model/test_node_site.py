"""Where clients are sent whose region left for a node of its own."""

from __future__ import annotations

from dataclasses import replace

from hosting.answer.question import Answer, Question
from hosting.answer.resolve import plan
from replica.member.answers import catalog_mark, catalog_of
from replica.model.group_state import GroupState, OverlaySites
from replica.model.handle.types import Protocol, decode_site, encode_site, site_of
from replica.model.handle.values import decode_values
from replica.model.identifier import prefix_key
from replica.model.node import Endpoint
from replica.model.node_site import left_for, site_of_node
from replica.model.states import Authority

PREFIX = prefix_key("88.118.9")
NODE = (Endpoint("udp", "192.0.2.9", 2641), Endpoint("tcp", "192.0.2.9", 2642), Endpoint("tcp", "2001:db8::9", 2642))
LEFT = GroupState("region-9", authority_act="returned:graduation:region-9:7", node=NODE, prefixes=(PREFIX,))


def test_the_site_is_tcp_first_dual_stack_and_primary() -> None:
    site = decode_site(site_of_node(NODE))
    [server] = site.servers
    assert site.primary and list(site.hosts(server)) == ["192.0.2.9", "2001:db8::9"]
    assert [(face.protocol, face.port) for face in server.interfaces] == [(Protocol.TCP, 2642), (Protocol.UDP, 2641)]
    assert site_of_node(()) == b"" == site_of_node((Endpoint("http", "192.0.2.9", 80),))


def test_only_who_left_is_referred_and_not_while_it_is_taken_over() -> None:
    assert left_for(LEFT) == NODE
    assert left_for(replace(LEFT, authority_act="returned:act")) == ()
    assert left_for(replace(LEFT, authority=Authority.RESOLUTION, authority_act="auto:x")) == ()


def test_the_prefixs_record_names_the_node_unless_a_takeover_names_us() -> None:
    catalog = catalog_of([LEFT], b"", 1)
    answer = plan(Question(b"0.NA/88.118.9"), catalog)
    assert isinstance(answer, Answer), "nobody's copy needs to be read: the parent is not held here"
    [value] = decode_values(answer.octets)
    assert (value.type, value.data) == (b"HS_SITE", site_of_node(NODE))
    ours = encode_site(site_of(["198.51.100.1"], [], serial=9))
    taken = replace(LEFT, overlays=(OverlaySites(PREFIX, (ours,), 9, "auto:x"),))
    assert catalog_of([taken], b"", 1).overlays[PREFIX].sites == (ours,)


def test_the_catalog_is_made_anew_when_the_node_moves() -> None:
    moved = replace(LEFT, node=(Endpoint("tcp", "192.0.2.10", 2642),))
    assert catalog_mark({"region-9": LEFT}) != catalog_mark({"region-9": moved})
    elsewhere = replace(LEFT, authority_act="returned:act")
    assert catalog_mark({"region-9": elsewhere}) == catalog_mark({"region-9": replace(elsewhere, node=())})
