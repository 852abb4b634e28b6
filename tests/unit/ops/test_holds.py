"""Release and discard: two people over one plan, and a plan only over the world it was made in (SEMANTICS 2.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.admin.values import Approval
from ops.operators import edge_keys
from ops.operators.approval import approve
from ops.operators.book import PLANS_MAX, Book
from ops.operators.edge_book import BookFile
from ops.operators.holds import HoldDesk
from ops.operators.memory import MemoryGroup
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.signing import Signer
from tests.unit.ops.support import HELD, HOLD_ID, held_group

LI, MIN, EVE = (Signer(Ed25519PrivateKey.generate()) for _ in range(3))


class Desk:
    """A desk over one held group, its book and operators open to the test."""

    def __init__(self) -> None:
        self.group = held_group()
        self.groups: dict[str, MemoryGroup] = {"node-a": self.group}
        self.operators = {"li.wei": LI.public, "zhang.min": MIN.public}
        self.book, self.saved = Book(), 0
        self.desk = HoldDesk(lambda: self.groups, self.operators, self.book, self._save, lambda: 42)

    def _save(self, book: Book) -> None:
        self.saved += 1

    def sign(self, token: str, name: str, signer: Signer) -> None:
        self.desk.sign(approve(name, signer, self.desk.plan_of(token).text))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(ZaibeiError) as caught:
        call()
    return caught.value.code


async def code_of_run(desk: Desk, token: str) -> Code:
    with pytest.raises(ZaibeiError) as caught:
        await desk.desk.run(token)
    assert caught.value.code is Code.UNKNOWN or desk.group.now.hold is not None or desk.group.entries
    return caught.value.code


async def test_two_people_release(desk: Desk) -> None:
    plan = desk.desk.plan(HOLD_ID, "release")
    assert "act release" in plan.text and "removes 900 rewrites 7" in plan.text
    desk.sign(plan.token, "li.wei", LI)
    desk.sign(plan.token, "zhang.min", MIN)
    done = await desk.desk.run(plan.token)
    assert (done.decision, done.approved_by, done.outcome) == ("release", ["li.wei", "zhang.min"], "applied")
    decision = desk.group.entries[0].decision
    assert (
        decision.release
        and decision.hold == HELD.ident
        and [one.operator for one in decision.approvals] == ["li.wei", "zhang.min"]
    )


async def test_running_again_is_harmless(desk: Desk) -> None:
    plan = desk.desk.plan(HOLD_ID, "discard")
    desk.sign(plan.token, "li.wei", LI)
    desk.sign(plan.token, "zhang.min", MIN)
    assert await desk.desk.run(plan.token) == await desk.desk.run(plan.token)
    assert len(desk.group.entries) == 1


async def test_one_person_is_not_two(desk: Desk) -> None:
    plan = desk.desk.plan(HOLD_ID, "release")
    assert await code_of_run(desk, plan.token) is Code.NOT_AUTHORISED
    desk.sign(plan.token, "li.wei", LI)
    desk.sign(plan.token, "li.wei", LI)
    assert await code_of_run(desk, plan.token) is Code.NOT_AUTHORISED
    assert desk.group.entries == []


async def test_one_key_under_two_names_is_one_person(desk: Desk) -> None:
    desk.operators["li.also"] = LI.public
    plan = desk.desk.plan(HOLD_ID, "release")
    desk.sign(plan.token, "li.wei", LI)
    desk.sign(plan.token, "li.also", LI)
    assert desk.desk.plan_of(plan.token).approvals == ["li.also"]
    assert await code_of_run(desk, plan.token) is Code.NOT_AUTHORISED


async def test_an_operator_who_left_no_longer_counts(desk: Desk) -> None:
    plan = desk.desk.plan(HOLD_ID, "release")
    desk.sign(plan.token, "li.wei", LI)
    desk.sign(plan.token, "zhang.min", MIN)
    del desk.operators["zhang.min"]
    assert await code_of_run(desk, plan.token) is Code.NOT_AUTHORISED


def test_strangers_and_forgeries_are_refused(desk: Desk) -> None:
    plan = desk.desk.plan(HOLD_ID, "release")
    assert code_of(lambda: desk.sign(plan.token, "eve", EVE)) is Code.NOT_AUTHORISED
    assert code_of(lambda: desk.sign(plan.token, "li.wei", EVE)) is Code.NOT_AUTHORISED
    good = approve("li.wei", LI, plan.text)
    for bad in (
        replace(good, signature="00" * 64),
        replace(good, suite="x"),
        replace(good, key_id="00"),
        replace(good, operator="zhang.min"),
    ):
        assert code_of(lambda bad=bad: desk.desk.sign(bad)) is Code.NOT_AUTHORISED
    assert code_of(lambda: desk.desk.sign(replace(good, signature="zz"))) is Code.MALFORMED


def test_a_signature_over_release_is_none_over_discard(desk: Desk) -> None:
    release, discard = desk.desk.plan(HOLD_ID, "release"), desk.desk.plan(HOLD_ID, "discard")
    assert release.token != discard.token
    stolen = replace(approve("li.wei", LI, release.text), token=discard.token)
    assert code_of(lambda: desk.desk.sign(stolen)) is Code.NOT_AUTHORISED


async def test_a_changed_world_is_refused(desk: Desk) -> None:
    plan = desk.desk.plan(HOLD_ID, "release")
    desk.sign(plan.token, "li.wei", LI)
    desk.sign(plan.token, "zhang.min", MIN)
    desk.group.now = replace(desk.group.now, hold=replace(HELD, batch=b"another"))
    assert code_of(lambda: desk.desk.plan_of(plan.token)) is Code.REFUSED
    assert await code_of_run(desk, plan.token) is Code.REFUSED
    assert desk.group.entries == []


async def test_what_is_gone_is_refused(desk: Desk) -> None:
    plan = desk.desk.plan(HOLD_ID, "release")
    desk.group.now = replace(desk.group.now, hold=None)
    assert code_of(lambda: desk.desk.plan_of(plan.token)) is Code.REFUSED
    assert code_of(lambda: desk.desk.plan(HOLD_ID, "release")) is Code.NOT_FOUND
    assert desk.desk.holds() == []


@pytest.mark.parametrize(
    ("kind", "code"),
    [(OutcomeKind.UNKNOWN, Code.UNKNOWN), (OutcomeKind.CONFLICT, Code.REFUSED), (OutcomeKind.FENCED, Code.REFUSED)],
)
async def test_outcomes_of_the_group(desk: Desk, kind: OutcomeKind, code: Code) -> None:
    plan = desk.desk.plan(HOLD_ID, "release")
    desk.sign(plan.token, "li.wei", LI)
    desk.sign(plan.token, "zhang.min", MIN)
    desk.group.outcome = Outcome(kind)
    assert await code_of_run(desk, plan.token) is code
    assert desk.book.pages[plan.token].done is None


def test_names_of_holds(desk: Desk) -> None:
    assert desk.desk.show(HELD.ident).samples == ["88.118/A", "88.118/B"]
    desk.groups["node-b"] = held_group()
    assert code_of(lambda: desk.desk.show(HELD.ident)) is Code.CONFLICT
    assert desk.desk.show(HOLD_ID).source == "node-a"
    assert [one.source for one in desk.desk.holds()] == ["node-a", "node-b"]
    assert code_of(lambda: desk.desk.holds("node-c")) is Code.NOT_FOUND
    assert code_of(lambda: desk.desk.plan(HOLD_ID, "ignore")) is Code.MALFORMED
    assert code_of(lambda: desk.desk.plan_of("nothing")) is Code.NOT_FOUND


def test_the_book_survives_a_restart(desk: Desk, tmp_path: Path) -> None:
    plan = desk.desk.plan(HOLD_ID, "release")
    desk.sign(plan.token, "li.wei", LI)
    file = BookFile(tmp_path)
    file.save(desk.book)
    assert file.path.stat().st_mode & 0o777 == 0o600
    again = HoldDesk(lambda: desk.groups, desk.operators, file.load(), file.save, lambda: 42)
    assert again.plan_of(plan.token).approvals == ["li.wei"]


@pytest.mark.parametrize("octets", [b"", b"{", b'{"format":9,"pages":{}}', b"\xff"])
def test_a_damaged_book_is_set_aside(tmp_path: Path, octets: bytes) -> None:
    file = BookFile(tmp_path)
    file.path.write_bytes(octets)
    assert file.load() == Book()
    assert file.path.with_suffix(".damaged").read_bytes() == octets


def test_the_book_is_limited() -> None:
    book = Book()
    for number in range(PLANS_MAX + 9):
        book.open(f"t{number}", "s", "h", "release")
    assert len(book.pages) == PLANS_MAX and "t8" not in book.pages and "t9" in book.pages


def test_a_book_cannot_grant_anything(desk: Desk) -> None:
    plan = desk.desk.plan(HOLD_ID, "release")
    for name in desk.operators:
        desk.book.pages[plan.token].approvals[name] = Approval(name, plan.token, "std", "00", "00")
    assert desk.desk.plan_of(plan.token).approvals == []


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "li.wei.key"
    made = edge_keys.create(path, b"")
    assert path.stat().st_mode & 0o777 == 0o600
    assert edge_keys.load(path, lambda: pytest.fail("asked")).public == made.public
    assert code_of(lambda: edge_keys.create(path)) is Code.CONFLICT
    path.chmod(0o644)
    assert code_of(lambda: edge_keys.load(path, str)) is Code.NOT_AUTHORISED
    assert code_of(lambda: edge_keys.load(tmp_path / "none", str)) is Code.NOT_FOUND
    junk = tmp_path / "junk"
    junk.write_text("x")
    junk.chmod(0o600)
    assert code_of(lambda: edge_keys.load(junk, str)) is Code.MALFORMED
    assert edge_keys.listing(path.parent) == [path]


def test_a_locked_key(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    made = edge_keys.create(path, b"correct")
    assert edge_keys.load(path, lambda: "correct").public == made.public
    assert code_of(lambda: edge_keys.load(path, lambda: "wrong")) is Code.NOT_AUTHORISED
