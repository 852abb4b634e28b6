"""Challenges, permits and edits: the pure half of registration over the Handle protocol."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.handle import permits
from hosting.handle.challenges import ChallengeLimits, Challenges
from hosting.handle.edits import Denied, Edit, edit_of
from hosting.handle.permits import Walk, admins, folded
from replica.model.handle.bodies import HandleRequest, IndexesRequest, Request, ValuesRequest
from replica.model.handle.codes import OpCode, OpFlag, ResponseCode
from replica.model.handle.types import ADMIN_ALL, AdminPermission, HsAdmin, encode_admin, encode_vlist
from replica.model.handle.values import HandleValue, Reference

NAME = b"88.118.9/A"
KEY = Reference(b"88.118.9/ADMIN", 300)


def admin(index: int = 100, key: Reference = KEY, bits: int = ADMIN_ALL) -> HandleValue:
    return HandleValue(index, b"HS_ADMIN", encode_admin(HsAdmin(bits, key)))


def url(index: int = 1, data: bytes = b"x", permissions: int = 0x0E) -> HandleValue:
    return HandleValue(index, b"URL", data, permissions=permissions)


def group(*references: Reference, index: int = 200) -> HandleValue:
    return HandleValue(index, b"HS_VLIST", encode_vlist(references))


def walked(key: Reference, roots: Sequence[Reference], records: dict[bytes, Sequence[HandleValue]]) -> tuple[bool, int]:
    """(permitted, handles looked at)."""
    walk, looked = Walk(key, roots), 0
    while wanted := walk.wanted:
        looked += len(wanted)
        walk.told({handle: records.get(handle) for handle in wanted})
    return walk.permitted, looked


# ---------------------------------------------------------------------------------------------------------- challenges
def kept(table: Challenges[bytes], session: int, client: str = "a", octets: bytes = b"o", now_ms: int = 0) -> bool:
    if not table.room(client, len(octets), now_ms):
        return False
    table.offer(session, client, octets, len(octets), now_ms)
    return True


def test_a_challenge_is_answered_once_by_its_client_in_its_time() -> None:
    table: Challenges[bytes] = Challenges()
    assert kept(table, 1) and kept(table, 2) and kept(table, 3, now_ms=10)
    assert table.take(1, "b", 5) is None, "another client's"
    assert table.take(1, "a", 5) is not None
    assert table.take(1, "a", 5) is None, "a replay"
    assert table.take(2, "a", 60_000) is None, "too late"
    assert table.take(3, "a", 60_000) is not None
    assert len(table) == table.octets == 0


def test_a_flood_costs_its_sender_alone() -> None:
    table: Challenges[bytes] = Challenges(ChallengeLimits(waiting_max=4, client_max=2, client_octets_max=10))
    assert kept(table, 1, "quiet")
    assert all(kept(table, session, "flood") for session in range(2, 20))
    assert table.take(1, "quiet", 0) is not None
    assert len(table) == 2
    assert not kept(table, 30, "flood", b"o" * 11)
    assert kept(table, 31, "b") and kept(table, 32, "c")
    assert not kept(table, 33, "d"), "full: come again"
    assert table.take(31, "b", 0) is not None


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 8), st.integers(0, 40), st.booleans())),
)
def test_the_table_never_passes_its_limits(steps: list[tuple[str, int, int, bool]]) -> None:
    limits = ChallengeLimits(life_ms=30, waiting_max=5, octets_max=20, client_max=3, client_octets_max=12)
    table: Challenges[bytes] = Challenges(limits)
    now_ms = session = 0
    for client, octets, passed, take in steps:
        now_ms += passed
        if take:
            table.take(session, client, now_ms)
        else:
            session = table.session_id(0x7FFFFFFF + session)
            kept(table, session, client, b"o" * octets, now_ms)
        assert len(table) <= 5 and 0 <= table.octets <= 20
    table.expire(now_ms + 30)
    assert len(table) == table.octets == 0


# ---------------------------------------------------------------------------------------------------------- permits
def test_an_administrator_needs_all_bits_asked_for() -> None:
    few = admin(bits=AdminPermission.ADD_VALUE | AdminPermission.MODIFY_VALUE)
    assert admins([few, url()], AdminPermission.ADD_VALUE) == (KEY,)
    assert admins([few], AdminPermission.ADD_VALUE | AdminPermission.REMOVE_VALUE) == ()
    assert admins([HandleValue(1, b"HS_ADMIN", b"damaged")], 0) == ()


def test_a_key_is_found_whatever_its_spelling_and_no_other() -> None:
    assert walked(KEY, [Reference(b"88.118.9/admin", 300)], {}) == (True, 0)
    assert walked(KEY, [Reference(b"88.118.9/ADMIN", 0)], {})[0], "0: any key of that handle"
    for other in (Reference(b"88.118.9/ADMIN", 301), Reference(b"88.118.90/ADMIN", 300)):
        assert not walked(KEY, [other], {})[0]


def test_groups_are_followed_and_circles_end() -> None:
    one, two = Reference(b"9/G1", 200), Reference(b"9/G2", 200)
    circle = {folded(b"9/G1"): [group(two)], folded(b"9/G2"): [group(one)]}
    assert walked(KEY, [one], circle) == (False, 2)
    circle[folded(b"9/G2")] = [group(one, KEY)]
    assert walked(KEY, [one], circle)[0]
    assert not walked(KEY, [Reference(b"9/G1", 201)], circle)[0], "another value is another group"
    assert not walked(KEY, [one], {folded(b"9/G1"): [HandleValue(200, b"HS_VLIST", b"damaged")]})[0]
    assert not walked(KEY, [one], {folded(b"9/G1"): [HandleValue(200, b"URL", group(KEY).data)]})[0], "not a group"


def test_a_walk_has_an_end() -> None:
    def at(level: int) -> Reference:
        return Reference(b"9/G%d" % level, 200)

    def chain(levels: int) -> dict[bytes, Sequence[HandleValue]]:
        records: dict[bytes, Sequence[HandleValue]] = {folded(at(i).handle): [group(at(i + 1))] for i in range(levels - 1)}
        return {**records, folded(at(levels - 1).handle): [group(KEY)]}

    assert walked(KEY, [at(0)], chain(permits.GROUP_LEVELS_MAX))[0]
    assert walked(KEY, [at(0)], chain(permits.GROUP_LEVELS_MAX + 1)) == (False, permits.GROUP_LEVELS_MAX)
    wide = [Reference(b"9/W%d" % number, 1) for number in range(permits.REFERENCES_MAX)]
    assert not walked(KEY, [*wide, KEY], {})[0]


# ---------------------------------------------------------------------------------------------------------- edits
RECORD = (url(), url(2, permissions=0x0A), admin())
A = AdminPermission


@pytest.mark.parametrize(
    ("op", "request_", "record", "flags", "code"),
    [
        (OpCode.CREATE_HANDLE, ValuesRequest(NAME, (url(), admin())), RECORD, 0, 101),
        (OpCode.CREATE_HANDLE, ValuesRequest(NAME, (url(),)), None, 0, 202),
        (OpCode.CREATE_HANDLE, ValuesRequest(NAME, ()), None, 0, 202),
        (OpCode.CREATE_HANDLE, ValuesRequest(NAME, (admin(), admin())), None, 0, 202),
        (OpCode.CREATE_HANDLE, ValuesRequest(NAME, (url(0), admin())), None, 0, 202),
        (OpCode.CREATE_HANDLE, ValuesRequest(NAME, (HandleValue(1, b"hs_admin", b"?"),)), None, 0, 202),
        (OpCode.CREATE_HANDLE, ValuesRequest(NAME, (admin(),)), RECORD, OpFlag.OVERWRITE, 401),
        (OpCode.DELETE_HANDLE, HandleRequest(NAME), None, 0, 100),
        (OpCode.ADD_VALUE, ValuesRequest(NAME, (url(7),)), None, 0, 100),
        (OpCode.ADD_VALUE, ValuesRequest(NAME, ()), RECORD, 0, 202),
        (OpCode.ADD_VALUE, ValuesRequest(NAME, (url(1),)), RECORD, 0, 201),
        (OpCode.ADD_VALUE, ValuesRequest(NAME, (url(2),)), RECORD, OpFlag.OVERWRITE, 401),
        (OpCode.MODIFY_VALUE, ValuesRequest(NAME, (url(7),)), RECORD, 0, 200),
        (OpCode.MODIFY_VALUE, ValuesRequest(NAME, (url(2),)), RECORD, 0, 401),
        (OpCode.MODIFY_VALUE, ValuesRequest(NAME, (url(100),)), RECORD, 0, 202),
        (OpCode.REMOVE_VALUE, IndexesRequest(NAME, (7,)), RECORD, 0, 200),
        (OpCode.REMOVE_VALUE, IndexesRequest(NAME, ()), RECORD, 0, 202),
        (OpCode.REMOVE_VALUE, IndexesRequest(NAME, (2,)), RECORD, 0, 401),
        (OpCode.REMOVE_VALUE, IndexesRequest(NAME, (100,)), RECORD, 0, 202),
        (OpCode.HOME_NA, HandleRequest(NAME), RECORD, 0, 5),
    ],
)
def test_what_cannot_be_done_is_told_by_its_code(
    op: OpCode, request_: Request, record: Sequence[HandleValue] | None, flags: int, code: int
) -> None:
    found = edit_of(op, request_, record, flags=flags)
    assert isinstance(found, Denied) and found.code == ResponseCode(code) and found.text


@pytest.mark.parametrize(
    ("op", "request_", "record", "flags", "needs", "prefix_needs", "indexes"),
    [
        (OpCode.CREATE_HANDLE, ValuesRequest(NAME, (admin(), url())), None, 0, 0, A.ADD_HANDLE, [1, 100]),
        (
            OpCode.CREATE_HANDLE,
            ValuesRequest(NAME, (admin(),)),
            RECORD[::2],
            OpFlag.OVERWRITE,
            A.DELETE_HANDLE,
            A.ADD_HANDLE,
            [100],
        ),
        (OpCode.DELETE_HANDLE, HandleRequest(NAME), RECORD, 0, A.DELETE_HANDLE, 0, None),
        (OpCode.ADD_VALUE, ValuesRequest(NAME, (url(7),)), RECORD, 0, A.ADD_VALUE, 0, [1, 2, 7, 100]),
        (OpCode.ADD_VALUE, ValuesRequest(NAME, (admin(7),)), RECORD, 0, A.ADD_ADMIN, 0, [1, 2, 7, 100]),
        (OpCode.ADD_VALUE, ValuesRequest(NAME, (url(1),)), RECORD, OpFlag.OVERWRITE, A.MODIFY_VALUE, 0, [1, 2, 100]),
        (OpCode.MODIFY_VALUE, ValuesRequest(NAME, (url(1, b"y"),)), RECORD, 0, A.MODIFY_VALUE, 0, [1, 2, 100]),
        (OpCode.MODIFY_VALUE, ValuesRequest(NAME, (admin(100),)), RECORD, 0, A.MODIFY_ADMIN, 0, [1, 2, 100]),
        (OpCode.MODIFY_VALUE, ValuesRequest(NAME, (admin(1),)), RECORD, 0, A.MODIFY_VALUE | A.ADD_ADMIN, 0, [1, 2, 100]),
        (OpCode.REMOVE_VALUE, IndexesRequest(NAME, (1, 1)), RECORD, 0, A.REMOVE_VALUE, 0, [2, 100]),
        (OpCode.REMOVE_VALUE, IndexesRequest(NAME, (100,)), (*RECORD, admin(101)), 0, A.REMOVE_ADMIN, 0, [1, 2, 101]),
    ],
)
def test_what_shall_be_and_the_permissions_it_needs(
    op: OpCode,
    request_: Request,
    record: Sequence[HandleValue] | None,
    flags: int,
    needs: int,
    prefix_needs: int,
    indexes: list[int] | None,
) -> None:
    found = edit_of(op, request_, record, flags=flags, now_s=77)
    assert isinstance(found, Edit)
    assert (found.needs, found.prefix_needs) == (needs, prefix_needs)
    assert (None if found.values is None else [value.index for value in found.values]) == indexes
    sent = {value.index for value in request_.values} if isinstance(request_, ValuesRequest) else set()
    assert all((value.timestamp == 77) is (value.index in sent) for value in found.values or ())


def test_the_record_of_a_prefix_needs_other_permissions() -> None:
    made = edit_of(OpCode.CREATE_HANDLE, ValuesRequest(b"0.NA/9.1", (admin(),)), None, is_prefix=True)
    gone = edit_of(OpCode.DELETE_HANDLE, HandleRequest(b"0.NA/9.1"), (admin(),), is_prefix=True)
    assert isinstance(made, Edit) and made.prefix_needs == A.ADD_DERIVED_PREFIX
    assert isinstance(gone, Edit) and gone.needs == A.DELETE_DERIVED_PREFIX
