"""The committed state of one source's group, as a value that rooms may read without asking the store again."""

from __future__ import annotations

from dataclasses import dataclass, field

from replica.model.blocks import BlockOrder
from replica.model.brake import BrakeWindows
from replica.model.digest import ContentDigest
from replica.model.ladder import Ladder, Stage
from replica.model.ledger import Ledger
from replica.model.node import Endpoint
from replica.model.position import ORIGIN, Position
from replica.model.prefix_moves import PrefixMove
from replica.model.states import Authority, FeedState, Mode

HOSTED = "hosted"  # act of the authority of a group whose source lives here


@dataclass(frozen=True, slots=True)
class Hold:
    """A batch or side generation that waits for two people. `ident` names it to them: hex of epoch and seq it follows."""

    ident: str
    follows: Position
    reason: str
    batch: bytes  # serialized Batch; empty when a side generation is held
    side: int
    held_ms: int


@dataclass(frozen=True, slots=True)
class OverlaySites:
    """Sites answered for a prefix instead of what the copy holds."""

    prefix: bytes  # key part
    sites: tuple[bytes, ...]  # HS_SITE data octets
    serial: int
    act: str
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class SideGeneration:
    """A generation being loaded beside the live one."""

    number: int
    position: Position  # of the snapshot; moves on when its entries are applied
    staged: bool
    first_index: int  # journal index of its LoadBegin: entries from here are kept until switch or abort


@dataclass(frozen=True, slots=True)
class GroupState:
    """Everything entries decided, at one applied index.

    Args:
        position: of the live generation (ORIGIN before the first load).
        granted: newest granted epoch's start position; None before first contact.
        grant_taken: the source confirmed that grant durably.
        counts: live records per prefix part (record kinds by their prefix; `p…` parts for routes; b"b"+kind for documents).
        verified: outcome of the last certificate comparison; None: never.
        node: where the node itself answers, as its source last described it.
        ladder: where the authority over its registrations stands, on the way up or back.
        blocks: orders not to answer something, the ones that are over too until another one comes.
        moves: prefixes that left for another source or came from one, oldest first, each with its newest step here.
        ledger: of the newest failback; its lines lie beside the records. None: there was none.
    """

    source: str
    index: int = 0
    generation: int = 0
    ready: bool = False
    position: Position = ORIGIN
    granted: Position | None = None
    grant_taken: bool = False
    feed: FeedState = FeedState.FLOWING
    feed_code: str = ""
    feed_reason: str = ""
    hold: Hold | None = None
    side: SideGeneration | None = None
    authority: Authority = Authority.SOURCE
    authority_act: str = ""
    overlays: tuple[OverlaySites, ...] = ()
    serial_highest: int = 0  # highest overlay serial ever used, withdrawals included
    ownership_version: int = 0
    prefixes: tuple[bytes, ...] = ()
    case_sensitive: tuple[bytes, ...] = ()
    mode: Mode = Mode.RECORDS
    node: tuple[Endpoint, ...] = ()
    records: int = 0
    quarantined: int = 0
    brake: BrakeWindows = field(default_factory=BrakeWindows)
    certificate: ContentDigest | None = None
    verified: bool | None = None
    ladder: Ladder = field(default_factory=Ladder)
    ledger: Ledger | None = None
    blocks: tuple[BlockOrder, ...] = ()
    block_numbers: tuple[tuple[str, int], ...] = ()  # hex key id of a signer -> highest number of its orders
    moves: tuple[PrefixMove, ...] = ()

    @property
    def lives_here(self) -> bool:
        """No node registers it: it was made here, and has not left for a node of its own."""
        return self.authority is Authority.REGISTRATION and self.authority_act == HOSTED

    @property
    def closed(self) -> bool:
        """Nothing of a node's is applied: its registrations are taken over, or it lives here."""
        return self.ladder.closed or self.lives_here

    @property
    def answers_as(self) -> Authority:
        """Whose word our answers are. Of what another provider holds now we know what was registered here and no more, as of a
        source whose resolution alone we took over."""
        return Authority.RESOLUTION if self.ladder.stage is Stage.TRANSFERRED else self.authority

    @property
    def home(self) -> Stage:
        """Where a return that fails before the hand-back leads."""
        return Stage.NORMAL if self.lives_here else Stage.SERVING
