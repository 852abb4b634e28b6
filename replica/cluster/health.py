"""What load balancers are told: is this member alive, ready, does it lead a group, is its copy near enough. Pure.

    GET /livez                   200 while the process works as it should; otherwise restart it
    GET /readyz                  200 while it should be sent requests; 503 while it starts, stops, drains or cannot answer
    GET /leader/GROUP            200 at the one member that leads the group
    GET /follower/GROUP?lag=N    200 at members that hold a copy, do not lead, and lag at most N
    GET /any/GROUP?lag=N         200 at members that hold a copy and lag at most N, the leader included
`lag` is a number of entries, or a time with its unit: `lag=100`, `lag=2s`, `lag=500ms`. Without it any sound copy will do.
A lag that is not known is over every limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

Body = dict[str, object]
Answer = tuple[int, Body]

LAG_MAX = 2**63
_LAG = re.compile(r"(\d{1,19})(s|ms)?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class GroupHealth:
    """One group at this member.

    Args:
        role: "leader", "follower", "learner", or "none": no copy is held here.
        leader: name of the member that leads, as far as known; "" otherwise.
        lag_entries: committed entries not applied here; lag_ms: age of what is applied; None: not known.
        trouble: why this copy may not be used (out of service, amnesia); "" when it may.
    """

    role: str
    leader: str = ""
    lag_entries: int | None = None
    lag_ms: int | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """One member at one moment.

    Args:
        failed: why the process should be restarted or ended; "" while it works.
        unready: why it should get no requests now (starting, stopping, draining); "" when it may.
    """

    member: str
    failed: str = ""
    unready: str = ""
    draining: bool = False
    groups: Mapping[str, GroupHealth] = field(default_factory=dict)


def answer(health: Health, target: str) -> Answer | None:
    """The answer to a GET.

    Args:
        target: path with query, as in the request line.
    Returns:
        HTTP status and JSON body; None: not a path of this table.
    """
    path, _, query = target.partition("?")
    match [unquote(part) for part in path.split("/")[1:]]:
        case ["livez"]:
            return _verdict(health, health.failed)
        case ["readyz"]:
            return _verdict(health, health.failed or health.unready or ("draining" if health.draining else ""))
        case [("leader" | "follower" | "any") as role, name]:
            return _of_group(health, role, name, query)
        case _:
            return None


def _verdict(health: Health, trouble: str, **more: object) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK
    return int(status), {"member": health.member, "ok": not trouble, "reason": trouble, **more}


def _of_group(health: Health, role: str, name: str, query: str) -> Answer:
    asked = dict(parse_qsl(query, keep_blank_values=True))
    lag = _LAG.match(asked.pop("lag", "0")) if "lag" in asked else None
    if asked or ("lag" in query and lag is None) or (role == "leader" and query):
        reason = f"/{role}/GROUP takes {'no query' if role == 'leader' else 'lag=ENTRIES, lag=2s or lag=500ms'}"
        return int(HTTPStatus.BAD_REQUEST), {"member": health.member, "ok": False, "reason": reason}
    group = health.groups.get(name)
    if group is None:
        reason = f"no group {name[:100]!r} is known here"
        return int(HTTPStatus.NOT_FOUND), {"member": health.member, "ok": False, "reason": reason}
    shown: Body = {"group": name, "role": group.role, "leader": group.leader}
    shown |= {"lag_entries": group.lag_entries, "lag_ms": group.lag_ms}
    trouble = health.failed or health.unready or group.trouble or _role_trouble(group, role) or _lag_trouble(group, lag)
    if role != "leader" and not trouble and health.draining:
        trouble = "draining"
    return _verdict(health, trouble, **shown)


def _role_trouble(group: GroupHealth, role: str) -> str:
    if group.role == "none":
        return "no copy is held here"
    if role == "leader" and group.role != "leader":
        return f"{group.leader or 'nobody that is known'} leads"
    return "leads" if role == "follower" and group.role == "leader" else ""


def _lag_trouble(group: GroupHealth, lag: re.Match[str] | None) -> str:
    if lag is None:
        return ""
    number, unit = int(lag[1]), lag[2]
    limit = min(number * 1_000 if unit == "s" else number, LAG_MAX)
    have, what = (group.lag_ms, "ms") if unit else (group.lag_entries, "entries")
    if have is None:
        return f"the lag in {what} is not known"
    return "" if have <= limit else f"lags {have} {what}, over {limit}"
