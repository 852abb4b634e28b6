"""Resolutions a second of whole tenants, at one answering process: a bucket for each source that has a quota.

Pure; time is an argument. Counted by batch and source, never by question: for a tenant without a quota that is one look-up a
batch. A changed quota begins with a full bucket.
"""

from __future__ import annotations

from dataclasses import dataclass

from replica.model.tenant_view import TenantView


@dataclass(slots=True)
class _Tokens:
    """What is left under one quota; `at_s`: when that was so."""

    quota: TenantView
    left: float
    at_s: float


class Quotas:
    """See the module. `over`: questions that were not answered, by source; as many sources as were ever over."""

    __slots__ = ("_tokens", "over")

    def __init__(self) -> None:
        self.over: dict[str, int] = {}
        self._tokens: dict[str, _Tokens] = {}

    def take(self, source: str, quota: TenantView, count: int, now_s: float) -> int:
        """How many of `count` questions for a source are within its quota; they are taken from it.

        Args:
            now_s: a clock that never goes back.
        """
        per_s = quota.resolutions_per_s
        if per_s is None:
            self._tokens.pop(source, None)
            return count
        full = max(1.0, per_s * quota.burst_s) if per_s else 0.0
        tokens = self._tokens.get(source)
        if tokens is None or tokens.quota != quota:
            tokens = self._tokens[source] = _Tokens(quota, full, now_s)
        tokens.left = min(full, tokens.left + (now_s - tokens.at_s) * per_s)
        tokens.at_s = now_s
        taken = min(count, int(tokens.left))
        tokens.left -= taken
        if taken < count:
            self.over[source] = self.over.get(source, 0) + count - taken
        return taken
