"""A prefix moves from one source that lives here to another, in committed steps (SEMANTICS 9). Pure.

| step | committed in | requires | from then on |
| --- | --- | --- | --- |
| FROZEN | old group | it owns the prefix and lives here | nothing is registered below it (7); reads go on |
| RELEASED | old group | FROZEN; carries version, position and digest | the way back is another move |
| (recorded) | control group | RELEASED; a member alone has none | content is copied, in ordinary batches |
| ACQUIRED | new group | the same digest over its own range | it answers and registers |
| DROPPING | old group | ACQUIRED, some seconds ago | the old content is deleted, in ordinary batches |
| DROPPED | old group | nothing is left of it | the old group has it no more |
| CANCELLED | old group | FROZEN | it registers as before |

`number` counts the moves of one prefix through all groups: a row with a higher number is about a later move.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from hashlib import sha256

from replica.model.errors import Code, ZaibeiError, require
from replica.model.identifier import DOCUMENT, ROUTE, SEP, ancestors, parent, prefix_text, subtree

MOVES_KEPT = 1_000  # rows of one group: its history of prefixes
DIGEST_ALGORITHM = "sha256"
NOWHERE = "(on its way)"  # an owner that no member holds: every question is answered 2


class MoveStep(IntEnum):
    """Numbers of replica.v1.PrefixMove.Step; persistent."""

    FROZEN = 1
    RELEASED = 2
    ACQUIRED = 3
    DROPPING = 4
    DROPPED = 5
    CANCELLED = 6


STEPS: Mapping[MoveStep | None, frozenset[MoveStep]] = {
    None: frozenset({MoveStep.FROZEN, MoveStep.ACQUIRED}),
    MoveStep.FROZEN: frozenset({MoveStep.RELEASED, MoveStep.CANCELLED}),
    MoveStep.RELEASED: frozenset({MoveStep.DROPPING}),
    MoveStep.DROPPING: frozenset({MoveStep.DROPPED}),
    MoveStep.ACQUIRED: frozenset(),
    MoveStep.DROPPED: frozenset(),
    MoveStep.CANCELLED: frozenset(),
}
LEAVING = frozenset({MoveStep.FROZEN, MoveStep.RELEASED, MoveStep.DROPPING})
AWAY = frozenset({MoveStep.FROZEN, MoveStep.RELEASED, MoveStep.DROPPING, MoveStep.DROPPED})


@dataclass(frozen=True, slots=True)
class PrefixMove:
    """One move as a group knows it: its newest step there.

    Args:
        act: names the move. prefix: key part. number: of this prefix's moves, from 1.
        source, target: the groups it leaves and comes to.
        version: of the group's statement of ownership that the step made.
        position: of the old group at RELEASED ("" before). records, digest: of the range there.
        case_sensitive: suffixes below it keep their case.
        at_ms: Unix milliseconds of the step. by, reason: who began it, and why.
    """

    act: str
    prefix: bytes
    number: int
    step: MoveStep
    source: str
    target: str
    version: int = 0
    position: str = ""
    records: int = 0
    digest: bytes = b""
    case_sensitive: bool = False
    at_ms: int = 0
    by: str = ""
    reason: str = ""


def newest(moves: Iterable[PrefixMove]) -> dict[bytes, PrefixMove]:
    """Prefix -> its latest move in this group; cancelled ones never were."""
    found: dict[bytes, PrefixMove] = {}
    for move in moves:
        held = found.get(move.prefix)
        if move.step is not MoveStep.CANCELLED and (held is None or held.number < move.number):
            found[move.prefix] = move
    return found


def owning(part: bytes) -> bytes:
    """The prefix whose owner decides about keys with this prefix part: the parent's for a route; b"" for documents."""
    return parent(part[1:]) if part[:1] == ROUTE else b"" if part[:1] == DOCUMENT else part


def move_at(moves: Mapping[bytes, PrefixMove], part: bytes) -> PrefixMove | None:
    """The latest move that decides about keys with this prefix part; None: what was configured holds."""
    return next((moves[level] for level in ancestors(owning(part)) if level in moves), None) if moves else None


def with_moves(prefixes: Sequence[bytes], moves: Iterable[PrefixMove]) -> tuple[bytes, ...]:
    """Prefixes of the configuration after all moves: without what left, with what came."""
    latest = newest(moves)
    gone = {prefix for prefix, move in latest.items() if move.step in AWAY and move.step is not MoveStep.FROZEN}
    came = [prefix for prefix, move in latest.items() if move.step is MoveStep.ACQUIRED and prefix not in prefixes]
    return (*(prefix for prefix in prefixes if prefix not in gone), *came)


def ranges_of(prefix: bytes) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """Key ranges that go with a prefix: the records of it and of all below it, and the routes strictly below it.

    The route record of the prefix itself belongs to whoever owns its parent, and stays there.
    """
    return subtree(prefix), (ROUTE + prefix + SEP, ROUTE + prefix + b"\x02")


class RangeDigest:
    """Digest of a moved range: SHA-256 over its records in key order, each key and value behind its length."""

    def __init__(self) -> None:
        self._sum, self.records = sha256(b"zaibei-prefix-range-1\0"), 0

    def add(self, key: bytes, value: bytes) -> None:
        for octets in (key, value):
            self._sum.update(len(octets).to_bytes(4, "big"))
            self._sum.update(octets)
        self.records += 1

    def digest(self) -> bytes:
        return self._sum.digest()


def where_moved(
    states: Mapping[str, tuple[PrefixMove, ...]], held: frozenset[str], recorded: Iterable[PrefixMove] = ()
) -> dict[bytes, str]:
    """Moved prefix -> the source that answers for it at this member.

    Who holds the new group's store here answers from it only once that store itself says ACQUIRED: a control group that is ahead
    of it proves nothing about what is stored here. Once the old content is being dropped, and the new one is not here yet, nobody
    can say: NOWHERE.

    Args:
        states: rows of the groups of this member, by source. held: sources whose stores are here.
        recorded: what the control group knows; the step ACQUIRED or RELEASED.
    """
    rows: dict[bytes, list[tuple[PrefixMove, bool]]] = {}
    for source, moves in states.items():
        for move in newest(moves).values():
            rows.setdefault(move.prefix, []).append((move, source == move.target))
    for move in recorded:
        rows.setdefault(move.prefix, []).append((move, move.target not in held))
    return {prefix: _where(found) for prefix, found in rows.items()}


def _where(rows: Sequence[tuple[PrefixMove, bool]]) -> str:
    latest = max(move.number for move, _ in rows)
    found = [(move, counts) for move, counts in rows if move.number == latest]
    if any(move.step is MoveStep.ACQUIRED and counts for move, counts in found):
        return found[0][0].target
    if any(move.step in (MoveStep.DROPPING, MoveStep.DROPPED) for move, _ in found):
        return NOWHERE
    return found[0][0].source


# ------------------------------------------------------------------------------------------------------ what is done next
class Next(IntEnum):
    """What an operator's command has committed next; each may be done again after a crash of anybody."""

    FREEZE = 1
    RELEASE = 2
    RECORD = 3
    COPY = 4  # and ACQUIRE behind it
    TELL = 5  # the control group that it was acquired
    DROP = 6
    DONE = 7


def next_of(old: PrefixMove | None, recorded: PrefixMove | None, new: PrefixMove | None, *, alone: bool) -> Next:
    """The next thing to do for one act, out of what is committed.

    Args:
        old, new: the act's row in the old and the new group. recorded: in the control group. alone: there is none.
    """
    require(new is None or old is None or old.step in AWAY, "what was acquired was released before")
    if old is None:
        return Next.FREEZE
    if old.step is MoveStep.FROZEN:
        return Next.RELEASE
    if old.step is MoveStep.DROPPED:
        return Next.DONE
    if recorded is None and not alone:
        return Next.RECORD
    if new is None:
        return Next.COPY
    if recorded is not None and recorded.step is not MoveStep.ACQUIRED:
        return Next.TELL
    return Next.DROP


# ---------------------------------------------------------------------------------------------------------- the rules
def moved_on(moves: tuple[PrefixMove, ...], move: PrefixMove) -> tuple[PrefixMove, ...]:
    """With a step of a move. Rows of the oldest moves go first, the latest of each prefix never.

    Raises:
        ZaibeiError(CONFLICT): the step does not follow; ALREADY_APPLIED: it was taken.
    """
    was = next((one for one in moves if one.act == move.act), None)
    if was is not None and was.step is move.step:
        raise ZaibeiError(Code.ALREADY_APPLIED, "said before")
    if move.step not in STEPS[None if was is None else was.step]:
        at = "nothing" if was is None else was.step.name
        raise ZaibeiError(Code.CONFLICT, f"{prefix_text(move.prefix)}: {move.step.name} does not follow {at}")
    if was is not None and (was.prefix, was.number, was.source, was.target) != (
        move.prefix,
        move.number,
        move.source,
        move.target,
    ):
        raise ZaibeiError(Code.CONFLICT, f"{move.act} is another move")
    if was is None:
        _begins(moves, move)
    kept = [one for one in moves if one.act != move.act]
    if len(kept) >= MOVES_KEPT:
        latest = {one.act for one in newest(kept).values()}
        kept = list(_without_one(kept, latest))
    return (*kept, move)


def _begins(moves: tuple[PrefixMove, ...], move: PrefixMove) -> None:
    for other in newest(moves).values():
        if other.step in LEAVING and _near(other.prefix, move.prefix):
            raise ZaibeiError(Code.CONFLICT, f"{prefix_text(other.prefix)} is moving already: act {other.act}")
        if other.prefix == move.prefix and other.number >= move.number:
            raise ZaibeiError(Code.CONFLICT, f"move {move.number} of {prefix_text(move.prefix)} is over: {other.number} began")


def _without_one(rows: Sequence[PrefixMove], latest: set[str]) -> Iterator[PrefixMove]:
    dropped = False
    for one in rows:
        if not dropped and one.act not in latest:
            dropped = True
            continue
        yield one


def _near(one: bytes, other: bytes) -> bool:
    return one in ancestors(other) or other in ancestors(one)


def stepped(move: PrefixMove, step: MoveStep, at_ms: int, **fields: object) -> PrefixMove:
    """The same move one step on."""
    return replace(move, step=step, at_ms=at_ms, **fields)  # type: ignore[arg-type]
