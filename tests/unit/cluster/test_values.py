"""Care of the control leader, the card and the places, health for load balancers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.cluster.card import Card, CardMember, decode_card, encode_card
from replica.cluster.care import emptied, next_entries
from replica.cluster.edge_card import (
    read_card,
    read_lineage,
    read_places,
    write_card,
    write_lineage,
    write_places,
)
from replica.cluster.health import GroupHealth, Health, answer
from replica.cluster.places import Place, decode_places, encode_places, merged, of_card, of_state
from replica.cluster.state import MemberState
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import OutcomeKind
from tests.unit.cluster.worlds import CLUSTER, LINEAGE, Cluster

CARD = Card(CLUSTER, LINEAGE, 1, "m1", (CardMember(1, "m1", ("m1:2646",)),))


# --------------------------------------------------------------------------------------------------------------- care
def test_care_ends_a_removal_only_when_every_log_is_known_to_be_free_of_it() -> None:
    cluster = Cluster()
    for at in range(4):
        cluster.join(f"m{at + 1}")
    cluster.make("g", 1)
    cluster.settle()
    cluster.leave(4)
    cluster.settle()
    world = cluster.world()
    assert emptied(world) == [4]
    assert emptied(replace(world, groups={"g": world.groups["g"]})) == [], "control is not known of"
    held = replace(world.groups["g"], outgoing=frozenset({4}))
    assert emptied(replace(world, groups={**world.groups, "g": held})) == []
    for entry in next_entries(world, 5):
        assert cluster.apply(entry).kind is OutcomeKind.APPLIED
    found = cluster.state.member(4)
    assert found is not None and found.state is MemberState.REMOVED
    assert next_entries(cluster.world(), 6) == []


def test_the_same_care_twice_is_one_act() -> None:
    cluster = Cluster()
    for at in range(3):
        cluster.join(f"m{at + 1}")
    first, second = next_entries(cluster.world(), 1), next_entries(cluster.world(), 2)
    assert [entry.control.act for entry in first] == [entry.control.act for entry in second]
    assert [cluster.apply(entry).kind for entry in (*first, *second)] == [OutcomeKind.APPLIED, OutcomeKind.ALREADY]


# --------------------------------------------------------------------------------------------------- card and places
def test_a_card_there_and_back(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None
    write_card(tmp_path, CARD)
    file = tmp_path / "cluster" / "card.json"
    assert read_card(tmp_path) == CARD and file.stat().st_mode & 0o777 == 0o600
    shown = json.loads(file.read_text())
    assert {"format", "cluster", "lineage", "number", "name", "members"} == shown.keys()
    assert shown["members"] == [{"number": 1, "name": "m1", "addresses": ["m1:2646"]}]
    write_card(tmp_path, CARD)
    with pytest.raises(ZaibeiError) as raised:
        write_card(tmp_path, replace(CARD, number=2))
    assert raised.value.code is Code.CONFLICT and read_card(tmp_path) == CARD


@pytest.mark.parametrize(
    "broken",
    [b"", b"{}", b"[]", encode_card(CARD)[:-5], encode_card(replace(CARD, number=0)), encode_card(replace(CARD, cluster=b"x"))],
)
def test_a_damaged_card_is_no_member_by_itself(tmp_path: Path, broken: bytes) -> None:
    write_card(tmp_path, CARD)
    (tmp_path / "cluster" / "card.json").write_bytes(broken)
    with pytest.raises(ZaibeiError) as raised:
        read_card(tmp_path)
    assert raised.value.code is Code.DAMAGED and "Next: " in raised.value.trouble.message


def test_a_card_of_a_newer_version_says_so() -> None:
    with pytest.raises(ZaibeiError, match="update this member"):
        decode_card(encode_card(CARD).replace(b'"format": 1', b'"format": 2'), "card")


def test_a_lineage_is_kept_for_good(tmp_path: Path) -> None:
    assert read_lineage(tmp_path) is None
    write_lineage(tmp_path, LINEAGE)
    write_lineage(tmp_path, LINEAGE)
    with pytest.raises(ZaibeiError):
        write_lineage(tmp_path, CLUSTER)
    assert read_lineage(tmp_path) == LINEAGE
    (tmp_path / "lineage").write_bytes(b"short")
    with pytest.raises(ZaibeiError, match="restore"):
        read_lineage(tmp_path)


def test_places_are_what_was_told_last(tmp_path: Path) -> None:
    write_card(tmp_path, CARD)
    assert read_places(tmp_path) == of_card(CARD)
    told = (Place(1, "m1", "a", ("new:1",)), Place(2, "m2", "b", ("m2:1",), ("m2:2",), ("m2:3",)), Place(0, "nobody"))
    known = merged(read_places(tmp_path), told)
    assert [place.number for place in known] == [1, 2] and known[0].links == ("new:1",)
    assert merged(known, [Place(2, "m2")]) == known, "an empty list of addresses tells nothing"
    write_places(tmp_path, known)
    assert read_places(tmp_path) == known
    (tmp_path / "cluster" / "places.json").write_bytes(b"{broken")
    assert read_places(tmp_path) == of_card(CARD), "a damaged cache costs time only"
    cluster = Cluster()
    cluster.join("m1", "a")
    assert of_state(cluster.state)[0].links == ("m1:2646",)


@given(st.binary(max_size=200))
def test_no_octets_break_the_places(octets: bytes) -> None:
    assert decode_places(octets) == () or decode_places(encode_places(decode_places(octets))) == decode_places(octets)


# ------------------------------------------------------------------------------------------------------------- health
GROUPS = {
    "led": GroupHealth("leader", "m1", 0, 40),
    "near": GroupHealth("follower", "m2", 50, 900),
    "far": GroupHealth("follower", "m2", 5_000, 90_000),
    "blind": GroupHealth("follower", ""),
    "new": GroupHealth("learner", "m2", 3, 10),
    "bad": GroupHealth("follower", "m2", 0, 0, "its store is damaged"),
    "none": GroupHealth("none", "m2"),
}
GOOD = Health("m1", groups=GROUPS)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/livez", 200),
        ("/readyz", 200),
        ("/leader/led", 200),
        ("/leader/near", 503),
        ("/leader/none", 503),
        ("/leader/led?lag=5", 400),
        ("/follower/led", 503),
        ("/follower/near", 200),
        ("/follower/near?lag=50", 200),
        ("/follower/near?lag=49", 503),
        ("/follower/near?lag=1s", 200),
        ("/follower/near?lag=899ms", 503),
        ("/follower/far", 200),
        ("/follower/far?lag=100", 503),
        ("/follower/blind", 200),
        ("/follower/blind?lag=100000000", 503),
        ("/follower/new?lag=3", 200),
        ("/follower/bad", 503),
        ("/follower/none", 503),
        ("/any/led?lag=0", 200),
        ("/any/near?lag=2s", 200),
        ("/any/bad", 503),
        ("/any/unheard", 404),
        ("/any/near?lag=x", 400),
        ("/any/near?lag=-1", 400),
        ("/any/near?lag=", 400),
        ("/any/near?leg=5", 400),
        ("/any/n%65ar", 200),
    ],
)
def test_what_load_balancers_are_told(target: str, status: int) -> None:
    found = answer(GOOD, target)
    assert found is not None and found[0] == status
    assert found[1]["ok"] is (status == 200) and bool(found[1]["reason"]) is (status != 200)
    json.dumps(found[1])


@pytest.mark.parametrize("target", ["/", "/metrics", "/leader", "/leader/a/b", "livez", "/livez/", "/LIVEZ", ""])
def test_other_paths_are_not_answered_here(target: str) -> None:
    assert answer(GOOD, target) is None


def statuses(health: Health) -> list[int]:
    found = [answer(health, target) for target in ("/livez", "/readyz", "/leader/led", "/any/near")]
    return [one[0] for one in found if one is not None]


def test_a_draining_a_starting_and_a_failed_member() -> None:
    assert statuses(GOOD) == [200, 200, 200, 200]
    assert statuses(replace(GOOD, draining=True)) == [200, 503, 200, 503], "who leads is a fact, whom to send to is not"
    assert statuses(replace(GOOD, unready="starting")) == [200, 503, 503, 503]
    assert statuses(replace(GOOD, failed="the journal failed")) == [503, 503, 503, 503]


@given(st.text(max_size=60))
def test_no_target_breaks_it(target: str) -> None:
    for role in ("", "/any/near?", "/leader/", "/any/near?lag="):
        found = answer(GOOD, role + target)
        assert found is None or found[0] in (200, 400, 404, 503)
