"""A small drill as its lines, for tests of evidence."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chaos.evidence.bundle import (
    Broken,
    Digest,
    Drill,
    Figure,
    Finding,
    LaneCount,
    Look,
    Made,
    Moment,
    Part,
    RedProof,
    Rpo,
    Said,
    Verdict,
    What,
)
from replica.model.signing import Signer


def signer(number: int = 1) -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def parts(
    verdict: Verdict = Verdict.PASS,
    *,
    scenario: str = "s33-secondary-dies",
    receipts: int | None = 0,
    planted: str = "",
    began_ms: int = 1_800_000_000_000,
    text: str = "node-a SIGKILLed",
    red: RedProof | None = None,
) -> list[Part]:
    return [
        Drill(
            scenario, 33, "a secondary node dies", 7, "loopback", planted, began_ms, 9_000, "a machine", "ci",
            "nothing real", "nothing", "Ctrl-C", 5,
        ),
        Made("build", "tree", "ab" * 32),
        Broken(1_000_000, "killed node-a", "active"),
        Moment(1_000_000, What.FAULT, "node-a", text),
        Moment(1_400_000, What.DECIDE, "node-a", "taken over"),
        Moment(1_600_000, What.FIRST_ANSWER, "node-a", "answered by us"),
        Look(900_000, 2_000, "recursive", "node-a", True),
        Look(1_100_000, 400_000, "recursive", "node-a", False),
        LaneCount("recursive", 2, 1, 0),
        Figure("rto_first_ms", "ms", 600, 1_000, "fault to first right answer"),
        Rpo(receipts, 3, 120),
        Digest("after", "node-a", "member-1", "1:7", 100, "00ff"),
        Finding("rto", verdict, "600 ms, below 1,000 ms"),
        red or RedProof("", None, "", "no red run yet"),
        Said(verdict),
    ]  # fmt: skip
