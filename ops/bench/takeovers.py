"""What many deaths of nodes came to, as their outside clients saw it: values in, rows out.

A run is one node's death and heal. One in which the clients' own process was late says nothing of the system and does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

import msgspec

from chaos.drills.outside import NS_PER_MS, Lane, Lookup
from ops.bench.table import Row
from replica.model.errors import Code, ZaibeiError

LATE_MS_MAX = 100
FIRST_TARGET_MS = 1_000
SHOWN_BEFORE_MS = 200  # what is shown of a slow run begins so long before the death
STAGE = "takeovers"


@dataclass(frozen=True, slots=True)
class Death:
    """One run: its source's host stopped answering at `at_ns` and was healed at `healed_ns`.

    began_anew: meanwhile the member's detector was late and gathered its evidence once more.
    """

    source: str
    at_ns: int
    healed_ns: int
    began_anew: bool = False


@dataclass(frozen=True, slots=True)
class Late:
    """The clients' process was late by `ms`, seen at `at_ns`."""

    at_ns: int
    ms: float


@dataclass(frozen=True, slots=True)
class Found:
    """Of all runs of one kind.

    Args:
        first_ms: of each run that counts, from the death to the first right answer of a lookup begun after it.
        unanswered: runs that count without such an answer before the heal.
        late: runs that do not count.
        anew_ms: those of them in which the member's detector began anew: they show why a run took long.
        hedged, hedged_failed: lookups of clients that race all sites; lied: final answers that were wrong, of all clients.
    """

    first_ms: tuple[float, ...]
    anew_ms: tuple[float, ...]
    unanswered: int
    late: int
    hedged: int
    hedged_failed: int
    lied: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a stage that is run in pieces."""

    kind: str
    found: Found


@dataclass(frozen=True, slots=True)
class _Event:
    time: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)


_decode_event = msgspec.json.Decoder(_Event).decode
_decode = msgspec.json.Decoder(Piece).decode  # made once: threads that decode a type first in one moment crash msgspec 0.22


def answered(lines: Iterable[Sequence[Any]], source: str, after_ns: int) -> bool:
    """Is one of these lines of a history a right answer of a lookup through the recursive node that began after a moment?"""
    return any(line[:2] == [Lane.RECURSIVE, source] and line[3] > after_ns and line[5] for line in lines)


def judge(deaths: Sequence[Death], lookups: Sequence[Lookup], lates: Sequence[Late]) -> Found:
    """Times through the recursive node, run by run."""
    answered = _answered(lookups)
    first_ms, anew_ms, unanswered, late = list[float](), list[float](), 0, 0
    for death in deaths:
        if any(_spoils(one, death) for one in lates):
            late += 1
            continue
        if (first := _first_ms(death, answered)) is not None:
            first_ms.append(first)
            anew_ms += first_ms[-1:] if death.began_anew else []
        else:
            unanswered += 1
    hedged = [one for one in lookups if one.lane is Lane.HEDGED]
    return Found(
        tuple(first_ms), tuple(anew_ms), unanswered, late, len(hedged), sum(not one.right for one in hedged),
        sum(one.lied for one in lookups),
    )  # fmt: skip


def slow(deaths: Iterable[Death], lookups: Sequence[Lookup]) -> list[tuple[Death, float | None]]:
    """Runs that missed the figure, late clients or not, with their first answer in ms: somebody should look at them."""
    answered = _answered(lookups)
    timed = [(death, _first_ms(death, answered)) for death in deaths]
    return [(death, first) for death, first in timed if first is None or first > FIRST_TARGET_MS]


def happened(death: Death, lookups: Iterable[Lookup], log: Iterable[str], since_epoch_ns: int) -> list[str]:
    """Lookups of a dead node's source through the recursive node, and its member's log: a line each, by ms since the death.

    Args:
        log: lines of JSON, one an event; others (of a library) are left out.
        since_epoch_ns: of the wall clock, when the clock of deaths and lookups stood at 0.
    """
    told = list[tuple[float, str]]()
    for line in log:
        with suppress(msgspec.DecodeError, ValueError):
            event = _decode_event(line)
            at_ms = (datetime.fromisoformat(event.time).timestamp() * 1e9 - since_epoch_ns - death.at_ns) / NS_PER_MS
            told.append((at_ms, f"{event.message} {event.fields}"))
    for one in lookups:
        if one.lane is Lane.RECURSIVE and one.source == death.source:
            how = "right" if one.right else "failed"
            told.append(((one.began_ns - death.at_ns) / NS_PER_MS, f"lookup, {how}, took {one.took_ms:.0f} ms"))
    until = (death.healed_ns - death.at_ns) / NS_PER_MS
    return [f"  {at_ms:7.0f} ms  {text}" for at_ms, text in sorted(told) if -SHOWN_BEFORE_MS < at_ms < until]


def _answered(lookups: Iterable[Lookup]) -> dict[str, list[Lookup]]:
    found: dict[str, list[Lookup]] = {}
    for one in lookups:
        if one.lane is Lane.RECURSIVE and one.right:
            found.setdefault(one.source, []).append(one)
    return found


def _first_ms(death: Death, answered: Mapping[str, Sequence[Lookup]]) -> float | None:
    ends = [one.ended_ns for one in answered.get(death.source, ()) if death.at_ns < one.began_ns < death.healed_ns]
    return (min(ends) - death.at_ns) / NS_PER_MS if ends and min(ends) <= death.healed_ns else None


def joined(pieces: Sequence[Found]) -> Found:
    """Several pieces as one; none: nothing was seen."""
    return Found(
        tuple(ms for one in pieces for ms in one.first_ms), tuple(ms for one in pieces for ms in one.anew_ms),
        sum(one.unanswered for one in pieces), sum(one.late for one in pieces), sum(one.hedged for one in pieces),
        sum(one.hedged_failed for one in pieces), sum(one.lied for one in pieces),
    )  # fmt: skip


def kept(kind: str, found: Found) -> bytes:
    """A piece as a line of the file that keeps it."""
    return msgspec.json.encode(Piece(kind, found)) + b"\n"


def read_kept(kind: str, octets: bytes) -> list[Found]:
    """The pieces of one kind.

    Raises:
        ZaibeiError(MALFORMED): the file is none of ours, or was cut off.
    """
    pieces = list[Piece]()
    for number, line in enumerate(octets.splitlines(), 1):
        try:
            pieces.append(_decode(line))
        except msgspec.DecodeError as exc:
            why = f"line {number} of the file that --keep names is no piece of such a run ({exc}): name another file"
            raise ZaibeiError(Code.MALFORMED, why) from exc
    return [piece.found for piece in pieces if piece.kind == kind]


def _spoils(late: Late, death: Death) -> bool:
    began_ns = late.at_ns - late.ms * NS_PER_MS
    return late.ms > LATE_MS_MAX and late.at_ns >= death.at_ns and began_ns <= death.healed_ns


def rows(kind: str, found: Found) -> list[Row]:
    """The maximum is what is promised; a run without an answer is a fault of ours.

    Raises:
        RuntimeError: no run counts.
    """
    times = found.first_ms
    if not times:
        raise RuntimeError(f"{kind}: no run counts; {found.late} were late, {found.unanswered} were never answered")
    anew = f"in {len(found.anew_ms)} the member's detector was late and began anew"
    if found.anew_ms:
        anew += f" (first answers {min(found.anew_ms):.0f} to {max(found.anew_ms):.0f})"
    note = f"median {median(times):.0f}; {anew}; {found.late} more runs did not count, the clients' process was late"
    what = f"resolution takeover, {kind}: longest of {len(times)}, first right answer through a recursive node (TTL 0)"
    return [
        Row(STAGE, what, max(times), "ms", len(times), min(times), max(times), FIRST_TARGET_MS, fewer=True, note=note),
        Row(
            STAGE, f"{kind}: failed of {found.hedged:,} lookups of clients that race all sites; wrong answers of all clients "
            f"{found.lied}; deaths nobody answered {found.unanswered}",
            found.hedged_failed + found.lied + found.unanswered, "lookups", len(times), target=0, fewer=True,
        ),
    ]  # fmt: skip
