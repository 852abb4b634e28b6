"""What the hosted region's part of the story was worth: figures and findings out of what its clients wrote down.

| figure | meaning |
| --- | --- |
| hosted_filled | identifiers that one import registered |
| hosted_registered | identifiers that a client registered one by one, each acknowledged |
| hosted_lookups, hosted_failed | lookups of the hedging client; those without the right answer within 3 s |
| graduation_s | the command to leave -> its end: the node registers, and we are its copy |
| hosted_lost | acknowledged identifiers that a member does not answer at the end |
| hosted_digest_equal | the node's own file and the copy of each member, computed anew, its first own registration included |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

NS_PER_MS = 1_000_000
FAILED_MS = 3_000  # 500 + 1000 + 1500: the schedule of a standard client
TELL_MIN = 20  # so many lookups before, while and after it left; fewer prove nothing
Figures = dict[str, float | int | bool | None]

MEANING: dict[str, str] = {
    "hosted_filled": "identifiers of a region without a node, registered here by one import",
    "hosted_registered": "registered here one by one while it was resolved, acknowledged",
    "graduation_s": "the command to leave for a node of its own, to its end",
    "hosted_lookups": "of a client that knows our members, before, while and after it left",
    "hosted_failed": "those without the right answer within 3 s; 0",
    "hosted_lost": "acknowledged ones of these that a member does not answer at the end; 0",
    "hosted_digest_equal": "the region's node and three members, computed anew, after the node registered by itself",
}


class Did(StrEnum):
    """What a client wrote down."""

    LOOKUP = "lookup"
    REGISTER = "register"
    LAST = "last"  # a look at one member, when all is over


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing a client did. CLOCK_MONOTONIC ns. `ok`: None: not known; of a look: the right answer came."""

    did: Did
    name: str
    began_ns: int
    ended_ns: int
    ok: bool | None
    note: str = ""

    @property
    def answered(self) -> bool:
        return self.ok is True and self.ended_ns - self.began_ns <= FAILED_MS * NS_PER_MS


@dataclass(slots=True)
class HostingTold:
    """What the story leaves of the region. None: it did not come to that, or it was not seen.

    Args:
        left_ns: from the command to its end. whole: the client ended in order, so nothing it did is missing.
    """

    filled: int | None = None
    left_ns: tuple[int, int] | None = None
    digest_equal: bool | None = None
    deeds: Sequence[Deed] = field(default=())
    whole: bool = False

    def of(self, did: Did) -> list[Deed]:
        return [one for one in self.deeds if one.did is did]

    def acked(self) -> set[str]:
        return {one.name for one in self.of(Did.REGISTER) if one.ok}


def figures_of(told: HostingTold) -> Figures:
    """None: could not be measured."""
    left, last, lookups = told.left_ns, told.of(Did.LAST), told.of(Did.LOOKUP)
    seen = told.whole and told.acked() <= {one.name for one in last}
    return {
        "hosted_filled": told.filled,
        "hosted_registered": len(told.acked()) if told.whole else None,
        "graduation_s": None if left is None else round((left[1] - left[0]) / NS_PER_MS / 1_000, 1),
        "hosted_lookups": len(lookups) if told.whole else None,
        "hosted_failed": sum(not one.answered for one in lookups) if told.whole else None,
        "hosted_lost": sum(not one.ok for one in last) if seen and last else None,
        "hosted_digest_equal": told.digest_equal,
    }


def findings_of(told: HostingTold, figures: Figures) -> tuple[list[str], list[str]]:
    """(faults, doubts)."""
    faults = [f"{name} is {figures[name]}, not 0" for name in ("hosted_failed", "hosted_lost") if figures[name]]
    wrong = next((one for one in told.deeds if one.did is not Did.REGISTER and not one.answered), None)
    if wrong is not None:
        faults.append(f"the hosted region's first answer that was not right in time: {wrong.name}, {wrong.note}")
    if told.digest_equal is False:
        faults.append("the region's node and the members hold different contents after it left")
    doubts = [f"{name} could not be measured" for name in MEANING if figures[name] is None]
    if figures["hosted_registered"] == 0 or figures["hosted_filled"] == 0:
        doubts.append("nothing was registered in the hosted region: nothing was tried")
    if told.left_ns is not None and told.whole:
        began, ended = told.left_ns
        times = [one.began_ns for one in told.of(Did.LOOKUP)]
        counts = {
            "before": sum(at < began for at in times),
            "while": sum(began <= at < ended for at in times),
            "after": sum(at >= ended for at in times),
        }
        doubts += [f"only {count} lookups {when} the region left" for when, count in counts.items() if count < TELL_MIN]
    return faults, doubts


def is_lost(told: HostingTold) -> bool:
    """An acknowledged identifier is gone, or contents differ: no busy machine explains that."""
    return told.digest_equal is False or any(not one.ok for one in told.of(Did.LAST))
