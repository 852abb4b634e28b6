"""An operator's signature over a plan's text, made and judged. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from ops.admin.values import Approval
from replica.feed.decision import TOKEN_DIGITS, approval_octets
from replica.model.errors import Code, ZaibeiError
from replica.model.signing import Signer, verify
from replica.v1 import entry_pb2, position_pb2


def token_of(plan_text: str) -> str:
    """The token of a plan: the first hex digits of its text's SHA-256."""
    return sha256(plan_text.encode()).hexdigest()[:TOKEN_DIGITS]


def approve(operator: str, signer: Signer, plan_text: str) -> Approval:
    """Sign a plan's text, whole."""
    signature = signer.sign(approval_octets(plan_text))
    return Approval(operator, token_of(plan_text), signature.suite, signature.key_id.hex(), signature.signature.hex())


def to_wire(approval: Approval) -> entry_pb2.Approval:
    """Raises ZaibeiError(MALFORMED)."""
    try:
        key_id, signature = bytes.fromhex(approval.key_id), bytes.fromhex(approval.signature)
    except ValueError:
        raise ZaibeiError(Code.MALFORMED, "an approval's key id and signature are hex digits") from None
    return entry_pb2.Approval(
        operator=approval.operator, signature=position_pb2.Signature(suite=approval.suite, key_id=key_id, signature=signature)
    )


def judge(approval: Approval, plan_text: str, operators: Mapping[str, bytes]) -> None:
    """Accept an approval of exactly this plan by a configured operator.

    Raises:
        ZaibeiError(NOT_AUTHORISED): an unknown operator, or not that operator's signature of this text; says which.
    """
    public = operators.get(approval.operator)
    if public is None:
        known = ", ".join(sorted(operators)) or "nobody"
        raise ZaibeiError(
            Code.NOT_AUTHORISED,
            f"{approval.operator!r} is not an operator of this member (configured: {known}). "
            "Next: add the [[operator]] block that `zaibei operator add` printed, and restart",
        )
    if not verify(public, approval_octets(plan_text), to_wire(approval).signature):
        raise ZaibeiError(
            Code.NOT_AUTHORISED,
            f"this is not a signature of {approval.operator!r} over this plan: another key, or the plan changed. "
            "Next: plan again and compare the key with the configured one",
        )
