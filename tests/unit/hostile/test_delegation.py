"""What the administrators of a prefix's record may do below it: the table of hosting/handle/delegation.py, row by row."""

from __future__ import annotations

import pytest

from hosting.handle.delegation import Keeper, lends
from hosting.tenant.papers import Papers, Right, Tenant
from hosting.tenant.rights import Caller
from replica.model.handle.codes import OpCode
from replica.model.identifier import prefix_key

UNDER = prefix_key("88.118.9.1")
CREATE, LIST, READ = OpCode.CREATE_HANDLE, OpCode.LIST_HANDLES, OpCode.RESOLUTION
CHANGES = (OpCode.DELETE_HANDLE, OpCode.ADD_VALUE, OpCode.MODIFY_VALUE, OpCode.REMOVE_VALUE)
EVERY = (CREATE, LIST, READ, *CHANGES)
WHO = Caller("300:88.118.9/ADMIN", registrar=True)


def lent(keeper: Keeper, papers: Papers, *, own_key: bool = False) -> set[OpCode]:
    return {op for op in EVERY if lends(keeper, op, WHO, papers, UNDER, own_key=own_key, now_ms=10)}


def with_right(*operations: str, until_ms: int = 0) -> Papers:
    right = Right(who=WHO.who, operations=operations, under="88.118.9.1", until_ms=until_ms)  # type: ignore[arg-type]
    return Papers(tenant=Tenant(title="C"), rights={WHO.who: ((UNDER, right),)})


NOTHING, SILENT = Papers(), Papers(tenant=Tenant(title="C"))


def test_what_the_tenant_keeps_itself_counts_for_all() -> None:
    for papers in (NOTHING, SILENT, with_right("read")):
        assert lent(Keeper.TENANT, papers) == set(EVERY)


def test_what_a_node_above_keeps() -> None:
    assert lent(Keeper.NODE, NOTHING) == {CREATE, LIST}
    assert lent(Keeper.NODE, NOTHING, own_key=True) == set(EVERY)
    assert lent(Keeper.NODE, SILENT, own_key=True) == {LIST}


def test_what_another_tenant_keeps_counts_for_nothing() -> None:
    for own_key in (True, False):
        assert lent(Keeper.NEIGHBOUR, NOTHING, own_key=own_key) == set()
        assert lent(Keeper.NEIGHBOUR, SILENT, own_key=own_key) == set()
    damaged = Papers(damaged=(b"k",))
    assert lent(Keeper.NEIGHBOUR, damaged, own_key=True) == set()


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        ("create", {CREATE}),
        ("delete", {OpCode.DELETE_HANDLE}),
        ("modify", {CREATE, OpCode.ADD_VALUE, OpCode.MODIFY_VALUE, OpCode.REMOVE_VALUE}),  # create replaces, with OVERWRITE
        ("read", {READ}),
        ("list", {LIST}),
        ("administer", set()),
    ],
)
def test_a_right_lends_its_operation_alone_and_in_its_time(operation: str, wanted: set[OpCode]) -> None:
    assert lent(Keeper.NEIGHBOUR, with_right(operation)) == wanted
    assert lent(Keeper.NODE, with_right(operation)) == wanted | {LIST}
    assert lent(Keeper.NEIGHBOUR, with_right(operation, until_ms=10)) == set(), "its time is over"
