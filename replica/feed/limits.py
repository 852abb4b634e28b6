"""Limits of the feed, each with its unit. Defaults come from SEMANTICS.md or are explained where they stand."""

from __future__ import annotations

from dataclasses import dataclass

from replica.model.batch import BATCH_OCTETS_MAX
from replica.model.errors import Code, ZaibeiError

MESSAGE_OCTETS_MAX = BATCH_OCTETS_MAX + 64 * 1024  # one feed message: a batch and its envelope, or a digest answer
STREAMS_MAX = 64  # concurrent streams a peer may open to us
KEEPALIVE_MS = 10_000
BEAT_KEY_OCTETS = 32
NONCE_OCTETS = 16
MS = 1_000_000  # nanoseconds


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """How much a feed may hold in memory and how long it waits.

    Args:
        credit_batches: batches a source may have sent and we not yet applied, 1 to 4,096; below 8 a long link idles.
        credit_octets: octets likewise; at least one whole batch.
        nonce_interval_ns: how often a nonce goes out; half of the age below which an answer is `fresh`, at most.
        receipt_interval_ns: a receipt waits at most so long for others to join it; each costs a signature (50 µs).
        receipt_batches: outcomes that make a receipt due at once.
        gap_refetches_max: in-stream resumptions after a gap without progress, then a snapshot is loaded beside.
        load_retry_ns, load_retry_ns_max: pause after a failed load, doubled each time.
        busy_pause_ns: pause after our own back-pressure refused a batch.
        answer_ns_max: how long a proof, a snapshot's header or a grant's acceptance may take before the stream is closed.
        staging_ns_max: how long other members may take to fetch a loaded generation.
        retention_ms: length of a retention lease while a snapshot loads; renewed at a third of it.
        beat_interval_ms: what we ask of the source.
        brake: False switches the brake off, for tests: no message and no setting reaches it.
    """

    credit_batches: int = 64
    credit_octets: int = 24 * 1024 * 1024
    nonce_interval_ns: int = 500 * MS
    receipt_interval_ns: int = 10 * MS
    receipt_batches: int = 32
    gap_refetches_max: int = 3
    load_retry_ns: int = 1_000 * MS
    load_retry_ns_max: int = 60_000 * MS
    busy_pause_ns: int = 100 * MS
    answer_ns_max: int = 30_000 * MS
    staging_ns_max: int = 3_600_000 * MS
    retention_ms: int = 60_000
    beat_interval_ms: int = 500
    brake: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.credit_batches <= 4_096 or self.credit_octets < BATCH_OCTETS_MAX:
            raise ZaibeiError(Code.INVALID_CONFIG, f"feed credit: 1 to 4096 batches and at least {BATCH_OCTETS_MAX} octets")
        if not 10 <= self.beat_interval_ms <= 10_000 or not 10 * MS <= self.nonce_interval_ns <= 1_000 * MS:
            raise ZaibeiError(Code.INVALID_CONFIG, "beats come every 10 to 10,000 ms, nonces every 10 to 1,000 ms")
