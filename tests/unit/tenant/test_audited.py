"""A change of a tenant's documents is in the audit, with who and why; a registration of identifiers is not."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from hosting.tenant.papers import Tenant, key_of, value_of
from hosting.tenant.records import named, put_of
from replica.model.audit import AuditHead, Where, record
from replica.model.audit_documents import TENANTS
from replica.model.batch import OP_DELETE, OP_PUT, Change, columns_of, cut_batch
from replica.model.handle.values import HandleValue, encode_values
from replica.model.position import ORIGIN, epoch_start
from replica.v1 import entry_pb2

PAPER = Tenant(title="Region 9", suspended="unpaid", by="li.wei", why="unpaid since June")
KEY = key_of(PAPER, "region-9")
START = epoch_start(ORIGIN, b"L" * 16, 1)


def told(*changes: Change) -> dict[str, object] | None:
    batch = cut_batch("region-9", START, columns_of(changes), len(changes), 1)
    body = entry_pb2.Registration(batch=batch.raw, follows=START.to_wire())
    made = record(Where("region-9", 1, 1, 1), AuditHead(), "registration", body, b"", effect=True)
    found: dict[str, object] | None = None if made is None else json.loads(made[0])
    return found


def test_who_suspended_a_tenant_and_why() -> None:
    found = told(Change(OP_PUT, KEY, value_of(PAPER)))
    assert found is not None
    assert (found["who"], found["why"]) == (["li.wei"], "unpaid since June")
    assert "tenant/region-9" in str(found["what"])


def test_a_document_taken_out_is_told_too() -> None:
    found = told(Change(OP_DELETE, KEY))
    assert found is not None and "removed" in json.dumps(found["evidence"])


def test_identifiers_leave_no_record_whatever_their_values_hold() -> None:
    name = named("88.118.9/a")
    values = encode_values([HandleValue(1, b"URL", TENANTS + b"right")])
    assert told(put_of(name.key(case_sensitive=False), b"", values)) is None


@given(st.binary(max_size=60))
def test_no_octets_stop_a_group(octets: bytes) -> None:
    body = entry_pb2.Registration(batch=TENANTS + octets)
    assert record(Where("g", 1, 1, 1), AuditHead(), "registration", body, b"", effect=True) is None
