"""Imports: every row has an outcome or a reason in the file of rejected ones; cut off anywhere, it ends with the same content."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.tenant.bulk import FORMATS, Rejected, Row, rows_of
from hosting.tenant.edge_client import Done, Found, Put
from hosting.tenant.edge_import import Import
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.handle.values import HandleValue, decode_values
from replica.model.position import ORIGIN
from replica.model.precondition import ABSENT


class Registry:
    """A registrar over a dictionary; `break_at`: the change at which the stream is lost, carried out or not."""

    def __init__(self) -> None:
        self.content: dict[str, tuple[HandleValue, ...]] = {}
        self.refused: dict[str, Trouble] = {}
        self.break_at: int | None = None
        self.sent = 0
        self.later = 0

    async def put_many(self, changes: Sequence[Put], *, at_once: int = 1_000) -> list[Done]:
        done = []
        for one in changes:
            self.sent += 1
            if self.break_at is not None and self.sent >= self.break_at:
                raise ZaibeiError(Code.UNREACHABLE, "cut off", retry=True)
            if self.later:
                self.later -= 1
                done.append(Done(False, trouble=Trouble(Code.OVER_QUOTA, "again after 1 ms", retry=True)))
            elif one.identifier in self.refused:
                done.append(Done(False, trouble=self.refused[one.identifier]))
            elif one.need == ABSENT and one.identifier in self.content:
                done.append(Done(False, trouble=Trouble(Code.CONFLICT, "no record was expected there")))
            else:
                assert isinstance(one.values, bytes)
                self.content[one.identifier] = decode_values(one.values)
                done.append(Done(True, ORIGIN))
        return done

    async def get(self, identifiers: Sequence[str], *, stale: bool = False) -> list[Found]:
        return [Found(name, name in self.content, self.content.get(name, ())) for name in identifiers]


def csv_file(folder: Path, rows: int) -> Path:
    path = folder / "in.csv"
    path.write_text("identifier,URL\n" + "".join(f"88.118.9/{number},https://example.cn/{number}\n" for number in range(rows)))
    return path


def rejected(path: Path) -> list[dict[str, object]]:
    file = path.with_name(path.name + ".rejected.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def test_all_rows_arrive_and_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    path, registry = csv_file(tmp_path, 23), Registry()
    progress = await Import(path, "csv", registry, part=10).run()
    assert (progress.rows, progress.done, progress.rejected) == (23, 23, 0)
    assert registry.content["88.118.9/7"] == (HandleValue(1, b"URL", b"https://example.cn/7"),)
    assert os.listdir(tmp_path) == ["in.csv"]


async def test_rejected_rows_stand_in_a_file_with_their_reasons(tmp_path: Path) -> None:
    path, registry = tmp_path / "in.jsonl", Registry()
    registry.refused["88.118.9/no"] = Trouble(Code.NOT_AUTHORISED, "has no right to create")
    good = '{"handle": "88.118.9/a", "values": [{"index": 1, "type": "URL", "data": "x"}]}'
    lines = [
        good,
        "{",
        "[]",
        '{"handle": "/", "values": []}',
        good.replace("9/a", "9/no"),
        "",
        '{"handle": "88.118.9/b", "values": []}',
        good.replace("9/a", "9/" + "a" * 2_048),
    ]
    path.write_text("\n".join(lines))
    progress = await Import(path, "jsonl", registry).run()
    assert list(registry.content) == ["88.118.9/a"] and progress.done == 1
    found = {row["row"]: row["code"] for row in rejected(path)}
    assert found == {2: "malformed", 3: "malformed", 4: "malformed", 5: "not_authorised", 7: "malformed", 8: "malformed"}


async def test_a_dry_run_sends_nothing_and_leaves_progress_alone(tmp_path: Path) -> None:
    path = csv_file(tmp_path, 3)
    path.write_text(path.read_text() + "88.118.9/x\n")
    progress = await Import(path, "csv", None).run()
    assert (progress.done, progress.rejected) == (3, 1)
    assert [row["row"] for row in rejected(path)] == [4]


@pytest.mark.parametrize("at", range(1, 27, 3))
async def test_cut_off_anywhere_it_goes_on_and_ends_the_same(tmp_path: Path, at: int) -> None:
    path, registry = csv_file(tmp_path, 25), Registry()
    registry.refused["88.118.9/4"] = registry.refused["88.118.9/20"] = Trouble(Code.NOT_OWNER, "another's")
    registry.break_at = at
    with pytest.raises(ZaibeiError):
        await Import(path, "csv", registry, part=6, absent=True).run()
    registry.break_at = None
    progress = await Import(path, "csv", registry, part=6, absent=True).run()
    assert (progress.rows, progress.done, progress.rejected) == (25, 23, 2)
    assert [row["row"] for row in rejected(path)] == [5, 21] and len(registry.content) == 23
    if at > 6:
        assert registry.sent < at + 25  # what was noted is not sent again


async def test_another_file_of_that_name_begins_anew(tmp_path: Path) -> None:
    path, registry = csv_file(tmp_path, 25), Registry()
    registry.break_at = 20
    with pytest.raises(ZaibeiError):
        await Import(path, "csv", registry, part=6).run()
    csv_file(tmp_path, 24)
    registry.break_at = None
    assert (await Import(path, "csv", registry, part=6).run()).done == 24


async def test_rows_over_a_rate_are_sent_again_and_none_is_lost(tmp_path: Path) -> None:
    path, registry = csv_file(tmp_path, 5), Registry()
    registry.later = 7
    assert (await Import(path, "csv", registry).run()).done == 5
    assert len(registry.content) == 5


async def test_what_must_be_absent_and_is_there_otherwise_is_rejected(tmp_path: Path) -> None:
    path, registry = csv_file(tmp_path, 3), Registry()
    registry.content["88.118.9/1"] = (HandleValue(1, b"URL", b"older"),)
    progress = await Import(path, "csv", registry, absent=True).run()
    assert (progress.done, [row["code"] for row in rejected(path)]) == (2, ["conflict"])
    assert registry.content["88.118.9/1"][0].data == b"older"


async def test_a_file_without_the_header_is_refused_whole(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("88.118.9/a,x\n")
    with pytest.raises(ZaibeiError) as caught:
        await Import(path, "csv", Registry()).run()
    assert caught.value.code is Code.MALFORMED


@given(st.lists(st.text(max_size=40), max_size=6), st.sampled_from(FORMATS))
def test_any_text_is_rows_and_reasons(lines: list[str], form: str) -> None:
    head = ["identifier,URL\n"] if form == "csv" else []
    found = list(rows_of(iter([*head, *(line.replace("\n", "") + "\n" for line in lines)]), form))
    assert all(isinstance(one, Row | Rejected) for one in found)
    assert len(found) <= len(lines)
    assert all(json.loads(one.line()) for one in found if isinstance(one, Rejected))
