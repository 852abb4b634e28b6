"""A scenario as a value: faults in order, load, invariants, budgets, the planted bug that turns it red, what is said first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chaos.drills.outside import Lane
from chaos.rigs.capability import Capability


class Act(StrEnum):
    """What is done to the stage; each heals (ops/drills/acts.py)."""

    NODES_DIE = "the nodes' host dies"  # SIGKILL of all of them at once; healed by a restart
    NODES_HANG = "the nodes' host hangs"  # SIGSTOP; healed by SIGCONT
    NODES_FLAP = "the nodes' host stalls again and again"  # 100 to 240 ms each time
    CUT_FROM_US = "cut off from us"  # feed, beats and probes; its own clients reach it
    OLD_DISK = "an old disk comes back"  # the node restarts from an image older than its receipts
    OTHER_HISTORY = "another history"  # as OLD_DISK, and it goes on writing from there
    OUR_OLD_DISK = "our old disk comes back"  # the member restarts from an image; the source has let go of what follows
    MASS_DELETE = "90 % of a prefix removed"
    MAJORITY_AND_NODES_DIE = "two of three members die, then the nodes"
    SILENT_DIVERGENCE = "one record of a copy differs, at equal chain"  # healed by the source's own change
    RETURNS_WITH_WRITES = "registrations taken over; the node returns with writes nobody copied"
    RETURN_INTERRUPTED = "the return is begun twice, and the member dies in the middle of it"
    ZONE_OFF_IN_RETURN = "the zone of the leading member is off in the middle of a return"
    TAKEN_OVER_BEHIND = "registrations taken over while the copy is behind"
    RETURNS_WITH_OLD_ANSWERS = (
        "registrations taken over; the node returns, and its resolver answers from its old files for a while"
    )
    FORGED_AND_ROTATED = "forgers call, a node's certificate is renewed, its stolen one is revoked"
    TOP_DIES = "the top-level node dies"  # its own host alone; secondary nodes live on
    TOP_AND_NODES_DIE = "the top-level node and secondary nodes die in one moment"  # those that are not said to live on
    FLOODED = "10 times what the member can answer, while the nodes die and come back"
    TENANT_NOISY = "a tenant registers at 100 times its quota"  # by turns at us and at a mere sink
    PROBES_BLOCKED = "probes of a healthy node blocked"  # ours and the top-level node's, with a standing order in force
    SNAPSHOT_INTERRUPTED = "a snapshot is interrupted at every chunk"  # by cut links, and SIGKILLs of either side
    INCIDENT_DURING_DRILL = "nodes die while a drill runs beside them"  # the drill's own stage is not theirs
    TWO_PUBLISH = "two nodes publish the same registry and differ"  # one of them began from an image of the other
    WITHDRAWS_FOR_GOOD = "a node is switched over and ends for good; another provider's takes its place"
    SWITCHED_OVER = "a living node is switched over, and back"  # by two people, while a registrar registers all the time


class Invariant(StrEnum):
    """What must hold, read from what was seen outside (chaos/drills/judge.py)."""

    NO_LIE = "no wrong answer"
    NO_FAILURE = "no failed lookup"  # through no lane that is judged
    HEDGED = "hedging clients lose nothing"
    RECEIPTS = "receipts honoured"
    EQUAL = "contents equal"
    NO_TAKEOVER = "no takeover"
    NO_SECOND_WRITER = "no second writer"
    PORT_ANSWERS = "our address answers throughout"
    LIVE_REACHED = "who lives is reached"
    FACTS = "facts"


MEASURED = frozenset(
    {Invariant.HEDGED, Invariant.NO_FAILURE, Invariant.NO_TAKEOVER, Invariant.PORT_ANSWERS, Invariant.LIVE_REACHED}
)  # by time
# Times are measured from these on.
DEATHS = frozenset({Act.NODES_DIE, Act.TOP_DIES, Act.TOP_AND_NODES_DIE, Act.INCIDENT_DURING_DRILL})


class Plant(StrEnum):
    """Bugs that a red run plants in the member (ops/drills/planted.py)."""

    NEVER_TAKES_OVER = "it never takes over"
    TAKES_OVER_ON_SILENCE = "silence alone takes over"
    NO_BRAKE = "the brake never trips"
    REWINDS_ACCEPTED = "a head that went back is taken for fine"
    UNPROVED_ACCEPTED = "content that does not prove our position is switched to"
    MISSING_IS_SAID = "a missing name is not found, whatever is known"
    NO_SNAPSHOT = "a gap is never loaded over"
    NEVER_COMPARED = "certificates of the source are never compared"
    LEDGER_DROPS = "what only the source wrote is not taken in"
    OLD_ANSWERS_UNSEEN = "at a hand-back nobody looks at what the node's own resolver answers"
    RETURN_FORGOTTEN = "where a return stands is kept in memory alone"
    LOSS_UNSEEN = "the loss of a takeover is not looked at"
    REVOKED_LET_IN = "revocation lists are not looked at"
    OWNS_ALL_BELOW = "whatever lies below a prefix that was taken over is said to live here"
    ALL_ANSWERED = "whoever asks over UDP is answered, proved address or not"
    FEED_UNHEARD = "only probes count: a source heard on its feed is taken for dead"
    INTERRUPTED_BLOCKS = "what an interrupted load left is never cleared away"
    INCIDENT_UNSEEN = "a drill does not look at what is real beside it"
    OTHER_CHAIN_ACCEPTED = "another chain at our position is loaded over as if it were a gap"
    HANDED_UNCOMPARED = "an epoch is handed over wherever the other side stands, and nothing is compared"
    TENANTS_UNMETERED = "no tenant's rate is asked, and its turn of the event loop does not end"
    DRAIN_UNASKED = "a switchover closes the epoch where we stand, without the source's word"


class Fence(StrEnum):
    """Of a node whose registrations may be taken over (SEMANTICS 5.1)."""

    NONE = "none"
    WRITE_PATH = "write-path"


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: `after_s` the step before it was healed, on for `for_s` seconds; `times`: of acts that repeat themselves."""

    act: Act
    for_s: float
    after_s: float = 1.5
    times: int = 1


@dataclass(frozen=True, slots=True)
class Load:
    """What nodes hold and clients do.

    Args:
        sources: nodes, each a source; records: of each, to begin with.
        every_ms: a new registration of each node; 0: none.
        horizon_s: without a takeover a copy older than this is not answered (SEMANTICS 4).
        lanes: lookups a second of each source, by lane.
        direct: feed and probes go without proxies of ours, for steps that cut nothing; so many nodes' streams cost them time.
        living: of `sources`, the last so many have a host of their own; on a stage with a top-level node that is copied.
    """

    sources: int = 1
    records: int = 300
    every_ms: int = 100
    horizon_s: int = 300
    lanes: tuple[tuple[Lane, float], ...] = ((Lane.RECURSIVE, 40.0), (Lane.HEDGED, 20.0), (Lane.PORT, 20.0))
    direct: bool = False
    living: int = 0


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits of a run.

    Args:
        lookups_min: fewer prove nothing: inconclusive.
        rto_first_ms: through the recursive node with TTL 0, and at our address; rto_steady_ms: to the first steady window.
        return_s: from the heal until the copy flows, equals its source, and the source answers again; 0: it does not return by
            itself, and must not.
    """

    lookups_min: int = 300
    rto_first_ms: int = 1_000
    rto_steady_ms: int = 2_000
    return_s: float = 45.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table of scenarios.

    Args:
        name: of its file; number: of that table; story: one line of what happens.
        fence: the stage has operators, a registrar and a top-level node's key, and registrations may be taken over; None: not.
        by_ca: member and nodes know each other by a CA of the stage's own; else by pins.
        top_level: the top-level node is a source too, and recursive nodes know us beside it.
        lanes_judged: whose wrong answers count (a node that lost its own names lies to its clients; that is not ours).
        facts: what acts look up and say, by name (ops/drills/acts.py).
        tenants: live at the member beside the nodes' sources; the first is the loud one.
        limits, guard: lines of these sections of the member's file.
        red: the planted bug that must turn it red.
        touches, clients_notice, how_to_stop, minutes_max: said before it begins.
    """

    name: str
    number: int
    story: str
    steps: tuple[Step, ...]
    invariants: tuple[Invariant, ...]
    red: Plant
    clients_notice: str
    minutes_max: int
    load: Load = Load()
    budgets: Budgets = Budgets()
    members: int = 1
    fence: Fence | None = None
    by_ca: bool = False
    top_level: bool = False
    lanes_judged: tuple[Lane, ...] = (Lane.RECURSIVE, Lane.HEDGED, Lane.PORT)
    facts: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    guard: tuple[str, ...] = ()
    needs: frozenset[Capability] = frozenset()
    layer: str = "loopback"
    touches: str = (
        "a stage of its own on this machine's loopback: member, nodes and clients of the drill; nothing of a running cluster"
    )
    how_to_stop: str = "Ctrl-C: every fault heals, every process of the stage ends"

    @property
    def timed(self) -> bool:
        """Do the outside clients measure a time in it?"""
        return bool(MEASURED.intersection(self.invariants)) or any(step.act in DEATHS for step in self.steps)

    @property
    def alone(self) -> bool:
        """Is it played alone on its machine? Where a time is measured, be it by an act of its own."""
        return self.timed or bool(self.tenants)
