"""From questions to answers: plans, referrals, overlays, quarantine, gaps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hosting.answer.port import MemoryAnswerPort
from hosting.answer.question import Answer, Question
from hosting.answer.resolve import Plan, answer_plan, answer_record, head_of, plan
from hosting.answer.standing import standing_of
from replica.model.catalog import Catalog, Owner
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.group_state import OverlaySites
from replica.model.handle.types import Interface, Protocol, encode_site, site_of
from replica.model.handle.values import HandleValue, decode_values, encode_record
from replica.model.identifier import Identifier, PrefixTree, prefix_key
from replica.model.position import Position
from replica.model.states import Authority, Freshness, Mode
from replica.model.view import SourceView

POSITION = Position(bytes(16), 1, 9, b"\x01" * 32)
FRESH = SourceView("top", position=POSITION, age_ms=10, freshness=Freshness.FRESH, ready=True)
EXPIRED = replace(FRESH, freshness=Freshness.EXPIRED, age_ms=400_000)
TAKEN = replace(FRESH, authority=Authority.RESOLUTION, freshness=Freshness.DEGRADED)


def site(port: int, *, primary: bool = False, serial: int = 7, host: str = "127.0.0.1") -> bytes:
    return encode_site(site_of([host], [Interface(3, Protocol.TCP, port)], serial=serial, primary=primary))


OUR_SITE, NODE_SITE, ENTERPRISE_SITE = site(2641), site(3641, primary=True), site(4641, primary=True)


def record(*values: HandleValue) -> bytes:
    return encode_record(values)


URL = record(HandleValue(1, b"URL", b"http://example.cn/a"), HandleValue(2, b"SECRET", b"x", permissions=0x0C))
CATALOG = Catalog(
    1,
    PrefixTree(
        {
            prefix_key("88"): Owner("top", Mode.ROUTES),
            prefix_key("88.118"): Owner("gd", Mode.RECORDS),
            prefix_key("88.119"): Owner("gx", Mode.ROUTES),
            prefix_key("88.120"): Owner("hn", Mode.MIXED),
            prefix_key("88.118.9"): Owner("gd", Mode.RECORDS, case_sensitive=True),
            prefix_key("oid:1.2.156"): Owner("oid", Mode.RECORDS),
        }
    ),
    own_site=OUR_SITE,
)


def key(name: str, *, case_sensitive: bool = False) -> bytes:
    return Identifier.parse(name).key(case_sensitive=case_sensitive)


def ask(name: str, stored: dict[str, bytes], view: SourceView = FRESH, catalog: Catalog = CATALOG, **question: object) -> Answer:
    asked = Question(name.encode(), **question)  # type: ignore[arg-type]
    todo = plan(asked, catalog)
    if isinstance(todo, Answer):
        return todo
    held = {key(one): value for one, value in stored.items()}
    values = [held.get(wanted) for wanted in todo.keys]
    return answer_plan(asked, todo, values, standing_of(view), catalog.own_site)


def types_of(answer: Answer) -> list[tuple[int, bytes]]:
    return [(value.index, value.type) for value in decode_values(answer.octets)]


# ------------------------------------------------------------------------------------------------------------- plans
def test_an_identifier_of_records_needs_one_key() -> None:
    todo = plan(Question(b"88.118.8/xyz"), CATALOG)
    assert isinstance(todo, Plan)
    assert (todo.source, todo.keys) == ("gd", (b"h88\x01118\x018\x00XYZ",))


def test_the_longest_prefix_decides_source_and_case() -> None:
    todo = plan(Question(b"88.118.9/xyz"), CATALOG)
    assert isinstance(todo, Plan)
    assert todo.keys == (b"h88\x01118\x019\x00xyz",)


def test_an_identifier_of_routes_needs_the_routes_below_the_owned_prefix_nearest_first() -> None:
    todo = plan(Question(b"88.119.8.1/x"), CATALOG)
    assert isinstance(todo, Plan)
    assert todo.keys == (key("88.119.8.1/x"), key("0.NA/88.119.8.1"), key("0.NA/88.119.8"))


def test_a_prefix_is_asked_of_the_owner_of_its_parent() -> None:
    todo = plan(Question(b"0.NA/88.118"), CATALOG)
    assert isinstance(todo, Plan)
    assert (todo.source, todo.keys, todo.route) == ("top", (key("0.NA/88.118"),), True)
    below = plan(Question(b"88.118.8"), CATALOG)
    assert isinstance(below, Plan)
    assert (below.source, below.keys) == ("gd", (key("0.NA/88.118.8"),))


@pytest.mark.parametrize("name", [b"", b"/", b"88..1/x", b"0.NA/", b"oid:3.1", b"x" * 2_049])
def test_what_is_no_name_is_102(name: bytes) -> None:
    answer = plan(Question(name), CATALOG)
    assert isinstance(answer, Answer)
    assert answer.code == 102


@pytest.mark.parametrize("name", ["86.1000.1/abc", "0.NA/88", "0.NA/0.NA", "gs1:01/09506000134352", "0.SERV/x"])
def test_a_prefix_nobody_here_owns_is_301(name: str) -> None:
    assert ask(name, {}).code == 301


def test_other_code_types_are_answered_as_stored() -> None:
    assert ask("oid:1.2.156.7", {"oid:1.2.156.7": URL}, replace(FRESH, source="oid")).code == 1


def test_the_short_way_finds_the_same_keys_as_a_plan() -> None:
    for name in (b"88.118.8/xYz", b"88.118.9/xYz", b"88.119/a", b"88.118/a/b:c", b"88.118.8/", b"88.118.8/oid:1"):
        head = head_of(name.partition(b"/")[0], CATALOG)
        todo = plan(Question(name), CATALOG)
        assert head is not None and isinstance(todo, Plan)
        suffix = name.partition(b"/")[2]
        assert (head.source, head.start + (suffix.upper() if head.fold else suffix)) == (todo.source, todo.keys[0])


@pytest.mark.parametrize("prefix", [b"0.NA", b"0.na", b"88.119.8", b"86.5", b"oid:1.2", b"", b"88..1"])
def test_no_short_way_where_a_plan_is_needed(prefix: bytes) -> None:
    assert head_of(prefix, CATALOG) is None


# ----------------------------------------------------------------------------------------------------------- records
def test_only_public_values_leave() -> None:
    assert types_of(ask("88.118/a", {"88.118/a": URL})) == [(1, b"URL")]
    assert ask("88.118/a", {"88.118/a": URL}, types=(b"SECRET",)).code == 200


def test_filters_are_a_union() -> None:
    both = record(HandleValue(1, b"URL", b"a"), HandleValue(2, b"URL.CN", b"b"), HandleValue(3, b"DESC", b"c"))
    assert types_of(ask("88.118/a", {"88.118/a": both}, types=(b"url",))) == [(1, b"URL"), (2, b"URL.CN")]
    assert types_of(ask("88.118/a", {"88.118/a": both}, types=(b"DESC",), indexes=(1,))) == [(1, b"URL"), (3, b"DESC")]
    assert ask("88.118/a", {"88.118/a": both}, indexes=(9,)).code == 200


@pytest.mark.parametrize(
    ("view", "found", "missing"), [(FRESH, 1, 100), (EXPIRED, 2, 2), (TAKEN, 1, 2), (replace(FRESH, ready=False), 2, 2)]
)
def test_codes_follow_the_standing(view: SourceView, found: int, missing: int) -> None:
    assert ask("88.118/a", {"88.118/a": URL}, view).code == found
    answer = ask("88.118/b", {}, view)
    assert answer.code == missing
    if missing == 2:
        assert b"position 1/9" in answer.octets


def test_quarantined_octets_are_2() -> None:
    assert ask("88.118/a", {"88.118/a": b""}).code == 2
    assert ask("88.119.8/a", {"0.NA/88.119.8": b""}).code == 2
    assert ask("0.NA/88.119.8.1", {"0.NA/88.119.8": b""}).code == 2
    assert b"quarantined" in ask("0.NA/88.119", {"0.NA/88.119": b""}).octets


def test_octets_that_do_not_parse_are_2() -> None:
    assert ask("88.118/a", {"88.118/a": b"\x01\x00\x00\x00\x05zz"}).code == 2


def test_below_a_gap_a_missing_name_is_2_even_after_a_registration_takeover() -> None:
    view = replace(FRESH, authority=Authority.REGISTRATION, gaps=(prefix_key("88.118.8"),))
    assert ask("88.118.8.1/x", {}, view).code == 2
    assert ask("88.118.8/x", {}, view).code == 2
    assert ask("88.118.7/x", {}, view).code == 100
    assert ask("0.NA/88.118.8.1", {}, view).code == 2


def test_an_authoritative_answer_is_given_by_the_authority_alone() -> None:
    refused = ask("88.118/a", {"88.118/a": URL}, authoritative=True)
    assert refused.code == 2 and b"not the authority" in refused.octets
    authority = replace(FRESH, authority=Authority.REGISTRATION)
    assert ask("88.118/a", {"88.118/a": URL}, authority, authoritative=True).code == 1


# --------------------------------------------------------------------------------------------------------- referrals
ROUTE = record(HandleValue(1, b"HS_SITE", ENTERPRISE_SITE), HandleValue(100, b"HS_ADMIN", b"x"))


def test_an_identifier_below_a_route_is_302_with_its_sites() -> None:
    answer = ask("88.119.8.1/x", {"0.NA/88.119.8": ROUTE})
    assert (answer.code, answer.referral, types_of(answer)) == (302, b"", [(1, b"HS_SITE")])


def test_the_nearest_route_wins() -> None:
    near = record(HandleValue(5, b"HS_SITE", site(5641)))
    assert types_of(ask("88.119.8.1/x", {"0.NA/88.119.8": ROUTE, "0.NA/88.119.8.1": near})) == [(5, b"HS_SITE")]


def test_routes_go_before_records_and_mixed_after_them() -> None:
    assert ask("88.119.8/x", {"0.NA/88.119.8": ROUTE, "88.119.8/x": URL}).code == 302
    assert ask("88.120.8/x", {"0.NA/88.120.8": ROUTE, "88.120.8/x": URL}).code == 1
    assert ask("88.120.8/x", {"0.NA/88.120.8": ROUTE}).code == 302
    assert ask("88.119.8/x", {"88.119.8/x": URL}).code == 1


def test_a_service_handle_is_named_as_referral() -> None:
    answer = ask("88.119.8/x", {"0.NA/88.119.8": record(HandleValue(1, b"HS_SERV", b"0.SERV/88.119"))})
    assert (answer.code, answer.referral, answer.octets) == (302, b"0.SERV/88.119", bytes(4))


@pytest.mark.parametrize("kind", [b"HS_SITE.PREFIX", b"HS_NA_DELEGATE", b"HS_SERV.PREFIX"])
def test_a_prefix_below_a_delegated_one_is_303(kind: bytes) -> None:
    route = record(HandleValue(3, kind, NODE_SITE), HandleValue(4, b"HS_SITE", NODE_SITE))
    answer = ask("0.NA/88.121.5", {"0.NA/88.121": route})
    assert (answer.code, answer.referral, types_of(answer)) == (303, b"", [(3, kind)])


def test_a_delegation_to_the_source_we_copy_is_answered_from_the_copy() -> None:
    """0.NA/88.118 delegates to the node of `gd`; we hold the copy of `gd` and never send anybody there for it."""
    delegating = record(HandleValue(3, b"HS_SITE.PREFIX", NODE_SITE))
    assert ask("0.NA/88.118.5", {"0.NA/88.118": delegating}).code == 100


def test_no_referral_leads_back_to_us() -> None:
    ours = record(HandleValue(1, b"HS_SITE", OUR_SITE), HandleValue(2, b"HS_SITE.PREFIX", OUR_SITE))
    assert ask("88.119.8/x", {"0.NA/88.119.8": ours}).code == 100
    assert ask("0.NA/88.119.8.1", {"0.NA/88.119.8": ours}).code == 100
    both = record(HandleValue(1, b"HS_SITE", OUR_SITE), HandleValue(2, b"HS_SITE", ENTERPRISE_SITE))
    assert types_of(ask("88.119.8/x", {"0.NA/88.119.8": both})) == [(2, b"HS_SITE")]


def test_an_unwanted_referral_is_301() -> None:
    assert ask("88.119.8/x", {"0.NA/88.119.8": ROUTE}, refer=False).code == 301


def test_a_source_past_its_horizon_refers_nobody() -> None:
    assert ask("88.119.8/x", {"0.NA/88.119.8": ROUTE}, EXPIRED).code == 2


def test_private_routes_refer_nobody() -> None:
    hidden = record(HandleValue(1, b"HS_SITE", ENTERPRISE_SITE, permissions=0x0C))
    assert ask("88.119.8/x", {"0.NA/88.119.8": hidden}).code == 100


# ---------------------------------------------------------------------------------------------------------- overlays
NODE_RECORD = record(
    HandleValue(2, b"HS_SITE", NODE_SITE, ttl=10, timestamp=5), HandleValue(3, b"DESC", b"x"), HandleValue(100, b"HS_ADMIN", b"y")
)


def overlaid(*sites: bytes) -> Catalog:
    prefix = prefix_key("88.118")
    return replace(CATALOG, overlays={prefix: OverlaySites(prefix, sites, 8, "act-1")})


def test_our_site_comes_first_and_the_nodes_second() -> None:
    for sites in ((OUR_SITE,), (OUR_SITE, NODE_SITE)):
        answer = ask("0.NA/88.118", {"0.NA/88.118": NODE_RECORD}, catalog=overlaid(*sites), types=(b"HS_SITE",))
        values = decode_values(answer.octets)
        assert [(value.index, value.data, value.ttl) for value in values] == [
            (2, OUR_SITE, 10),
            (4, NODE_SITE, 10),
        ]
    everything = ask("0.NA/88.118", {"0.NA/88.118": NODE_RECORD}, catalog=overlaid(OUR_SITE))
    assert types_of(everything) == [(2, b"HS_SITE"), (3, b"DESC"), (4, b"HS_SITE"), (100, b"HS_ADMIN")]


def test_an_overlay_with_the_primary_flag_replaces_the_nodes_site() -> None:
    ours = site(2641, primary=True)
    answer = ask("0.NA/88.118", {"0.NA/88.118": NODE_RECORD}, catalog=overlaid(ours), types=(b"HS_SITE",))
    assert [value.data for value in decode_values(answer.octets)] == [ours]


def test_an_overlay_is_answered_where_the_parents_copy_is_worth_nothing() -> None:
    catalog = overlaid(OUR_SITE)
    assert types_of(ask("0.NA/88.118", {}, EXPIRED, catalog, types=(b"HS_SITE", b"HS_SITE.6"))) == [(1, b"HS_SITE")]
    assert ask("0.NA/88.118", {}, EXPIRED, catalog).code == 2
    assert ask("0.NA/88.118", {}, FRESH, catalog).code == 1
    bare = replace(catalog, owners=PrefixTree({prefix_key("88.118"): Owner("gd", Mode.RECORDS)}))
    assert ask("0.NA/88.118", {}, FRESH, bare).code == 1


def test_an_overlay_touches_its_own_prefix_alone() -> None:
    catalog = overlaid(OUR_SITE)
    assert ask("0.NA/88.118.5", {"0.NA/88.118.5": NODE_RECORD}, catalog=catalog).octets == NODE_RECORD[1:]
    assert ask("88.118/a", {"88.118/a": URL}, catalog=catalog).code == 1


def test_an_overlay_that_finds_no_room_goes_first() -> None:
    full = record(*(HandleValue(index, b"T", b"") for index in range(2_048)))
    answer = ask("0.NA/88.118", {"0.NA/88.118": full}, catalog=overlaid(OUR_SITE))
    assert types_of(answer) == [(1, b"HS_SITE")]


# -------------------------------------------------------------------------------------------------------- memory twin
async def test_the_memory_twin_leaves_out_what_it_does_not_hold_and_fails_when_told() -> None:
    port = MemoryAnswerPort(CATALOG, {"gd": FRESH}, {"gd": {b"k": b"v"}})
    assert await port.get_many({"gd": [b"k", b"n"], "gx": [b"k"]}) == {"gd": ([b"v", None], FRESH)}
    port.trouble = Trouble(Code.STOPPING, "stopping")
    with pytest.raises(ZaibeiError):
        await port.get_many({})
    with pytest.raises(ZaibeiError):
        port.catalog()


def test_the_short_way_and_the_plan_agree_on_the_answer() -> None:
    for view in (FRESH, EXPIRED, TAKEN):
        for value in (URL, None, b""):
            short = answer_record(Question(b"88.118/a"), value, standing_of(view), prefix_key("88.118"), key("88.118/a"))
            stored = {} if value is None else {"88.118/a": value}
            assert (short.code, short.octets) == ask("88.118/a", stored, view)[:2]
