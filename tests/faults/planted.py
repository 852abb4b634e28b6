"""A member with planted bugs, for red runs: `python -m tests.faults.planted BUG,BUG up …`. Only the runner starts this.

A scenario that its planted bug does not turn red proves nothing by being green.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ops.cli.main import cli
from ops.drills.planted import plant, silence_is_death


def alone() -> None:
    """What the leader holds itself counts as held by a majority."""
    from replica.consensus.raft import leading
    from replica.consensus.raft.quorum import NO_LIMIT

    def joint_index(voters: Iterable[int], outgoing: Iterable[int], acknowledged: Mapping[int, int]) -> int:
        return max(acknowledged.values(), default=0) if list(voters) else NO_LIMIT

    plant(leading, "joint_index", joint_index)


def wall_clock() -> None:
    """Ages and leases are counted by the wall clock."""
    plant(time, "clock_gettime_ns", lambda _clock: time.time_ns())


def gaps_pass() -> None:
    """A batch behind one that is missing is taken for one that was there."""
    from replica.feed import intake
    from replica.feed.placing import DUPLICATE, Place, Placed, place_batch

    def placed(*given: Any) -> Placed:
        found = place_batch(*given)
        return DUPLICATE if found.place is Place.GAP else found

    plant(intake, "place_batch", placed)


def sums_unread() -> None:
    """Nobody sums entries up, and nobody looks at a sum."""
    from replica.consensus import wire

    plant(wire, "sum_of", lambda message: message.sum)


def bends() -> None:
    """While a file named `bends` lies beside its configuration, a bit flips in some messages with entries, behind their sum:
    the fault of a scenario, and of no red run."""
    from replica.consensus import host, wire
    from replica.v1 import peer_pb2

    made, switch = [0], str(Path(sys.argv[sys.argv.index("--config") + 1]).with_name(BENDS_FILE))

    def to_wire(*given: Any, **named: Any) -> peer_pb2.GroupMessage:
        message = wire.to_wire(*given, **named)
        if message.entries and message.entries[-1] and os.path.exists(switch):
            made[0] += 1
            if made[0] % BENT_EVERY == 0:
                octets = bytearray(message.entries[-1])
                octets[len(octets) * 2 // 3] ^= 4
                message.entries[-1] = bytes(octets)
        return message

    plant(host, "to_wire", to_wire)


def awaited_flush() -> None:
    """Whoever gives the journal something stands still until it is on the disk: the event loop too."""
    from replica.consensus.edge_journal import Journal

    put = Journal.put

    def put_and_wait(journal: Journal, op: Any) -> None:
        put(journal, op)
        if threading.current_thread() is threading.main_thread():
            journal.drain()

    plant(Journal, "put", put_and_wait)


def never_offered() -> None:
    """A leader offers nobody its state: who needs more than the entries that are left waits for ever."""
    from replica.consensus.host_transfers import HostTransfers

    plant(HostTransfers, "offer_soon", lambda *_given, **_named: None)


def half_way() -> None:
    """A leader never leaves a joint membership: the old voters must agree for ever, and nothing else can change."""
    from replica.consensus.raft.changing import Changing

    plant(Changing, "_leave_joint", lambda _core: None)


def first_come() -> None:
    """What waits for another member leaves in the order in which it came, whatever group it is of, in large batches."""
    from replica.consensus import link_frames

    put = link_frames.Outbox.put
    plant(link_frames.Outbox, "put", lambda outbox, message, _group=0: put(outbox, message))
    plant(link_frames, "BATCH_OCTETS_MAX", 1 << 20)


def all_published() -> None:
    """What is published names every address of ours, whoever is answered there."""
    from replica.takeover import edge_runner, ladder, machine

    for module in (machine, ladder, edge_runner):
        plant(module, "site_without", lambda site, _dead: site)


BENDS_FILE, BENT_EVERY = "bends", 25
BUGS: dict[str, Callable[[], None]] = {
    "alone": alone,
    "wall-clock": wall_clock,
    "silence": silence_is_death,
    "gaps-pass": gaps_pass,
    "sums-unread": sums_unread,
    "bends": bends,
    "awaited-flush": awaited_flush,
    "never-offered": never_offered,
    "half-way": half_way,
    "first-come": first_come,
    "all-published": all_published,
}


def main() -> None:
    for bug in sys.argv[1].split(","):
        BUGS[bug]()
    sys.argv[1:] = sys.argv[2:]
    cli(prog_name="zaibei")


if __name__ == "__main__":
    main()
