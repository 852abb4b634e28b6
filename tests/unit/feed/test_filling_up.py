"""A registry met while it is empty, which fills up before it takes its first grant, is copied from its newer head."""

from dataclasses import replace

from replica.feed.meeting import _nothing_copied
from replica.model.group_state import GroupState
from replica.model.position import ORIGIN, epoch_start

LINEAGE = bytes(range(16))
EMPTY = epoch_start(ORIGIN, LINEAGE, 1)


def test_only_a_copy_without_any_receipted_change_may_be_begun_anew() -> None:
    met = GroupState("s", ready=True, granted=EMPTY, position=EMPTY)
    assert _nothing_copied(met)
    assert not _nothing_copied(replace(met, grant_taken=True)), "its epoch runs: another head is a fork"
    assert not _nothing_copied(replace(met, position=replace(EMPTY, seq=1))), "a change was copied: another head is a fork"
