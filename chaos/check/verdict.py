"""What a checker says: pass, fail or unknown; a limit that was reached is unknown, never a pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Three results; the worst counts: fail, then unknown, then pass."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one thing.

    Args:
        check: which check, a short name.
        about: of what: a key, or "" for the whole history.
        why: what was seen; "" when it passed.
    """

    check: str
    about: str
    verdict: Verdict
    why: str = ""

    def __str__(self) -> str:
        where = f" {self.about}" if self.about else ""
        return f"{self.verdict} {self.check}{where}" + (f": {self.why}" if self.why else "")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of all together; nothing checked is unknown."""
    seen = set(verdicts)
    for verdict in (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS):
        if verdict in seen:
            return verdict
    return Verdict.UNKNOWN
