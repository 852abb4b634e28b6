"""filter_values: from a stored record to the values an answer may carry, on both backends."""

from __future__ import annotations

import struct
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.native import twin
from tests.unit.native.conftest import fast, handle_value, mutated, needs_c, record, records

URL = handle_value(1, b"URL")
URL_CN = handle_value(2, b"url.cn", references=[(b"0.NA/88", 300)])
URLX = handle_value(3, b"URLX")
SITE = handle_value(4, b"HS_SITE")
ADMIN_ONLY = handle_value(5, b"EMAIL", permissions=0x0C)
SECRET = handle_value(6, b"HS_SECKEY", permissions=0x05)
ALL = record(URL, URL_CN, URLX, SITE, ADMIN_ONLY, SECRET)


def answer(*values: bytes) -> bytes:
    return struct.pack(">I", len(values)) + b"".join(values)


CASES = [
    ((), (), True, (URL, URL_CN, URLX, SITE)),
    ((), (), False, (URL, URL_CN, URLX, SITE, ADMIN_ONLY)),
    ((1, 4), (), True, (URL, SITE)),
    ((5,), (), True, ()),
    ((5, 6), (), False, (ADMIN_ONLY,)),
    ((6,), (b"HS_SECKEY",), False, ()),
    ((99,), (), True, ()),
    ((), (b"URL",), True, (URL, URL_CN)),
    ((), (b"url.",), True, (URL, URL_CN)),
    ((), (b"URL.CN",), True, (URL_CN,)),
    ((), (b"UR",), True, ()),
    ((), (b"hs_site", b"nothing"), True, (SITE,)),
    ((3,), (b"HS_SITE",), True, (URLX, SITE)),
    ((), (b"",), True, ()),
]


@pytest.mark.parametrize(("indexes", "types", "public_only", "expected"), CASES)
@pytest.mark.parametrize("spelling", [None, b"", b"88.118.8/Xyz"])
def test_choice(
    backend: ModuleType,
    indexes: tuple[int, ...],
    types: tuple[bytes, ...],
    public_only: bool,
    expected: tuple[bytes, ...],
    spelling: bytes | None,
) -> None:
    stored = record(URL, URL_CN, URLX, SITE, ADMIN_ONLY, SECRET, spelling=spelling)
    assert backend.filter_values(stored, indexes, types, public_only) == answer(*expected)


def test_when_everything_passes_the_octets_are_the_stored_ones(backend: ModuleType) -> None:
    assert backend.filter_values(record(URL, SITE), (), (), True) == answer(URL, SITE)
    assert backend.filter_values(record(), (), (), True) == answer()
    assert backend.filter_values(record(SECRET), (), (), False) == answer()


@pytest.mark.parametrize("bad", [b"", b"\x01", b"\x02" + ALL[1:], ALL[:-1], ALL + b"\0", b"\x81\x00", b"\x01\xff\xff\xff\xff"])
def test_a_malformed_record_gives_none(backend: ModuleType, bad: bytes) -> None:
    assert backend.filter_values(bad, (), (), True) is None
    assert backend.filter_values(bad, (1,), (b"URL",), True) is None


def test_a_question_is_bounded(backend: ModuleType) -> None:
    assert backend.filter_values(ALL, tuple(range(2_048)), (), True) == answer(URL, URL_CN, URLX, SITE)
    for indexes, types in ((tuple(range(2_049)), ()), ((), (b"a",) * 2_049)):
        with pytest.raises(ValueError, match="at most 2048"):
            backend.filter_values(ALL, indexes, types, True)
    with pytest.raises(struct.error):
        backend.filter_values(ALL, (2**32,), (), True)


def test_a_large_record_is_filtered_whole(backend: ModuleType) -> None:
    big = [handle_value(i, data=bytes([i % 251]) * 100) for i in range(1_900)]
    over = [*big, handle_value(1_900, data=bytes(200_000))]
    for values in (big, over):
        assert backend.filter_values(record(*values), (7, 1_899), (), True) == answer(values[7], values[1_899])


@needs_c
@given(
    mutated(records),
    st.lists(st.integers(0, 7), max_size=3).map(tuple),
    st.lists(st.sampled_from([b"URL", b"url.", b"HS_SITE", b".", b"", b"A.B", b"a.b.c."]), max_size=2).map(tuple),
    st.booleans(),
)
def test_both_backends_choose_alike(stored: bytes, indexes: tuple[int, ...], types: tuple[bytes, ...], public: bool) -> None:
    assert fast.filter_values(stored, indexes, types, public) == twin.filter_values(stored, indexes, types, public)
