"""What is known of a source's lag and of its equality, in three values; what was not heard lately is UNKNOWN (promise 9). Pure.

| check | PASS | FAIL | UNKNOWN |
| --- | --- | --- | --- |
| lag | behind by no more than the RPO target, in seconds and in changes | behind by more | nothing heard for 2 s, or never |
| digest | a certificate compared equal at most 7 s ago | the newest one compared different | none compared for 7 s, or never |

Both rest on what the source said and on when we asked for it; neither compares two machines' clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from replica.feed.freshness import Lag
from replica.model.states import Result

WORDS = {Result.PASS: "as it should be again", Result.FAIL: "not as it should be", Result.UNKNOWN: "UNKNOWN"}
LOOKS_AT_START = 10  # once a second
DIGEST_AGE_MS_MAX = 7_000  # certificates come at least every 5 s (SEMANTICS 10), and 2 s more


@dataclass(frozen=True, slots=True)
class RpoTarget:
    """How much of a source may be lost with it.

    Args:
        age_ms: our position may have been the newest so long ago; changes: and so many may be missing. 0: not limited.
    """

    age_ms: int = 5_000
    changes: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; `detail` says what was seen and, unless it passed, what it means."""

    name: str
    result: Result
    detail: str


def lag_finding(lag: Lag, target: RpoTarget) -> Finding:
    """Is the source within its RPO target?"""
    if lag.changes is None or lag.age_ms is None:
        return Finding("lag", Result.UNKNOWN, "nothing was heard of the source for 2 s: what it has that we lack is not known")
    seen = f"{lag.changes} changes, {lag.age_ms} ms"
    if target.age_ms and lag.age_ms > target.age_ms:
        return Finding("lag", Result.FAIL, f"{seen}: our position is older than the target of {target.age_ms} ms")
    if target.changes and lag.changes > target.changes:
        return Finding("lag", Result.FAIL, f"{seen}: more than the target of {target.changes} changes are missing")
    return Finding("lag", Result.PASS, seen)


def digest_finding(verified: bool | None, compared_age_ms: int | None) -> Finding:
    """Does our content equal the source's?

    Args:
        verified: outcome of the newest comparison; None: there was none. compared_age_ms: how long ago content was last compared.
    """
    if verified is None:
        return Finding("digest", Result.UNKNOWN, "never compared with a certificate of the source")
    if not verified:
        return Finding("digest", Result.FAIL, "differs from the source's certificate. Next: zaibei source diff")
    if compared_age_ms is None or compared_age_ms > DIGEST_AGE_MS_MAX:
        since = "not by this process" if compared_age_ms is None else f"{compared_age_ms // 1_000} s ago"
        return Finding("digest", Result.UNKNOWN, f"was equal, last compared {since}: no certificate came since")
    return Finding("digest", Result.PASS, f"equal to the source's certificate {compared_age_ms} ms ago")


@dataclass(slots=True)
class Watch:
    """Tells each change of a finding once. UNKNOWN at the beginning is told once it has lasted: a start takes a moment."""

    told: Result | None = None
    looks: int = 0

    def look(self, finding: Finding) -> str:
        """A sentence to tell; empty: nothing new."""
        before, self.looks = self.told, self.looks + 1
        if before is None and finding.result is Result.UNKNOWN and self.looks < LOOKS_AT_START:
            return ""
        self.told = finding.result
        if finding.result is before or (before is None and finding.result is Result.PASS):
            return ""
        return f"{finding.name}: {WORDS[finding.result]}: {finding.detail}"
