"""From a tenant's own document and its quota to what answering processes need of them. Pure."""

from __future__ import annotations

from hosting.tenant.papers import QUOTA_ID, Quota, Tenant, paper_of
from replica.model.errors import ZaibeiError
from replica.model.identifier import document_key
from replica.model.states import Authority
from replica.model.tenant_view import PLAIN, TenantView
from replica.model.view import SourceView


def keys_of(source: str) -> tuple[bytes, bytes]:
    """Keys of the two documents that count: the tenant's own, and its quota."""
    return document_key("hosting.tenant", source), document_key("hosting.quota", QUOTA_ID)


def view_of(
    keys: tuple[bytes, bytes], values: tuple[bytes | None, bytes | None], vouched: SourceView, was: TenantView
) -> TenantView:
    """What counts from now on.

    Where registrations are a node's, or another provider's, these documents are theirs and bind nobody here. What cannot be
    read (quarantined, damaged, of a newer version) changes nothing: `was` goes on.
    """
    if not vouched.ready:
        return was
    if vouched.authority is not Authority.REGISTRATION:
        return PLAIN
    answered, per_s, burst_s = True, None, PLAIN.burst_s
    for key, value in zip(keys, values, strict=True):
        if value is None:
            continue
        try:
            _, paper = paper_of(key, value)
        except ZaibeiError:
            return was
        match paper:
            case Tenant():
                answered = paper.answered_while_suspended or not paper.suspended
            case Quota():
                per_s, burst_s = paper.resolutions_per_s, paper.burst_s
    return TenantView(per_s, burst_s, answered)
