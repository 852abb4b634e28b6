"""If we took over now, how many answers would differ, and why? Samples of our records held against the node's own answers. Pure.

| verdict of a sample | when |
| --- | --- |
| SAME | the node answers with the values we hold, at once |
| LAG | it did not, and does once our copy has what the node had stated by then |
| CONTENT | it still does not, after so many looks with our copy caught up each time |
| UNTOLD | the node did not answer, or our copy did not catch up: nothing is known of this one |

Compared are index, type and data of the values that anybody may read; times to live and timestamps are the node's own affair.
The result is UNKNOWN with too few samples, or when the newest is older than INTERVAL_MS and 2 s more.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from replica.model.states import Result

WINDOW_MS = 3_600_000
SAMPLES_MAX = 100_000  # of one source
SAMPLES_MIN = 100  # fewer say nothing
INTERVAL_MS = 5_000  # between samples, at most
GRACE_MS = 2_000
LOOKS_MAX = 3  # of one sample
PPM = 1_000_000
SEEKS_MAX = 4_000  # of one walk to a random key


class Verdict(StrEnum):
    """See the table of the module."""

    SAME = "same"
    LAG = "lag"
    CONTENT = "content"
    UNTOLD = "untold"


def random_key(first_from: Callable[[bytes], bytes | None], start: bytes, below: Callable[[int], int]) -> bytes | None:
    """A key of those that begin with `start`, by a walk that chooses each next octet among those that occur, all alike.

    Args:
        first_from: the first key at or behind a place; None: there is none. A walk asks it some hundred times.
        below: a random number below a given one.
    Returns:
        None: no key begins so.
    """
    prefix, asked = start, 0
    while asked < SEEKS_MAX:
        key = first_from(prefix)
        if key is None or not key.startswith(prefix):
            return None
        ends_here, octets = key == prefix, []
        if ends_here:
            key = first_from(prefix + b"\0")
        asked += 2
        while key is not None and key.startswith(prefix):
            octets.append(key[len(prefix)])
            asked += 1
            key = first_from(prefix + bytes((octets[-1] + 1,))) if octets[-1] < 255 else None
        chosen = below(len(octets) + ends_here)
        if chosen == len(octets):
            return prefix
        prefix += bytes((octets[chosen],))
    return first_from(prefix)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the samples of the window say.

    Args:
        lag_ppm, content_ppm: of the samples whose verdict is known; None: UNKNOWN.
        examples: keys of the newest CONTENT ones.
    """

    result: Result
    detail: str
    samples: int
    untold: int
    lag_ppm: int | None
    content_ppm: int | None
    examples: tuple[str, ...] = ()


class Mirror:
    """The samples of one source. Times are milliseconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, Verdict]] = deque(maxlen=SAMPLES_MAX)
        self._examples: deque[str] = deque(maxlen=8)

    def sampled(self, key: str, verdict: Verdict, now_ms: int) -> None:
        self._samples.append((now_ms, verdict))
        if verdict is Verdict.CONTENT:
            self._examples.append(key)

    def forget(self) -> None:
        """The source's node is another one, or we were stopped."""
        self._samples.clear()
        self._examples.clear()

    def comparison(self, now_ms: int) -> Comparison:
        """At this moment: PASS only when nothing would differ because of content."""
        while self._samples and now_ms - self._samples[0][0] > WINDOW_MS:
            self._samples.popleft()
        counts = Counter(verdict for _, verdict in self._samples)
        untold = counts.pop(Verdict.UNTOLD, 0)
        known = sum(counts.values())
        newest_ms = max((at for at, verdict in self._samples if verdict is not Verdict.UNTOLD), default=None)
        if known < SAMPLES_MIN:
            return self._unknown(f"{known} samples with an answer, {SAMPLES_MIN} are needed", known, untold)
        if newest_ms is None or now_ms - newest_ms > INTERVAL_MS + GRACE_MS:
            old_s = (now_ms - (newest_ms or 0)) // 1_000
            return self._unknown(f"the newest sample with an answer is {old_s} s old", known, untold)
        lag, content = (counts[verdict] * PPM // known for verdict in (Verdict.LAG, Verdict.CONTENT))
        text = f"if we took over now, {lag + content} ppm of answers would differ: {lag} because of lag, {content} of content"
        result = Result.FAIL if counts[Verdict.CONTENT] else Result.PASS
        return Comparison(result, f"{text} ({known} samples)", known, untold, lag, content, tuple(self._examples))

    def _unknown(self, why: str, known: int, untold: int) -> Comparison:
        return Comparison(Result.UNKNOWN, why, known, untold, None, None, tuple(self._examples))
