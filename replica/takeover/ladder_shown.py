"""What people read of each stage of the ladder."""

from __future__ import annotations

from replica.model.ladder import Stage

S = Stage
SHOWN: dict[Stage, str] = {
    S.NORMAL: "the source registers",
    S.SUSPECT: "most probes fail",
    S.THRESHOLD: "threshold reached: waits for a decision",
    S.PROPOSED: "proposed: waits for approval",
    S.APPROVED: "approved: waits for the source's lease to end",
    S.FENCED: "the source's epoch is closed",
    S.PROMOTED: "serving, not yet found",
    S.PUBLISHED: "published",
    S.SERVING: "we register",
    S.RETURN_REQUESTED: "return requested",
    S.CATCHING_UP: "the source copies what was registered here",
    S.FROZEN: "registrations wait for the switch back",
    S.SOURCE_EQUAL: "the source holds what we hold",
    S.HANDED_BACK: "the next epoch is the source's",
    S.ACCEPTED: "the source took its epoch",
    S.OBSERVED: "the source registers again, our sites are withdrawn",
    S.TRANSFERRED: "transferred to another provider",
    S.DRAINING: "switchover: the source ends its writing",
}
