"""Words about persons in a cluster: sealed where they are proposed, the same octets at a member that has no key."""

from __future__ import annotations

import json
from pathlib import Path

from replica.cluster import entries
from replica.cluster.state import CONTROL_NAME, MemberState
from replica.member.cluster_side import now_ms
from replica.model.audit import NO_CHAIN, check_chain
from replica.model.audit_seal import AuditKeys
from replica.v1 import entry_pb2
from tests.integration.cluster_world import cluster
from tests.integration.member_world import until
from tests.integration.test_cluster import fed, node_of

KEYS = AuditKeys((b"k" * 32,))
WORDS = "li.wei, telephone 123"


async def test_members_with_and_without_the_key_hold_the_same_sealed_words(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        three.audit_keys = {1: KEYS, 2: KEYS}
        node = node_of(three, tmp_path)
        async with node.serving():
            await fed(three, node)
            copies = [three.copy(number, node.name) for number in three.worlds]
            await until(lambda: three.leader(node.name))
            if (leader := three.leader(node.name)) == 3:
                await three.life(1).lead(three.copy(1, node.name).placed.ident, 1)  # type: ignore[union-attr]
                leader = 1
            entry = entry_pb2.Entry(format=1, admitted_ms=now_ms(), authority=entry_pb2.Authority(kind=1, act="t", reason=WORDS))
            await three.copy(leader, node.name).group.propose(entry).applied
            await until(lambda: len({str(copy.store.audit_page(0, 500).head) for copy in copies}) == 1)
            pages = [copy.store.audit_page(0, 500) for copy in copies]
            assert pages[0] == pages[1] == pages[2] and check_chain(pages[2].lines, node.name, 1, NO_CHAIN, pages[2].head) == []
            told = b"".join(pages[2].lines)
            found = [json.loads(line) for line in pages[2].lines]
            act = next(one for one in reversed(found) if one["kind"] == "authority")
            assert WORDS.encode() not in told and KEYS.open(act) == {"why": WORDS}
            grants = [one for one in found if one["kind"] == "grant"]
            assert grants and all(one["who"] for one in grants), "a grant names the member that gave it"

            care = three.life(1).care
            record = three.life(1).side.state.member(3)
            assert record is not None and record.state is MemberState.ACTIVE
            await three.stop(3)
            await care.propose(entries.removed(care.act(), now_ms(), 3, WORDS))
            states = [three.life(number).side.state for number in (1, 2)]
            lines = [line.encode() for line in states[0].audit]
            assert check_chain(lines, CONTROL_NAME, 1, NO_CHAIN, states[0].audit_head) == []
            removed = json.loads(lines[-1])
            assert removed["what"] == "member 3 is removed" and KEYS.open(removed) == {"why": WORDS}
            assert WORDS.encode() not in b"".join(lines)
