"""What a registration stores is canonical, whatever order its values come in; what cannot be kept is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.tenant.pages import page_range, token_after
from hosting.tenant.records import delete_of, listed, named, put_of, told
from replica import native
from replica.agent.records import record_of
from replica.model.batch import OP_PUT, columns_of
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue, Reference, encode_value, encode_values
from replica.model.identifier import key_text, prefix_key
from replica.model.precondition import value_hash

VALUES = st.lists(
    st.builds(
        HandleValue,
        index=st.integers(0, 2**32 - 1),
        type=st.sampled_from([b"URL", b"EMAIL", "类型".encode()]),
        data=st.binary(max_size=40),
        ttl_type=st.integers(0, 1),
        references=st.lists(st.builds(Reference, st.binary(min_size=1, max_size=9), st.integers(0, 9)), max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda value: value.index,
)


@given(VALUES, st.sampled_from([b"", b"88.118.9/Aa"]))
def test_the_record_is_the_agents(values: list[HandleValue], spelling: bytes) -> None:
    change = put_of(b"h88\0A", spelling, encode_values(values))
    assert (change.op, change.value) == (OP_PUT, record_of(values, spelling))
    assert native.scan(columns_of([change]), 1).faults == []
    shown = told("x", change.value)
    assert shown.values == encode_values(sorted(values, key=lambda value: value.index))
    assert shown.value_hash == value_hash(change.value)
    assert listed(b"h88\0A", change.value, names_only=True).identifier == (spelling.decode() or "88/A")


@given(st.binary(max_size=120))
def test_any_octets_are_a_record_or_refused(octets: bytes) -> None:
    try:
        change = put_of(b"h88\0A", b"", octets)
    except ZaibeiError as exc:
        assert exc.code is Code.MALFORMED and exc.trouble.definite
        return
    assert native.scan(columns_of([change]), 1).faults == []


@given(st.text(max_size=60))
def test_any_name_is_an_identifier_or_refused(text: str) -> None:
    try:
        name = named(text)
        key = name.key(case_sensitive=False)
    except (ZaibeiError, UnicodeEncodeError):
        return
    assert delete_of(key).key == key and isinstance(name.spelling(key), bytes)


def test_a_spelling_that_folding_changes_is_kept() -> None:
    name = named("88.118.9/abC")
    key = name.key(case_sensitive=False)
    assert (key, name.spelling(key)) == (b"h88\x01118\x019\0ABC", b"88.118.9/abC")
    assert name.spelling(name.key(case_sensitive=True)) == b""
    assert named("0.NA/88.118.9").owner == prefix_key("88.118")


def test_an_index_twice_and_an_empty_type() -> None:
    one = encode_value(HandleValue(1, b"URL", b"a"))
    for octets in ((2).to_bytes(4, "big") + one + one, encode_values([HandleValue(1, b"", b"a")])):
        with pytest.raises(ZaibeiError):
            put_of(b"h88\0A", b"", octets)


def test_pages_go_on_behind_their_last_key() -> None:
    start, stop = page_range(b"h88", b"")
    assert start <= b"h88\0A" < stop and start <= b"h88\x01118\0A" < stop and not start <= b"h881\0A" < stop
    assert page_range(b"h88", token_after(b"h88\0A")) == (b"h88\0A\0", stop)
    for wrong in (token_after(b"h89\0A"), b"\x02h88\0A", b"x"):
        with pytest.raises(ZaibeiError):
            page_range(b"h88", wrong)


NAMES = st.text("aZz0./:\x00\x01\x02-ÄäßıK 中", min_size=1, max_size=12).map(lambda tail: f"88.1{tail}")


@given(NAMES | st.sampled_from(["oid:1.2.156", "ecode:1/2086/001", "88.118/a", "88.118/A", "88.cs/A"]), st.booleans())
def test_a_name_is_kept_where_its_key_does_not_tell_it(text: str, sensitive: bool) -> None:
    try:
        name = named(text)
    except ZaibeiError:
        return
    key = name.key(case_sensitive=sensitive)
    clear = name.identifier.route or key_text(key) == text
    assert name.spelling(key) == (b"" if clear else text.encode())
