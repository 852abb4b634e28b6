"""The load sender counts right answers and notices wrong ones."""

from __future__ import annotations

import struct

import pytest

from hosting.v1 import resolve_pb2
from ops.bench.edge_sender import CODE_AT, IDS, Http2, handle_request, inspect_handle, inspect_http
from replica.model.handle.answers import error_answer, peek_resolution, resolution_answer


def answers(codes: list[int]) -> bytes:
    peeked = peek_resolution(handle_request(b"88.118.8/A", 7))
    assert peeked is not None
    right = resolution_answer(peeked, bytes(60), 1)
    text = bytes(len(right) - len(error_answer(peeked, 2, b"", 1)))
    return b"".join(right if code == 1 else error_answer(peeked, code, text, 1) for code in codes)


def test_handle_answers() -> None:
    octets = answers([1, 1, 2, 1])
    assert octets[CODE_AT] == 1
    assert inspect_handle(octets, 4) == 3
    assert inspect_handle(octets[:-1], 4) is None


def test_http_answers() -> None:
    one = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"responseCode":1,"handle":"a","values":[]}'
    assert inspect_http(one * 3, 3) == 3
    assert inspect_http(one * 2 + one.replace(b":1,", b":2,"), 3) == 2
    assert inspect_http(one * 3 + one[:-1], 4) is None and inspect_http(one * 2, 3) is None


@pytest.mark.parametrize("wrong", [False, True])
def test_grpc_answers(wrong: bool) -> None:
    codes = [1] * IDS
    codes[-1] = 2 if wrong else 1
    message = resolve_pb2.BatchResolveResponse(
        response_codes=struct.pack(f">{IDS}H", *codes), values=[bytes(216)] * IDS, vouch_places=bytes(IDS)
    )
    octets = message.SerializeToString()
    link = object.__new__(Http2)
    link._right = b"\0\x01" * IDS
    assert link._is_right(b"\0" + len(octets).to_bytes(4, "big") + octets) is not wrong
