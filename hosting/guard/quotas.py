"""Resolutions a second of whole tenants, at one answering process: a bucket for each source that has a quota.

Pure; time is an argument. Counted by batch and source, never by question: for a tenant without a quota that is one look-up a
batch. A changed quota begins with a full bucket.
"""

from __future__ import annotations

from hosting.tenant.rates import Bucket
from replica.model.tenant_view import TenantView


class Quotas:
    """See the module. `over`: questions that were not answered, by source; as many sources as were ever over."""

    __slots__ = ("_buckets", "over")

    def __init__(self) -> None:
        self.over: dict[str, int] = {}
        self._buckets: dict[str, tuple[TenantView, Bucket]] = {}

    def take(self, source: str, quota: TenantView, count: int, now_s: float) -> int:
        """How many of `count` questions for a source are within its quota; they are taken from it.

        Args:
            now_s: a clock that never goes back.
        """
        per_s = quota.resolutions_per_s
        if per_s is None:
            self._buckets.pop(source, None)
            return count
        now_ms = int(now_s * 1_000)
        held, bucket = self._buckets.get(source, (None, None))
        if bucket is None or held != quota:
            bucket = Bucket(per_s, quota.burst_s, now_ms)
            self._buckets[source] = quota, bucket
        taken = bucket.take_most(count, now_ms)
        if taken < count:
            self.over[source] = self.over.get(source, 0) + count - taken
        return taken
