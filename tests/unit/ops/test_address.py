"""Addresses as people write them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.config import Address


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_written_and_read_again(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    address = Address(str(ip), port)
    assert Address.parse(str(address)) == address
    assert address.is_ipv6 == (ip.version == 6)
    assert address.is_loopback == ip.is_loopback


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = Address.parse(text, names=True)
    except ValueError:
        return
    assert Address.parse(str(address), names=True) == address


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("::1:2641", "brackets"),
        ("127.0.0.1", "no port"),
        ("127.0.0.1:70000", "port"),
        ("127.0.0.1:-1", "port"),
        ("[127.0.0.1]:1", "brackets"),
        ("node.example:1", "not an IPv4"),
        ("1.2.3:1", "not an IPv4"),
        (":1", "no port"),
    ],
)
def test_faults_say_what_to_write(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Address.parse(text)


def test_names_are_for_outgoing_connections_only() -> None:
    assert Address.parse("Node-A.Example:2643", names=True) == Address("node-a.example", 2643)
    with pytest.raises(ValueError, match="host name"):
        Address.parse("1.2.3:2643", names=True)


def test_any_and_loopback() -> None:
    assert Address("::", 1).is_any and Address("0.0.0.0", 1).is_any and not Address("::1", 1).is_any
    assert Address("::1", 1).is_loopback and Address("127.8.0.1", 1).is_loopback and not Address("::", 1).is_loopback
