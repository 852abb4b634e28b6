"""Identifiers of all six code types and the order of their keys (DESIGN 5)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import (
    CodeType,
    Identifier,
    PrefixTree,
    ancestors,
    document_key,
    handle_prefix_key,
    key_text,
    owning_prefix,
    parent,
    prefix_key,
    prefix_part,
    prefix_text,
    subtree,
)

EXAMPLES = [
    ("88.118.8/XYZ-001", CodeType.VAA, "88.118.8"),
    ("86.1000.1/abc", CodeType.HANDLE, "86.1000.1"),
    ("oid:1.2.156.3001", CodeType.OID, "oid:1.2.156.3001"),
    ("ecode:1/2086/6901234", CodeType.ECODE, "ecode:1/2086"),
    ("gs1:01/09506000134352/21/ABC", CodeType.GS1, "gs1:950600013435"),
    ("did:bid:ef:Ab12", CodeType.DID, "did:bid:ef"),
]


@pytest.mark.parametrize(("name", "code", "prefix"), EXAMPLES)
def test_each_code_type_is_known_by_its_prefix(name: str, code: CodeType, prefix: str) -> None:
    identifier = Identifier.parse(name)
    assert (identifier.code, prefix_text(identifier.prefix)) == (code, prefix)
    assert prefix_key(prefix) == identifier.prefix
    assert key_text(identifier.key(case_sensitive=True)) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "/x", "88..8/x", ".88/x", "88./x", "0.NA/", "0.NA/88..1", "oid:3.1", "oid:1.02", "oid:1..2", "oid:1.x", "oid:",
        "ecode:9/2086/1", "ecode:1/20x6/1", "ecode:1/2086", "gs1:01/09506000134353", "gs1:01/9506", "gs1:99/12", "did:bid",
        "did::x", "did:BID:x", "did:bid:", "9" * 2049, ".".join("1" * 65) + "/x",
    ],
)  # fmt: skip
def test_what_is_no_identifier_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(ZaibeiError) as caught:
        Identifier.parse(name)
    assert caught.value.code == Code.MALFORMED
    assert "not an identifier" in str(caught.value)


def test_only_ascii_letters_fold_and_only_where_the_policy_says() -> None:
    assert Identifier.parse("86.ab.c/xé".encode()).key() == "h86\x01AB\x01C\x00Xé".encode()
    assert Identifier.parse("86.ab.c/xyz").key(case_sensitive=True) == b"h86\x01AB\x01C\x00xyz"
    # Everything under `0.` is case-insensitive whatever a policy says.
    assert Identifier.parse("0.serv/ab").key(case_sensitive=True) == b"h0\x01SERV\x00AB"


def test_a_bare_prefix_and_its_record_are_one_route_key() -> None:
    assert Identifier.parse("88.118").key() == Identifier.parse("0.na/88.118").key() == b"ph88\x01118\x00"
    assert owning_prefix(b"ph88\x01118\x00") == b"h88"
    assert owning_prefix(b"ph88\x00") == b""
    assert owning_prefix(b"h88\x01118\x00x") == b"h88\x01118"
    assert owning_prefix(document_key("enterprise", "1")) == b""


segment = st.binary(min_size=1, max_size=4).filter(lambda s: b"." not in s and b"/" not in s and b":" not in s)


@given(st.lists(segment, min_size=1, max_size=4), st.lists(segment, min_size=1, max_size=4), st.binary(max_size=4))
def test_a_subtree_is_exactly_one_key_range(one: list[bytes], other: list[bytes], suffix: bytes) -> None:
    one, other = [s.upper() for s in one], [s.upper() for s in other]
    start, stop = subtree(handle_prefix_key(b".".join(one)))
    key = handle_prefix_key(b".".join(other)) + b"\0" + suffix
    assert (start <= key < stop) == (other[: len(one)] == one)


@given(st.lists(segment, min_size=1, max_size=5))
def test_prefix_text_and_ancestors_undo_the_key(segments: list[bytes]) -> None:
    key = handle_prefix_key(b".".join(segments))
    chain = list(ancestors(key))
    assert chain[0] == key
    assert len(chain) == len(segments)
    assert parent(chain[-1]) == b""
    assert prefix_part(key + b"\0x") == key


@given(st.integers(0, 2**127), st.integers(0, 2**127))
def test_oid_arcs_sort_as_numbers(one: int, other: int) -> None:
    assert (prefix_key(f"oid:2.{one}") < prefix_key(f"oid:2.{other}")) == (one < other)


def test_the_longest_owned_prefix_decides() -> None:
    tree = PrefixTree({prefix_key("88"): "top", prefix_key("88.118"): "second"})
    assert tree.longest(prefix_key("88.118.8")) == (prefix_key("88.118"), "second")
    assert tree.longest(prefix_key("88.1180")) == (prefix_key("88"), "top")
    assert tree.longest(prefix_key("86.1")) is None


@given(st.binary(max_size=40))
@example(b"h88\x02\x02\0x")
@example(b"h88\x02\0x")
@example(b"p")
@example(b"b")
def test_any_octets_have_a_text_because_people_are_shown_bad_keys(octets: bytes) -> None:
    assert isinstance(key_text(octets), str)
    assert isinstance(prefix_text(octets), str)


@given(st.lists(st.binary(min_size=1, max_size=6).filter(lambda octets: b"." not in octets and b":" not in octets), min_size=1))
def test_octets_that_are_escaped_are_shown_unescaped(segments: list[bytes]) -> None:
    key = handle_prefix_key(b".".join(segments[:4]))
    shown = ".".join(segment.upper().decode("utf-8", "backslashreplace") for segment in segments[:4])
    assert prefix_text(key) == shown
