"""The store against a dictionary: random batches, reopenings, flushes give the same content, digest, counts, octets, history."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from replica.model.batch import Change
from replica.model.outcome import OutcomeKind
from replica.store import SourceStore
from tests.unit.store.support import SOURCE, Group, Source, delete, held, key, put, small_budget
from tests.unit.store.test_octets import forget_row, known, octets_of, paper

NUMBERS = st.integers(0, 30)
PREFIXES = st.sampled_from(["88\x01118\x018", "88\x01118\x019", "86"])
KINDS = ["hosting.right", "other.kind"]
CHANGES = st.lists(
    st.one_of(
        st.builds(put, NUMBERS, st.sampled_from(["a", "bb", "ccc"]), PREFIXES),
        st.builds(delete, NUMBERS, PREFIXES),
        st.builds(paper, st.sampled_from("rs"), st.sampled_from([b"\x01{}", b"\x01{...}"]), st.sampled_from(KINDS)),
    ),
    min_size=1,
    max_size=20,
)


class StoreModel(RuleBasedStateMachine):
    """Small log and chain limits, so that pruning happens too."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="zaibei-store-"))
        self.budget = small_budget(self.folder, log_batches_max=6, chains_max=12)
        self.store = SourceStore.open(self.folder / "s", SOURCE, self.budget)
        self.source, self.group = Source(), Group(self.store)
        self.group.grant(self.source.grant())

    @rule(changes=CHANGES)
    def append(self, changes: list[Change]) -> None:
        assert self.group.append(self.source.cut(changes)).kind is OutcomeKind.APPLIED

    @rule(changes=CHANGES, reason=st.sampled_from(["value_truncated", "not_owner"]))
    def append_quarantined(self, changes: list[Change], reason: str) -> None:
        batch = self.source.cut(changes)
        assert self.group.append(batch, quarantined=[(0, reason)]).kind is OutcomeKind.APPLIED

    @precondition(lambda self: self.source.batches)
    @rule()
    def repeat(self) -> None:
        assert self.group.append(self.source.batches[-1]).kind is OutcomeKind.ALREADY

    @rule(changes=CHANGES)
    def other_content(self, changes: list[Change]) -> None:
        twin = self.source.fork()
        self.group.append(self.source.cut([put(0, "ours")]))
        assert self.group.append(twin.cut([put(0, "theirs"), *changes])).kind is OutcomeKind.CONFLICT

    @rule()
    def flush(self) -> None:
        assert self.store.flush() == self.store.applied()[0]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = SourceStore.open(self.folder / "s", SOURCE, self.budget)
        self.group.replay(self.store)

    @rule(changes=CHANGES)
    def version_before(self, changes: list[Change]) -> None:
        """One that knows no row of octets writes for a while, and this one comes back."""
        self.store._live.octets = None
        self.group.append(self.source.cut(changes))
        self.reopen()

    @rule()
    def no_row(self) -> None:
        forget_row(self.store)
        self.reopen()

    @invariant()
    def same_octets(self) -> None:
        assert known(self.store) == octets_of(self.source.content)
        told = self.store._live.octets
        assert told is not None and told.about == octets_of(self.source.content, about=True)

    @invariant()
    def same_content(self) -> None:
        assert held(self.store) == self.source.content
        assert self.store.digest_at(self.source.head) == self.source.digest()
        assert self.store.live_records(b"") == len(self.source.content)
        for prefix in ("88\x01118\x018", "86"):
            own = [one for one in self.source.content if one.startswith(key(0, prefix)[:-10])]
            assert self.store.live_records(b"h" + prefix.encode() + b"\0") == len(own)

    @invariant()
    def same_history(self) -> None:
        floor = self.store.floor()
        held_batches = [batch.raw for batch in self.source.batches if batch.before.seq >= floor.seq]
        assert self.store.changes_after(floor, 10**9) == held_batches
        for batch in self.source.batches[-4:]:
            assert self.store.chain_at(*batch.after.place) == batch.after
        if self.source.batches and floor.seq:
            assert self.store.changes_after(self.source.batches[0].before, 10**9) is None

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
