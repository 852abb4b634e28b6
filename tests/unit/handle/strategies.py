"""Hypothesis strategies of the protocol's values, and changed octets."""

from __future__ import annotations

from hypothesis import strategies as st

from replica.model.handle.bodies import (
    ErrorResponse,
    HandleRequest,
    IndexesRequest,
    ListResponse,
    Referral,
    ResolutionRequest,
    ResolutionResponse,
    ValuesRequest,
)
from replica.model.handle.codes import OpCode, ResponseCode
from replica.model.handle.message import Envelope
from replica.model.handle.types import HsAdmin, HsSite, Interface, Server
from replica.model.handle.values import HandleValue, Reference

u8 = st.integers(0, 255)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
short = st.binary(max_size=12)
names = st.sampled_from([b"88.118.8/XYZ-001", b"0.NA/88", b"/", b"0", "86.1/设备".encode()]) | st.binary(min_size=1, max_size=20)
kinds = st.sampled_from([b"URL", b"HS_SITE", b"hs_site.6", b"HS_ADMIN", b"HS_VLIST", b"HS_PUBKEY", b"DESC", b""]) | short
references = st.builds(Reference, short, u32)
handle_values = st.builds(
    HandleValue,
    index=u32,
    type=kinds,
    data=st.binary(max_size=30),
    ttl_type=st.integers(0, 1),
    ttl=u32,
    permissions=u8,
    timestamp=u32,
    references=st.lists(references, max_size=2).map(tuple),
)
value_lists = st.lists(handle_values, max_size=4).map(tuple)
interfaces = st.builds(Interface, u8, u8, u32)
servers = st.builds(Server, u32, st.binary(min_size=16, max_size=16), short, st.lists(interfaces, max_size=3).map(tuple))
attributes = st.lists(st.tuples(st.sampled_from([b"desc", b"alt_addr", b"alt_addr.1"]) | short, short), max_size=2).map(tuple)
sites = st.builds(HsSite, u16, st.lists(servers, max_size=2).map(tuple), u8, u8, attributes, short, u16, st.tuples(u8, u8))
admins = st.builds(HsAdmin, u16, references, st.booleans())
index_lists = st.lists(u32, max_size=3).map(tuple)
envelopes = st.builds(
    Envelope,
    request_id=u32,
    length=st.just(0),
    version=st.sampled_from([(2, 11), (2, 3), (2, 1), (5, 2), (3, 0)]),
    suggested=st.sampled_from([(0, 0), (2, 11), (2, 4), (3, 1)]),
    session_id=u32,
)

# (operation, response code, body)
requests = st.one_of(
    st.tuples(
        st.just(OpCode.RESOLUTION),
        st.just(0),
        st.builds(ResolutionRequest, names, index_lists, st.lists(kinds, max_size=3).map(tuple)),
    ),
    st.tuples(
        st.sampled_from([OpCode.GET_SITE_INFO, OpCode.DELETE_HANDLE, OpCode.LIST_HANDLES, OpCode.HOME_NA]),
        st.just(0),
        st.builds(HandleRequest, names),
    ),
    st.tuples(
        st.sampled_from([OpCode.CREATE_HANDLE, OpCode.ADD_VALUE, OpCode.MODIFY_VALUE]),
        st.just(0),
        st.builds(ValuesRequest, names, value_lists),
    ),
    st.tuples(st.just(OpCode.REMOVE_VALUE), st.just(0), st.builds(IndexesRequest, names, index_lists)),
)
responses = st.one_of(
    st.tuples(st.just(OpCode.RESOLUTION), st.just(1), st.builds(ResolutionResponse, names, value_lists)),
    st.tuples(st.just(OpCode.LIST_HANDLES), st.just(1), st.builds(ListResponse, st.lists(names, max_size=5).map(tuple))),
    st.tuples(st.just(OpCode.RESOLUTION), st.sampled_from([302, 303]), st.builds(Referral, short, st.none() | value_lists)),
    st.tuples(
        st.sampled_from(list(OpCode)),
        st.sampled_from([code for code in ResponseCode if code not in (1, 302, 303, 402)]),
        st.builds(ErrorResponse, short, st.none() | index_lists) | st.just(ErrorResponse(None)),
    ),
)


@st.composite
def changed(draw: st.DrawFn, base: bytes) -> bytes:
    """Octets near `base`: cut, overwritten, with something inserted, with a length made absurd."""
    octets = bytearray(base)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(octets)))
        match draw(st.integers(0, 3)):
            case 0:
                del octets[at:]
            case 1:
                octets[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 2:
                octets[at:at] = draw(st.binary(max_size=4))
            case _:
                octets[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\x08\x01"]))
    return bytes(octets)
