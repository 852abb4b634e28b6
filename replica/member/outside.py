"""Our published addresses as our other members see them: each asks the others, and answers them the same."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from replica.member.cluster_side import ClusterSide
from replica.member.edge_asks import ask
from replica.model.errors import Code, ZaibeiError
from replica.takeover.edge_families import ANSWER_S_MAX, who_answers
from replica.v1 import peer_pb2

ASK_S_MAX = 2 * ANSWER_S_MAX
SITE_OCTETS_MAX = 16_384
_SEEN = msgspec.json.Decoder(dict[str, bool])


class OutsideLooks:
    """Satisfies takeover.edge_families.Outside: who of the others could be asked, and what it saw."""

    def __init__(self, side: ClusterSide) -> None:
        self._side = side

    async def __call__(self, site: bytes) -> Mapping[str, Mapping[str, bool]]:
        others = [one for one in self._side.state.living() if one.number != self._side.me]
        found = await asyncio.gather(*(self._seen_by(one.number, site) for one in others))
        return {one.name: seen for one, seen in zip(others, found, strict=True) if seen}

    async def _seen_by(self, member: int, site: bytes) -> dict[str, bool]:
        """Empty: it could not be asked, or its version does not know the question. That says nothing of our addresses."""
        try:
            answer = await ask(self._side.probed_by, member, peer_pb2.MemberQuestion(probe_site=site), ASK_S_MAX)
            return _SEEN.decode(answer.octets)
        except (ZaibeiError, msgspec.MsgspecError):
            return {}


async def answer_of_site(site: bytes) -> peer_pb2.MemberAnswer:
    """Which addresses of another member's site answer here. Raises ZaibeiError(MALFORMED)."""
    if len(site) > SITE_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a site of {len(site)} octets is not looked at: at most {SITE_OCTETS_MAX}")
    return peer_pb2.MemberAnswer(octets=msgspec.json.encode(await who_answers(site)))
