"""Requests to the top-level node by file: what is signed, what an answer is worth, and what a resolver may confirm."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from replica.model.errors import Code, ZaibeiError
from replica.model.signing import Signer
from replica.model.states import Result
from replica.takeover.overlay import site_with
from replica.takeover.publish import Publication
from replica.takeover.request import (
    DONE,
    REFUSED,
    about,
    judge_answer,
    name_of,
    read_request,
    seen,
    write_answer,
    write_request,
)
from tests.unit.takeover.test_top_record import NODE, OURS, SECOND

MEMBER, TOP, OTHER = (Signer(Ed25519PrivateKey.generate()) for _ in range(3))
ASKED = Publication("88.118", (site_with(OURS, serial=9, primary=False), NODE), 9, "auto:node-a:7")
REQUEST = write_request(ASKED, "member-1", MEMBER)


def test_a_request_is_read_as_it_was_written_and_always_the_same() -> None:
    found = read_request(REQUEST)
    assert (found.member, found.publication) == ("member-1", ASKED)
    assert found.by(MEMBER.public) and not found.by(OTHER.public)
    assert write_request(ASKED, "member-1", MEMBER) == REQUEST


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("member", "member-2"), ("prefix", "88.119"), ("serial", 10), ("act", "x"), ("withdrawn", True), ("shadow", True),
        ("sites", []), ("sites", [NODE.hex()]), ("signature", "00" * 64), ("key_id", "00" * 32),
    ],
)  # fmt: skip
def test_every_field_of_a_request_is_signed(field: str, value: object) -> None:
    fields = json.loads(REQUEST)
    fields[field] = value
    assert not read_request(json.dumps(fields).encode()).by(MEMBER.public)


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text(max_size=9), st.lists).map(lambda one: json.dumps(one).encode()))
def test_any_octets_are_a_request_or_named_as_none(octets: bytes) -> None:
    with pytest.raises(ZaibeiError) as refused:
        read_request(octets)
    assert refused.value.code is Code.MALFORMED


@pytest.mark.parametrize("field", sorted(set(json.loads(REQUEST)) - {"format"}))
@pytest.mark.parametrize("value", [None, -1, [7], {"a": 1}])
def test_a_field_of_another_kind_is_no_request(field: str, value: Any) -> None:
    fields = json.loads(REQUEST)
    fields[field] = value
    try:
        found = read_request(json.dumps(fields).encode())
    except ZaibeiError as exc:
        assert exc.code is Code.MALFORMED
    else:  # flags: whatever is not true is false
        assert field in ("withdrawn", "shadow") and found.by(MEMBER.public)


def test_only_a_signed_done_about_this_very_request_confirms() -> None:
    done = write_answer(REQUEST, DONE, "in force since 12:00", TOP)
    said = judge_answer(done, REQUEST, "beijing", TOP.public)
    assert said.result is Result.PASS and "in force since 12:00" in said.detail
    other = write_request(replace(ASKED, serial=10), "member-1", MEMBER)
    for octets, request, why in (
        (done, other, "about another request"),
        (write_answer(REQUEST, DONE, "", OTHER), REQUEST, "no valid signature of beijing"),
        (done.replace(b"12:00", b"13:00"), REQUEST, "no valid signature of beijing"),
        (write_answer(REQUEST, REFUSED, "not agreed", TOP), REQUEST, "refused by beijing: not agreed"),
        (done.replace(b'"done"', b'"refused"'), REQUEST, "no valid signature"),
        (b"done", REQUEST, "cannot be read"),
        (b"{}", REQUEST, "cannot be read"),
    ):
        found = judge_answer(octets, request, "beijing", TOP.public)
        assert found.result is Result.FAIL and why in found.detail


def test_names_tell_prefix_serial_and_member() -> None:
    for prefix, member in (("88.118", "member-1"), ("oid:1.2.156", "a_b"), ("x/../_y", "m")):
        one = replace(ASKED, prefix=prefix)
        name = name_of(one, member)
        assert "/" not in name and about(name) == (prefix, 9, member)
        assert name_of(replace(one, withdrawn=True), member) != name
    for name in ("88.118_9_publish_m.answer", "README", "88.118_x_publish_m.request", "88.118_9_take_m.request", "a_b.request"):
        assert about(name) is None


def test_a_resolver_confirms_what_stands_there_alone() -> None:
    first = ASKED.sites[0]
    wanted = {
        (first, NODE): Result.PASS,
        (site_with(first, serial=12, primary=False), NODE): Result.PASS,
        (site_with(first, serial=8, primary=False), NODE): Result.FAIL,
        (site_with(first, serial=9, primary=True), NODE): Result.FAIL,
        (NODE, first): Result.FAIL,
        (first,): Result.FAIL,
        (first, NODE, SECOND): Result.FAIL,
        (): Result.FAIL,
    }
    assert {found: seen(found, ASKED, (OURS,)).result for found in wanted} == wanted
    withdrawn = Publication("88.118", (), 10, "x", withdrawn=True)
    assert seen((NODE,), withdrawn, (OURS,)).result is Result.PASS
    assert seen((NODE, site_with(OURS, serial=77, primary=True)), withdrawn, (OURS,)).result is Result.FAIL
