"""A region that lives here, its node and a leader in one thread: real rules and the real failback, crashing where a seed says."""

from __future__ import annotations

from dataclasses import replace

from replica.model.batch import OP_DELETE, OP_PUT, Change, columns_of, cut_batch, open_batch
from replica.model.group_state import HOSTED, GroupState
from replica.model.ladder import REGISTERING, Ladder, Stage
from replica.model.position import ORIGIN, epoch_start
from replica.model.states import Authority
from replica.native import split
from replica.takeover.failback import Failback, Order, Wish
from replica.takeover.ledger import Policy
from tests.simulation.failback_world import KEYS, Group, Registry, Scene
from tests.unit.store.support import LINEAGE, SOURCE

START = epoch_start(ORIGIN, LINEAGE, 1)
LIVES = GroupState(
    SOURCE, ready=True, position=START, granted=START, grant_taken=True, authority=Authority.REGISTRATION, authority_act=HOSTED,
    prefixes=(b"h88",),
)  # fmt: skip


class Leaving(Scene):
    """One seed. Where the region stands in its life is in the state alone; the node is empty when it begins."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, Policy.HOLD)
        self.common = ORIGIN
        self.group, self.node = Group(LIVES), Registry(ORIGIN, {})

    def leader(self) -> Failback:
        made = Failback(SOURCE, self._grant)
        made.ordered(Order(Wish.RETURN, "test"))  # the operator's command runs on
        return made

    def write_here(self) -> None:
        """A client registers; what it is told is carried out counts (`fate`)."""
        state = self.group.state
        stage = state.ladder.stage
        if not state.lives_here or stage not in (Stage.NORMAL, *REGISTERING):
            return
        assert self.node.holds is None, "two writers"
        self._take(self.chance.choice(KEYS), self._octets())

    def write_there(self) -> None:
        """The node registers, in its epoch and never before."""
        if not (self.node.up and self.node.holds and self.group.state.grant_taken):
            return
        assert not self.group.state.lives_here, "two writers"
        one, octets = self.chance.choice(KEYS), self._octets()
        self._take(one, octets)
        if octets is None:
            self.node.content.pop(one, None)
        else:
            self.node.content[one] = octets

    def _take(self, one: bytes, octets: bytes | None) -> None:
        change = Change(OP_DELETE, one) if octets is None else Change(OP_PUT, one, octets)
        self.group.take(cut_batch(SOURCE, self.group.state.position, columns_of([change]), 1, 0))
        self.fate.setdefault(one, []).append(octets)

    def follow(self) -> None:
        """The node copies one batch more, from the empty beginning."""
        node, state = self.node, self.group.state
        if not node.up or node.own is None or node.holds is not None or not state.ladder.closed:
            return  # while the region is not about to leave, nobody tells the node of an epoch
        if node.follows is None:
            if state.ledger is None or not state.ledger.complete or state.ledger.theirs != node.own:
                return
            node.follows = START
        for after, raw in self.group.history:
            if after.place <= node.follows.place:
                continue
            batch = open_batch(raw)
            if batch.before == node.follows and after.epoch == START.epoch:
                keys, values, ops = split(batch.columns)
                for one, octets, op in zip(keys, values, ops, strict=True):
                    if op == OP_DELETE:
                        node.content.pop(one, None)
                    else:
                        node.content[one] = octets
                node.follows = after
                return

    def order(self, wish: Wish) -> None:
        """An operator runs a plan."""
        self.failback.ordered(Order(wish, "test"))

    def check(self) -> None:
        """While it lives here, nothing of it has changed but registrations and how far it got on its way."""
        state = self.group.state
        if not state.lives_here:
            return
        bare = replace(state, index=0, position=START, ladder=Ladder(), ledger=None)
        assert bare == LIVES, f"changed while it lives here: {bare}"
        if state.ladder.stage is Stage.NORMAL:
            assert (state.ladder.act, state.ladder.closed_at) == ("", None), "something of an attempt stayed"
