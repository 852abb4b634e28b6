"""Commands given at any member are carried out by the one that can; whoever cannot be reached is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ops.admin import handing
from ops.admin.codec import decode_answer, encode_request
from ops.admin.handing import Handing
from replica.model.errors import Code, ZaibeiError


class Village:
    """Three members in one process; `down`: those that nobody reaches, `silent`: they take a line and answer nothing."""

    def __init__(self, leaders: Mapping[str, str]) -> None:
        self.leads = dict(leaders)
        self.members = {name: Place(name, self) for name in ("one", "two", "three")}
        self.down, self.silent = set[str](), set[str]()
        self.elected = ""  # who leads "a" once its present leader was asked

    def __getitem__(self, name: str) -> Place:
        return self.members[name]


class Place:
    """One of them. Satisfies Others for its Handing, and serves: plans it remembers, sources it leads."""

    def __init__(self, name: str, village: Village) -> None:
        self.name, self._village = name, village
        self.handing = Handing(self, self.serve)
        self.served: list[str] = []
        self.plans: set[str] = set()

    def connected(self) -> list[str]:
        return sorted(set(self._village.members) - {self.name} - self._village.down)

    def missing(self) -> list[str]:
        return sorted(self._village.down)

    def leaders(self) -> Mapping[str, str]:
        return self._village.leads

    async def ask(self, member: str, line: bytes, limit_s: float) -> bytes:
        assert limit_s > 0
        if member in self._village.down:
            raise ZaibeiError(Code.UNREACHABLE, "nobody answers", retry=True)
        answer = await self._village[member].handing.handed(self.name, line)
        if member in self._village.silent:
            raise ZaibeiError(Code.UNKNOWN, "cut off", definite=False)
        return answer

    async def serve(self, name: str, params: dict[str, Any]) -> Any:
        self.served.append(name)
        match name:
            case "takeover_status" | "failback_status":
                return [{"source": source, "by": self.name} for source in ("a", "b") if params["source"] in ("", source)]
            case "holds":
                return []
            case "takeover_run" if self._village.elected:
                self._village.leads["a"], self._village.elected = self._village.elected, ""
                raise ZaibeiError(Code.NOT_LEADER, "another member leads it by now", retry=True)
            case "registration_plan":
                self.plans.add("token-of-" + params["source"])
            case "registration_plan_of" | "registration_run" if params["token"] not in self.plans:
                raise ZaibeiError(Code.NOT_FOUND, "no plan is known")
            case "takeover_run" if self._village.leads.get(params["source"]) != self.name:
                raise ZaibeiError(Code.REFUSED, "this member does not lead it", retry=True)
            case "mass_plan":
                self.plans.add("mass")
                return {"token": "mass", "sources": [self._mass_row(source) for source in params["names"] or ("a", "b")]}
            case "mass_run":
                if params["token"] not in self.plans:
                    raise ZaibeiError(Code.NOT_FOUND, "no plan is known")
                return {"token": "mass", "sources": [self._outcome(source) for source in ("a", "b")]}
        return {"by": self.name}

    def _mass_row(self, source: str) -> dict[str, Any]:
        led = self._village.leads[source] == self.name
        return {"source": source, "takes": True, "why_not": "" if led else "this member does not lead it"}

    def _outcome(self, source: str) -> dict[str, Any]:
        led = self._village.leads[source] == self.name
        return {"source": source, "outcome": "done" if led else "refused", "stage": "", "why": "" if led else "not the leader"}


@pytest.fixture
def village(monkeypatch: pytest.MonkeyPatch) -> Village:
    monkeypatch.setattr(handing, "AGAIN_S", 0.01)
    monkeypatch.setattr(handing, "CHANGE_S_MAX", 0.03)
    return Village({"a": "two", "b": "three"})


RUN = {"source": "a", "action": "takeover", "token": "t", "reason": "r"}
PLAN = {"source": "a", "loss": 0, "unknown_loss": False, "break_glass": False}


async def test_an_act_is_done_by_whoever_leads_the_source(village: Village) -> None:
    for member in village.members.values():
        assert await member.handing.call("takeover_run", RUN) == {"by": "two"}
    assert village["one"].served == [] == village["three"].served


async def test_what_is_about_the_member_itself_is_not_handed_on(village: Village) -> None:
    assert await village["one"].handing.call("metrics", {"prefix": ""}) == {"by": "one"}
    answer = await village["one"].handing.handed("two", encode_request(1, "stop", {}))
    with pytest.raises(ZaibeiError, match="not for other members to ask") as refused:
        decode_answer(answer, 1, "stop")
    assert refused.value.code is Code.REFUSED and village["one"].served == ["metrics"]


async def test_a_line_is_handed_on_once(village: Village) -> None:
    """Two members that each take the other for the leader must not ask each other for ever."""
    answer = await village["one"].handing.handed("three", encode_request(1, "takeover_run", RUN))
    with pytest.raises(ZaibeiError, match="does not lead"):
        decode_answer(answer, 1, "takeover_run")
    assert village["two"].served == []


async def test_rows_come_from_the_leaders_and_ours_where_they_are_not_reached(village: Village) -> None:
    rows = await village["one"].handing.call("takeover_status", {"source": ""})
    assert [row["by"] for row in rows] == ["two", "three"]
    village.down.add("three")
    rows = await village["one"].handing.call("takeover_status", {"source": ""})
    assert [row["by"] for row in rows] == ["two", "one"]
    assert [row["by"] for row in await village["one"].handing.call("takeover_status", {"source": "b"})] == ["one"]


async def test_an_act_at_a_leader_that_is_not_reached_was_not_done_and_says_what_next(village: Village) -> None:
    village.down.add("two")
    with pytest.raises(ZaibeiError, match=r"two was to carry this out.*Nothing was done.*zaibei cluster status") as refused:
        await village["one"].handing.call("takeover_run", RUN)
    assert refused.value.trouble.definite and refused.value.trouble.retry


async def test_an_act_follows_a_leader_that_changes_meanwhile(village: Village) -> None:
    village.elected = "one"
    assert await village["three"].handing.call("takeover_run", RUN) == {"by": "one"}
    assert village["two"].served == ["takeover_run"]


async def test_an_act_whose_answer_was_lost_is_unknown(village: Village) -> None:
    village.silent.add("two")
    with pytest.raises(ZaibeiError, match="Whether it was done is not known") as lost:
        await village["one"].handing.call("takeover_run", RUN)
    assert lost.value.code is Code.UNKNOWN and not lost.value.trouble.definite
    with pytest.raises(ZaibeiError) as look:
        await village["one"].handing.call("registration_plan", PLAN)
    assert look.value.code is Code.UNREACHABLE and look.value.trouble.definite  # looking changes nothing


async def test_a_plan_is_found_wherever_it_was_made(village: Village) -> None:
    await village["three"].handing.call("registration_plan", PLAN)
    assert all(member.plans == {"token-of-a"} for member in village.members.values())
    village["one"].plans.clear()  # it was not reached when the plan was made
    assert await village["one"].handing.call("registration_plan_of", {"token": "token-of-a"}) == {"by": "three"}


async def test_a_plan_outlives_a_change_of_leader(village: Village) -> None:
    """Two people have signed: whoever leads when it is run must know what they signed."""
    assert await village["three"].handing.call("registration_plan", PLAN) == {"by": "two"}
    village.leads["a"] = "one"
    run = {"source": "a", "token": "token-of-a", "reason": "r"}
    assert await village["three"].handing.call("registration_run", run) == {"by": "one"}


async def test_a_plan_is_made_without_a_member_that_is_not_reached(village: Village) -> None:
    village.down.add("one")
    assert await village["three"].handing.call("registration_plan", PLAN) == {"by": "two"}
    assert village["three"].plans == {"token-of-a"} and not village["one"].plans


async def test_a_plan_nobody_knows_names_who_was_not_asked(village: Village) -> None:
    with pytest.raises(ZaibeiError, match=r"no plan is known$"):
        await village["one"].handing.call("registration_plan_of", {"token": "x"})
    village.down.add("three")
    with pytest.raises(ZaibeiError, match="not reached: three") as missing:
        await village["one"].handing.call("registration_plan_of", {"token": "x"})
    assert missing.value.code is Code.NOT_FOUND


async def test_a_mass_takeover_is_planned_and_run_by_all_as_one(village: Village) -> None:
    params = {"names": [], "only_dead": False, "registration": True, "loss": 0, "unknown_loss": False}
    row = await village["one"].handing.call("mass_plan", params)
    assert [one["why_not"] for one in row["sources"]] == ["", ""]
    assert all("mass" in member.plans for member in village.members.values())
    done = await village["one"].handing.call("mass_run", {"token": "mass", "reason": "r"})
    assert (done["done"], done["refused"]) == (2, 0)


async def test_the_part_of_a_member_that_is_cut_off_is_told(village: Village) -> None:
    params = {"names": [], "only_dead": False, "registration": True, "loss": 0, "unknown_loss": False}
    await village["one"].handing.call("mass_plan", params)
    village.silent.add("three")
    done = await village["one"].handing.call("mass_run", {"token": "mass", "reason": "r"})
    assert {row["source"]: row["outcome"] for row in done["sources"]} == {"a": "done", "b": "unknown"}
    assert "three" in done["sources"][1]["why"] and done["unknown"] == 1
