"""What the cluster's admin calls answer with. As in values.py these shapes are the `--json` contract, and None means UNKNOWN."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member.

    Args:
        state: joining, active, leaving or removed. me: the member that answers.
        connected: seen by the answering member now; boot: number of its journal's opening; up_s: connected for so long.
        lag_entries: entries it lacks, in the group it lacks most.
        copies, leads: groups it holds, groups it leads.
        trouble: what is wrong, "" when nothing is; next: the command or deed that helps.
    """

    number: int
    name: str
    zone: str = ""
    state: str = "active"
    me: bool = False
    connected: bool | None = None
    boot: int | None = None
    up_s: float | None = None
    draining: bool = False
    lag_entries: int | None = None
    copies: int = 0
    leads: int = 0
    links: list[str] = field(default_factory=list)
    trouble: str = ""
    next: str = ""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group. Members by name.

    Args:
        voters, learners: of its log as it stands; wanted: voters it shall have; moving: they differ.
        leader: "" when nobody is known to lead; quorum: a majority of its voters is up.
        behind: member -> entries it lacks (None: not known); out_of_service: member -> why its copy may not be used.
    """

    group: str
    ident: int
    voters: list[str] = field(default_factory=list)
    learners: list[str] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)
    leader: str = ""
    term: int | None = None
    moving: bool | None = None
    quorum: bool | None = None
    behind: dict[str, int | None] = field(default_factory=dict)
    out_of_service: dict[str, str] = field(default_factory=dict)
    trouble: str = ""
    next: str = ""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster as one member sees it. cluster, lineage: hex."""

    cluster: str
    lineage: str
    member: str
    replicas: int
    members: list[MemberRow] = field(default_factory=list)
    groups: list[GroupRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A planned change: action remove, replace or reseed. `refusal`: why it cannot be run, and what comes first."""

    token: str
    action: str
    member: str
    group: str = ""
    text: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusal: str = ""
    loses: bool = False


@dataclass(frozen=True, slots=True)
class ClusterDone:
    """An act on the cluster. changed False: it was done before. detail: one sentence; invite: with replace, its token."""

    action: str
    subject: str
    changed: bool = True
    detail: str = ""
    invite: str = ""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A one-time token for a member to come. ends_ms: Unix milliseconds."""

    token: str
    name: str
    zone: str
    ends_ms: int
    replaces: str = ""
