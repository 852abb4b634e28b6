"""Pure: may a group start with what its journal and its store hold, and from where?

With one member nobody else can give back a lost entry, so the rule is: what was never acknowledged may vanish in silence, what
may have been acknowledged never. The journal keeps a durable mark of what it had flushed; a loss below the mark that the store
does not cover refuses the group. (SEMANTICS 11.1, 11.2, 11.4; DESIGN promise 1. With more members RAFT.md rule 6 decides.)
"""

from __future__ import annotations

from dataclasses import dataclass

from replica.consensus.port import Recovered
from replica.model.errors import Code, ZaibeiError

RESEED_COMMAND = "zaibei source reseed plan {group}"


@dataclass(frozen=True, slots=True)
class StartPlan:
    """How to start.

    Args:
        replay_from, replay_to: entries to apply again, inclusive; none when replay_from > replay_to.
        term: the new term.
        restart_at: the journal's entries are of no use: begin anew behind the store's (index, term).
        cut_after: drop rows behind this index before anything is appended; None: there are none.
    """

    replay_from: int
    replay_to: int
    term: int
    restart_at: tuple[int, int] | None = None
    cut_after: int | None = None
    warning: str = ""
    loss_possible: bool = False


def plan_start(group: str, journal: Recovered, applied: tuple[int, int], *, reseed_command: str = RESEED_COMMAND) -> StartPlan:
    """Decide how a group of one member starts.

    Args:
        journal: what the walk found.
        applied: (index, term) of the store as it was opened.
    Raises:
        ZaibeiError(DAMAGED): the group must not serve; the message has the numbers and the command that loads it anew.
    """
    index, term = applied
    new_term = max(journal.hard.term, journal.last_term, term) + 1
    _refuse_loss(group, journal, index, reseed_command)
    if index > journal.last:  # never seen in a sound journal: an entry is flushed before it is applied
        lost = f"holds entries up to {journal.last} only" if journal.known else "holds nothing of the group (lost or new)"
        cut = f"; {journal.cut.reason}" if journal.cut else ""
        warning = (
            f"{group}: the store stands at index {index} and the journal {lost}{cut}. The group starts at the store's position; "
            f"entries acknowledged behind it, if there were any, are gone: the source is asked again from there"
        )
        return StartPlan(index + 1, index, new_term, (index, term), None, warning, loss_possible=True)
    held = journal.term_at(index)
    if held != term:
        what = f"the store applied index {index} in term {term}, the journal holds it with term {held}: two histories"
        raise _damaged(group, what, reseed_command)
    if journal.cut is None:
        return StartPlan(index + 1, journal.last, new_term)
    warning = (
        f"{group}: the journal's tail was torn behind index {journal.last} ({journal.cut.reason}); {journal.cut.rows} rows up to "
        f"index {journal.cut.highest} were cut. All that is marked as flushed (up to {journal.flushed}) is there"
    )
    return StartPlan(index + 1, journal.last, new_term, None, journal.last, warning)


def plan_rejoin(
    group: str,
    journal: Recovered,
    applied: tuple[int, int],
    *,
    reseed_command: str = RESEED_COMMAND,
    fetched_at: int = 0,
    committed: int = 0,
) -> StartPlan:
    """Decide how a member of a larger group starts: others may give back what is lost here, and their memory decides whether this
    member may vote (hello.py). What was known to be committed is replayed, so that nobody is answered with what it had before;
    the rest waits for a leader.

    Args:
        committed: index that was known to be committed when something was flushed last.
        fetched_at: index of the membership row: it is kept before a store is switched to a fetched state, which may lie where the
            log holds entries of an earlier leader that were never committed.
    Raises:
        ZaibeiError(DAMAGED): the store does not fit the journal and must be fetched anew from another member.
    """
    index, term = applied
    new_term = max(journal.hard.term, journal.last_term, term) + 1
    if index > journal.last or (journal.known and index < journal.floor):
        lost = f"the store of {group} stands at index {index}, the journal holds {journal.floor + 1} to {journal.last}"
        if journal.known and index < journal.floor:
            raise _damaged(group, f"{lost}: entries between are gone (a store of an earlier day, or a lost one)", reseed_command)
        warning = f"{lost}: its end is lost. The member goes on from the store; whether it may vote is for the others to say"
        return StartPlan(index + 1, index, new_term, (index, term), None, warning, loss_possible=True)
    held = journal.term_at(index)
    if held is not None and held < term and index == fetched_at > journal.floor:  # switched, and not begun anew there yet
        warning = f"{group}: entries {index} to {journal.last} of an earlier leader gave way to the fetched state at {index}"
        return StartPlan(index + 1, index, new_term, (index, term), None, warning)
    if held != term:
        what = f"the store applied index {index} in term {term}, the journal holds it with term {held}: two histories"
        raise _damaged(group, what, reseed_command)
    if journal.cut is None:
        whole = journal.flushed <= journal.last  # else something is missing, and what follows it may be an earlier leader's
        return StartPlan(index + 1, max(index, min(journal.last, committed)) if whole else index, new_term)
    torn = f"torn behind index {journal.last} ({journal.cut.reason}); {journal.cut.rows} rows were cut"
    warning = f"{group}: the journal's tail was {torn}"
    return StartPlan(index + 1, index, new_term, None, journal.last, warning)


def _refuse_loss(group: str, journal: Recovered, index: int, command: str) -> None:
    if journal.known and index < journal.floor:
        raise _damaged(
            group,
            f"the store stands at index {index}, older than the first journal entry {journal.floor + 1}: "
            f"entries {index + 1} to {journal.floor} are gone (a store of an earlier day, or a lost one)",
            command,
        )
    if max(journal.last, index) < journal.flushed:
        reason = journal.cut.reason if journal.cut else "its end is missing"
        raise _damaged(
            group,
            f"entries {max(journal.last, index) + 1} to {journal.flushed} had been flushed and may have been acknowledged; "
            f"the journal does not hold them ({reason}) and the store stands at {index}",
            command,
        )


def _damaged(group: str, what: str, command: str) -> ZaibeiError:
    return ZaibeiError(
        Code.DAMAGED, f"group {group} stays out of service: {what}. Load it anew from its source: {command.format(group=group)}"
    )
