"""Finding which keys differ between a copy and its source at one pinned position, by bisection of sums (SEMANTICS 10). Pure.

256 sums, then 256 sums below each bucket that differs, then the keys and hashes of each small bucket that differs: three rounds,
whatever differs, because the questions of one round are asked together.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from replica.model.digest import LEVEL1_BUCKETS, SUM_OCTETS
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.v1 import source_pb2

KEYS_MAX = 10_000  # keys of a difference that are listed; beyond it the copy is loaded anew instead
BUCKETS_MAX = 4_096  # small buckets that are asked for: of 65,536, so a sixteenth of the content may differ

Pair = tuple[source_pb2.DigestResponse, source_pb2.DigestResponse]
Round = list[source_pb2.DigestRequest]


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """Keys that differ, ascending; `complete` False: more do, and of those nothing is listed.

    Args:
        buckets: small buckets (of 65,536) whose sums differ.
    """

    only_ours: list[bytes] = field(default_factory=list)
    only_theirs: list[bytes] = field(default_factory=list)
    other_value: list[bytes] = field(default_factory=list)
    complete: bool = True
    buckets: int = 0

    def __len__(self) -> int:
        return len(self.only_ours) + len(self.only_theirs) + len(self.other_value)


def find_difference(position: Position) -> Generator[Round, Sequence[Pair], KeyDifference]:
    """A generator of rounds: send in the pairs (our answer, the source's answer), one for each question, in order.

    Raises:
        ZaibeiError(UNKNOWN): one side no longer holds the sums of that position: the question is open, not answered.
        ZaibeiError(MALFORMED): an answer of another shape.
    """
    [pair] = yield [_request(position, 1, 0)]
    uppers = _unequal(*_sums(pair))
    if not uppers:
        return KeyDifference()
    pairs = yield [_request(position, 2, upper) for upper in uppers]
    buckets = [
        upper * LEVEL1_BUCKETS + lower for upper, pair in zip(uppers, pairs, strict=True) for lower in _unequal(*_sums(pair))
    ]
    if len(buckets) > BUCKETS_MAX:
        return KeyDifference(complete=False, buckets=len(buckets))
    found = KeyDifference(buckets=len(buckets))
    if buckets:
        for pair in (yield [_request(position, 3, bucket) for bucket in buckets]):
            _compare(_check(pair), found)
    return KeyDifference(
        sorted(found.only_ours)[:KEYS_MAX],
        sorted(found.only_theirs)[:KEYS_MAX],
        sorted(found.other_value)[:KEYS_MAX],
        max(map(len, (found.only_ours, found.only_theirs, found.other_value))) <= KEYS_MAX,
        len(buckets),
    )


def _request(position: Position, level: int, bucket: int) -> source_pb2.DigestRequest:
    return source_pb2.DigestRequest(position=position.to_wire(), level=level, bucket=bucket)


def _check(pair: Pair) -> Pair:
    if not all(answer.pinned for answer in pair):
        raise ZaibeiError(Code.UNKNOWN, "the sums of that position are no longer held: wait for the next certificate", retry=True)
    return pair


def _sums(pair: Pair) -> tuple[bytes, bytes]:
    ours, theirs = _check(pair)
    if not len(ours.sums) == len(theirs.sums) == LEVEL1_BUCKETS * SUM_OCTETS:
        raise ZaibeiError(Code.MALFORMED, f"a digest answer holds {LEVEL1_BUCKETS} sums of {SUM_OCTETS} octets")
    return ours.sums, theirs.sums


def _unequal(ours: bytes, theirs: bytes) -> list[int]:
    return [
        place
        for place in range(LEVEL1_BUCKETS)
        if ours[place * SUM_OCTETS : (place + 1) * SUM_OCTETS] != theirs[place * SUM_OCTETS : (place + 1) * SUM_OCTETS]
    ]


def _compare(pair: Pair, found: KeyDifference) -> None:
    for answer in pair:
        if len(answer.keys) != len(answer.hashes):
            raise ZaibeiError(Code.MALFORMED, "a digest answer holds a hash for each key")
    ours, theirs = (dict(zip(answer.keys, answer.hashes, strict=True)) for answer in pair)
    found.only_ours.extend(ours.keys() - theirs.keys())
    found.only_theirs.extend(theirs.keys() - ours.keys())
    found.other_value.extend(key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key])
