"""What majorities agree on: an index, or a vote. Knows nothing but sets of members and numbers. Pure.

A membership is one set of voters, or two while it is joint: then both must agree. An empty set agrees to everything, so that
a set joint with an empty one behaves as the set alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

NO_LIMIT = 2**64 - 1  # what an empty set of voters agrees on


class Verdict(StrEnum):
    """State of a vote."""

    PENDING = "pending"  # missing votes decide
    LOST = "lost"
    WON = "won"


def majority_index(voters: Iterable[int], acknowledged: Mapping[int, int]) -> int:
    """Highest index that more than half of the voters acknowledged (a missing one: 0); NO_LIMIT for no voters."""
    indexes = sorted([acknowledged.get(voter, 0) for voter in voters])
    if not indexes:
        return NO_LIMIT
    return indexes[(len(indexes) - 1) // 2]


def joint_index(voters: Iterable[int], outgoing: Iterable[int], acknowledged: Mapping[int, int]) -> int:
    """Highest index that both majorities acknowledged."""
    return min(majority_index(voters, acknowledged), majority_index(outgoing, acknowledged))


def majority_verdict(voters: Iterable[int], votes: Mapping[int, bool]) -> Verdict:
    """Verdict of one set; votes of others do not count."""
    total = granted = refused = 0
    for voter in voters:
        total += 1
        vote = votes.get(voter)
        if vote is not None:
            granted += vote
            refused += not vote
    quorum = total // 2 + 1
    if granted >= quorum or not total:
        return Verdict.WON
    if granted + (total - granted - refused) >= quorum:
        return Verdict.PENDING
    return Verdict.LOST


def joint_verdict(voters: Iterable[int], outgoing: Iterable[int], votes: Mapping[int, bool]) -> Verdict:
    """Won when both majorities grant; lost as soon as one of them cannot any more."""
    one, other = majority_verdict(voters, votes), majority_verdict(outgoing, votes)
    if one is other:
        return one
    if Verdict.LOST in (one, other):
        return Verdict.LOST
    return Verdict.PENDING
