"""What vouches for values that were read: never more than was so when they were read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from hosting.answer.question import Question
from hosting.answer.resolve import answer_record
from hosting.answer.standing import FOUND, NO_SUCH_NAME, TRY_ANOTHER, row_of, standing_of
from replica.feed.freshness import CopyAge
from replica.member.answers import SourceAnswers, catalog_mark, catalog_of
from replica.model.blocks import Blocked, BlockOrder
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import Identifier, prefix_key
from replica.model.ladder import Ladder, Stage
from replica.model.position import Position
from replica.model.states import Authority, FeedState, Freshness

LINEAGE = b"L" * 16
OLD, NEW = Position(LINEAGE, 1, 10, b"o" * 32), Position(LINEAGE, 1, 90, b"n" * 32)
NAME = Identifier.parse(b"88.118/REGISTERED-IN-THE-GAP")
WITH_GAP = GroupState(
    "s", ready=True, verified=True, feed=FeedState.LOADING, position=OLD, generation=1, prefixes=(prefix_key("88.118"),)
)
WHOLE = replace(WITH_GAP, feed=FeedState.FLOWING, position=NEW, generation=2)


@dataclass
class Store:
    """A store whose generation is switched by another thread, at a moment the test chooses."""

    now: GroupState = WITH_GAP
    records: dict[bytes, bytes] = field(default_factory=dict)
    after_read: list[Callable[[], None]] = field(default_factory=list)
    reads: int = 0

    def state(self) -> GroupState:
        return self.now

    def get_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], Position]:
        self.reads += 1
        found = [self.records.get(key) for key in keys], self.now.position
        if self.after_read:
            self.after_read.pop(0)()
        return found


def answers(store: Store) -> SourceAnswers:
    age = CopyAge()
    age.nonce_sent(b"n", 0)
    age.applied(NEW)
    age.beat(NEW, b"n")
    return SourceAnswers(store, age, 300_000, probes_alive=lambda: None, in_service=lambda: True, boottime_ns=lambda: 1_000_000)


def test_a_name_missing_in_a_copy_with_a_gap_is_never_said_not_to_exist() -> None:
    """Read before the switch, vouched for after it: the view of the whole copy would make this a 100."""
    store = Store()

    def switch() -> None:
        store.now = WHOLE
        store.records[NAME.key()] = b"value"

    store.after_read.append(switch)
    values, view = answers(store).read([NAME.key()])
    assert (values, view.generation, view.position) == ([b"value"], 2, NEW)
    assert store.reads == 2


def test_what_another_provider_registers_now_is_never_said_not_to_exist_here() -> None:
    """We were its authority; since it was transferred, names come to be that we never hear of."""
    ours = replace(WHOLE, authority=Authority.REGISTRATION, authority_act="act", ladder=Ladder(Stage.SERVING))
    store = Store(ours)
    _, view = answers(store).read([NAME.key()])
    assert (row_of(view).missing, row_of(view).authoritative) == (NO_SUCH_NAME, True)
    store.now = replace(ours, ladder=Ladder(Stage.TRANSFERRED))
    _, view = answers(store).read([NAME.key()])
    row = row_of(view)
    assert (row.found, row.missing, row.authoritative, row.degraded) == (FOUND, TRY_ANOTHER, False, True)


def test_generations_that_change_all_the_time_answer_nothing() -> None:
    store = Store()

    def again() -> None:
        store.now = replace(store.now, generation=store.now.generation + 1)

    store.after_read += [again] * 9
    with pytest.raises(ZaibeiError) as caught:
        answers(store).read([NAME.key()])
    assert caught.value.code is Code.BUSY and caught.value.trouble.retry


def test_what_was_decided_before_the_read_holds_for_it() -> None:
    store = Store()
    store.after_read.append(lambda: setattr(store, "now", replace(WITH_GAP, feed=FeedState.FLOWING)))
    (value,), view = answers(store).read([NAME.key()])
    assert (view.freshness, view.gaps) == (Freshness.FRESH, WITH_GAP.prefixes)
    assert answer_record(Question(b"88.118/REGISTERED-IN-THE-GAP"), value, standing_of(view), NAME.prefix, NAME.key()).code == 2


@pytest.mark.parametrize("feed", FeedState)
@pytest.mark.parametrize("authority", Authority)
def test_not_found_is_said_while_changes_flow_and_the_source_decides_or_we_do(feed: FeedState, authority: Authority) -> None:
    store = Store(replace(WITH_GAP, feed=feed, position=NEW, authority=authority))
    (value,), view = answers(store).read([NAME.key()])
    assert value is None
    code = answer_record(Question(b"88.118/REGISTERED-IN-THE-GAP"), value, standing_of(view), NAME.prefix, NAME.key()).code
    sure = feed is FeedState.FLOWING and authority is not Authority.RESOLUTION
    assert code == (100 if sure else 2)


@pytest.mark.parametrize("fault", [{"ready": False}, {"verified": False}, {"authority": Authority.RESOLUTION}])
def test_a_copy_that_is_not_whole_proved_and_the_sources_own_word_never_says_not_found(fault: dict[str, object]) -> None:
    store = Store(replace(WHOLE, **fault))  # type: ignore[arg-type]
    (value,), view = answers(store).read([NAME.key()])
    assert answer_record(Question(b"88.118/REGISTERED-IN-THE-GAP"), value, standing_of(view), NAME.prefix, NAME.key()).code == 2


def test_orders_to_block_are_in_force_until_their_deadline() -> None:
    order = BlockOrder("li.wei", "00", 17, (), ("88.118",), (prefix_key("88.118"),), 2_000, 1_000, "why")
    now_ms = [1_500]
    store = Store(replace(WHOLE, blocks=(order,)))
    looked = SourceAnswers(
        store,
        CopyAge(),
        300_000,
        probes_alive=lambda: None,
        in_service=lambda: True,
        boottime_ns=lambda: 1_000_000,
        wall_ms=lambda: now_ms[0],
    )
    assert looked.view().blocks == (Blocked(prefix_key("88.118"), 2_000, "li.wei/17"),)
    now_ms[0] = 2_000
    assert looked.view().blocks == ()
    assert sorted(catalog_of([store.now], b"", 1).blocks) == [Blocked(prefix_key("88.118"), 2_000, "li.wei/17")]
    assert catalog_mark({"s": store.now}) != catalog_mark({"s": WHOLE})
