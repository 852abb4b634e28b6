"""Both backends behind one fixture; builders of payloads and stored records."""

from __future__ import annotations

import struct
from types import ModuleType

import pytest
from hypothesis import strategies as st

from replica.native import twin

try:
    from replica.native import fast
except ImportError:  # no C compiler here: the twin alone is tested
    fast = None  # type: ignore[assignment]

needs_c = pytest.mark.skipif(fast is None, reason="the C module is not built: install gcc, then `make setup`")


@pytest.fixture(params=["c", "python"])
def backend(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "python":
        return twin
    if fast is None:
        pytest.skip("the C module is not built: install gcc, then `make setup`")
    return fast


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def columns(keys: list[bytes], values: list[bytes], ops: bytes) -> bytes:
    fields = [b"\x0a" + varint(len(key)) + key for key in keys] + [b"\x12" + varint(len(value)) + value for value in values]
    return b"".join(fields) + (b"\x1a" + varint(len(ops)) + ops if ops else b"")


def handle_value(
    index: int,
    kind: bytes = b"URL",
    data: bytes = b"http://example.cn/",
    permissions: int = 0x0E,
    ttl_type: int = 0,
    references: list[tuple[bytes, int]] | None = None,
) -> bytes:
    references = references or []
    return b"".join(
        (
            struct.pack(">IIBIBI", index, 1_700_000_000, ttl_type, 86_400, permissions, len(kind)),
            kind,
            struct.pack(">I", len(data)),
            data,
            struct.pack(">I", len(references)),
            *(struct.pack(">I", len(handle)) + handle + struct.pack(">I", number) for handle, number in references),
        )
    )


def record(*values: bytes, spelling: bytes | None = None) -> bytes:
    head = b"\x01" if spelling is None else b"\x81" + struct.pack(">H", len(spelling)) + spelling
    return head + struct.pack(">I", len(values)) + b"".join(values)


type_names = st.sampled_from([b"URL", b"url", b"URL.cn", b"URLX", b"HS_SITE", b"HS_SITE.6", b"hs_admin", b"", b".", b"a.b.c"])
handle_values = st.builds(
    handle_value,
    index=st.integers(0, 6),
    kind=type_names,
    data=st.binary(max_size=12),
    permissions=st.sampled_from([0x0E, 0x0C, 0x02, 0x08, 0x04, 0x00, 0xFF]),
    ttl_type=st.sampled_from([0, 0, 0, 1, 2]),
    references=st.lists(st.tuples(st.binary(max_size=4), st.integers(0, 2**32 - 1)), max_size=2),
)
records = st.builds(
    lambda values, spelling: record(*values, spelling=spelling),
    st.lists(handle_values, max_size=5),
    st.none() | st.binary(max_size=6),
)
sorted_records = st.builds(
    lambda kinds, spelling: record(*(handle_value(i + 1, kind) for i, kind in enumerate(kinds)), spelling=spelling),
    st.lists(type_names, max_size=5),
    st.none() | st.binary(max_size=6),
)


@st.composite
def mutated(draw: st.DrawFn, base: st.SearchStrategy[bytes]) -> bytes:
    """Octets of `base` with a few changes: the inputs near the edge of being right."""
    octets = bytearray(draw(base))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(octets)))
        match draw(st.integers(0, 3)):
            case 0:
                del octets[at:]
            case 1:
                octets[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 2:
                octets[at:at] = draw(st.binary(max_size=5))
            case _:
                octets[at : at + 4] = draw(st.sampled_from([b"\xff\xff\xff\xff", bytes(4), b"\0\0\x10\0", b"\x7f\xff\xff\xff"]))
    return bytes(octets)
