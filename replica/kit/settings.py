"""How long and how much the kit looks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds.

    Args:
        watch_s: of looking at beats and certificates; at least twice `certificate_s_max` to say more than unknown about them.
        certificate_s_max: SEMANTICS 10: a certificate at least so often.
        batch_s: for a batch that is due; quiet_s: for seeing that none comes.
        beat_slack_s: a beat may be later than two intervals by this, for the network and a busy machine.
        batches_max: of the history that is read twice.
    """

    watch_s: float = 12.0
    certificate_s_max: float = 5.0
    certificate_slack_s: float = 0.5
    call_s: float = 10.0
    refusal_s: float = 3.0
    batch_s: float = 5.0
    quiet_s: float = 1.0
    nonce_every_s: float = 0.5
    beat_slack_s: float = 1.0
    batches_max: int = 2_000
    boundaries_max: int = 5
    batches_after_boundary: int = 3
