"""Who may do what: every rule of rights.py has a case that goes red without it; documents are what was written, or refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.tenant.enterprise import MOVES, PrefixState, begun, fault_of, moved, time_to_effect_ms
from hosting.tenant.papers import (
    AnyPaper,
    Enterprise,
    Key,
    Paper,
    Papers,
    Person,
    Quota,
    Right,
    Tenant,
    is_paper,
    key_of,
    paper_of,
    papers_of,
    value_of,
)  # fmt: skip
from hosting.tenant.records import named
from hosting.tenant.rights import Caller, Operation, Refusal, may
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import document_key, prefix_key

ADMIN, CLERK, BOSS = "300:88.118.9/admin", "300:88.118.9/clerk", "300:88.118.9.1/boss"
PRINT = "sha256:" + "ab" * 32
NOW = 1_000_000
IN_EFFECT = moved(moved(moved(begun(1), PrefixState.REVIEW, 2), PrefixState.GRANTED, 3), PrefixState.IN_EFFECT, 11)


def rows(*extra: tuple[str, AnyPaper], tenant: Tenant | None = None) -> list[tuple[bytes, bytes]]:
    given: list[tuple[str, AnyPaper]] = [
        ("region-9", tenant or Tenant(title="Region 9")),
        (ADMIN, Person(title="Admin")),
        (CLERK, Person(title="Clerk", groups=("clerks",))),
        (PRINT, Key(person=ADMIN)),
        ("r1", Right(who=ADMIN, operations=("create", "modify", "delete", "administer"), under="88.118.9")),
        ("r2", Right(who="group:clerks", operations=("create",), under="88.118.9.7")),
        ("88.118.9.1", Enterprise(title="Works", steps=IN_EFFECT, administrators=(BOSS,))),
    ]
    found = {key_of(paper, ident): value_of(paper) for ident, paper in (*given, *extra)}
    return sorted(found.items())


def asked(who: str, operation: Operation, name: str, papers: Papers, now_ms: int = NOW, **options: Any) -> Refusal | None:
    return may(Caller(who, **options), operation, named(name), papers, now_ms=now_ms)


def code(refusal: Refusal | None) -> Code | None:
    return None if refusal is None else refusal.code


PAPERS = papers_of(rows())


def test_a_right_holds_below_its_prefix_and_nowhere_else() -> None:
    assert asked(ADMIN, Operation.CREATE, "88.118.9/a", PAPERS) is None
    assert asked(ADMIN, Operation.CREATE, "88.118.9.7/a", PAPERS) is None
    assert code(asked(ADMIN, Operation.CREATE, "88.118.90/a", PAPERS)) is Code.NOT_AUTHORISED
    assert code(asked(ADMIN, Operation.ADD, "88.118.9/a", PAPERS)) is Code.NOT_AUTHORISED
    assert code(asked("300:x/y", Operation.CREATE, "88.118.9/a", PAPERS)) is Code.NOT_AUTHORISED


def test_groups_of_documents_and_of_the_protocol() -> None:
    assert asked(CLERK, Operation.CREATE, "88.118.9.7/a", PAPERS) is None
    assert code(asked(CLERK, Operation.CREATE, "88.118.9/a", PAPERS)) is Code.NOT_AUTHORISED
    assert code(asked("1:a/b", Operation.CREATE, "88.118.9.7/a", PAPERS)) is Code.NOT_AUTHORISED
    assert asked("1:a/b", Operation.CREATE, "88.118.9.7/a", PAPERS, groups=frozenset({"clerks"})) is None


def test_a_certificate_stands_for_its_person_until_its_time_is_over() -> None:
    assert asked(PRINT, Operation.CREATE, "88.118.9/a", PAPERS) is None
    ended = papers_of(rows((PRINT, Key(person=ADMIN, until_ms=NOW))))
    assert asked(PRINT, Operation.CREATE, "88.118.9/a", ended, now_ms=NOW - 1) is None
    assert code(asked(PRINT, Operation.CREATE, "88.118.9/a", ended)) is Code.NOT_AUTHORISED
    out = papers_of(rows((PRINT, Key(person=ADMIN, active=False))))
    assert code(asked(PRINT, Operation.CREATE, "88.118.9/a", out)) is Code.NOT_AUTHORISED


def test_a_person_out_of_use_has_no_rights_by_any_key() -> None:
    out = papers_of(rows((ADMIN, Person(title="Admin", active=False))))
    assert code(asked(ADMIN, Operation.CREATE, "88.118.9/a", out)) is Code.NOT_AUTHORISED
    assert code(asked(PRINT, Operation.CREATE, "88.118.9/a", out)) is Code.NOT_AUTHORISED


def test_a_right_ends() -> None:
    ended = papers_of(rows(("r1", Right(who=ADMIN, operations=("create",), under="88.118.9", until_ms=NOW))))
    assert asked(ADMIN, Operation.CREATE, "88.118.9/a", ended, now_ms=NOW - 1) is None
    assert code(asked(ADMIN, Operation.CREATE, "88.118.9/a", ended)) is Code.NOT_AUTHORISED


def test_a_suspended_tenant_changes_nothing_and_is_read() -> None:
    away = papers_of(rows(tenant=Tenant(title="Region 9", suspended="unpaid")))
    for caller in (ADMIN, PRINT):
        refusal = asked(caller, Operation.CREATE, "88.118.9/a", away, registrar=True)
        assert refusal is not None and refusal.code is Code.REFUSED and "unpaid" in refusal.message
    assert code(asked(ADMIN, Operation.ADMINISTER, "88.118.9/a", away, registrar=True)) is Code.REFUSED
    assert asked("1:a/b", Operation.READ, "88.118.9/a", away) is None
    assert asked("centre", Operation.ADMINISTER, "88.118.9/a", away, centre=True) is None


def test_visibility_keeps_strangers_from_reading() -> None:
    closed = papers_of(rows(("r3", Right(who=CLERK, operations=("read",), under="88.118.9")),
                            tenant=Tenant(title="Region 9", visibility="tenant")))  # fmt: skip
    assert code(asked("1:a/b", Operation.READ, "88.118.9/a", closed)) is Code.NOT_AUTHORISED
    assert asked(CLERK, Operation.READ, "88.118.9/a", closed) is None
    assert code(asked(CLERK, Operation.LIST, "88.118.9/a", closed)) is Code.NOT_AUTHORISED


def test_an_enterprise_registers_by_its_administrators_while_in_effect() -> None:
    assert asked(BOSS, Operation.CREATE, "88.118.9.1/a", PAPERS) is None
    assert asked(BOSS, Operation.CREATE, "88.118.9.1.5/a", PAPERS) is None
    for name in ("88.118.9/a", "88.118.9.2/a", "0.NA/88.118.9.1"):  # its own prefix record is the tenant's
        assert code(asked(BOSS, Operation.CREATE, name, PAPERS)) is Code.NOT_AUTHORISED
    assert code(asked(BOSS, Operation.ADMINISTER, "88.118.9.1/a", PAPERS)) is Code.NOT_AUTHORISED
    granted = papers_of(rows(("88.118.9.1", Enterprise(title="W", steps=IN_EFFECT[:3], administrators=(BOSS,)))))
    away = moved(IN_EFFECT, PrefixState.SUSPENDED, 12)
    suspended = papers_of(rows(("88.118.9.1", Enterprise(title="W", steps=away, administrators=(BOSS,)))))
    for papers in (granted, suspended):
        assert code(asked(BOSS, Operation.CREATE, "88.118.9.1/a", papers)) is Code.REFUSED
        assert code(asked(ADMIN, Operation.CREATE, "88.118.9.1/a", papers)) is Code.REFUSED
        assert asked(ADMIN, Operation.ADMINISTER, "88.118.9.1/a", papers) is None
        assert asked(BOSS, Operation.READ, "88.118.9.1/a", papers) is None


def test_without_a_tenant_document_the_configuration_alone_says_who_registers() -> None:
    assert asked(PRINT, Operation.CREATE, "88.118.9/a", Papers(), registrar=True) is None
    assert code(asked(PRINT, Operation.CREATE, "88.118.9/a", Papers())) is Code.NOT_AUTHORISED
    assert code(asked(PRINT, Operation.READ, "88.118.9/a", Papers())) is Code.NOT_AUTHORISED
    assert asked("sha256:" + "0" * 64, Operation.ADMINISTER, "88.118.9/a", PAPERS, registrar=True) is None
    assert code(asked("sha256:" + "0" * 64, Operation.CREATE, "88.118.9/a", PAPERS, registrar=True)) is Code.NOT_AUTHORISED


def test_a_document_that_cannot_be_read_stops_all_changes() -> None:
    broken = papers_of([*rows(), (document_key("hosting.right", "rx"), b"\x01{}"), (document_key("hosting.new", "x"), b"\x01{}")])
    assert len(broken.damaged) == 2
    assert code(asked(ADMIN, Operation.CREATE, "88.118.9/a", broken)) is Code.DAMAGED


def test_documents_come_back_as_they_were_written() -> None:
    for key, value in rows(("tenant", Quota(identifiers=10, registrations_per_s=2.5))):
        ident, paper = paper_of(key, value)
        assert key_of(paper, ident) == key and value_of(paper) == value and is_paper(key)
    assert not is_paper(document_key("enterprise", "x")) and not is_paper(document_key("hosting", "x"))


@pytest.mark.parametrize(
    ("ident", "paper"),
    [
        ("nobody", Person(title="x")),
        ("sha256:12", Key(person=ADMIN)),
        (PRINT, Key(person="nobody")),
        ("r", Right(who="nobody", operations=("create",), under="88.118.9")),
        ("r", Right(who=ADMIN, operations=(), under="88.118.9")),
        ("r", Right(who=ADMIN, operations=("create",), under="")),
        ("other", Quota()),
        ("tenant", Quota(identifiers=-1)),
        ("tenant", Quota(burst_s=0)),
        ("88.118.9.1", Enterprise(title="x", steps=())),
        ("88.118.9.1", Enterprise(title="x", steps=IN_EFFECT[1:])),
        ("88.118.9.1", Enterprise(title="x", steps=((PrefixState.APPLIED, 5), (PrefixState.REVIEW, 4)))),
        ("88.118.9.1", Enterprise(title="x", steps=IN_EFFECT, administrators=("boss",))),
        ("region-9", Tenant(title="x" * 1_001)),
        ("region-9", Tenant(title="x", format=2)),
    ],
)
def test_what_may_not_be_said_is_refused(ident: str, paper: AnyPaper) -> None:
    with pytest.raises(ZaibeiError) as caught:
        paper_of(key_of(paper, ident), value_of(paper))
    assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize("change", ["space", "order", "unknown", "missing"])
def test_other_octets_of_the_same_words_are_refused(change: str) -> None:
    key, body = key_of(Person(title="a"), ADMIN), value_of(Person(title="a"))[1:]
    fields = msgspec.json.decode(body)
    if change == "missing":
        del fields["groups"]
    elif change == "unknown":
        fields["root"] = True
    elif change == "order":
        fields = dict(reversed(fields.items()))
    octets = msgspec.json.encode(fields) + (b" " if change == "space" else b"")
    with pytest.raises(ZaibeiError):
        paper_of(key, b"\x01" + octets)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_octets_are_a_document_or_malformed(tail: bytes, value: bytes) -> None:
    try:
        _, paper = paper_of(b"bhosting.person\0" + tail, value)
    except ZaibeiError as exc:
        assert exc.code is Code.MALFORMED
    else:
        assert isinstance(paper, Paper)


@given(st.lists(st.sampled_from(list(PrefixState)), max_size=6))
def test_a_prefix_lives_by_its_table(states: list[PrefixState]) -> None:
    steps, at_ms = begun(0), 0
    for state in states:
        at_ms += 5
        legal = state in MOVES[steps[-1][0]]
        try:
            steps = moved(steps, state, at_ms)
        except ZaibeiError as exc:
            assert not legal and exc.code is Code.REFUSED
        else:
            assert legal
    assert fault_of(steps) == ""


def test_time_to_effect_is_measured_from_the_application() -> None:
    assert time_to_effect_ms(IN_EFFECT) == 10
    assert time_to_effect_ms(IN_EFFECT[:3]) is None
    again = moved(moved(IN_EFFECT, PrefixState.SUSPENDED, 50), PrefixState.IN_EFFECT, 90)
    assert time_to_effect_ms(again) == 10
    assert prefix_key("88.118.9.1") in dict(PAPERS.enterprises.items())
