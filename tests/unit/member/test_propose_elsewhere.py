"""An entry proposed at another member ends in an outcome or in an error of ours, whatever that member says, however late we are.

Else whoever asked ends with it: the task that states fetched content as staged ends the member.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from replica.member import cluster_life
from replica.member.cluster_life import ClusterLife
from replica.model.errors import Code, ZaibeiError
from replica.v1 import entry_pb2, peer_pb2

GROUP, ME, OTHER = 5, 1, 2


def life_of(
    monkeypatch: pytest.MonkeyPatch, answer: peer_pb2.MemberAnswer, *, leader: int = OTHER, opened: bool = True
) -> ClusterLife:
    async def ask(*_: object) -> peer_pb2.MemberAnswer:
        await asyncio.sleep(0)
        return answer

    monkeypatch.setattr(cluster_life, "ask", ask)
    monkeypatch.setattr(cluster_life, "ASK_S_MAX", 0.05)
    groups = {GROUP: SimpleNamespace(log=SimpleNamespace(applied=3))}
    host = SimpleNamespace(stands=lambda _ident: SimpleNamespace(leader=OTHER), groups=groups)
    side: Any = SimpleNamespace(me=ME, peers=None, holders=None, host=host)
    sources: Any = None
    return ClusterLife(side, sources, lambda _name: False)


async def test_what_was_decided_and_applied_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = await life_of(monkeypatch, peer_pb2.MemberAnswer(outcome="applied", index=3)).propose(GROUP, entry_pb2.Entry())
    assert (reached.outcome.kind, reached.index) == ("applied", 3)


@pytest.mark.parametrize(
    ("answer", "retry"),
    [
        (peer_pb2.MemberAnswer(outcome="applied", index=4), True),  # decided, and this member is that far behind
        (peer_pb2.MemberAnswer(outcome="of a later version", index=3), False),
    ],
)
async def test_what_is_not_known_here_is_unknown(
    monkeypatch: pytest.MonkeyPatch, answer: peer_pb2.MemberAnswer, retry: bool
) -> None:
    with pytest.raises(ZaibeiError) as caught:
        await life_of(monkeypatch, answer).propose(GROUP, entry_pb2.Entry())
    trouble = caught.value.trouble
    assert (trouble.code, trouble.definite, trouble.retry) == (Code.UNKNOWN, False, retry)
