"""A source describes itself: what it names must not be able to break who probes it."""

from __future__ import annotations

import pytest

from replica.model.node import ENDPOINTS_MAX, Endpoint, endpoints_of
from replica.v1 import source_pb2

GOOD = source_pb2.Endpoint(protocol="udp", address="::1", port=2641)


def test_usable_ones_are_taken_in_their_order() -> None:
    tcp = source_pb2.Endpoint(protocol="tcp", address="127.0.0.1", port=2641)
    assert endpoints_of([GOOD, tcp]) == (Endpoint("udp", "::1", 2641), Endpoint("tcp", "127.0.0.1", 2641))
    assert str(endpoints_of([GOOD])[0]) == "udp://[::1]:2641"


@pytest.mark.parametrize(("address", "port"), [("127.0.0.1", 70_000), ("127.0.0.1", 0), ("node.example", 2641), ("", 2641)])
def test_what_is_no_address_is_left_out(address: str, port: int) -> None:
    """A port of 70,000 must not reach a socket, nor a name a resolver."""
    assert endpoints_of([source_pb2.Endpoint(protocol="tcp", address=address, port=port), GOOD]) == endpoints_of([GOOD])


def test_no_more_than_the_limit() -> None:
    assert len(endpoints_of([GOOD] * (ENDPOINTS_MAX + 1))) == ENDPOINTS_MAX
