"""One sample of the comparison with a node's own answers: what each kind of difference is called."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hosting.answer.mirror import Verdict
from hosting.client.lookup import Rc, Reply
from ops import mirror
from ops.mirror import Sampler, judged, pick
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue, encode_record
from replica.model.position import Position
from replica.model.states import Result
from replica.store import SourceStore
from tests.unit.store.support import SOURCE, Group, Source, key, put, small_budget

KEY = b"h88\x01118\x018\0A"


def at(seq: int) -> Position:
    return Position(b"L" * 16, 1, seq, bytes(32))


def value(text: str) -> HandleValue:
    return HandleValue(1, b"URL", text.encode())


@dataclass
class Copy:
    """A copy that holds one record, and hears of its source as the test says."""

    record: bytes | None
    position: Position = field(default_factory=lambda: at(1))
    head: Position | None = None
    on_read: Callable[[], None] = lambda: None

    @property
    def store(self) -> Any:
        def get_many(keys: list[bytes]) -> tuple[list[bytes | None], Position]:
            self.on_read()
            return [self.record], self.position

        return SimpleNamespace(get_many=get_many, state=lambda: SimpleNamespace(position=self.position))

    @property
    def driver(self) -> Any:
        heard = None if self.head is None else (self.head, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        return SimpleNamespace(age=SimpleNamespace(heard=heard))


class Node:
    """Answers the next of its replies; the last one again and again."""

    def __init__(self, *replies: Reply | ZaibeiError) -> None:
        self.replies, self.asked = list(replies), 0

    async def resolve(self, name: str) -> Any:
        self.asked += 1
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, ZaibeiError):
            raise reply
        return SimpleNamespace(reply=reply)


def success(text: str) -> Reply:
    return Reply(Rc.SUCCESS, (value(text),))


def look(copy: Copy, node: Node) -> Verdict:
    return asyncio.run(judged(copy, node, "88.118.8/A", KEY))  # type: ignore[arg-type]


def test_the_same_values_are_the_same() -> None:
    assert look(Copy(encode_record([value("x")])), Node(success("x"))) is Verdict.SAME
    assert look(Copy(None), Node(Reply(Rc.NOT_FOUND))) is Verdict.SAME


def test_what_comes_with_the_next_change_is_lag() -> None:
    copy, reads = Copy(encode_record([value("old")]), head=at(1)), 0

    def arrives() -> None:
        nonlocal reads
        reads += 1
        if reads > 2:  # before and right after the question we hold the old one
            copy.record = encode_record([value("new")])

    copy.on_read = arrives
    assert look(copy, Node(success("new"))) is Verdict.LAG


def test_what_stays_different_with_our_copy_caught_up_is_content() -> None:
    node = Node(success("other"))
    assert look(Copy(encode_record([value("x")]), head=at(1)), node) is Verdict.CONTENT
    assert node.asked == mirror.LOOKS_MAX
    assert look(Copy(encode_record([value("x")]), head=at(1)), Node(Reply(Rc.NOT_FOUND))) is Verdict.CONTENT


def test_silence_and_a_copy_that_does_not_catch_up_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "CAUGHT_UP_S_MAX", 0.2)
    held = encode_record([value("x")])
    assert look(Copy(held), Node(ZaibeiError(Code.UNREACHABLE, "down"))) is Verdict.UNTOLD
    assert look(Copy(held), Node(Reply(Rc.ERROR))) is Verdict.UNTOLD
    assert look(Copy(held, head=at(9)), Node(success("other"))) is Verdict.UNTOLD
    assert look(Copy(held, head=None), Node(success("other"))) is Verdict.UNTOLD


def test_records_are_picked_from_a_real_store(tmp_path: Path) -> None:
    store = SourceStore.open(tmp_path / "store", SOURCE, small_budget(tmp_path))
    copy: Any = SimpleNamespace(store=store)
    assert pick(copy) is None
    source, group = Source(), Group(store)
    group.grant(source.grant())
    group.append(source.cut([put(number) for number in range(200)]))
    picked = {pick(copy) for _ in range(100)}
    assert None not in picked
    assert len(picked) > 30
    assert all(one is not None and one[1] in {key(number) for number in range(200)} for one in picked)
    store.close()


def test_a_source_that_was_never_sampled_is_unknown() -> None:
    assert Sampler(dict).comparison("node-a").result is Result.UNKNOWN
