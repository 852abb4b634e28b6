"""What was seen for each rule. A rule passes only when something was looked at and nothing was wrong; otherwise it is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from replica.kit.rules import RULES, Group, Rule
from replica.model.states import Result

FAULTS_KEPT_MAX = 5  # of one rule; the number of all is told


@dataclass(frozen=True, slots=True)
class Finding:
    """Judgement on one rule. `looked`: number of things looked at; `detail`: faults, or why it is unknown."""

    rule: Rule
    result: Result
    looked: int
    detail: str

    def document(self) -> dict[str, object]:
        return {
            "rule": self.rule.ident,
            "title": self.rule.title,
            "clause": self.rule.clause,
            "result": self.result.value,
            "looked": self.looked,
            "detail": self.detail,
        }


@dataclass(slots=True)
class _Entry:
    looked: int = 0
    faults: list[str] = field(default_factory=list)
    faults_total: int = 0
    why_unknown: str = ""


class Sheet:
    """Collects sights and faults; `findings` judges."""

    def __init__(self) -> None:
        self._entries = {rule.ident: _Entry() for rule in RULES}
        self._left_out: set[str] = set()

    def saw(self, ident: str, number: int = 1) -> None:
        """Looked at something, and it was as it should be."""
        self._entries[ident].looked += number

    def fail(self, ident: str, detail: str) -> None:
        entry = self._entries[ident]
        entry.looked += 1
        entry.faults_total += 1
        if len(entry.faults) < FAULTS_KEPT_MAX:
            entry.faults.append(detail)

    def judge(self, ident: str, good: bool, detail: str) -> bool:
        """`saw` or `fail`; returns `good`."""
        if good:
            self.saw(ident)
        else:
            self.fail(ident, detail)
        return good

    def unknown(self, ident: str, why: str) -> None:
        """Could not look (or not wholly): the rule is not passed, unless it failed."""
        self._entries[ident].why_unknown = self._entries[ident].why_unknown or why

    def unknown_group(self, group: Group, why: str) -> None:
        for rule in RULES:
            if rule.group is group:
                self.unknown(rule.ident, why)

    def leave_out(self, idents: Iterable[str]) -> None:
        """Rules that do not apply here, or were not asked for: they are not in the report."""
        self._left_out |= set(idents)

    def findings(self) -> tuple[Finding, ...]:
        return tuple([self._finding(rule) for rule in RULES if rule.ident not in self._left_out])

    def _finding(self, rule: Rule) -> Finding:
        entry = self._entries[rule.ident]
        if entry.faults:
            more = entry.faults_total - len(entry.faults)
            detail = "; ".join(entry.faults) + (f"; and {more} more" if more else "")
            return Finding(rule, Result.FAIL, entry.looked, detail)
        if entry.looked and not entry.why_unknown:
            return Finding(rule, Result.PASS, entry.looked, "")
        return Finding(rule, Result.UNKNOWN, entry.looked, entry.why_unknown or "there was nothing to look at")


def worst(findings: Iterable[Finding]) -> Result:
    """Fail before unknown before pass; nothing at all is unknown."""
    results = {finding.result for finding in findings}
    for result in (Result.FAIL, Result.UNKNOWN):
        if result in results:
            return result
    return Result.PASS if results else Result.UNKNOWN
