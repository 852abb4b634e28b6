"""Octets of the admin channel: there and back, and anything else is MALFORMED."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.admin.calls import CALLS, AdminCalls
from ops.admin.cluster_calls import CLUSTER_SIGNATURES, ClusterCalls, NoCluster
from ops.admin.codec import (
    ANSWER_OCTETS_MAX,
    REQUEST_OCTETS_MAX,
    decode_answer,
    decode_request,
    encode_error,
    encode_request,
    encode_result,
)
from ops.admin.edge_client import AdminClient
from ops.admin.memory import MemoryMember
from ops.admin.values import Approval, HoldPlan
from ops.cluster.desk import ClusterDesk
from replica.model.errors import Code, Trouble, ZaibeiError

APPROVAL = Approval("li.wei", "ab" * 8, "std", "00", "11")


def test_the_table_is_the_port() -> None:
    """CALLS, the Protocol, its memory twin and the client name the same calls with the same parameters and results."""
    for name, call in CALLS.items():
        port, twin = (ClusterCalls, ClusterDesk) if name in CLUSTER_SIGNATURES else (AdminCalls, MemoryMember)
        hints = get_type_hints(getattr(port, name))
        assert hints.pop("return") == call.result, name
        assert hints == dict(call.parameters), name
        assert get_type_hints(getattr(AdminClient, name)) == {**call.parameters, "return": call.result}, name
        assert get_type_hints(getattr(twin, name)) == {**call.parameters, "return": call.result}, name
    named = {name for port in (*AdminCalls.__mro__, ClusterCalls) for name in vars(port) if not name.startswith("_")}
    assert named == set(CALLS)


async def test_a_member_without_a_cluster_says_so() -> None:
    for name, call in CALLS.items():
        if name in CLUSTER_SIGNATURES:
            assert get_type_hints(getattr(NoCluster, name)) == {**call.parameters, "return": call.result}, name
            with pytest.raises(ZaibeiError, match="zaibei cluster init"):
                await getattr(NoCluster(), name)(**dict.fromkeys(call.parameters))


def test_there_and_back() -> None:
    line = encode_request(7, "hold_sign", {"approval": APPROVAL})
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    request = decode_request(line)
    assert (request.ident, request.call, request.params) == (7, "hold_sign", {"approval": APPROVAL})
    plan = HoldPlan("t", "s", "h", "release", "text\nof two lines\n", ["li.wei"])
    answer = encode_result(7, plan)
    assert answer.count(b"\n") == 1
    assert decode_answer(answer, 7, "hold_plan") == plan


@pytest.mark.parametrize("code", list(Code))
def test_errors_keep_code_and_certainty(code: Code) -> None:
    with pytest.raises(ZaibeiError) as caught:
        decode_answer(encode_error(3, Trouble(code, "why", definite=False, retry=True)), 3, "status")
    assert caught.value.trouble == Trouble(code, "why", definite=False, retry=True)


def test_a_code_of_a_newer_member_is_unknown() -> None:
    line = encode_error(1, Trouble(Code.BUSY, "x")).replace(b'"busy"', b'"novel"')
    with pytest.raises(ZaibeiError) as caught:
        decode_answer(line, 1, "status")
    assert (caught.value.code, caught.value.trouble.definite) == (Code.UNKNOWN, False)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"", "not an admin request"),
        (b"[]", "not an admin request"),
        (b'{"v":2,"id":1,"call":"status","params":{}}', "version 2"),
        (b'{"v":1,"id":1,"call":"format_disk","params":{}}', "no call"),
        (b'{"v":1,"id":1,"call":"status","params":{"x":1}}', "no parameters"),
        (b'{"v":1,"id":1,"call":"hold_run","params":{}}', "token"),
        (b'{"v":1,"id":1,"call":"hold_run","params":{"token":7}}', "hold_run"),
        (b'{"v":1,"id":-1,"call":"status","params":{}}', "takes"),
        (b'{"v":1,"id":1,"call":"status","params":{},"extra":1}', "extra"),
        (b'{"v":1,"id":1,"call":"hold_sign","params":{"approval":{"operator":"a"}}}', "hold_sign"),
    ],
)
def test_faults_of_requests(line: bytes, word: str) -> None:
    with pytest.raises(ZaibeiError, match=word) as caught:
        decode_request(line)
    assert caught.value.code is Code.MALFORMED


def test_limits() -> None:
    with pytest.raises(ZaibeiError):
        encode_request(1, "hold_run", {"token": "x" * REQUEST_OCTETS_MAX})
    with pytest.raises(ZaibeiError, match="ask for less"):
        decode_answer(encode_result(1, "x" * ANSWER_OCTETS_MAX), 1, "status")


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_no_octets_break_a_decoder(octets: bytes) -> None:
    for decode in (lambda: decode_request(octets), lambda: decode_answer(octets, 1, "status")):
        with pytest.raises(ZaibeiError):
            decode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(
    st.sampled_from(list(CALLS)),
    st.dictionaries(st.sampled_from(["source", "hold", "token", "approval", "decision"]), JSON, max_size=3),
)
def test_parameters_are_of_their_types_or_refused(call: str, params: dict[str, Any]) -> None:
    line = msgspec.json.encode({"v": 1, "id": 1, "call": call, "params": params})
    try:
        request = decode_request(line)
    except ZaibeiError as exc:
        assert exc.code is Code.MALFORMED
        return
    for name, value in request.params.items():
        kind = CALLS[call].parameters[name]
        assert isinstance(value, kind if not get_args(kind) else dict)
