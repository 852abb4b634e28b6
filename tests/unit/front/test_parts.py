"""The small parts: connections and their limits, octets of the socket port, the owner's page."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.front.connections import Connections, StreamLimits
from hosting.front.edge_files import fitted
from hosting.front.edge_page import FrontPage, OwnerPage
from hosting.front.port_wire import (
    FRAME_OCTETS_MAX,
    Deframer,
    Kind,
    PortFault,
    decode_catalog,
    decode_failed,
    decode_found,
    decode_wants,
    encode_catalog,
    encode_failed,
    encode_found,
    encode_wants,
    frame,
)
from replica.model.catalog import Catalog
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import OverlaySites
from replica.model.identifier import prefix_key
from replica.model.tenant_view import TenantView
from tests.unit.front.world import CATALOG, OWN_SITE, fresh


class Peer:
    """A connection as the sweep sees it."""

    def __init__(self) -> None:
        self.last_heard_s = 0.0
        self.partial_since_s: float | None = None
        self.stalled_since_s: float | None = None
        self.in_flight = 0
        self.unsent_octets = 0
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


LIMITS = StreamLimits(
    connections_max=2, idle_s_max=100, request_s_max=10, stall_s_max=30, unsent_octets_max=100, unsent_total_octets_max=150
)


def test_connections_over_the_limit_are_refused_where_all_are_at_work() -> None:
    connections = Connections(LIMITS)
    peers = [Peer(), Peer(), Peer()]
    peers[0].in_flight = peers[1].in_flight = 1
    assert [connections.admit(peer) for peer in peers] == [True, True, False]
    connections.leave(peers[0])
    assert connections.admit(peers[2])
    assert (connections.accepted, connections.refused) == (3, 1)


def test_the_silent_make_room_for_whoever_comes() -> None:
    connections = Connections(LIMITS)
    silent, lately, fresh = Peer(), Peer(), Peer()
    silent.last_heard_s, lately.last_heard_s = 1.0, 9.0
    assert all(connections.admit(peer) for peer in (lately, silent, fresh))
    assert (silent.aborted, lately.aborted, connections.open) == (True, False, {lately, fresh})
    connections.leave(silent)  # the transport reports its end later
    assert connections.cut_off == {"room_for_others": 1}


def test_connections_leave_files_to_those_who_share_the_process() -> None:
    wide = StreamLimits(connections_max=4_096)
    assert fitted(wide, 1 << 20).connections_max == 4_096
    assert fitted(wide, 1_024, kept=256).connections_max == 256
    assert fitted(wide, 300, kept=600).connections_max > 0


@pytest.mark.parametrize(
    ("fields", "now_s", "why"),
    [
        ({}, 99.0, None),
        ({}, 101.0, "idle"),
        ({"in_flight": 1}, 101.0, None),
        ({"partial_since_s": 95.0, "last_heard_s": 104.0}, 104.0, None),
        ({"partial_since_s": 95.0, "last_heard_s": 105.5}, 105.5, "slow_request"),
        ({"stalled_since_s": 80.0, "in_flight": 5}, 110.0, None),
        ({"stalled_since_s": 80.0, "in_flight": 5}, 110.5, "peer_does_not_read"),
    ],
)
def test_the_sweep(fields: dict[str, float], now_s: float, why: str | None) -> None:
    connections, peer = Connections(LIMITS), Peer()
    for name, value in fields.items():
        setattr(peer, name, value)
    connections.admit(peer)
    connections.sweep(now_s)
    assert peer.aborted is (why is not None)
    assert connections.cut_off == ({why: 1} if why else {})


def test_unread_answers_are_bounded_for_one_and_for_all() -> None:
    connections, one, other = Connections(LIMITS), Peer(), Peer()
    connections.unsent(one, 90)
    connections.unsent(other, 60)
    assert not one.aborted and not other.aborted and connections.unsent_octets == 150
    connections.unsent(other, 61)
    assert other.aborted and not one.aborted
    connections.leave(other)
    connections.unsent(one, 101)
    assert one.aborted
    connections.leave(one)
    assert connections.unsent_octets == 0


# ----------------------------------------------------------------------------------------------------- the socket port
names = st.text(min_size=1, max_size=20)


@given(st.dictionaries(names, st.lists(st.binary(max_size=40), max_size=5), max_size=4))
def test_wants_survive(wants: dict[str, list[bytes]]) -> None:
    assert decode_wants(encode_wants(wants)) == wants


@given(st.dictionaries(names, st.lists(st.none() | st.binary(max_size=40), max_size=5), max_size=4))
def test_findings_survive(values: dict[str, list[bytes | None]]) -> None:
    found = {source: (list(octets), fresh(source)) for source, octets in values.items()}
    assert decode_found(encode_found(found, 77)) == (77, found)


def test_catalogs_and_errors_survive() -> None:
    prefix = prefix_key("88.118")
    overlays = {prefix: OverlaySites(prefix, (b"site",), 8, "act", shadow=True)}
    tenants = {"gd": TenantView(12.5, 3.0, answered=False)}
    catalog = Catalog(9, CATALOG.owners, overlays, OWN_SITE, tenants=tenants)
    told = decode_catalog(encode_catalog(catalog))
    assert dict(told.owners.items()) == dict(catalog.owners.items())
    assert (told.version, told.overlays, told.own_site, told.tenants) == (9, catalog.overlays, OWN_SITE, tenants)
    error = decode_failed(encode_failed(ZaibeiError(Code.DAMAGED, "why")))
    assert (error.code, error.trouble.message) == (Code.DAMAGED, "why")
    assert decode_failed(b"no such code\0x").code is Code.UNKNOWN


@given(st.integers(min_value=1, max_value=7))
def test_frames_come_out_however_the_stream_is_cut(step: int) -> None:
    frames = [(Kind.HELLO, 0, b"x" * 16), (Kind.WANTS, 2**32 - 1, b""), (Kind.FOUND, 3, b"y" * 100)]
    stream = b"".join(frame(*one) for one in frames)
    deframer = Deframer()
    got = [one for at in range(0, len(stream), step) for one in deframer.feed(stream[at : at + step])]
    assert got == frames


@given(st.binary(max_size=200))
def test_hostile_octets_of_the_port_are_faults(octets: bytes) -> None:
    for reader in (Deframer().feed, decode_wants, decode_found, decode_catalog):
        try:
            reader(octets)
        except PortFault:
            pass


@given(st.data())
def test_mutated_findings_are_faults_or_findings(data: st.DataObject) -> None:
    octets = bytearray(encode_found({"gd": ([b"v", None, b""], fresh("gd"))}, 1))
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_found(bytes(octets))
    except PortFault:
        pass


def test_frames_of_another_version_or_over_the_limit_are_refused() -> None:
    good = frame(Kind.WANTS, 1, b"abc")
    for octets in (
        good[:4] + b"\x7f" + good[5:],
        (FRAME_OCTETS_MAX + 1).to_bytes(4, "little") + good[4:],
        good[:5] + b"\x09" + good[6:],
    ):
        with pytest.raises(PortFault):
            Deframer().feed(octets)


# ------------------------------------------------------------------------------------------------------------ the page
def test_the_page_shows_beats_and_openings(tmp_path: Path) -> None:
    owner = OwnerPage(tmp_path / "page", 5)
    seen = FrontPage(tmp_path / "page")
    assert (seen.beat_ns(), seen.open_id) == (5, owner.open_id)
    owner.beat(2**63 + 1)
    assert seen.beat_ns() == 2**63 + 1
    again = OwnerPage(tmp_path / "page", 9)
    assert FrontPage(tmp_path / "page").open_id == again.open_id != owner.open_id
    again.close()
    owner.close()
    assert seen.beat_ns() == 0
    seen.close()


def test_a_file_that_is_no_page_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x")
    (tmp_path / "other").write_bytes(bytes(4_096))
    for name in ("short", "other", "none"):
        with pytest.raises(OSError):
            FrontPage(tmp_path / name)
