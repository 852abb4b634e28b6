"""Reading at another member: what ages on its way, and members that answer and cannot vouch, or do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from replica.member import elsewhere
from replica.member.edge_peers import Peers
from replica.member.elsewhere import Elsewhere, answer_of, read_of
from replica.model.errors import Code, ZaibeiError
from replica.model.states import Authority, Freshness
from replica.model.view import SourceView
from replica.v1 import peer_pb2

SOUND = SourceView("node-a", age_ms=1_900, freshness=Freshness.FRESH, ready=True)
Answer = Callable[[int], SourceView | None]


@pytest.mark.parametrize(
    ("view", "elapsed_ms", "freshness"),
    [
        (SOUND, 100, Freshness.FRESH),
        (SOUND, 101, Freshness.STALE_BOUNDED),
        (replace(SOUND, authority=Authority.REGISTRATION), 101, Freshness.FRESH),
        (replace(SOUND, freshness=Freshness.EXPIRED), 0, Freshness.EXPIRED),
    ],
)
def test_what_was_fresh_there_may_be_stale_here(view: SourceView, elapsed_ms: int, freshness: Freshness) -> None:
    """SEMANTICS 4: fresh is two seconds at most, wherever it was read."""
    _, came = read_of(answer_of(([b"x"], view)), 1, elapsed_ms)
    assert (came.age_ms, came.freshness) == (1_900 + elapsed_ms, freshness)


def asking(monkeypatch: pytest.MonkeyPatch, answers: Answer) -> Elsewhere:
    async def ask(_peers: Peers, member: int, _question: peer_pb2.MemberQuestion, _limit_s: float) -> peer_pb2.MemberAnswer:
        view = answers(member)
        if view is None:
            await asyncio.sleep(60)
            raise ZaibeiError(Code.UNREACHABLE, "never")
        return answer_of(([b"%d" % member], view))

    monkeypatch.setattr(elsewhere, "ask", ask)
    monkeypatch.setattr(elsewhere, "READ_S_MAX", 0.05)
    return Elsewhere(None, lambda _source: (1, 2, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("views", "best"),
    [
        ({1: SOUND, 2: SOUND, 3: SOUND}, b"1"),
        ({1: replace(SOUND, ready=False), 2: SOUND, 3: SOUND}, b"2"),
        ({1: replace(SOUND, leader_silent=True), 2: replace(SOUND, ready=False), 3: SOUND}, b"3"),
        ({1: None, 2: SOUND, 3: SOUND}, b"2"),
        ({1: None, 2: None, 3: replace(SOUND, ready=False)}, b"3"),
    ],
)
async def test_the_first_that_vouches_is_believed(
    monkeypatch: pytest.MonkeyPatch, views: dict[int, SourceView | None], best: bytes
) -> None:
    """One that forgot, or is out of service, or is cut off, answers; it must not stand before one that knows."""
    found = await asking(monkeypatch, lambda member: views[member]).read({"node-a": [b"key"]})
    assert found["node-a"][0] == [best]


async def test_where_nobody_answers_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asking(monkeypatch, lambda _member: None).read({"node-a": [b"key"]}) == {}
