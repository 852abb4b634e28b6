"""Acts about a tenant as plans: a suspension may or may not take its answers with it, and says which it is."""

from __future__ import annotations

import pytest

from hosting.tenant.papers import Papers, Tenant
from ops.operators.tenants import PLANNED, SUSPEND, UNANSWERED, Act, plan
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState

ACTIVE = Tenant(title="Region 9")


def wanted(act: str, was: Tenant, why: str = "unpaid") -> Tenant | None:
    return plan(Act("region-9", act, "li.wei", why), Papers(tenant=was), GroupState("region-9"), 1).paper


def done(act: str, was: Tenant, why: str = "unpaid") -> Tenant:
    made = wanted(act, was, why)
    assert made is not None
    return made


def test_a_suspension_is_answered_unless_it_is_asked_for_otherwise() -> None:
    assert (done(SUSPEND, ACTIVE).suspended, done(SUSPEND, ACTIVE).answered_while_suspended) == ("unpaid", True)
    assert (done(UNANSWERED, ACTIVE).suspended, done(UNANSWERED, ACTIVE).answered_while_suspended) == ("unpaid", False)


def test_it_changes_from_the_one_to_the_other_and_ends_as_it_began() -> None:
    silent = done(UNANSWERED, done(SUSPEND, ACTIVE))
    assert not silent.answered_while_suspended
    assert done(SUSPEND, silent).answered_while_suspended
    ended = done("resume", silent)
    assert (ended.suspended, ended.answered_while_suspended) == ("", True)


@pytest.mark.parametrize("act", [SUSPEND, UNANSWERED])
def test_what_is_so_already_is_done_or_a_conflict(act: str) -> None:
    was = done(act, ACTIVE)
    assert wanted(act, was) is None
    with pytest.raises(ZaibeiError) as caught:
        wanted(act, was, "another reason")
    assert caught.value.code is Code.CONFLICT
    with pytest.raises(ZaibeiError):
        wanted("resume", ACTIVE)


def test_a_plan_of_the_one_is_no_plan_of_the_other() -> None:
    plans = [
        plan(Act("region-9", act, "li.wei", "x"), Papers(tenant=ACTIVE), GroupState("region-9"), 1)
        for act in (SUSPEND, UNANSWERED)
    ]
    assert plans[0].token != plans[1].token and {SUSPEND, UNANSWERED} <= set(PLANNED)
    assert "resolution goes on" in plans[0].text and "401" in plans[1].text
