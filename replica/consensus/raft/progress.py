"""Progress: what a leader knows of one member's log, and how it feeds it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import StrEnum

from replica.consensus.raft.membership import Changed


class Feeding(StrEnum):
    """How a member is fed.

    PROBE -> REPLICATE when an APPEND matched; REPLICATE -> PROBE when one was refused or may be lost; both -> SNAPSHOT when the
    entries it lacks are gone; SNAPSHOT -> PROBE when the transfer ended, and on to REPLICATE when it answered from there.
    """

    PROBE = "probe"  # one message at a time, to find where the logs meet
    REPLICATE = "replicate"  # a pipeline of messages
    SNAPSHOT = "snapshot"  # a transfer runs; nothing else is sent


class Progress:
    """Of one member, at the leader.

    Ladder: match < next; commit_told <= what the member could learn. `inflight`: (last index, octets) of APPENDs on their way.

    Args (of the fields):
        match: last index known to be saved there and equal to ours.
        next: first index to send.
        paused: nothing more goes out until an answer comes.
        active: it was heard of since the last check of the quorum.
        pending: index of the state that is being transferred; 0: none.
        round: highest read round it has answered.
    """

    __slots__ = (
        "active",
        "commit_told",
        "feeding",
        "inflight",
        "inflight_octets",
        "match",
        "next",
        "paused",
        "pending",
        "round",
    )

    def __init__(self, next_index: int, *, active: bool = False) -> None:
        self.match = 0
        self.next = next_index
        self.feeding = Feeding.PROBE
        self.paused = False
        self.active = active
        self.pending = 0
        self.round = 0
        self.commit_told = 0
        self.inflight: deque[tuple[int, int]] = deque()
        self.inflight_octets = 0

    @property
    def is_paused(self) -> bool:
        return self.paused or self.feeding is Feeding.SNAPSHOT

    def probe(self) -> None:
        """Find anew where the logs meet; behind a finished transfer they meet at its index."""
        next_index = self.match + 1
        if self.feeding is Feeding.SNAPSHOT:
            next_index = max(next_index, self.pending + 1)
        self._feed(Feeding.PROBE)
        self.next = next_index
        self.commit_told = min(self.commit_told, next_index - 1)

    def replicate(self) -> None:
        self._feed(Feeding.REPLICATE)
        self.next = self.match + 1

    def transfer(self, index: int) -> None:
        """A transfer of the state at `index` begins."""
        self._feed(Feeding.SNAPSHOT)
        self.pending = index
        self.next = index + 1
        self.commit_told = index

    def forget(self, next_index: int) -> None:
        """The member lost what it had."""
        self.match = 0
        self.commit_told = 0
        self._feed(Feeding.PROBE)
        self.next = next_index

    def _feed(self, feeding: Feeding) -> None:
        self.feeding = feeding
        self.paused = False
        self.pending = 0
        self.inflight.clear()
        self.inflight_octets = 0

    def sent(self, last: int, octets: int) -> None:
        """Entries up to `last` are on their way, in order; a pipeline goes on behind them."""
        self.next = last + 1
        self.inflight.append((last, octets))
        self.inflight_octets += octets

    def acknowledged(self, index: int) -> bool:
        """Take note of an acknowledgement; False when it says nothing new."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.paused = False
        return True

    def free(self, index: int) -> None:
        """Messages up to `index` arrived."""
        inflight = self.inflight
        while inflight and inflight[0][0] <= index:
            self.inflight_octets -= inflight.popleft()[1]

    def refused(self, index: int, hint: int) -> bool:
        """Step back after a refusal of the entries behind `index`; False when the refusal is an old one."""
        if self.feeding is Feeding.REPLICATE:
            if index <= self.match:
                return False
            self.next = self.match + 1
        elif self.next - 1 != index:
            return False
        else:
            self.next = max(min(index, hint + 1), self.match + 1)
        self.paused = False
        self.commit_told = min(self.commit_told, self.next - 1)
        return True


def keep_progress(old: Mapping[int, Progress], changed: Changed, last_index: int) -> dict[int, Progress]:
    """Progress of the members after a change. A new one is probed with the last entry; it counts as heard of, to give it time."""
    kept = {member: old[member] for member in changed.membership.members & old.keys() if member not in changed.restarted}
    fresh = sorted(changed.membership.members - kept.keys())
    return kept | {member: Progress(max(last_index, 1), active=True) for member in fresh}
