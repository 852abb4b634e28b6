"""The record of a prefix at the top-level node: what is changed in which order, what is put back, and what a crash leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import Interface, encode_site, site_of
from replica.model.handle.values import HandleValue
from replica.takeover.edge_top_record import TopRecordConfig, TopRecordPublisher
from replica.takeover.overlay import resolution_sites, site_serial, site_with
from replica.takeover.publish import Publication
from replica.takeover.top_record import INDEX_DEFAULT, MARK, Change, Verb, mark_of, next_change


def site(host: str, serial: int = 1, *, primary: bool = True) -> bytes:
    return encode_site(site_of([host], [Interface(3, 1, 2641)], serial=serial, primary=primary))


OURS, NODE, SECOND = site("192.0.2.5"), site("198.51.100.7", 4), site("198.51.100.8", 4, primary=False)
ADMIN = HandleValue(100, b"HS_ADMIN", b"admin")
PREFIX = "88.118"
RECORD = (HandleValue(1, b"HS_SITE", NODE, ttl=300), HandleValue(5, b"hs_site", SECOND, ttl=300), ADMIN)


class Top:
    """A top-level node's record with the rules of its operations. `dies_at`: this call is carried out and not answered."""

    def __init__(self, record: Sequence[HandleValue] | None = RECORD) -> None:
        self.record = None if record is None else {one.index: one for one in record}
        self.calls: list[str] = []
        self.dies_at = 0

    async def read(self, handle: str, types: Sequence[str] = ()) -> tuple[HandleValue, ...] | None:
        assert handle == f"0.NA/{PREFIX}"
        return None if self.record is None else tuple(self.record[index] for index in sorted(self.record))

    async def add(self, handle: str, values: Sequence[HandleValue]) -> None:
        assert self.record is not None and not any(one.index in self.record for one in values)
        self._put("add", values)

    async def modify(self, handle: str, values: Sequence[HandleValue]) -> None:
        assert self.record is not None and all(one.index in self.record for one in values)
        self._put("modify", values)

    async def remove(self, handle: str, indexes: Sequence[int]) -> None:
        assert self.record is not None
        for index in indexes:
            del self.record[index]
        self._called("remove")

    def _put(self, verb: str, values: Sequence[HandleValue]) -> None:
        assert self.record is not None and values
        self.record |= {one.index: one for one in values}
        self._called(verb)

    def _called(self, verb: str) -> None:
        self.calls.append(verb)
        if len(self.calls) == self.dies_at:
            raise ZaibeiError(Code.UNREACHABLE, "no answer", definite=False, retry=True)

    @property
    def sites(self) -> list[bytes]:
        """As a national client gets them: the first one is all it looks at."""
        found = self.record or {}
        return [found[index].data for index in sorted(found) if found[index].type.upper() == b"HS_SITE"]


def adapter(top: Top) -> TopRecordPublisher:
    return TopRecordPublisher(TopRecordConfig("beijing", "tcp://192.0.2.10:2641"), top)


def resolution(serial: int, *nodes: bytes) -> Publication:
    return Publication(PREFIX, resolution_sites(OURS, nodes or (NODE, SECOND), serial), serial, f"act-{serial}")


def registration(serial: int) -> Publication:
    return Publication(PREFIX, (site_with(OURS, serial=serial, primary=True),), serial, f"act-{serial}")


def withdrawal(serial: int) -> Publication:
    return Publication(PREFIX, (), serial, f"act-{serial}", withdrawn=True)


async def test_our_site_comes_first_and_goes_again() -> None:
    top = Top()
    publisher = adapter(top)
    done = await publisher.publish(resolution(9))
    assert done.confirmed and "names our site first, serial 9" in done.detail
    assert top.sites == [*resolution(9).sites] and top.record is not None and top.record[100] == ADMIN
    calls = len(top.calls)
    assert (await publisher.publish(resolution(9))).confirmed and len(top.calls) == calls, "again: nothing is written"
    assert (await publisher.publish(withdrawal(10))).confirmed
    assert [site_serial(one) for one in top.sites] == [10, 10], "newer than ours for whoever kept it"
    for now, before in zip(top.sites, (NODE, SECOND), strict=True):
        assert now == before[:4] + (10).to_bytes(2, "big") + before[6:]
    assert {index: one.ttl for index, one in top.record.items() if one.type.upper() == b"HS_SITE"} == {1: 300, 5: 300}
    calls = len(top.calls)
    assert (await publisher.publish(withdrawal(10))).confirmed and len(top.calls) == calls


async def test_registration_takes_the_dead_sites_away_and_gives_them_back() -> None:
    top = Top()
    publisher = adapter(top)
    assert (await publisher.publish(resolution(9))).confirmed
    assert (await publisher.publish(registration(10))).confirmed
    assert top.sites == [site_with(OURS, serial=10, primary=True)]
    assert (await publisher.publish(withdrawal(11))).confirmed
    assert [one[6:] for one in top.sites] == [NODE[6:], SECOND[6:]]


@pytest.mark.parametrize("record", [(ADMIN,), RECORD, (replace(RECORD[0], index=9_000), ADMIN)])
@pytest.mark.parametrize("dies_at", range(1, 12))
async def test_a_crash_after_any_request_changes_nothing_of_the_end(record: tuple[HandleValue, ...], dies_at: int) -> None:
    top, plain = Top(record), Top(record)
    top.dies_at = dies_at
    story = (resolution(9), registration(10), withdrawal(11))
    for publication in story:
        try:
            await adapter(top).publish(publication)
        except ZaibeiError:
            assert (await adapter(top).publish(publication)).confirmed
        assert (await adapter(plain).publish(publication)).confirmed
        assert top.sites[: len(publication.sites)] == list(publication.sites)
    assert top.record == plain.record


@pytest.mark.parametrize("dies_at", range(1, 6))
async def test_at_no_moment_does_a_client_find_nobody(dies_at: int) -> None:
    top = Top()
    top.dies_at = dies_at
    for publication in (resolution(9), withdrawal(10)):
        try:
            await adapter(top).publish(publication)
        except ZaibeiError:
            assert top.sites
            return


async def test_what_the_nodes_people_changed_meanwhile_is_theirs() -> None:
    top = Top()
    assert (await adapter(top).publish(resolution(9))).confirmed
    assert top.record is not None
    newer = site("203.0.113.9", 30)
    top.record[1] = replace(top.record[1], data=newer)
    assert (await adapter(top).publish(withdrawal(10))).confirmed
    assert top.sites[0] == newer, "not the older one that we had kept"
    again = Top()
    assert (await adapter(again).publish(resolution(9))).confirmed
    assert again.record is not None
    again.record[1] = replace(again.record[1], data=newer)
    assert (await adapter(again).publish(registration(10))).confirmed
    assert (await adapter(again).publish(withdrawal(11))).confirmed
    assert again.sites[0] == newer


async def test_an_older_publication_never_replaces_a_newer_one() -> None:
    top = Top()
    for newer in (resolution(9), withdrawal(12)):
        assert (await adapter(top).publish(newer)).confirmed
        before = dict(top.record or {})
        for older in (resolution(8), withdrawal(8)):
            with pytest.raises(ZaibeiError) as refused:
                await adapter(top).publish(older)
            assert refused.value.code is Code.CONFLICT and top.record == before


async def test_a_prefix_without_a_record_is_not_confirmed() -> None:
    said = await adapter(Top(None)).publish(resolution(9))
    assert not said.confirmed and "has no record 0.NA/88.118" in said.detail


async def test_a_withdrawal_where_nothing_of_ours_stands_writes_nothing() -> None:
    top = Top()
    assert (await adapter(top).publish(withdrawal(3))).confirmed and top.calls == []


async def test_a_record_that_somebody_else_keeps_changing_is_not_confirmed() -> None:
    class Fought(Top):
        async def modify(self, handle: str, values: Sequence[HandleValue]) -> None:
            self.calls.append("modify")

    said = await adapter(Fought()).publish(resolution(9))
    assert not said.confirmed and "who else changes it" in said.detail


async def test_a_server_that_is_silent_is_unreachable_in_time() -> None:
    class Silent(Top):
        async def read(self, handle: str, types: Sequence[str] = ()) -> tuple[HandleValue, ...] | None:
            raise ZaibeiError(Code.UNREACHABLE, "no answer in time", definite=False, retry=True)

    with pytest.raises(ZaibeiError) as lost:
        await adapter(Silent()).publish(resolution(9))
    assert lost.value.code is Code.UNREACHABLE


@given(st.binary(max_size=80))
def test_a_mark_that_somebody_changed_is_named(data: bytes) -> None:
    with pytest.raises(ZaibeiError) as refused:
        mark_of([HandleValue(INDEX_DEFAULT, MARK, b"{" + data)])
    assert refused.value.code is Code.CONFLICT and "7300" in refused.value.trouble.message


def test_the_mark_stands_before_anything_else_is_touched() -> None:
    assert next_change(RECORD, resolution(9)) == Change(
        Verb.ADD,
        (HandleValue(INDEX_DEFAULT, MARK, next_change(RECORD, resolution(9)).values[0].data, ttl=60),),  # type: ignore[union-attr]
    )
    found = mark_of(next_change(RECORD, resolution(9)).values)  # type: ignore[union-attr]
    assert found is not None and [one.data for one in found[1].before] == [NODE, SECOND]
