"""Limits of the guard: who is over, what it costs others, and that forged addresses cost nothing but themselves."""

from __future__ import annotations

import socket
import struct

import pytest

from hosting.guard.clients import Networks, client_of, network_text
from hosting.guard.guard import FLOOD, OVER_LONG, OVER_NAME, OVER_STREAM, OVER_UDP, REFUSED, Guard
from hosting.guard.limits import FLOOD_S, SLIP, TOLD_PER_S_MAX, GuardLimits
from hosting.guard.proven import PROVEN_S, Proven
from hosting.guard.windows import Window
from replica.model.errors import Code, ZaibeiError


def peer(host: str, port: int = 4_000) -> bytes:
    """A sockaddr, as recvmmsg gives it."""
    if ":" in host:
        return struct.pack("=HHI16sI", socket.AF_INET6, port, 0, socket.inet_pton(socket.AF_INET6, host), 0)
    return struct.pack("=HH4s8x", socket.AF_INET, port, socket.inet_pton(socket.AF_INET, host))


def guard(**limits: object) -> tuple[Guard, list[tuple[str, bytes, int]]]:
    notes: list[tuple[str, bytes, int]] = []
    made = GuardLimits(**{"trusted": ("10.9.0.0/16",), **limits})  # type: ignore[arg-type]
    return Guard(made, lambda *note: notes.append(note)), notes


def test_a_client_is_its_network() -> None:
    assert client_of("192.0.2.7") == client_of("192.0.2.250") == b"\xc0\0\2" != client_of("192.0.3.7")
    assert client_of("2001:db8:0:1::7") == client_of("2001:db8:0:ff::9") != client_of("2001:db8:0:100::7")
    assert client_of("fe80::1%eth0") == client_of("fe80::2") and client_of("") == client_of("/run/x.sock") == b""
    assert network_text(client_of("192.0.2.7")) == "192.0.2.0/24"
    assert network_text(client_of("2001:db8:0:ff::9")) == "2001:db8::/56" and network_text(b"") == "local"


def test_networks() -> None:
    networks = Networks(("192.0.2.0/25", "2001:db8::/32"))
    assert networks.has_host("192.0.2.127") and networks.has_host("2001:db8:9::1")
    assert not any(map(networks.has_host, ("192.0.2.128", "2001:db9::1", "", "x")))
    assert not Networks(())
    with pytest.raises(ZaibeiError) as caught:
        Networks(("192.0.2.1/24",))
    assert caught.value.code is Code.INVALID_CONFIG


@pytest.mark.parametrize("hosts", [("192.0.2.1", "198.51.100.1", "10.9.1.1"), ("2001:db8::1", "2001:db9::1", "2001:db8:1:1::1")])
def test_a_client_over_its_limit_over_udp_is_dropped_and_sometimes_told(hosts: tuple[str, ...]) -> None:
    mad, honest, trusted = hosts
    trust = ("10.9.0.0/16", "2001:db8:1::/48")
    made, notes = guard(udp_requests_per_s=10, trusted=trust)
    flood = [(b"%d" % number, peer(mad, number + 1)) for number in range(10)]
    assert made.datagrams(flood, 5) == (flood, []) and not notes, "up to the limit nothing is held back"
    others = [(b"h", peer(honest)), *[(b"t", peer(trusted))] * 50]
    taken, slipped = made.datagrams(flood + others, 5)
    assert taken == others and len(slipped) == len(flood) // SLIP
    assert made.counters.udp_dropped == 10 and notes == [(OVER_UDP, client_of(mad), 10)]
    assert made.datagrams(flood, 6) == (flood, []), "each second begins anew"


def test_udp_and_streams_are_counted_apart() -> None:
    made, _ = guard(udp_requests_per_s=1, stream_requests_per_s=5)
    made.datagrams([(b"x", peer("192.0.2.1"))] * 100, 5)
    assert made.stream(client_of("192.0.2.1"), 5, 5) == 5, "whoever forges an address does not shut its owner's TCP"
    assert made.stream(client_of("192.0.2.1"), 3, 5) == 0 and made.stream(client_of("192.0.2.1"), 3, 6) == 3


def test_streams_and_long_answers() -> None:
    made, notes = guard(stream_requests_per_s=10, udp_long_octets_per_s=1_000)
    assert [made.stream(b"abc", 4, 1) for _ in range(4)] == [4, 4, 2, 0]
    assert made.counters.stream_over == 6 and notes == [(OVER_STREAM, b"abc", 2), (OVER_STREAM, b"abc", 4)]
    victim = peer("192.0.2.1")
    assert made.long_answer(victim, 600, 1) and not made.long_answer(victim, 600, 1) and made.long_answer(victim, 600, 2)
    assert made.long_answer(peer("192.0.3.1"), 600, 2) and made.long_answer(peer("10.9.0.1"), 5_000, 2)
    assert notes[-1] == (OVER_LONG, client_of("192.0.2.1"), 1) and made.counters.udp_long_shortened == 1


def test_refused_networks() -> None:
    made, notes = guard(refused=("198.51.100.0/24",))
    bad, good = (b"x", peer("198.51.100.9")), (b"y", peer("192.0.2.1"))
    assert made.datagrams([bad, good, bad], 1) == ([good], []) and made.datagrams([bad], 1) == ([], [])
    assert not made.admits("198.51.100.1") and made.admits("192.0.2.1") and made.admits("")
    assert made.counters.refused == 4 and notes[0] == (REFUSED, b"", 2)


def test_an_identifier_asked_too_often() -> None:
    made, notes = guard(identifier_per_s=3)
    assert made.names([b"a", b"a", b"b"], 1) == set()
    assert made.names([b"a", b"a", b"b", b"c"], 1) == {b"a"} and notes == [(OVER_NAME, b"", 2)]
    assert made.names([b"a"], 2) == set()


def test_zero_is_no_limit_and_defaults_are_generous() -> None:
    none = dict.fromkeys(("udp_requests_per_s", "stream_requests_per_s", "identifier_per_s", "udp_long_octets_per_s"), 0)
    made, notes = guard(udp_calm_per_s=0, **none)
    flood = [(b"x", peer("192.0.2.1"))] * 1_000
    for _ in range(100):
        assert made.datagrams(flood, 1)[0] is flood and not made.names([b"a"] * 1_000, 1)
        assert made.stream(b"abc", 1_000, 1) == 1_000 and made.long_answer(flood[0][1], 10**6, 1)
    assert not notes
    limits = GuardLimits()
    assert min(limits.udp_requests_per_s, limits.stream_requests_per_s, limits.identifier_per_s) >= 20_000


def test_forged_addresses_cost_no_memory() -> None:
    window = Window(5, 100)
    for number in range(10_000):
        window.count([number.to_bytes(3, "big")], 1)
    assert window.overflows > 50 and len(window._counts) <= 101
    assert Window(5, 100).add(b"x", 3, 1) == 3


@pytest.mark.parametrize(("honest", "trusted"), [("192.0.2.1", "10.9.0.1"), ("2001:db8::1", "2001:db8:1::1")])
def test_in_a_flood_only_proved_addresses_are_answered_over_udp(honest: str, trusted: str) -> None:
    made, notes = guard(udp_calm_per_s=20, trusted=("10.9.0.0/16", "2001:db8:1::/48"))
    forged = "2001:db8:f::%x" if ":" in honest else "198.51.%d.9"
    flood = [(b"%d" % number, peer(forged % number)) for number in range(40)]
    known = [(b"h", peer(honest)), (b"t", peer(trusted))]
    assert made.datagrams([*flood[:18], *known], 5) == ([*flood[:18], *known], []) and not made.flooded(5)
    made.connected(honest, 5)
    taken, told = made.datagrams(flood + known, 5)
    assert taken == known and len(told) == len(flood) // SLIP, "forged addresses never show that they are there"
    assert made.datagrams([flood[0], *known], 5 + FLOOD_S)[0] == known, "a flood that pauses is not over"
    assert made.datagrams([flood[0], *known], 6 + FLOOD_S)[0] == [flood[0], *known] and not made.flooded(6 + FLOOD_S)
    assert made.counters.udp_unproven == 41 and notes == [(FLOOD, b"", 40), (FLOOD, b"", 1)]
    made.datagrams(flood, 5 + 2 * PROVEN_S)
    assert made.datagrams(known, 5 + 2 * PROVEN_S)[0] == [known[1]], "a proof of long ago is none"


def test_a_flood_is_counted_over_a_second_and_not_over_one_read() -> None:
    """No read takes more than some hundred datagrams: the limit of the configuration is that of a second."""
    made, _ = guard(udp_calm_per_s=25)
    crowd = [(b"x", peer(f"198.51.{number}.9")) for number in range(10)]
    for second, floods in ((5, (False, False, True, True)), (6 + FLOOD_S, (False, False, True))):
        for flood in floods:
            assert (made.datagrams(crowd, second)[0] == []) is flood is made.flooded(second)


def test_proofs_are_forgotten_in_time_and_cost_bounded_memory() -> None:
    proven = Proven(100)
    proven.add(b"abcd", 1_000)
    for second in (1_000, 999 + PROVEN_S):
        proven.turn(second)
        assert proven.has(b"abcd")
    proven.turn(1_000 + 3 * PROVEN_S)
    assert not proven.has(b"abcd") and not len(proven)
    for number in range(10_000):
        proven.add(number.to_bytes(4, "big"), 5_000)
        assert proven.has(number.to_bytes(4, "big")) and len(proven) <= 200


def test_a_flood_does_not_live_on_being_told() -> None:
    made, _ = guard(udp_calm_per_s=1)
    flood = [(b"x", peer("192.0.2.1", port)) for port in range(1, 10_001)]
    told = [made.datagrams(flood, 7)[1] for _ in range(2)]
    assert [len(one) for one in told] == [TOLD_PER_S_MAX, 0] and made.counters.udp_slipped == TOLD_PER_S_MAX
    assert len(made.datagrams(flood[:400], 8)[1]) == 400 // SLIP
