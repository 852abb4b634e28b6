"""What many registration takeovers and returns came to, as two registrars saw them: values in, rows out. Pure.

Each writer notes when it was acknowledged: one asks the node alone, one asks us alone, both all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ops.bench.table import Row

STAGE = "registrations"
TAKEN_TARGET_MS, FREEZE_TARGET_MS = 3_000, 1_000
LATE_MS_MAX = 100
RATE_SHARE_MIN = 0.9  # of the changes a second that were to be registered here before the return


@dataclass(frozen=True, slots=True)
class Turn:
    """One takeover and return; all moments CLOCK_MONOTONIC ns.

    Args:
        may_ns: the later of APPROVED and the end of the lease as we count it.
        taken_ns, left_ns: first and last acknowledgement here. back_ns: first one of the node in its new epoch.
        last_ns: last one of the node before.
        rate: changes a second acknowledged here before the return.
        lacking: names that were acknowledged by either side and are not answered here in the end.
        late_ms: the most this process was late.
    """

    may_ns: int
    taken_ns: int
    left_ns: int
    back_ns: int
    last_ns: int
    rate: float
    lacking: int
    late_ms: float

    @property
    def taken_ms(self) -> float:
        return (self.taken_ns - self.may_ns) / 1e6

    @property
    def freeze_ms(self) -> float:
        """Nobody registers for so long."""
        return (self.back_ns - self.left_ns) / 1e6

    @property
    def two_wrote(self) -> bool:
        """Both acknowledged in one stretch of time."""
        return self.last_ns >= self.taken_ns or self.back_ns <= self.left_ns


def rows(turns: Sequence[Turn], wanted: int) -> list[Row]:
    """The longest counts; a turn in which this process was late counts for what was lost, not for time.

    Args:
        wanted: changes a second here.
    Raises:
        RuntimeError: no turn's times count.
    """
    counted = [turn for turn in turns if turn.late_ms <= LATE_MS_MAX]
    full = [turn for turn in counted if turn.rate >= RATE_SHARE_MIN * wanted]
    if not counted:
        raise RuntimeError(f"in all of {len(turns)} turns the registrars' process was late: the machine is too busy")
    taken, note = [turn.taken_ms for turn in counted], f"{len(turns) - len(counted)} more do not count, the registrars were late"
    what = (
        f"registration takeover: longest of {len(counted)}, from the later of approval and lease end to the first acknowledgement"
    )
    found = [
        Row(STAGE, what, max(taken), "ms", len(taken), min(taken), max(taken), TAKEN_TARGET_MS, fewer=True,
            note=f"median {median(taken):.0f}; {note}"),
    ]  # fmt: skip
    if full:
        freezes = [turn.freeze_ms for turn in full]
        what = f"failback: longest of {len(full)} times in which nobody registers, at {wanted:,} changes/s here"
        found.append(
            Row(STAGE, what, max(freezes), "ms", len(full), min(freezes), max(freezes), FREEZE_TARGET_MS, fewer=True,
                note=f"median {median(freezes):.0f}; {len(counted) - len(full)} turns with fewer changes do not count")
        )  # fmt: skip
    two, lacking = sum(turn.two_wrote for turn in turns), sum(turn.lacking for turn in turns)
    return [
        *found,
        Row(STAGE, f"of {len(turns)}: turns in which both sides acknowledged at once", two, "turns", target=0, fewer=True),
        Row(STAGE, "names acknowledged by either side and not answered here in the end", lacking, "names", target=0, fewer=True),
    ]
