"""Which member answers a call of the admin channel: an operator may stand at any of them. Pure.

Most calls are about one source and belong to the member that leads it; some name a plan by its token, and belong to whoever
remembers that plan; a mass takeover is carried out by every member, each for the sources it leads. All others are answered by the
member that was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from replica.model.errors import Code, ZaibeiError
from replica.takeover.orders import parse


class Way(StrEnum):
    """How a call finds who answers it."""

    HERE = "here"
    LEADER = "leader"  # of the source that the call names
    ROWS = "rows"  # of all sources: each row from the leader of its source, ours where that one is not reached
    PLAN = "plan"  # the leader's answer; the other members are told, so that signatures outlive a change of leader
    TOKEN = "token"  # whoever remembers the plan
    MASS_PLAN = "mass_plan"  # here; and the other members are told, so that they remember it
    MASS_RUN = "mass_run"  # every member that remembers the plan; its sources' outcomes are joined


_LEADER = (
    "takeover_plan", "takeover_run", "takeover_rehearse",
    "registration_run", "registration_abort", "registration_order",
    "registration_review_text", "registration_review",
    "failback_plan", "failback_run", "failback_lines", "failback_decision", "failback_decide",
    "grant_plan", "grant_run", "hold_show", "hold_plan", "difference",
    "tenant_show", "tenant_sites", "tenant_plan", "tenant_run", "tenant_document", "tenant_enterprise", "tenant_page",
    "move_plan", "move_look", "move_step", "move_record", "move_page", "move_take", "move_acquire",
)  # fmt: skip
WAYS: Mapping[str, Way] = MappingProxyType(
    {
        **dict.fromkeys(_LEADER, Way.LEADER),
        **dict.fromkeys(("registration_plan", "switchover_plan"), Way.PLAN),
        **dict.fromkeys(("takeover_status", "failback_status", "holds"), Way.ROWS),
        **dict.fromkeys(
            ("registration_plan_of", "registration_sign", "hold_plan_of", "hold_sign", "hold_run", "block_plan_of", "block_run"),
            Way.TOKEN,
        ),
        "mass_plan": Way.MASS_PLAN,
        "mass_run": Way.MASS_RUN,
    }
)
_RANK = ("done", "done_before", "unknown", "refused")


def way_of(call: str) -> Way:
    """How a call finds who answers it; what nobody listed is answered where it was asked, and by nobody else's word."""
    return WAYS.get(call, Way.HERE)


def source_of(call: str, params: Mapping[str, Any]) -> str:
    """The source that a call of Way.LEADER, Way.PLAN or Way.ROWS is about; empty: all, or none that could be read."""
    if call == "registration_order":
        try:
            return parse(bytes.fromhex(params["order"])).source
        except (ValueError, ZaibeiError):
            return ""  # answered here, with what is wrong with it
    if "hold" in params:
        return str(params["hold"]).rpartition("/")[0]
    return str(params["source"])


def rows_joined(own: Sequence[Any], told: Mapping[str, Sequence[Any]], leaders: Mapping[str, str]) -> list[Any]:
    """Rows of all sources, each from the member that leads its source.

    Args:
        own: our rows. told: rows of other members that answered, by name. leaders: source -> name of the member that leads it.
    """
    found = [row for row in own if leaders.get(_named(row)) not in told]
    for member, rows in told.items():
        found += [row for row in rows if leaders.get(_named(row)) == member]
    return sorted(found, key=_named)


def _named(row: Any) -> str:
    return str(row["source"] if isinstance(row, Mapping) else row.source)


def outcomes_joined(answers: Mapping[str, Mapping[str, Any]], leaders: Mapping[str, str]) -> dict[str, Any]:
    """Answers of several members to `mass_run` as one: of each source what its leader said, or else what says most.

    UNKNOWN outweighs a refusal: something may have been done.

    Args:
        answers: by the member's name, at least one. leaders: as for `rows_joined`, with our own name where we lead.
    """
    best: dict[str, tuple[tuple[bool, int], Mapping[str, Any]]] = {}
    for member, answer in answers.items():
        for row in answer["sources"]:
            weight = (leaders.get(row["source"]) != member, _RANK.index(row["outcome"]))
            if row["source"] not in best or weight < best[row["source"]][0]:
                best[row["source"]] = (weight, row)
    rows = [dict(row) for _, row in best.values()]
    counts = {word: sum(row["outcome"] == word for row in rows) for word in _RANK}
    return {**next(iter(answers.values())), "sources": rows, **counts}


def most_telling(troubles: Sequence[ZaibeiError]) -> ZaibeiError:
    """What an operator is told where nobody could do it: any reason before "not found here". `troubles`: at least one."""
    return next((one for one in troubles if one.code is not Code.NOT_FOUND), troubles[0])
