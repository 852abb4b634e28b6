"""The clerk on a group in memory: what shares an entry, what is told at a change of leader, and when a barrier is needed."""

from __future__ import annotations

import asyncio

import pytest

from hosting.tenant.desk import Asked, Verdict
from hosting.tenant.edge_clerk import Clerk
from hosting.tenant.limits import DeskLimits
from hosting.tenant.memory import MemoryGroup
from replica.model.batch import OP_DELETE, OP_PUT, Change, open_batch
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.group_state import Hold
from replica.model.precondition import ABSENT, NOTHING, PRESENT, Precondition, equal_to
from replica.model.states import Authority
from tests.unit.store.support import key, value

SOURCE = "88.118.8"


def put(number: int, text: str = "a") -> Change:
    return Change(OP_PUT, key(number), value(text))


@pytest.fixture
def group() -> MemoryGroup:
    return MemoryGroup(SOURCE, [b"h88\x01118\x018"], at_once=False)


@pytest.fixture
async def clerk(group: MemoryGroup) -> Clerk:
    return Clerk(group, lambda: 1_700_000_000_000)


def ask(clerk: Clerk, change: Change, need: Precondition) -> tuple[Asked, asyncio.Future[Verdict]]:
    """One change, and what it was told or will be told."""
    answer = asyncio.get_running_loop().create_future()
    [asked] = clerk.ask([(change, need)], answer.set_result)
    if isinstance(asked, Trouble):
        refused = Asked(change, need)
        answer.set_result(Verdict(refused, None, asked))
        return refused, answer
    return asked, answer


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def code(verdict: Verdict) -> tuple[Code, bool]:
    assert verdict.trouble is not None
    return verdict.trouble.code, verdict.trouble.definite


async def test_what_comes_in_one_turn_and_while_an_entry_flies_shares_the_next(group: MemoryGroup, clerk: Clerk) -> None:
    first = [ask(clerk, put(number), ABSENT)[1] for number in range(3)]
    await turns()
    later = [ask(clerk, put(number), ABSENT)[1] for number in range(3, 10)]
    await turns()
    assert len(group.pending) == 1, "a small batch waits for the one before it"
    group.step()
    await turns()
    assert [answer.done() for answer in (*first, *later)] == [True] * 3 + [False] * 7
    assert len(group.pending) == 1
    group.step()
    await turns()
    assert [answer.result().position.seq for answer in (*first, *later)] == [3] * 3 + [10] * 7
    assert group.barriers == 0, "what is carried out needs no barrier"


async def test_full_batches_follow_each_other_without_waiting(group: MemoryGroup) -> None:
    clerk = Clerk(group, lambda: 0, DeskLimits(batch_changes_max=4, uncommitted_max=3))
    answers = [ask(clerk, put(number), NOTHING)[1] for number in range(30)]
    await turns()
    batches = [open_batch(entry.registration.batch) for entry, _ in group.pending]
    assert [batch.count for batch in batches] == [4, 4, 4]
    assert [batch.before for batch in batches[1:]] == [batch.after for batch in batches[:-1]]
    while not all(answer.done() for answer in answers):
        group.step()
        await turns()
    assert len(group.content.records) == 30


async def test_a_failed_precondition_is_told_only_behind_a_barrier(group: MemoryGroup, clerk: Clerk) -> None:
    _, answer = ask(clerk, put(1), PRESENT)
    await turns(20)
    assert code(answer.result()) == (Code.CONFLICT, True)
    assert group.barriers == 1 and not group.pending


async def test_who_was_replaced_unawares_tells_no_conflict(group: MemoryGroup, clerk: Clerk) -> None:
    group.barrier_refusal = ZaibeiError(Code.UNREACHABLE, "no majority", retry=True)
    _, answer = ask(clerk, put(1), PRESENT)
    await turns(20)
    assert code(answer.result()) == (Code.UNREACHABLE, True)


async def test_a_precondition_that_came_true_meanwhile_is_carried_out(group: MemoryGroup, clerk: Clerk) -> None:
    _, answer = ask(clerk, put(1, "b"), PRESENT)
    group.content.records[key(1)] = value("a")  # applied while the barrier was under way
    await turns(20)
    group.step()
    await turns()
    assert answer.result().position is not None


async def test_changes_of_one_key_take_turns(group: MemoryGroup, clerk: Clerk) -> None:
    answers = [ask(clerk, put(1, text), need)[1] for text, need in (("a", ABSENT), ("b", equal_to(value("a"))), ("c", ABSENT))]
    for _ in range(3):
        await turns(20)
        group.step()
    await turns(20)
    assert [answer.result().position is not None for answer in answers] == [True, True, False]
    assert group.content.records == {key(1): value("b")}


async def test_stepping_down_leaves_what_flies_unknown_and_the_rest_definite(group: MemoryGroup, clerk: Clerk) -> None:
    _, flying = ask(clerk, put(1), NOTHING)
    await turns()
    _, waiting = ask(clerk, put(2), NOTHING)
    _, behind = ask(clerk, put(1, "b"), NOTHING)
    group.lose()
    await turns()
    assert code(flying.result()) == (Code.UNKNOWN, False)
    assert code(waiting.result()) == code(behind.result()) == (Code.NOT_LEADER, True)
    _, late = ask(clerk, put(3), NOTHING)
    assert code(late.result()) == (Code.NOT_LEADER, True)


async def test_a_proposal_refused_for_lack_of_leadership_is_definite(group: MemoryGroup, clerk: Clerk) -> None:
    group.refusal = ZaibeiError(Code.UNREACHABLE, "not the leader any more", retry=True)
    _, answer = ask(clerk, put(1), NOTHING)
    await turns()
    assert code(answer.result()) == (Code.NOT_LEADER, True)
    group.refusal = ZaibeiError(Code.DISK_FULL, "no room", retry=True)
    _, answer = ask(clerk, put(1), NOTHING)
    await turns()
    assert code(answer.result()) == (Code.DISK_FULL, True)


async def test_an_entry_without_effect_is_cut_again(group: MemoryGroup, clerk: Clerk) -> None:
    """An entry of an earlier leader came first; nobody is told anything but what became of his change."""
    other = Clerk(group, lambda: 1)
    _, theirs = ask(other, put(9), NOTHING)
    await turns()
    _, ours = ask(clerk, put(1), ABSENT)
    await turns()
    for _ in range(3):
        group.step()
        await turns()
    assert theirs.result().position.seq == 1 and ours.result().position.seq == 2


async def test_what_is_no_longer_ours_is_refused(group: MemoryGroup, clerk: Clerk) -> None:
    for changes, expected in (
        ({"authority": Authority.SOURCE}, Code.REFUSED),
        ({"authority": Authority.REGISTRATION, "granted": None}, Code.BUSY),
        ({"granted": group.state().granted, "hold": Hold("1-0", group.state().position, "x", b"", 0, 0)}, Code.HELD),
    ):
        group.change_state(**changes)
        _, answer = ask(clerk, put(1), NOTHING)
        assert code(answer.result()) == (expected, True)


async def test_late_is_definite_only_for_what_was_not_proposed(group: MemoryGroup, clerk: Clerk) -> None:
    flying, one = ask(clerk, put(1), NOTHING)
    await turns()
    waiting, two = ask(clerk, put(2), NOTHING)
    clerk.late(flying)
    clerk.late(waiting)
    assert code(one.result()) == (Code.UNKNOWN, False)
    assert code(two.result()) == (Code.BUSY, True)
    group.step()
    await turns()
    assert set(group.content.records) == {key(1)}, "what was taken back never happens"


async def test_who_leaves_takes_back_what_was_not_proposed(group: MemoryGroup, clerk: Clerk) -> None:
    ask(clerk, put(1), NOTHING)
    await turns()
    leaving = asyncio.create_task(clerk.change(put(2), NOTHING))
    await turns()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    group.step()
    await turns()
    assert not group.pending and set(group.content.records) == {key(1)}


async def test_reads_share_a_barrier_that_begins_after_them(group: MemoryGroup, clerk: Clerk) -> None:
    together = [asyncio.create_task(clerk.read([key(1)])) for _ in range(50)]
    await turns(2)
    later = asyncio.create_task(clerk.read([key(1)]))
    await asyncio.gather(*together, later)
    assert group.barriers == 2
    await clerk.read([key(1)], stale=True)
    assert group.barriers == 2
    group.lose()
    with pytest.raises(ZaibeiError) as refused:
        await clerk.read([key(1)])
    assert (refused.value.code, refused.value.trouble.definite) == (Code.NOT_LEADER, True)
    values, _ = await clerk.read([key(1)], stale=True)
    assert values == [None]


async def test_a_hot_key_is_limited(group: MemoryGroup) -> None:
    clerk = Clerk(group, lambda: 0, DeskLimits(behind_max=2, waiting_max=5))
    answers = [ask(clerk, Change(OP_DELETE, key(1)), NOTHING)[1] for _ in range(4)]
    assert [answer.done() for answer in answers] == [False, False, False, True]
    assert code(answers[3].result()) == (Code.BUSY, True)
    more = [ask(clerk, put(number), NOTHING)[1] for number in range(2, 5)]
    assert [answer.done() for answer in more] == [False, False, True]


async def test_closing_refuses_what_waits(group: MemoryGroup, clerk: Clerk) -> None:
    _, flying = ask(clerk, put(1), NOTHING)
    await turns()
    _, waiting = ask(clerk, put(2), NOTHING)
    clerk.close()
    assert code(waiting.result()) == (Code.STOPPING, True)
    group.step()
    await turns()
    assert flying.result().position is not None
